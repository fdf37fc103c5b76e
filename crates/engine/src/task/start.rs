//! How a call begins: for a new request, for the retry of a call that awaits input, or after a
//! restart of the server.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ractor::{Actor, ActorCell};
use stentor_wire::params::Retry;
use stentor_wire::{Era, ErrorObject, Params, Request, RequestMeta};
use tokio::sync::Notify;

use super::awaiting_input::{Resume, Waiting};
use super::cancel::gave_way;
use super::context::{Call, Context};
use super::output::{CallOutput, CallOutputs};
use super::pending_inputs::PendingInputs;
use super::record::Record;
use super::responder::{Responder, Running};
use super::run::{Run, Side};
use super::state_token::{Binding, StateError, StateToken};
use super::{Cancel, OpenCall, TaskActor};
use crate::core::Core;
use crate::dispatch::Target;
use crate::handler::{Arguments, ToolEntry};
use crate::ids::NodeId;
use crate::log::quietly;
use crate::reasons::CallRef;
use crate::request_budget::Charge;
use crate::session::{Caller, FinishStreams, PendingRequests, Session};
use crate::tasks::{LiveTask, TaskRecord};
use stentor_delivery::ProgressGate;

/// A call that may run: the request, its caller, and where the response goes.
pub(crate) struct Start {
    pub(crate) request: Box<Request>,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) entry: Entry,
    pub(crate) cancel: Cancel,
    /// The call's entry among the open calls of its session.
    pub(crate) open: Option<OpenCall>,
    /// Keeps the streams of the session open until the call is answered.
    pub(crate) streams: Option<Arc<FinishStreams>>,
    /// The open questions of the session, to which a legacy call adds its own.
    pub(crate) questions: Option<PendingRequests>,
    pub(crate) charge: Charge,
}

pub(crate) enum Entry {
    New {
        retry: Retry,
        explicit: Option<serde_json::Value>,
    },
    /// It answers the questions of a call that awaits input.
    Retry {
        waiting: Waiting,
        retry: Retry,
    },
}

impl Entry {
    /// The cancel handle of a call that awaits input, so that the retry can cancel the call, too; a
    /// new handle for a new call.
    pub(crate) fn cancel(&self) -> Cancel {
        match self {
            Self::New { .. } => Cancel::default(),
            Self::Retry { waiting, .. } => waiting.cancel.clone(),
        }
    }
}

/// Distinguishes a new call from a retry (2026-07-28, basic/patterns/mrtr).
pub(crate) fn enter(
    core: &Core,
    caller: &Caller,
    request: &Request,
    target: &Target,
) -> Result<Entry, ErrorObject> {
    if matches!(target, Target::Remote(_)) {
        // The other node decides.
        return Ok(Entry::New { retry: Retry::default(), explicit: None });
    }
    let retry = match caller.era() {
        Era::Modern if request.method.may_ask() => Retry::read(&request.params)?,
        _ => Retry::default(),
    };
    let refused = |error| match error {
        StateError::GaveWay => gave_way(),
        error => ErrorObject::invalid_params(error.to_string()),
    };
    let Some(state) = &retry.request_state else {
        return Ok(Entry::New { retry, explicit: None });
    };
    let binding = Binding::new(caller.principal.as_deref(), &request.method, &request.params);
    let sealed = core.sealer.open(NodeId::without_node(state), &binding, SystemTime::now());
    let sealed = sealed.map_err(refused)?;
    match sealed {
        StateToken::Waiting(handle) => {
            let waiting = core.awaiting_input.take(&handle).map_err(refused)?;
            Ok(Entry::Retry { waiting, retry })
        }
        StateToken::Explicit(state) => {
            let explicit = serde_json::from_slice(&state).ok();
            Ok(Entry::New { retry, explicit })
        }
    }
}

