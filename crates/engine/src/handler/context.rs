//! What a running call can do.

mod ask;
mod cancel;
mod output;
mod pending_inputs;
mod pending_requests;
mod sender;
mod url_elicitation;

use std::any::Any;
use std::fmt::{self, Display};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde::Serialize;
use serde_json::Value;
use stentor_delivery::Frame;
use stentor_delivery::policy::Class;
use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::{
    Era, Id, ListKind, LogLevel, ProtocolVersion, Topic, TraceContext, encode, numbers,
    takes_tasks, tasks_required,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Arguments, CallError, Layers};
use crate::audience::Audience;
use crate::caller::Caller;
use crate::events::{EngineEvent, Events};
use crate::ids::{CallId, SessionId, TaskId};
use crate::offload::Offload;
use crate::reasons::{CallRef, Stopped};
use crate::spans;
use crate::states::States;
use crate::viewers::Viewers;
pub use ask::{AskError, ClientRoot, Elicit, InputRequired, OptionalAnswer, Sample, Sampled};
pub(crate) use cancel::Cancel;
pub(crate) use output::{CallOutput, CallOutputs};
pub(crate) use pending_inputs::PendingInputs;
pub(crate) use pending_requests::PendingRequests;
pub use url_elicitation::UrlElicitation;

/// A running call, as the author's code sees it. It reports progress, writes log messages, changes
/// the catalog, and notices that the client gave up.
///
/// Clones are cheap and belong to the same call. Methods that only send something may be called
/// from sync code and from any thread, never block, and do nothing once the call has been answered.
#[derive(Clone, Debug)]
pub struct Context(Arc<Call>);

/// What a running call asks of its engine. The calls of an engine implement it, above this module.
pub(crate) trait CallHost: fmt::Debug + Send + Sync {
    fn events(&self) -> &Events;

    fn offload(&self) -> &Offload;

    /// What the author keeps for all handlers.
    fn states(&self) -> &States;

    /// The middleware around all calls.
    fn layers(&self) -> &Layers;

    /// How long a call waits for its client's answer to a question.
    fn ask_timeout(&self) -> Duration;

    /// The rights of senders.
    fn viewers(&self) -> &Arc<Viewers>;

    /// A stream of a session must not be read without more scopes than before.
    fn needs_changed(&self, session: &SessionId);

    /// Notifies the clients that subscribe to a topic of its change.
    fn announce(&self, topic: Topic);

    /// Sends a notification of the application's own.
    fn notify<'a>(
        &'a self,
        audience: &'a Audience,
        method: &'a str,
        params: Option<Value>,
    ) -> BoxFuture<'a, Result<(), Stopped>>;
}

/// The task that a call has become. The tasks extension implements it, above this module.
pub(crate) trait CallTask: fmt::Debug + Send + Sync {
    fn id(&self) -> TaskId;

    /// Sets the status message.
    fn report(&self, message: String);

    /// Stores what the code needs to continue after a restart.
    fn checkpoint(self: Arc<Self>, value: Value) -> BoxFuture<'static, Result<(), CallError>>;
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) host: Arc<dyn CallHost>,
    /// The engine, for the author's code. It exists at least as long as the call.
    pub(crate) engine: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) caller: Caller,
    pub(crate) call: CallRef,
    pub(crate) cancel: Cancel,
    pub(crate) output: CallOutputs,
    /// The questions of a modern call and the answers that came before them, once there are some.
    pub(crate) inputs: OnceLock<Arc<PendingInputs>>,
    /// The open questions of the session, to which a legacy call adds its own.
    pub(crate) questions: Option<PendingRequests>,
    /// Whether a modern request of this kind may be answered with questions.
    pub(crate) may_ask: bool,
    /// The state that the author's code gave, and that the client sent back.
    pub(crate) explicit: Option<Value>,
    /// The arguments, if calls of this tool can become tasks.
    pub(crate) arguments: Option<Arguments>,
    /// Notified to make the call a task.
    pub(crate) task_requested: Notify,
    /// Notified once the call is a task.
    pub(crate) task_started: Notify,
    pub(crate) task: OnceLock<Arc<dyn CallTask>>,
    /// The checkpoint that an earlier run of the task saved.
    pub(crate) checkpoint: Option<Value>,
}

fn progress_text(progress: f64, total: Option<f64>, message: &dyn Display) -> String {
    let message = message.to_string();
    match total {
        _ if !message.is_empty() => message,
        Some(total) => format!("{progress} of {total}"),
        None => progress.to_string(),
    }
}

impl Call {
    pub(crate) fn output(&self) -> Arc<CallOutput> {
        self.output.load_full()
    }

    pub(crate) fn inputs(&self) -> &Arc<PendingInputs> {
        self.inputs.get_or_init(Arc::default)
    }

