//! The store of tasks.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use futures::future::{BoxFuture, FutureExt as _, ready};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, TaskStatus, TaskView};

use crate::ids::TaskId;

/// A task as it is stored: the data that clients see, and the data to run it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskRecord {
    /// Its id, which nobody can guess.
    pub id: TaskId,
    /// The principal that may see it, as authenticated by the transport; `None` without
    /// authentication.
    pub owner: Option<Arc<str>>,
    /// The tool that was called.
    pub tool: String,
    /// The arguments of the call.
    pub arguments: Value,
    /// The capabilities that the client declared with the call.
    pub capabilities: Value,
    /// Its status.
    pub status: TaskStatus,
    /// A message for people.
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// Milliseconds since 1970.
    pub updated_at: u64,
    /// For how many milliseconds after its creation it is kept; `None` means for ever.
    pub ttl_ms: Option<u64>,
    /// How many milliseconds a client should wait before it polls again.
    pub poll_interval_ms: u64,
    /// The last checkpoint that the tool saved.
    pub checkpoint: Option<Value>,
    /// Grows with each change that clients see.
    pub version: u64,
}

impl TaskRecord {
    /// Whether the task may be forgotten at this time, in milliseconds since 1970.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at().is_some_and(|expires| expires <= now)
    }

    pub(super) fn expires_at(&self) -> Option<u64> {
        self.ttl_ms.map(|ttl| self.created_at.saturating_add(ttl))
    }

    pub(crate) fn result(&self) -> Result<ResultBody, ErrorObject> {
        let view = TaskView {
            id: self.id.as_str(),
            status: &self.status,
            message: self.message.as_deref(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            ttl_ms: self.ttl_ms,
            poll_interval_ms: self.poll_interval_ms,
        };
        view.to_result()
    }

    /// The bytes that the task counts for in a bounded store. They do not grow when a task ends
    /// without a result, so that every task can end.
    pub(super) fn weight(&self) -> usize {
        let status = match &self.status {
            TaskStatus::Completed { result } => result.get().len(),
            _ => 0,
        };
        let json = |value: &Value| serde_json::to_string(value).map_or(0, |text| text.len());
        let from_client = json(&self.arguments) + json(&self.capabilities);
        1_024 + status + from_client + self.checkpoint.as_ref().map_or(0, json)
    }
}

/// Why a store did not carry out a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskStoreError {
    /// The store has as many tasks, or bytes of them, as it may keep.
    #[error("the store of tasks is full")]
    Full,
    /// The store failed.
    #[error("the store of tasks failed: {0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps tasks, so that their clients can fetch them later.
///
/// `stentor::test::stores::task_store_keeps_its_contract` checks what every store has to do.
pub trait TaskStore: Debug + Send + Sync + 'static {
    /// Stores a task, and replaces a task with the same id. Once this returns, the task is stored,
    /// and survives what this store is made to survive.
    fn put(&self, task: TaskRecord) -> BoxFuture<'_, Result<(), TaskStoreError>>;

    /// The task with that id.
    fn get<'a>(
        &'a self,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<TaskRecord>, TaskStoreError>>;

    /// All tasks that have not ended, for an engine that starts.
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskRecord>, TaskStoreError>>;

    /// Forgets a task before it expires, to make space for another one. Does nothing if there is no
    /// task with this id.
    ///
    /// The default implementation keeps as little of the task as it can until the next
    /// [`sweep`](Self::sweep).
    fn forget<'a>(&'a self, id: &'a TaskId) -> BoxFuture<'a, Result<(), TaskStoreError>> {
        async move {
            let Some(mut task) = self.get(id).await? else { return Ok(()) };
            (task.arguments, task.capabilities) = (Value::Null, Value::Null);
            (task.status, task.checkpoint) = (TaskStatus::Cancelled, None);
            (task.ttl_ms, task.version) = (Some(0), task.version + 1);
            self.put(task).await
        }
        .boxed()
    }

    /// Forgets the tasks that are [expired](TaskRecord::is_expired) at this time. Returns how many
    /// tasks it forgot.
    fn sweep(&self, now: u64) -> BoxFuture<'_, Result<usize, TaskStoreError>>;
}

/// Keeps tasks in the memory of this process.
#[derive(Debug)]
pub struct MemoryTaskStore {
    tasks: DashMap<TaskId, (TaskRecord, usize)>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    max_count: usize,
    max_bytes: usize,
}

