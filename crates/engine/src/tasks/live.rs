//! A running task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Notice, TaskStatus};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::store::{TaskRecord, TaskStoreError};
use super::{TaskView, Tasks, failed, notice};
use crate::call::{NewTask, TaskHandle};
use crate::handler::{CallError, CallTask, Cancel, PendingInputs};
use crate::hub::HubMsg;
use crate::ids::TaskId;
use crate::reasons::CancelReason;
use crate::shares::{Share, Ticket};

/// How long to wait before the end of a task is stored again, after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// A supervisor that ends marks its engine as ending within this time.
const ENDING_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct LiveTask {
    record: Mutex<TaskRecord>,
    inputs: Arc<PendingInputs>,
    cancel: Cancel,
    /// Whether a message waits to be sent to listeners, and when the last one was sent.
    reports: Mutex<Reports>,
    reported: Notify,
    /// Permits one write to the store at a time, so that the writes arrive in order.
    turn: Semaphore,
    share: Share,
    ticket: Ticket,
    /// Whether another task has its place, so that the store has to forget it.
    gave_way: AtomicBool,
}

#[derive(Debug, Default)]
struct Reports {
    waiting: bool,
    last: Option<Instant>,
}

impl LiveTask {
    /// Makes a task of a call. The task is stored when this returns.
    pub(crate) async fn create(tasks: Arc<Tasks>, new: NewTask) -> Result<TaskGuard, ErrorObject> {
        let (config, now) = (&tasks.config, tasks.now());
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let record = TaskRecord {
            id: TaskId::random(&tasks.node),
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
        // The guard comes first: if the call is killed while the task is stored, the task must not
        // look as if it still ran.
        let guard = Self::guard(&tasks, record, new.share, new.inputs, new.cancel);
        let stored = match &guard.task {
            Some(task) => task.store(&tasks, || task.record.lock().clone()).await,
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

    /// The live task of a stored one, which runs again.
    pub(crate) fn of_stored(
        tasks: &Arc<Tasks>,
        mut record: TaskRecord,
        inputs: Arc<PendingInputs>,
        cancel: Cancel,
    ) -> TaskGuard {
        // Nobody waits for answers to the questions of the last run, and their keys are used up.
        record.status = TaskStatus::Working;
        inputs.ask_anew(tasks.now());
        let share = Share::of(record.owner.as_ref(), None, None);
        Self::guard(tasks, record, share, inputs, cancel)
    }

    fn guard(
        tasks: &Arc<Tasks>,
        record: TaskRecord,
        share: Share,
        inputs: Arc<PendingInputs>,
        cancel: Cancel,
    ) -> TaskGuard {
        inputs.belong_to_task();
        let id = record.id.clone();
        let ticket = tasks.held.enter(&share, &record);
        let task = Arc::new(Self {
            record: Mutex::new(record),
            inputs,
            cancel,
            reports: Mutex::default(),
            reported: Notify::new(),
            turn: Semaphore::new(1),
            share,
            ticket,
            gave_way: AtomicBool::new(false),
        });
        tasks.live.insert(id, task.clone());
        TaskGuard { tasks: tasks.clone(), task: Some(task), _counted: tasks.tracker.token() }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.record.lock().id.clone()
    }

    pub(super) fn view(&self) -> TaskView {
        let record = self.record.lock();
        TaskView {
            id: record.id.clone(),
            principal: record.owner.clone(),
            tool: record.tool.clone(),
            status: record.status.as_str(),
            message: record.message.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }

    pub(super) fn is_owned_by(&self, owner: Option<&str>) -> bool {
        self.record.lock().owner.as_deref() == owner
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.record.lock().is_expired(now)
    }

    pub(crate) fn result(&self) -> Result<ResultBody, ErrorObject> {
        self.record.lock().result()
    }

    pub(super) fn notice(&self) -> Notice {
        notice(&self.record.lock())
    }

    pub(super) fn answer(&self, answers: Map<String, Value>) {
        self.inputs.answer(answers);
    }

    /// Cancels the task for its client. The code gets some time to end.
    pub(super) fn cancel(&self) {
        self.end(CancelReason::Client(None));
    }

    pub(super) fn end(&self, reason: CancelReason) {
        self.cancel.cancel(reason);
    }

    /// Gives its place to another task: this task ends, its listeners are notified of the reason,
    /// and nothing of it is kept.
    pub(super) fn give_way(&self) {
        self.gave_way.store(true, Ordering::Release);
        self.end(CancelReason::GaveWay);
    }

    /// Writes the task to the store. Other tasks give way if necessary.
    async fn store(
        &self,
        tasks: &Tasks,
        record: impl Fn() -> TaskRecord,
    ) -> Result<(), TaskStoreError> {
        let gave_way = || self.gave_way.load(Ordering::Acquire);
        if gave_way() {
            return Ok(());
        }
        let stored = tasks.held.put(tasks, &self.share, &record).await;
        // The task gave way while it was being stored.
        if gave_way() {
            return tasks.config.store.forget(&self.id()).await;
        }
        stored
    }

    /// Sets the status message. Listeners are notified at a bounded rate; a client that polls sees
    /// the message at once.
    pub(crate) fn report(&self, message: String) {
        let mut record = self.record.lock();
        if !record.status.is_terminal() {
            record.message = Some(message);
            drop(record);
            self.reports.lock().waiting = true;
            self.reported.notify_one();
        }
    }

    /// Notifies listeners of the last report, when the interval has passed. Cancel safe.
    pub(crate) async fn send_reports(&self, tasks: &Tasks) {
        loop {
            let (waiting, last) = {
                let reports = self.reports.lock();
                (reports.waiting, reports.last)
            };
            if waiting {
                if let Some(last) = last {
                    sleep_until(last + tasks.config.message_interval).await;
                }
                self.reports.lock().last = Some(Instant::now());
                return self.change(tasks, |_| {});
            }
            self.reported.notified().await;
        }
    }

    pub(crate) fn show_questions(&self, tasks: &Tasks) {
        let open = self.inputs.open_questions();
        self.change(tasks, |record| {
            record.status = match open.is_empty() {
                true => TaskStatus::Working,
                false => TaskStatus::InputRequired { input_requests: open },
            };
        });
    }

    /// Stores what the code needs to continue after a restart.
    pub(crate) async fn checkpoint(
        self: &Arc<Self>,
        tasks: &Arc<Tasks>,
        value: Value,
    ) -> Result<(), TaskStoreError> {
        let (task, tasks) = (self.clone(), tasks.clone());
        // In a runtime task of its own: code that stops polling a save must not keep this permit
        // from the end of its task.
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
            tasks.held.change(task.ticket, &record, true);
            let stored = task.store(&tasks, || record.clone()).await;
            if stored.is_err() {
                let record = task.record.lock().clone();
                tasks.held.change(task.ticket, &record, true);
            }
            stored
        });
        saving.await.unwrap_or_else(|error| Err(TaskStoreError::Failed(error.into())))
    }

    fn change(&self, tasks: &Tasks, change: impl FnOnce(&mut TaskRecord)) {
        let mut record = self.record.lock();
        if !record.status.is_terminal() {
            change(&mut record);
            self.publish(tasks, record);
        }
    }

    /// Notifies listeners. The lock is still held, so the notices are in the order of the changes.
    fn publish(&self, tasks: &Tasks, mut record: MutexGuard<'_, TaskRecord>) {
        record.version += 1;
        record.updated_at = tasks.now();
        self.reports.lock().waiting = false;
        tasks.hub.send(HubMsg::Publish(notice(&record)));
    }

    /// Ends the task: its end is stored first, then published. If the store fails, the end is
    /// published at once, and the task stays live until it could be stored, or has expired.
    async fn finish(&self, tasks: &Tasks, status: TaskStatus) {
        let _turn = self.turn.acquire().await;
        let ended = |status: TaskStatus| {
            let mut record = self.record.lock().clone();
            if let TaskStatus::Failed { error } = &status {
                record.message = Some(error.message.clone());
            }
            record.status = status;
            record.version += 1;
            record.updated_at = tasks.now();
            // The task never runs again, so it needs neither.
            record.checkpoint = None;
            record.arguments = Value::Null;
            record
        };
        let mut record = ended(status);
        tasks.held.change(self.ticket, &record, true);
        let mut stored = self.store(tasks, || record.clone()).await;
        if let Err(error) = &stored {
            crate::log!(error, %error, "the result of a task could not be stored");
            let error = ErrorObject::internal(format!("the result could not be kept: {error}"));
            record = ended(TaskStatus::Failed { error });
            stored = self.store(tasks, || record.clone()).await;
        }
        tasks.held.change(self.ticket, &record, false);
        {
            let mut shown = self.record.lock();
            // A change made meanwhile may have taken the version of this record.
            record.version = shown.version + 1;
            *shown = record.clone();
            tasks.hub.send(HubMsg::Publish(notice(&shown)));
        }
        while let Err(error) = &stored
            && !record.is_expired(tasks.now())
        {
            crate::log!(error, %error, "the end of a task could not be stored");
            tokio::select! {
                () = sleep(STORE_RETRY) => stored = self.store(tasks, || record.clone()).await,
                () = tasks.lifecycle.ending().cancelled() => break,
            }
        }
        tasks.live.remove(&record.id);
    }
}

/// The right of a call to run as a task. When dropped unfinished, it fails the task. Only if the
/// engine ends, the stored task stays as it is, as if the process had ended.
#[derive(Debug)]
pub(crate) struct TaskGuard {
    tasks: Arc<Tasks>,
    task: Option<Arc<LiveTask>>,
    _counted: TaskTrackerToken,
}

impl TaskGuard {
    /// Removes the task, as if the call had never been a task.
    fn forget(mut self) {
        if let Some(task) = self.task.take() {
            self.tasks.live.remove(&task.id());
            self.tasks.held.leave(task.ticket);
        }
    }
}

impl TaskHandle for TaskGuard {
    fn task(&self) -> Option<Arc<dyn CallTask>> {
        let task = self.task.clone()?;
        Some(Arc::new(TaskOfCall { tasks: self.tasks.clone(), task }))
    }

    fn result(&self) -> Result<ResultBody, ErrorObject> {
        let task = self.task.as_ref().ok_or_else(|| ErrorObject::internal("no task"))?;
        task.result()
    }

    fn show_questions(&self) {
        if let Some(task) = &self.task {
            task.show_questions(&self.tasks);
        }
    }

    fn send_reports(&self) -> BoxFuture<'static, ()> {
        let (tasks, task) = (self.tasks.clone(), self.task.clone());
        Box::pin(async move {
            match task {
                Some(task) => task.send_reports(&tasks).await,
                None => std::future::pending().await,
            }
        })
    }

    fn cancel_grace(&self) -> Duration {
        self.tasks.config.cancel_grace
    }

    fn finish(mut self: Box<Self>, status: TaskStatus) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Cleared only afterwards, so that a guard that is dropped meanwhile has not finished.
            if let Some(task) = self.task.clone() {
                task.finish(&self.tasks, status).await;
            }
            self.task = None;
        })
    }
}

/// A task, for the code of its call.
#[derive(Debug)]
struct TaskOfCall {
    tasks: Arc<Tasks>,
    task: Arc<LiveTask>,
}

impl CallTask for TaskOfCall {
    fn id(&self) -> TaskId {
        self.task.id()
    }

    fn report(&self, message: String) {
        self.task.report(message);
    }

    fn checkpoint(self: Arc<Self>, value: Value) -> BoxFuture<'static, Result<(), CallError>> {
        Box::pin(async move { Ok(self.task.checkpoint(&self.tasks, value).await?) })
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        if self.tasks.lifecycle.ending().is_cancelled() {
            self.tasks.live.remove(&task.id());
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = self.tasks.clone();
            runtime.spawn(async move {
                // A supervisor that ends kills its task actors first, and marks the engine as
                // ending after that.
                if timeout(ENDING_DELAY, tasks.lifecycle.ending().cancelled()).await.is_ok() {
                    tasks.live.remove(&task.id());
                    return;
                }
                let error = ErrorObject::internal("the task ended without a result");
                task.finish(&tasks, TaskStatus::Failed { error }).await;
            });
        }
    }
}
