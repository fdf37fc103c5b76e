//! The tasks extension: calls whose result their client fetches later
//! (`io.modelcontextprotocol/tasks`, SEP-2663).
//!
//! A call becomes a task because of its tool's [`AsTask`], or because its code asks for it. Its
//! client receives the task as the response; from then on the call reports only through the task.
//! The [`TaskStore`] decides what is kept, and what that survives.

mod kept;
mod live;
#[cfg(feature = "durable-tasks")]
mod redb;
mod store;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value};
use stentor_macros::Setters;
use stentor_wire::encode::ResultBody;
use stentor_wire::params::{OneTask, UpdateTask};
use stentor_wire::{
    EncodedNotice, Era, ErrorObject, KeyKind, Method, Notice, Request, TASKS_EXTENSION, TaskStatus,
    Topic, takes_tasks, tasks_required,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::call::{Calls, Dispatch, NewTask, ResumedTask, Target, TaskHandle, TaskMaker};
use crate::caller::Caller;
use crate::extension::{Grant, ProtocolExtension};
use crate::handler::{Arguments, Cancel, PendingInputs};
use crate::hub::{Hub, HubMsg, SubscriberKey};
use crate::identity::Identity;
use crate::ids::{NodeId, TaskId};
use crate::lifecycle::Lifecycle;
use crate::nodes::OtherNodes;
use crate::reasons::CancelReason;
use crate::shares::Share;
use kept::KeptTasks;
use live::LiveTask;
#[cfg(feature = "durable-tasks")]
pub use redb::{RedbTaskStore, TaskFileError};
pub use store::{MemoryTaskStore, TaskRecord, TaskStore, TaskStoreError};

/// How many tasks that cannot be resumed a starting engine writes to the store at once.
const FAILED_AT_ONCE: usize = 256;

/// Settings of tasks.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct TaskConfig {
    /// Where tasks are stored. Default: in memory, at most 100,000 tasks and 256 MiB of them.
    pub store: Arc<dyn TaskStore>,
    /// How long a task is kept after its creation; a task that still runs then fails. `None` means
    /// for ever. Default 1 hour.
    pub ttl: Option<Duration>,
    /// How long clients should wait before they poll again. Default 1 s.
    pub poll_interval: Duration,
    /// How long the code of a cancelled task may continue. Default 2 s.
    pub cancel_grace: Duration,
    /// The shortest time between two notices of progress to listeners. Default 200 ms.
    pub message_interval: Duration,
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryTaskStore::default()),
            ttl: Some(Duration::from_secs(60 * 60)),
            poll_interval: Duration::from_secs(1),
            cancel_grace: Duration::from_secs(2),
            message_interval: Duration::from_millis(200),
        }
    }
}

/// A task that runs, at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TaskView {
    /// Its id, which only its owner may know.
    pub id: TaskId,
    /// The principal that may see it; `None` without authentication.
    pub principal: Option<Arc<str>>,
    /// The tool that was called.
    pub tool: String,
    /// Its status, by its name in the protocol.
    pub status: &'static str,
    /// Its message for people.
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// Milliseconds since 1970.
    pub updated_at: u64,
}

/// The tasks of an engine, and its clock.
#[derive(Debug)]
pub(crate) struct Tasks {
    config: TaskConfig,
    node: NodeId,
    /// Tasks that one listen may receive notices of.
    max_subscriptions: usize,
    hub: Arc<Hub>,
    nodes: Arc<dyn OtherNodes>,
    lifecycle: Arc<Lifecycle>,
    /// Counts tasks among the calls that a shutdown waits for.
    tracker: TaskTracker,
    live: DashMap<TaskId, Arc<LiveTask>>,
    /// All kept tasks by caller, running and ended.
    held: KeptTasks,
    started: (SystemTime, Instant),
    /// Permits one sweep at a time, however long the store takes.
    sweeping: Arc<Semaphore>,
}

impl Tasks {
    pub(crate) fn new(
        config: TaskConfig,
        max_subscriptions: usize,
        hub: Arc<Hub>,
        nodes: Arc<dyn OtherNodes>,
        calls: &Calls,
    ) -> Self {
        Self {
            config,
            node: calls.node.clone(),
            max_subscriptions,
            hub,
            nodes,
            lifecycle: calls.lifecycle.clone(),
            tracker: calls.tracker.clone(),
            live: DashMap::new(),
            held: KeptTasks::default(),
            started: (SystemTime::now(), Instant::now()),
            sweeping: Arc::new(Semaphore::new(1)),
        }
    }

