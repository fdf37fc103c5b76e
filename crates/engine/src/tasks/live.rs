//! A task that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Notice, TaskStatus};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::store::{TaskRecord, TaskStoreError};
use super::{failed, notice};
use crate::core::Core;
use crate::hub::HubMsg;
use crate::ids::TaskId;
use crate::shares::{Share, Ticket};
use crate::task::{Cancel, CancelReason, Rounds};

/// When the end of a task is stored again that could not be.
const STORE_AGAIN: Duration = Duration::from_secs(5);
/// How long it takes an engine that ends to say so at most.
const A_MOMENT: Duration = Duration::from_millis(500);

/// A call that becomes a task.
pub(crate) struct NewTask {
    pub(crate) tool: String,
    pub(crate) arguments: Value,
    pub(crate) capabilities: Value,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) share: Share,
    pub(crate) rounds: Arc<Rounds>,
    pub(crate) cancel: Cancel,
}

/// What is known of a task while its code runs.
#[derive(Debug)]
pub(crate) struct LiveTask {
    record: Mutex<TaskRecord>,
    rounds: Arc<Rounds>,
    cancel: Cancel,
    /// Since when a message waits to be told to listeners, and when they were told last.
    telling: Mutex<Telling>,
    reported: Notify,
    /// The right to write to the store, so that what is written comes there in its order.
    turn: Semaphore,
    share: Share,
    ticket: Ticket,
    /// Its place is another task's, and the store is to forget it.
    gave_way: AtomicBool,
}

#[derive(Debug, Default)]
struct Telling {
    waits: bool,
    last: Option<Instant>,
}

impl LiveTask {
    /// Makes a task of a call. It is stored when this returns.
    pub(crate) async fn create(core: &Arc<Core>, new: NewTask) -> Result<TaskGuard, ErrorObject> {
        let config = &core.config.tasks;
        let now = core.tasks.now();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let record = TaskRecord {
            id: TaskId::random(&core.config.node),
            owner: new.owner,
            tool: new.tool,
            arguments: new.arguments,
            capabilities: new.capabilities,
            status: TaskStatus::Working,
            message: None,
            created_at: now,
            updated_at: now,
            ttl_ms: config.ttl.map(ms),
            poll_interval_ms: ms(config.poll_interval),
            checkpoint: None,
            version: 1,
        };
        // Guarded first: a call that is killed while it is stored must not look as if it ran.
        let guard = Self::guard(core, record, new.share, new.rounds, new.cancel);
        let stored = match &guard.task {
            Some(task) => task.store(core, || task.record.lock().clone()).await,
            None => Ok(()),
        };
        match stored {
            Ok(()) => Ok(guard),
            Err(error) => {
                guard.forget();
                Err(failed(&error))
            }
        }
    }

    /// A task that is stored already, and runs again from here on.
    pub(crate) fn run(
        core: &Arc<Core>,
        mut record: TaskRecord,
        rounds: Arc<Rounds>,
        cancel: Cancel,
    ) -> TaskGuard {
        // Nobody waits for an answer to what the last run asked, and its keys are used up.
        record.status = TaskStatus::Working;
        rounds.ask_anew(core.tasks.now());
        let share = Share::of(record.owner.as_ref(), None, None);
        Self::guard(core, record, share, rounds, cancel)
    }

    fn guard(
        core: &Arc<Core>,
        record: TaskRecord,
        share: Share,
        rounds: Arc<Rounds>,
        cancel: Cancel,
    ) -> TaskGuard {
        rounds.belong_to_task();
        let id = record.id.clone();
        let ticket = core.tasks.held.enter(&share, &record);
        let task = Arc::new(Self {
            record: Mutex::new(record),
            rounds,
            cancel,
            telling: Mutex::default(),
            reported: Notify::new(),
            turn: Semaphore::new(1),
            share,
            ticket,
            gave_way: AtomicBool::new(false),
        });
        core.tasks.live.insert(id, task.clone());
        TaskGuard { core: core.clone(), task: Some(task), _counted: core.calls.token() }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.record.lock().id.clone()
    }

    pub(super) fn is_owned_by(&self, owner: Option<&str>) -> bool {
        self.record.lock().owner.as_deref() == owner
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.record.lock().is_expired(now)
    }

    /// The task as a client sees it now.
    pub(crate) fn result(&self) -> Result<ResultBody, ErrorObject> {
        self.record.lock().result()
    }

    /// What a listener is told of it now.
    pub(super) fn notice(&self) -> Notice {
        notice(&self.record.lock())
    }

    pub(super) fn answer(&self, answers: Map<String, Value>) {
        self.rounds.answer(answers);
    }

    /// The client wants it no more; its code has some time to notice.
    pub(super) fn cancel(&self) {
        self.end(CancelReason::Client(None));
    }

    pub(super) fn end(&self, reason: CancelReason) {
        self.cancel.cancel(reason);
    }

    /// Another task takes its place: it ends, who listens is told why, and nothing of it is kept.
    pub(super) fn give_way(&self) {
        self.gave_way.store(true, Ordering::Release);
        self.end(CancelReason::GaveWay);
    }

    /// Hands it to the store, where others give way if need be.
    async fn store(
        &self,
        core: &Core,
        record: impl Fn() -> TaskRecord,
    ) -> Result<(), TaskStoreError> {
        let gave_way = || self.gave_way.load(Ordering::Acquire);
        if gave_way() {
            return Ok(());
        }
        let stored = core.tasks.held.put(core, &self.share, &record).await;
        // Its place was taken while it was being stored.
        if gave_way() {
            return core.config.tasks.store.forget(&self.id()).await;
        }
        stored
    }

