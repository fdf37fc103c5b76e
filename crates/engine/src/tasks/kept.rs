//! Which caller has which of the kept tasks, and which task gives way when the store is full.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Tasks;
use super::store::{TaskRecord, TaskStoreError};
use crate::ids::TaskId;
use crate::request_budget::CALL_COST;
use crate::shares::{GivesWay, Share, Shares, Ticket};

/// What a task costs besides its bytes, because many small tasks fill a store, too.
const TASK_COST: usize = 4 * 1024;

/// For one task, tasks of at most so many times its cost give way. If that does not help, the store
/// is full of other data.
const MAX_TIMES_FREED: usize = 4;

/// All kept tasks of this engine, running and ended. A task that had ended under an earlier engine
/// is not included, and stays until it expires.
#[derive(Debug, Default)]
pub(super) struct KeptTasks(Mutex<Shares<KeptTask>>);

#[derive(Debug)]
struct KeptTask {
    id: TaskId,
    expires: Option<u64>,
}

fn cost(record: &TaskRecord) -> usize {
    record.weight().saturating_add(TASK_COST)
}

impl KeptTasks {
    pub(super) fn enter(&self, share: &Share, record: &TaskRecord) -> Ticket {
        let held = KeptTask { id: record.id.clone(), expires: record.expires_at() };
        self.0.lock().insert(share.clone(), cost(record), true, held)
    }

    /// Updates what a task costs, and whether it runs.
    pub(super) fn change(&self, ticket: Ticket, record: &TaskRecord, runs: bool) {
        self.0.lock().change(ticket, cost(record), runs);
    }

    pub(super) fn leave(&self, ticket: Ticket) {
        self.0.lock().remove(ticket);
    }

    /// Removes the tasks that the store has forgotten because they have expired.
    pub(super) fn sweep(&self, now: u64) {
        self.0.lock().retain(|held| held.expires.is_none_or(|expires| now < expires));
    }

    /// Puts a task into the store. If the store is full, tasks of the largest share are forgotten:
    /// ended tasks first, the oldest of them first. A running task is not ended for a task of its
    /// own caller, nor for a caller that has no smaller share.
    pub(super) async fn put(
        &self,
        tasks: &Tasks,
        share: &Share,
        record: impl Fn() -> TaskRecord,
    ) -> Result<(), TaskStoreError> {
        let store = &tasks.config.store;
        let (mut freed, mut most) = (0, None);
        loop {
            let Err(error) = store.put(record()).await else { return Ok(()) };
            if !matches!(error, TaskStoreError::Full) {
                return Err(error);
            }
            let most = *most.get_or_insert_with(|| cost(&record()).saturating_mul(MAX_TIMES_FREED));
            let target = if freed < most { self.take_target(share) } else { None };
            let Some((id, cost)) = target else { return Err(error) };
            freed += cost;
            let live = tasks.live.get(&id).map(|task| task.value().clone());
            if let Some(live) = live {
                live.give_way();
            }
            store.forget(&id).await?;
        }
    }

    /// Makes a running task give way to a caller with a smaller share. Returns how many bytes that
    /// frees at least.
    pub(super) fn give_way(tasks: Arc<Tasks>, newcomer: &Share) -> Option<usize> {
        let KeptTask { id, .. } = {
            let mut shares = tasks.held.0.lock();
            let target = shares.busy_gives_way(newcomer)?;
            shares.remove(target.ticket)?
        };
        let live = tasks.live.get(&id).map(|task| task.value().clone());
        if let Some(live) = live {
            live.give_way();
        }
        tokio::spawn(async move {
            if let Err(error) = tasks.config.store.forget(&id).await {
                crate::log!(error, %error, "a task that gave way could not be forgotten");
            }
        });
        Some(CALL_COST)
    }

    /// Removes the task that gives way. Returns its id and its cost.
    fn take_target(&self, newcomer: &Share) -> Option<(TaskId, usize)> {
        let mut shares = self.0.lock();
        let GivesWay { ticket, cost, busy, own, more } = shares.gives_way(newcomer)?;
        if busy && (own || !more) {
            return None;
        }
        shares.remove(ticket).map(|held| (held.id, cost))
    }
}