    /// Milliseconds since 1970, by a clock that never goes back while the engine runs.
    fn now(&self) -> u64 {
        let (day, instant) = self.started;
        let now = day + instant.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn live(&self, id: &str, owner: Option<&str>) -> Option<Arc<LiveTask>> {
        let task = self.live.get(&TaskId::new(id)).map(|task| task.value().clone());
        task.filter(|task| task.is_owned_by(owner))
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn views(&self) -> Vec<TaskView> {
        self.live.iter().map(|task| task.value().view()).collect()
    }
}

impl TaskMaker for Tasks {
    fn create(
        self: Arc<Self>,
        new: NewTask,
    ) -> BoxFuture<'static, Result<Box<dyn TaskHandle>, ErrorObject>> {
        LiveTask::create(self, new).map_ok(|guard| Box::new(guard) as _).boxed()
    }

    fn give_way(self: Arc<Self>, newcomer: &Share) -> Option<usize> {
        KeptTasks::give_way(self, newcomer)
    }
}

fn not_found() -> ErrorObject {
    ErrorObject::invalid_params("task not found")
}

fn failed(error: &TaskStoreError) -> ErrorObject {
    match error {
        TaskStoreError::Full => ErrorObject::unavailable(error.to_string()),
        TaskStoreError::Failed(_) => {
            crate::log!(error, %error, "a task could not be stored");
            ErrorObject::internal("the store of tasks failed")
        }
    }
}

impl ProtocolExtension for Tasks {
    fn identifier(&self) -> &str {
        TASKS_EXTENSION
    }

    fn settings(&self, era: Era) -> Option<Value> {
        (era == Era::Modern).then(|| Value::Object(Map::new()))
    }

    fn dispatch(self: Arc<Self>, caller: &Caller, request: &Request) -> Option<Dispatch> {
        request.method.is_of_tasks().then(|| self.answer(caller, request))
    }

    /// A client that waits for a task may ask for it during a shutdown, too.
    fn calls_are_new_work(&self) -> bool {
        false
    }

    fn owns(&self) -> Option<KeyKind> {
        Some(KeyKind::Task)
    }

    /// Grants tasks of the caller, on any node.
    fn grant<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Request,
        mut asked: Vec<Arc<str>>,
    ) -> BoxFuture<'a, Result<Grant, ErrorObject>> {
        async move {
            if !takes_tasks(&caller.capabilities) {
                return Err(tasks_required());
            }
            if asked.len() > self.max_subscriptions {
                return Err(KeyKind::Task.too_many(self.max_subscriptions));
            }
            let mut seen = HashSet::new();
            asked.retain(|id| seen.insert(id.clone()));
            let remote = self.nodes.listen(caller, request, KeyKind::Task, &mut asked).await;
            Ok(Grant { local: self.owned(asked, caller).await?, remote })
        }
        .boxed()
    }

    fn send_states(self: Arc<Self>, to: SubscriberKey, keys: Vec<Arc<str>>) {
        tokio::spawn(async move {
            for key in keys {
                let id = TaskId::new(key);
                let live = self.live.get(&id).map(|task| task.notice());
                let notice = match live {
                    Some(notice) => notice,
                    None => match self.config.store.get(&id).await {
                        Ok(Some(task)) => notice(&task),
                        // Forgotten meanwhile; the listener can find out with `tasks/get`.
                        _ => continue,
                    },
                };
                let notice = Box::new(EncodedNotice::new(notice));
                self.hub.send(HubMsg::SendState(to.clone(), notice));
            }
        });
    }
}

impl Tasks {
    /// The stored task, if `owner` owns it and it has not expired.
    async fn find(
        &self,
        id: &TaskId,
        owner: Option<&str>,
    ) -> Result<Option<TaskRecord>, ErrorObject> {
        let found = self.config.store.get(id).await.map_err(|error| failed(&error))?;
        let now = self.now();
        Ok(found.filter(|task| task.owner.as_deref() == owner && !task.is_expired(now)))
    }

    /// Answers `tasks/get`, `tasks/update` and `tasks/cancel`.
    fn answer(self: &Arc<Self>, caller: &Caller, request: &Request) -> Dispatch {
        if !takes_tasks(&caller.capabilities) {
            return Dispatch::Answer(Err(tasks_required()));
        }
        let (id, answers) = match &request.method {
            Method::TasksUpdate => match request.params.parse::<UpdateTask>() {
                Ok(update) => (update.task_id, Some(update.input_responses)),
                Err(error) => return Dispatch::Answer(Err(error)),
            },
            _ => match request.params.parse::<OneTask>() {
                Ok(task) => (task.task_id, None),
                Err(error) => return Dispatch::Answer(Err(error)),
            },
        };
        let owner = caller.principal().cloned();
        let Some(task) = self.live(&id, owner.as_deref()) else {
            let is_get = request.method == Method::TasksGet;
            return Dispatch::Call(self.stored(TaskId::new(id), owner, is_get));
        };
        Dispatch::Answer(match (&request.method, answers) {
            (Method::TasksUpdate, Some(answers)) => {
                task.answer(answers);
                Ok(ResultBody::empty())
            }
            (Method::TasksCancel, _) => {
                task.cancel();
                Ok(ResultBody::empty())
            }
            _ => task.result(),
        })
    }

