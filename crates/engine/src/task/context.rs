//! What a running call can do.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::Value;
use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::{
    Era, Id, ListKind, LogLevel, ProtocolVersion, TraceContext, encode, numbers, takes_tasks,
    tasks_required,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cancel::Cancel;
use super::lane::{Lane, Lanes};
use super::rounds::Rounds;
use crate::core::Core;
use crate::engine::CatalogHandle;
use crate::events::{CallRef, EngineEvent};
use crate::handler::{Arguments, CallError};
use crate::ids::{CallId, SessionId, TaskId};
use crate::outlet::Frame;
use crate::outlet::policy::Class;
use crate::registry::Topic;
use crate::session::{Caller, Questions};
use crate::tasks::LiveTask;

/// A running call, as the author's code sees it: it reports progress, writes log messages,
/// changes the catalog, notices that the client gave up.
///
/// Clones are cheap and belong to the same call. Everything that only tells may be called
/// from sync code and from any thread, never blocks, and does nothing once the call has been
/// answered.
#[derive(Clone, Debug)]
pub struct Context(Arc<Call>);

/// What a [`Context`] is made of.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) caller: Caller,
    pub(crate) call: CallRef,
    pub(crate) cancel: Cancel,
    /// Where the call speaks now.
    pub(crate) lane: Lanes,
    /// Questions of a modern call, once there are some.
    pub(crate) rounds: OnceLock<Arc<Rounds>>,
    /// Where a legacy call asks.
    pub(crate) questions: Option<Questions>,
    /// What the author's code gave to be sent back, and the client did.
    pub(crate) explicit: Option<Value>,
    /// The arguments of a tool whose calls can become tasks.
    pub(crate) arguments: Option<Arguments>,
    /// Asks for the call to become a task.
    pub(crate) handover: Notify,
    /// Told once it is one.
    pub(crate) handed_over: Notify,
    pub(crate) task: OnceLock<Arc<LiveTask>>,
    /// What a run before this one saved.
    pub(crate) checkpoint: Option<Value>,
}

fn in_words(progress: f64, total: Option<f64>, message: &dyn Display) -> String {
    let message = message.to_string();
    match total {
        _ if !message.is_empty() => message,
        Some(total) => format!("{progress} of {total}"),
        None => progress.to_string(),
    }
}

impl Call {
    pub(crate) fn lane(&self) -> Arc<Lane> {
        self.lane.load_full()
    }

    pub(crate) fn rounds(&self) -> &Arc<Rounds> {
        self.rounds.get_or_init(Arc::default)
    }

    /// Tells who watches the engine, also of calls whose client did not ask for progress.
    fn heard(&self, progress: f64, total: Option<f64>) {
        let call = || self.call.clone();
        self.core.events.emit(|| EngineEvent::CallProgressed { call: call(), progress, total });
    }
}