    fn announce(&self, topic: Topic) {
        spans::announced(&topic);
        self.host.announce(topic);
    }

    /// Emits an event, also for a call whose client did not ask for progress.
    fn emit_progress(&self, progress: f64, total: Option<f64>) {
        spans::progressed(progress, total);
        let call = || self.call.clone();
        self.host.events().emit(|| EngineEvent::CallProgressed { call: call(), progress, total });
    }
}

impl Context {
    pub(crate) fn new(call: Call) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self) -> &Call {
        &self.0
    }

    pub(crate) fn host(&self) -> Arc<dyn CallHost> {
        self.0.host.clone()
    }

    // Progress

    /// Reports how far the call is: `progress` of `total`, in any unit, and a message for people.
    ///
    /// The client receives it if it asked for progress and `progress` is a finite number larger
    /// than the last one. Otherwise nothing is sent, and the message is not even formatted. A
    /// client that keeps up receives every value. When it falls behind, the latest value replaces
    /// older ones. The last value is always sent before the result.
    ///
    /// In a task the message becomes its `statusMessage`; if the message is empty, the numbers do.
    ///
    /// ```
    /// # fn f(ctx: stentor::Context) {
    /// ctx.report_progress(1.0, Some(4.0), "warming up");
    /// ctx.report_progress(2.0, Some(4.0), format_args!("step {}", 2));
    /// ctx.report_progress(3.0, None, "");
    /// # }
    /// ```
    pub fn report_progress(&self, progress: f64, total: Option<f64>, message: impl Display) {
        self.0.emit_progress(progress, total);
        if let Some(task) = self.0.task.get() {
            return task.report(progress_text(progress, total, &message));
        }
        let output = self.0.output.load();
        if output.gate.token().is_some() {
            output.sender.progress(&output.gate, progress, total, &message);
        }
    }

    /// As [`report_progress`](Self::report_progress), at the pace of the client: waits while the
    /// client is behind, so that it receives every value. Cancel safe.
    pub fn report_progress_paced(
        &self,
        progress: f64,
        total: Option<f64>,
        message: impl Display,
    ) -> BoxFuture<'static, ()> {
        self.0.emit_progress(progress, total);
        if let Some(task) = self.0.task.get() {
            task.report(progress_text(progress, total, &message));
            return ready(()).boxed();
        }
        let output = self.0.output();
        if output.gate.token().is_none() {
            return ready(()).boxed();
        }
        // Formatted here, because what `format_args!` makes lives no longer than this call.
        let message = message.to_string();
        async move { output.sender.progress_paced(&output.gate, progress, total, &message).await }
            .boxed()
    }

    /// Whether the client asked for progress of this call.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        self.0.output.load().gate.token().is_some()
    }

    // Log messages

    /// Writes a log message with any severity, logger name and JSON data.
    ///
    /// The client receives it if the severity is at least the one that the client asked for: with
    /// `logging/setLevel` in the legacy era (without: `info`), on the request itself in the modern
    /// era (without: nothing).
    pub fn log(&self, level: LogLevel, logger: Option<&str>, data: impl Serialize) {
        let output = self.0.output.load();
        if self.0.caller.wants_log(level, output.meta.log_level) {
            spans::logged(level, logger);
            let message = encode::log(level, logger, &data);
            output.sender.send(&output.gate, Class::Log, Frame::Log(level, message));
        }
    }

    /// Whether a log message of this severity would be sent.
    #[must_use]
    pub fn wants_log(&self, level: LogLevel) -> bool {
        self.0.caller.wants_log(level, self.0.output.load().meta.log_level)
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

    /// Writes a message that requires action at once.
    pub fn alert(&self, data: impl Serialize) {
        self.log(LogLevel::Alert, None, data);
    }

    /// Writes a message that the system is unusable.
    pub fn emergency(&self, data: impl Serialize) {
        self.log(LogLevel::Emergency, None, data);
    }

    // Notices

    /// Notifies every client that the list of tools changed. A change of the
    /// [`catalog`](Self::catalog) does so by itself.
    pub fn send_tool_list_changed(&self) {
        self.0.announce(Topic::List(ListKind::Tools));
    }

    /// Notifies every client that the list of resources changed.
    pub fn send_resource_list_changed(&self) {
        self.0.announce(Topic::List(ListKind::Resources));
    }

    /// Notifies every client that the list of prompts changed.
    pub fn send_prompt_list_changed(&self) {
        self.0.announce(Topic::List(ListKind::Prompts));
    }

    /// Notifies every client that subscribes to this resource that it changed.
    pub fn send_resource_updated(&self, uri: &str) {
        self.0.announce(Topic::Resource(uri.into()));
    }

    /// Sends a notification of the application's own to the client of this call, on the stream of
    /// this call. `params` should be a JSON object.
    pub fn notify(&self, method: &str, params: impl Serialize) {
        spans::notified(method);
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        let message = encode::notification(method, params.as_ref());
        let output = self.0.output.load();
        output.sender.send(&output.gate, Class::Custom, Frame::Message(message));
    }

    /// As [`Engine::notify_all`](crate::Engine::notify_all): sends a notification of the
    /// application's own to every session. The client of this call may receive it after the
    /// response.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn notify_all(&self, method: &str, params: impl Serialize) -> Result<(), Stopped> {
        spans::notified(method);
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        self.0.host.notify(&Audience::all(), method, params).await
    }

    // Tasks

    /// Makes the call a task: its client receives the task as the response, and fetches the result
    /// later. For tools with [`AsTask::OnDemand`](crate::AsTask::OnDemand). Does nothing in a call
    /// that is a task already, and in the legacy era, where the call continues as it is.
    ///
    /// A question that the client must answer before it receives the task has to be asked before
    /// this.
    ///
    /// # Errors
    ///
    /// -32021 if a modern client does not support tasks, or if calls of the tool cannot become
    /// tasks. If the task cannot be stored, the request is answered with that error, and the code
    /// is dropped at this `await`. Cancel safe: the call becomes a task or not.
    pub async fn become_task(&self) -> Result<(), CallError> {
        if self.0.task.get().is_some() || self.era() == Era::Legacy {
            return Ok(());
        }
        let takes = takes_tasks(&self.0.output.load().capabilities);
        if !takes || self.0.arguments.is_none() {
            return Err(CallError::protocol(tasks_required()));
        }
        // Created before the request, so that its notification is not missed. A call that cannot
        // become a task ends, and this code ends with it.
        let task_started = self.0.task_started.notified();
        self.0.task_requested.notify_one();
        task_started.await;
        Ok(())
    }

    /// The id of the task that the call has become.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.0.task.get().map(|task| task.id())
    }

    /// Saves what a [resumable](crate::Tool::resumable) tool needs to continue after a restart of
    /// the server. Does nothing in a call that is not a task.
    ///
    /// # Errors
    ///
    /// If the value has no JSON form, or the store fails; the last saved checkpoint is kept then.
    pub async fn checkpoint(&self, value: impl Serialize) -> Result<(), CallError> {
        let Some(task) = self.0.task.get() else { return Ok(()) };
        let value = serde_json::to_value(value)?;
        task.clone().checkpoint(value).await
    }

    /// The last checkpoint, in a task that runs again after a restart of the server.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&Value> {
        self.0.checkpoint.as_ref()
    }

    // Cancellation

    /// Waits until the call has to end early. The code is then polled once more, and dropped at its
    /// next `await`. Cancel safe.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancel.token().cancelled_owned()
    }

    /// A token that is cancelled when the call has to end early, for other code.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        // A child token, so that cancelling it does not cancel the call.
        self.0.cancel.token().child_token()
    }

    /// Whether the call has to end early.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Closes the connection on which a legacy client waits for this call. A server may do so if it
    /// does not want to keep the connection open (2025-11-25, basic/transports). The call
    /// continues. The client reconnects for the result, and for the messages that were sent
    /// meanwhile.
    ///
    /// Does nothing where a client cannot reconnect: in the modern era, on a pipe, and before
    /// 2025-11-25.
    pub fn close_stream(&self) {
        if self.0.caller.version.primes_streams() && self.0.caller.resumes {
            self.0.output.load().sender.detach();
        }
    }

    // The request and its client

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

    /// Name and version of the client, as it declares them; a modern client may omit them.
    #[must_use]
    pub fn client_info(&self) -> Option<&Implementation> {
        self.0.caller.client.as_deref()
    }

    /// The capabilities that the client declares; in the modern era, those of the current request.
    #[must_use]
    pub fn client_capabilities(&self) -> Arc<ClientCapabilities> {
        self.0.output.load().capabilities.clone()
    }

    /// The session; `None` for modern requests over HTTP, which have no session.
    #[must_use]
    pub fn session_id(&self) -> Option<&SessionId> {
        self.0.caller.session.as_ref()
    }

    /// The id of the call within the engine.
    #[must_use]
    pub fn call_id(&self) -> CallId {
        self.0.call.id
    }

    /// The id of the request.
    #[must_use]
    pub fn request_id(&self) -> &Id {
        &self.0.call.request
    }

    /// The W3C trace context of the current request: after a question to a modern client, that of
    /// the retry. The `mcp.call` span of the call contains the trace context of the first request.
    #[must_use]
    pub fn trace_context(&self) -> TraceContext {
        self.0.output.load().meta.trace.clone()
    }

    /// The whole `_meta` of the current request; an empty object if it has none.
    #[must_use]
    pub fn request_meta(&self) -> serde_json::Map<String, Value> {
        let meta = serde_json::from_slice(&self.0.output.load().meta.raw);
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