    /// Says how far it is; listeners are told at a bounded rate, who looks sees it at once.
    pub(crate) fn report(&self, message: String) {
        let mut record = self.record.lock();
        if !record.status.is_terminal() {
            record.message = Some(message);
            drop(record);
            self.telling.lock().waits = true;
            self.reported.notify_one();
        }
    }

    /// Tells listeners of the last report, when it is time. Cancel safe.
    pub(crate) async fn tell_reports(&self, core: &Core) {
        loop {
            let (waits, last) = {
                let telling = self.telling.lock();
                (telling.waits, telling.last)
            };
            if waits {
                if let Some(last) = last {
                    sleep_until(last + core.config.tasks.message_interval).await;
                }
                self.telling.lock().last = Some(Instant::now());
                return self.change(core, |_| {});
            }
            self.reported.notified().await;
        }
    }

    /// Shows which questions are open now.
    pub(crate) fn show_questions(&self, core: &Core) {
        let open = self.rounds.open_questions();
        self.change(core, |record| {
            record.status = match open.is_empty() {
                true => TaskStatus::Working,
                false => TaskStatus::InputRequired { input_requests: open },
            };
        });
    }

    /// Keeps what the code needs to go on after a restart.
    pub(crate) async fn checkpoint(
        self: &Arc<Self>,
        core: &Arc<Core>,
        value: Value,
    ) -> Result<(), TaskStoreError> {
        let (task, core) = (self.clone(), core.clone());
        // On its own: code that has begun to save and then does not go on with it must not keep
        // the turn from the end of its task.
        let saving = tokio::spawn(async move {
            let _turn = task.turn.acquire().await;
            let record = {
                let mut record = task.record.lock();
                if record.status.is_terminal() {
                    return Ok(());
                }
                record.checkpoint = Some(value);
                record.clone()
            };
            core.tasks.held.change(task.ticket, &record, true);
            let stored = task.store(&core, || record.clone()).await;
            if stored.is_err() {
                let record = task.record.lock().clone();
                core.tasks.held.change(task.ticket, &record, true);
            }
            stored
        });
        saving.await.unwrap_or_else(|error| Err(TaskStoreError::Failed(error.into())))
    }

    fn change(&self, core: &Core, change: impl FnOnce(&mut TaskRecord)) {
        let mut record = self.record.lock();
        if !record.status.is_terminal() {
            change(&mut record);
            self.publish(core, record);
        }
    }

    /// Tells listeners, in the order of the changes.
    fn publish(&self, core: &Core, mut record: MutexGuard<'_, TaskRecord>) {
        record.version += 1;
        record.updated_at = core.tasks.now();
        self.telling.lock().waits = false;
        core.tell_hub(HubMsg::Publish(notice(&record)));
    }

    /// It has come to an end: stored first, then told. If the store fails it is told at once, and
    /// lives on until it could be stored, or has expired.
    async fn finish(&self, core: &Core, status: TaskStatus) {
        let _turn = self.turn.acquire().await;
        let ended = |status: TaskStatus| {
            let mut record = self.record.lock().clone();
            if let TaskStatus::Failed { error } = &status {
                record.message = Some(error.message.clone());
            }
            record.status = status;
            record.version += 1;
            record.updated_at = core.tasks.now();
            // It never runs again.
            record.checkpoint = None;
            record.arguments = Value::Null;
            record
        };
        let mut record = ended(status);
        core.tasks.held.change(self.ticket, &record, true);
        let mut stored = self.store(core, || record.clone()).await;
        if let Err(error) = &stored {
            crate::log!(error, %error, "the result of a task could not be stored");
            let error = ErrorObject::internal(format!("the result could not be kept: {error}"));
            record = ended(TaskStatus::Failed { error });
            stored = self.store(core, || record.clone()).await;
        }
        core.tasks.held.change(self.ticket, &record, false);
        {
            let mut shown = self.record.lock();
            // A change since then has the number that this one was given.
            record.version = shown.version + 1;
            *shown = record.clone();
            core.tell_hub(HubMsg::Publish(notice(&shown)));
        }
        while let Err(error) = &stored
            && !record.is_expired(core.tasks.now())
        {
            crate::log!(error, %error, "the end of a task could not be stored");
            tokio::select! {
                () = sleep(STORE_AGAIN) => stored = self.store(core, || record.clone()).await,
                () = core.ending.cancelled() => break,
            }
        }
        core.tasks.live.remove(&record.id);
    }
}

/// The right of a call to run as a task. Dropping it unfinished fails the task, but for an
/// engine that ends: there it is as if the process had ended.
pub(crate) struct TaskGuard {
    core: Arc<Core>,
    task: Option<Arc<LiveTask>>,
    _counted: TaskTrackerToken,
}

impl TaskGuard {
    pub(crate) fn task(&self) -> Option<&Arc<LiveTask>> {
        self.task.as_ref()
    }

    pub(crate) async fn finish(mut self, status: TaskStatus) {
        // Taken only afterwards, so that who is killed meanwhile has not finished.
        if let Some(task) = self.task.clone() {
            task.finish(&self.core, status).await;
        }
        self.task = None;
    }

    /// It never was a task.
    fn forget(mut self) {
        if let Some(task) = self.task.take() {
            self.core.tasks.live.remove(&task.id());
            self.core.tasks.held.leave(task.ticket);
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        if self.core.ending.is_cancelled() {
            self.core.tasks.live.remove(&task.id());
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let core = self.core.clone();
            runtime.spawn(async move {
                // A root that ends kills its tasks first, and says that it ended then.
                if timeout(A_MOMENT, core.ending.cancelled()).await.is_ok() {
                    core.tasks.live.remove(&task.id());
                    return;
                }
                let error = ErrorObject::internal("the task ended without a result");
                task.finish(&core, TaskStatus::Failed { error }).await;
            });
        }
    }
}