impl Context {
    pub(crate) fn new(call: Call) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self) -> &Call {
        &self.0
    }

    // Progress

    /// Reports how far the call is: `progress` of `total`, in any unit, and a message for
    /// people.
    ///
    /// Goes to the client if it asked for progress, and `progress` is a finite number larger
    /// than the last one; otherwise nothing is sent, and the message is not even formatted.
    /// While the client keeps up it gets every value; when it falls behind the latest wins.
    /// The last value always goes out before the result.
    ///
    /// In a task the message becomes its `statusMessage`, or the numbers if it is empty.
    ///
    /// ```
    /// # fn f(ctx: stentor_engine::Context) {
    /// ctx.report_progress(1.0, Some(4.0), "warming up");
    /// ctx.report_progress(2.0, Some(4.0), format_args!("step {}", 2));
    /// ctx.report_progress(3.0, None, "");
    /// # }
    /// ```
    pub fn report_progress(&self, progress: f64, total: Option<f64>, message: impl Display) {
        self.0.heard(progress, total);
        if let Some(task) = self.0.task.get() {
            return task.report(in_words(progress, total, &message));
        }
        let lane = self.0.lane.load();
        if lane.gate.token().is_some() {
            lane.outlet.progress(&lane.gate, progress, total, &message);
        }
    }

    /// As [`report_progress`](Self::report_progress), at the pace of the client: waits while
    /// it is behind, so that it gets every value. Cancel safe.
    pub async fn report_progress_paced(
        &self,
        progress: f64,
        total: Option<f64>,
        message: impl Display + Sync,
    ) {
        self.0.heard(progress, total);
        if let Some(task) = self.0.task.get() {
            return task.report(in_words(progress, total, &message));
        }
        let lane = self.0.lane();
        if lane.gate.token().is_some() {
            lane.outlet.progress_paced(&lane.gate, progress, total, &message).await;
        }
    }

    /// Whether the client asked for progress of this call.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        self.0.lane.load().gate.token().is_some()
    }

    // Log messages

    /// Writes a log message with any severity, logger name and JSON data.
    ///
    /// It goes to the client if the severity is at least the one it asked for: with
    /// `logging/setLevel` in the legacy era (without: `info`), on the request itself in the
    /// modern one (without: nothing).
    pub fn log(&self, level: LogLevel, logger: Option<&str>, data: impl Serialize) {
        let lane = self.0.lane.load();
        if self.0.caller.wants_log(level, lane.meta.log_level) {
            let message = encode::log(level, logger, &data);
            lane.outlet.say(&lane.gate, Class::Log, Frame::Log(level, message));
        }
    }

    /// Whether a log message of this severity would be sent.
    #[must_use]
    pub fn wants_log(&self, level: LogLevel) -> bool {
        self.0.caller.wants_log(level, self.0.lane.load().meta.log_level)
    }

    /// Writes a log message for debugging.
    pub fn debug(&self, data: impl Serialize) {
        self.log(LogLevel::Debug, None, data);
    }

    /// Writes an informational log message.
    pub fn info(&self, data: impl Serialize) {
        self.log(LogLevel::Info, None, data);
    }

    /// Writes a log message about something normal but significant.
    pub fn notice(&self, data: impl Serialize) {
        self.log(LogLevel::Notice, None, data);
    }

    /// Writes a warning.
    pub fn warning(&self, data: impl Serialize) {
        self.log(LogLevel::Warning, None, data);
    }

    /// Writes an error message; the call goes on.
    pub fn error(&self, data: impl Serialize) {
        self.log(LogLevel::Error, None, data);
    }

    /// Writes a message about a critical condition.
    pub fn critical(&self, data: impl Serialize) {
        self.log(LogLevel::Critical, None, data);
    }

    /// Writes a message that asks for action at once.
    pub fn alert(&self, data: impl Serialize) {
        self.log(LogLevel::Alert, None, data);
    }

    /// Writes a message that the system is unusable.
    pub fn emergency(&self, data: impl Serialize) {
        self.log(LogLevel::Emergency, None, data);
    }

    // Telling everybody

    /// Tells every client that the list of tools changed. A change of the
    /// [`catalog`](Self::catalog) does so by itself.
    pub fn send_tool_list_changed(&self) {
        self.0.core.announce_list(ListKind::Tools);
    }

    /// Tells every client that the list of resources changed.
    pub fn send_resource_list_changed(&self) {
        self.0.core.announce_list(ListKind::Resources);
    }

    /// Tells every client that the list of prompts changed.
    pub fn send_prompt_list_changed(&self) {
        self.0.core.announce_list(ListKind::Prompts);
    }

    /// Tells every client that watches this resource that it changed.
    pub fn send_resource_updated(&self, uri: &str) {
        self.0.core.announce(Topic::Resource(uri.into()));
    }

    /// Sends a notification of the application's own to the client of this call, on the
    /// stream of this call. `params` should be a JSON object.
    pub fn notify(&self, method: &str, params: impl Serialize) {
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        let message = encode::notification(method, params.as_ref());
        let lane = self.0.lane.load();
        lane.outlet.say(&lane.gate, Class::Custom, Frame::Message(message));
    }

    /// The tools, resources and prompts, to read and to change.
    #[must_use]
    pub fn catalog(&self) -> CatalogHandle {
        CatalogHandle::new(self.0.core.clone())
    }

    // Tasks

    /// Makes a task of the call: its client gets the task as the answer, and fetches the result
    /// later. For tools with [`AsTask::OnDemand`](crate::AsTask::OnDemand). Does nothing in a
    /// call that is one already, and in the legacy era, where a call goes on as it is.
    ///
    /// What is to be asked before the client gets the task is asked before this.
    ///
    /// # Errors
    ///
    /// -32021 if a modern client takes no tasks; what went wrong with storing it, where the call has
    /// been answered with that already. Cancel safe: it becomes one or not.
    pub async fn become_task(&self) -> Result<(), CallError> {
        if self.0.task.get().is_some() || self.era() == Era::Legacy {
            return Ok(());
        }
        let takes = takes_tasks(&self.0.lane.load().capabilities);
        if !takes || self.0.arguments.is_none() {
            return Err(CallError::protocol(tasks_required()));
        }
        // Before the request, so that its answer is not missed. A call that cannot become one is
        // over, and so is this.
        let handed_over = self.0.handed_over.notified();
        self.0.handover.notify_one();
        handed_over.await;
        Ok(())
    }

    /// The name of the task that the call has become.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.0.task.get().map(|task| task.id())
    }

    /// Saves what a [resumable](crate::Tool::resumable) tool needs to go on with after a restart
    /// of the server. Nothing happens in a call that is no task.
    ///
    /// # Errors
    ///
    /// What the store says; the last checkpoint that was saved is still there then.
    pub async fn checkpoint(&self, value: impl Serialize) -> Result<(), CallError> {
        let Some(task) = self.0.task.get() else { return Ok(()) };
        let value = serde_json::to_value(value)?;
        task.checkpoint(&self.0.core, value).await?;
        Ok(())
    }

    /// What the tool saved last, in a task that goes on after a restart of the server.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&Value> {
        self.0.checkpoint.as_ref()
    }

    // Cancellation

    /// Waits until the call is to end early. The code is then polled once more, and dropped
    /// at its next `await`. Cancel safe.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancel.token().cancelled_owned()
    }

    /// A token that is cancelled when the call is to end early, to hand to other code.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        // Its own, so that who cancels it ends nothing else.
        self.0.cancel.token().child_token()
    }

    /// Whether the call is to end early.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Closes the connection on which a legacy client waits for this call, as a server may
    /// that does not want to hold it open (2025-11-25, basic/transports). The call goes on;
    /// the client comes back for the result, and for what was said meanwhile.
    ///
    /// Does nothing where a client could not come back: in the modern era, on a pipe, and
    /// before 2025-11-25.
    pub fn close_stream(&self) {
        if self.0.caller.version.primes_streams() && self.0.caller.resumes {
            self.0.lane.load().outlet.detach();
        }
    }

    // Who asks

    /// The era of the request.
    #[must_use]
    pub fn era(&self) -> Era {
        self.0.caller.version.era()
    }

    /// The protocol version of the request.
    #[must_use]
    pub fn protocol_version(&self) -> ProtocolVersion {
        self.0.caller.version
    }

    /// Name and version of the client, as it says itself; modern clients may keep it to
    /// themselves.
    #[must_use]
    pub fn client_info(&self) -> Option<&Implementation> {
        self.0.caller.client.as_deref()
    }

    /// What the client says it can do; in the modern era, with the request that is under way.
    #[must_use]
    pub fn client_capabilities(&self) -> Arc<ClientCapabilities> {
        self.0.lane.load().capabilities.clone()
    }

    /// The session; `None` for modern requests over HTTP, which have none.
    #[must_use]
    pub fn session_id(&self) -> Option<&SessionId> {
        self.0.caller.session.as_ref()
    }

    /// The name of the call within the engine.
    #[must_use]
    pub fn call_id(&self) -> CallId {
        self.0.call.id
    }

    /// The id of the request.
    #[must_use]
    pub fn request_id(&self) -> &Id {
        &self.0.call.request
    }

    /// The W3C trace that the request belongs to: the one that is under way, if the call has
    /// asked its modern client something. It stands in the `mcp.call` span of the call, too.
    #[must_use]
    pub fn trace_context(&self) -> TraceContext {
        self.0.lane.load().meta.trace.clone()
    }

    /// The whole `_meta` of the request that is under way; an empty object if it has none.
    #[must_use]
    pub fn request_meta(&self) -> serde_json::Map<String, Value> {
        let meta = serde_json::from_slice(&self.0.lane.load().meta.raw);
        let mut meta: serde_json::Map<String, Value> = meta.unwrap_or_default();
        meta.values_mut().for_each(numbers::settle);
        meta
    }

    /// The URI that is being read; in a tool or prompt, its name.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.0.call.subject
    }
}
