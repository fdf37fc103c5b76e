//! How a call becomes a task, as far as the call is concerned. The tasks extension implements this.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, TaskStatus};

use crate::handler::{CallTask, Cancel, PendingInputs};
use crate::shares::Share;

/// A call that becomes a task.
pub(crate) struct NewTask {
    pub(crate) tool: String,
    pub(crate) arguments: Value,
    pub(crate) capabilities: Value,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) share: Share,
    pub(crate) inputs: Arc<PendingInputs>,
    pub(crate) cancel: Cancel,
}

/// Makes tasks of calls.
pub(crate) trait TaskMaker: fmt::Debug + Send + Sync {
    /// Makes a task of a call. The task is stored when this returns.
    fn create(
        self: Arc<Self>,
        new: NewTask,
    ) -> BoxFuture<'static, Result<Box<dyn TaskHandle>, ErrorObject>>;

    /// Makes a running task give way to a caller with a smaller share. Returns how many bytes that
    /// frees at least.
    fn give_way(self: Arc<Self>, newcomer: &Share) -> Option<usize>;
}

/// The right of a call to run as a task. When dropped unfinished, the task fails; only if the engine
/// ends, the stored task stays as it is, as if the process had ended.
pub(crate) trait TaskHandle: Send {
    /// The task, for the code of the call; `None` once it is finished.
    fn task(&self) -> Option<Arc<dyn CallTask>>;

    /// The task as its client sees it now.
    fn result(&self) -> Result<ResultBody, ErrorObject>;

    /// Shows the open questions of the call to the client.
    fn show_questions(&self);

    /// Notifies listeners of the last report, when the interval has passed. Cancel safe.
    fn send_reports(&self) -> BoxFuture<'static, ()>;

    /// How long the code may continue after the task was cancelled.
    fn cancel_grace(&self) -> Duration;

    /// Ends the task.
    fn finish(self: Box<Self>, status: TaskStatus) -> BoxFuture<'static, ()>;
}