impl Default for MemoryTaskStore {
    /// At most 100,000 tasks, and 256 MiB of them.
    fn default() -> Self {
        Self::new(100_000, 256 * 1024 * 1024)
    }
}

impl MemoryTaskStore {
    /// Makes a store of at most so many tasks, and bytes of them. A stored task may always be
    /// replaced by one that takes no more space.
    #[must_use]
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self {
            tasks: DashMap::new(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_count,
            max_bytes,
        }
    }

    fn keep(&self, task: TaskRecord) -> Result<(), TaskStoreError> {
        use dashmap::Entry;
        let weight = task.weight();
        match self.tasks.entry(task.id.clone()) {
            Entry::Occupied(mut there) => {
                let before = there.get().1;
                let bytes = self.bytes.load(Ordering::Relaxed);
                if weight > before && bytes - before + weight > self.max_bytes {
                    return Err(TaskStoreError::Full);
                }
                self.bytes.fetch_add(weight, Ordering::Relaxed);
                self.bytes.fetch_sub(before, Ordering::Relaxed);
                there.insert((task, weight));
            }
            Entry::Vacant(free) => {
                let full = self.count.load(Ordering::Relaxed) >= self.max_count
                    || self.bytes.load(Ordering::Relaxed) + weight > self.max_bytes;
                if full {
                    return Err(TaskStoreError::Full);
                }
                self.count.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(weight, Ordering::Relaxed);
                free.insert((task, weight));
            }
        }
        Ok(())
    }

    fn forget_expired(&self, now: u64) -> usize {
        let mut forgotten = 0;
        self.tasks.retain(|_, (task, weight)| {
            let stays = !task.is_expired(now);
            if !stays {
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(*weight, Ordering::Relaxed);
                forgotten += 1;
            }
            stays
        });
        if forgotten > 0 {
            self.tasks.shrink_to_fit();
        }
        forgotten
    }
}

impl TaskStore for MemoryTaskStore {
    fn put(&self, task: TaskRecord) -> BoxFuture<'_, Result<(), TaskStoreError>> {
        ready(self.keep(task)).boxed()
    }

    fn get<'a>(
        &'a self,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<TaskRecord>, TaskStoreError>> {
        ready(Ok(self.tasks.get(id).map(|task| task.0.clone()))).boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskRecord>, TaskStoreError>> {
        let all = self.tasks.iter().map(|task| task.0.clone());
        ready(Ok(all.filter(|task| !task.status.is_terminal()).collect())).boxed()
    }

    fn forget<'a>(&'a self, id: &'a TaskId) -> BoxFuture<'a, Result<(), TaskStoreError>> {
        if let Some((_, (_, weight))) = self.tasks.remove(id) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
        }
        ready(Ok(())).boxed()
    }

    fn sweep(&self, now: u64) -> BoxFuture<'_, Result<usize, TaskStoreError>> {
        ready(Ok(self.forget_expired(now))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_its_contract() {
        crate::testing::task_store_keeps_its_contract(&MemoryTaskStore::default()).await;
    }

    #[tokio::test]
    async fn the_store_is_bounded_and_a_stored_task_can_still_end() {
        let store = MemoryTaskStore::new(1, 4_000);
        let one = crate::testing::task_record("a");
        store.put(one.clone()).await.unwrap();
        let other = crate::testing::task_record("b");
        assert!(matches!(store.put(other).await, Err(TaskStoreError::Full)));
        let failed = TaskRecord {
            status: TaskStatus::Failed { error: ErrorObject::internal("no") },
            ..one.clone()
        };
        store.put(failed).await.unwrap();
        let large = TaskRecord { checkpoint: Some("x".repeat(9_000).into()), ..one };
        assert!(matches!(store.put(large).await, Err(TaskStoreError::Full)));
    }

    #[tokio::test]
    async fn the_capabilities_of_a_client_count_as_bytes() {
        let store = MemoryTaskStore::new(9, 4_000);
        let capabilities = serde_json::json!({"experimental": {"x": "x".repeat(9_000)}});
        let large = TaskRecord { capabilities, ..crate::testing::task_record("a") };
        assert!(matches!(store.put(large).await, Err(TaskStoreError::Full)));
    }
}