    /// The answer to a request for a task that no longer runs.
    fn stored(self: &Arc<Self>, id: TaskId, owner: Option<Arc<str>>, is_get: bool) -> Target {
        let tasks = self.clone();
        Target::new("the store of task", &id.shared(), move |_ctx| {
            Box::pin(async move {
                match tasks.find(&id, owner.as_deref()).await? {
                    Some(task) if is_get => Ok(task.result()?),
                    Some(_) => Ok(ResultBody::empty()),
                    None => Err(not_found().into()),
                }
            })
        })
    }

    /// Which of the tasks a listen may receive notices of: those of its caller.
    async fn owned(
        &self,
        asked: Vec<Arc<str>>,
        caller: &Caller,
    ) -> Result<Vec<Arc<str>>, ErrorObject> {
        let owner = caller.principal().map(|it| &**it);
        let mut owned = Vec::new();
        for id in asked {
            if self.live(&id, owner).is_some()
                || self.find(&TaskId::new(id.clone()), owner).await?.is_some()
            {
                owned.push(id);
            }
        }
        Ok(owned)
    }

    /// Forgets expired tasks, and ends tasks that run for too long. Has to be called regularly.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let overdue = |task: &Arc<LiveTask>| task.is_expired(now).then(|| task.clone());
        let overdue: Vec<_> = self.live.iter().filter_map(|task| overdue(&task)).collect();
        for task in overdue {
            task.end(CancelReason::TimedOut);
        }
        self.held.sweep(now);
        let Ok(turn) = self.sweeping.clone().try_acquire_owned() else { return };
        let store = self.config.store.clone();
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(error) = store.sweep(now).await {
                crate::log!(error, %error, "expired tasks could not be forgotten");
            }
        });
    }

    /// Recovers the tasks that ran when the last engine with this store ended: tasks of a resumable
    /// tool run again, the others fail.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        calls: &Arc<Calls>,
    ) -> Result<(), TaskStoreError> {
        let store = &self.config.store;
        let (catalog, now) = (calls.registry.catalog(), self.now());
        let (mut resumed, mut lost) = (Vec::new(), Vec::new());
        // The next sweep forgets expired tasks.
        for task in store.unfinished().await?.into_iter().filter(|task| !task.is_expired(now)) {
            match catalog.local_tool(&task.tool).filter(|tool| tool.is_resumable()) {
                Some(tool) => resumed.push((tool.clone(), task)),
                None => lost.push(task),
            }
        }
        let fail = |mut task: TaskRecord| {
            let error = ErrorObject::internal("the server restarted while the task ran");
            task.message = Some(error.message.clone());
            task.status = TaskStatus::Failed { error };
            task.updated_at = now;
            task.version += 1;
            store.put(task)
        };
        // Many at once, because the store may be slow.
        let mut failing = stream::iter(lost.into_iter().map(fail)).buffer_unordered(FAILED_AT_ONCE);
        while failing.try_next().await?.is_some() {}
        // Last, because only now it is certain that the engine starts.
        for (tool, task) in resumed {
            let capabilities = serde_json::from_value(task.capabilities.clone());
            let who = task.owner.clone().map(Identity::named).into();
            let caller = Caller::of_task(capabilities.unwrap_or_default(), who);
            let target = Target::tool(tool, Arguments::from(&task.arguments));
            let (inputs, cancel) = (Arc::new(PendingInputs::default()), Cancel::default());
            let (id, checkpoint) = (task.id.clone(), task.checkpoint.clone());
            let handle = Box::new(LiveTask::of_stored(self, task, inputs.clone(), cancel.clone()));
            let task = ResumedTask { id, handle, caller, target, inputs, cancel, checkpoint };
            calls.run(crate::call::resume(calls, task)).await;
        }
        Ok(())
    }
}

/// The notice of a task's state for listeners.
fn notice(task: &TaskRecord) -> Notice {
    let json = task.result().map(|result| result.to_json()).unwrap_or_default();
    Notice::State { topic: Topic::Task(task.id.shared()), version: task.version, state: json }
}