/// Makes the call that is [to run](run). Returns `None` for the retry of a call that awaits input:
/// that call continues. The request is answered in either case.
///
/// Not an `async fn`, so that futures do not reserve space for all parts of a call.
pub(crate) fn begin(core: &Arc<Core>, start: Start, responder: Responder) -> Option<Box<Run>> {
    #[rustfmt::skip]
    let Start {
        request, caller, target, entry, cancel, open, streams, questions, charge,
    } = start;
    let Request { id: request, method, params, meta } = *request;
    let gate = Arc::new(ProgressGate::new(meta.progress_token.clone()));
    let sender = responder.sender().clone();
    let running = Running {
        gate: gate.clone(),
        cancel: cancel.clone(),
        counted: core.calls.token(),
        streams,
    };
    let responder = responder.running(open, running);
    let output = CallOutput::new(sender, gate, &caller, meta.clone());
    let (retry, explicit) = match entry {
        Entry::New { retry, explicit } => (retry, explicit),
        Entry::Retry { waiting, retry } => {
            let answers = retry.input_responses.unwrap_or_default();
            let resume = Resume { output, responder, answers };
            // If the call has just ended, the responder is dropped here, and answers.
            let _ = waiting.resume.send(resume);
            return None;
        }
    };
    let given = retry.input_responses.map(|given| Arc::new(PendingInputs::with_given(given)));
    let id = core.running.next_id();
    let subject: Arc<str> = target.subject().into();
    let call = CallRef { id, session: caller.session.clone(), request, subject: subject.clone() };
    let span = quietly(|| {
        tracing::debug_span!(
            "mcp.call",
            call = %id,
            mcp.method.name = %method,
            mcp.session.id = caller.session.as_ref().map(tracing::field::debug),
            jsonrpc.request.id = %call.request,
            subject = &*subject,
            traceparent = meta.trace.traceparent.as_deref(),
            tracestate = meta.trace.tracestate.as_deref(),
        )
    });
    let span = span.unwrap_or_else(tracing::Span::none);
    let record = Record::new(core.clone(), call.clone(), method, cancel.clone());
    let ctx = Context::new(Call {
        core: core.clone(),
        caller,
        call,
        cancel,
        output: CallOutputs::new(output),
        inputs: given.map_or_else(OnceLock::new, OnceLock::from),
        questions,
        explicit,
        arguments: target.task_arguments(),
        task_requested: Notify::new(),
        task_started: Notify::new(),
        task: OnceLock::new(),
        checkpoint: None,
    });
    Some(Run::new(target, ctx, params, Side::Attached(responder), record, Some(charge), span))
}

/// Runs a call. If earlier runs of the same code ended at once, the call runs here. Any other call,
/// and a call that does not end at once after all, runs in its own task actor, linked to the actor
/// of its session.
pub(crate) async fn run(run: Box<Run>, session: &Session) {
    if let Err(run) = run.in_place().await {
        // Boxed, because this future is large and most calls do not need it.
        Box::pin(spawn_in(session, run)).await;
    }
}

async fn spawn_in(session: &Session, run: Box<Run>) {
    // Without an actor the session has ended. The responder is dropped with the call, and answers.
    if let Some(parent) = session.actor().await {
        spawn(run, parent.get_cell()).await;
    }
}

async fn spawn(mut run: Box<Run>, parent: ActorCell) {
    run.enlist();
    if let Err(error) = Actor::spawn_linked(None, TaskActor, run, parent).await {
        // The responder was dropped with the call, and has answered.
        crate::log!(error, %error, "a call could not be started");
    }
}

/// Runs a tool again for a task that was running when the last engine with this store ended.
pub(crate) async fn resume(core: &Arc<Core>, tool: Arc<ToolEntry>, task: TaskRecord) {
    let capabilities = serde_json::from_value(task.capabilities.clone()).unwrap_or_default();
    let caller = Caller::of_task(capabilities, task.owner.clone());
    let meta = Arc::new(RequestMeta::default());
    let gate = Arc::new(ProgressGate::closed());
    let cancel = Cancel::default();
    let sender = crate::session::of_stateless_call(core, &cancel);
    sender.keep_without_reader();
    let call = CallRef {
        id: core.running.next_id(),
        session: None,
        request: stentor_wire::Id::Text(task.id.as_str().into()),
        subject: task.tool.as_str().into(),
    };
    let span =
        tracing::debug_span!("mcp.call", call = %call.id, subject = task.tool, resumed = true);
    let method = stentor_wire::Method::ToolsCall;
    let record = Record::new(core.clone(), call.clone(), method, cancel.clone());
    let inputs = Arc::new(PendingInputs::default());
    let target = Target::Tool(tool, Arguments::from(&task.arguments));
    let ctx = Context::new(Call {
        core: core.clone(),
        output: CallOutputs::new(CallOutput::new(sender, gate, &caller, meta)),
        caller,
        call,
        cancel: cancel.clone(),
        inputs: inputs.clone().into(),
        questions: None,
        explicit: None,
        arguments: target.task_arguments(),
        task_requested: Notify::new(),
        task_started: Notify::new(),
        task: OnceLock::new(),
        checkpoint: task.checkpoint.clone(),
    });
    let guard = LiveTask::run(core, task, inputs, cancel);
    if let Some(task) = guard.task() {
        // Set once: this call is a task from the beginning.
        let _ = ctx.call().task.set(task.clone());
    }
    let Some(root) = core.supervisor.load_full() else { return };
    let run = Run::new(target, ctx, Params::default(), Side::Task(guard), record, None, span);
    spawn(run, root.get_cell()).await;
}
