//! How a call begins: anew, as the retry of one that waits, or after a restart of the server.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ractor::{Actor, ActorCell};
use stentor_wire::params::Retry;
use stentor_wire::{Era, ErrorObject, Params, Request, RequestMeta};
use tokio::sync::Notify;

use super::cancel::gave_way;
use super::context::{Call, Context};
use super::lane::{Lane, Lanes};
use super::record::Record;
use super::responder::{Responder, Running};
use super::rounds::Rounds;
use super::run::{Run, Side};
use super::seal::{Binding, Sealed, StateError};
use super::suspended::{Resume, Waiting};
use super::{Cancel, OpenCall, TaskActor};
use crate::core::Core;
use crate::dispatch::Target;
use crate::events::CallRef;
use crate::handler::{Arguments, ToolEntry};
use crate::ids::NodeId;
use crate::log::quietly;
use crate::outlet::Gate;
use crate::request_budget::Charge;
use crate::session::{Caller, FinishStreams, Questions, Session};
use crate::tasks::{LiveTask, TaskRecord};

/// A call that may run: who asks for what, and how the answer gets back.
pub(crate) struct Start {
    pub(crate) request: Box<Request>,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) entry: Entry,
    pub(crate) cancel: Cancel,
    /// Its place among the open calls of a session.
    pub(crate) open: Option<OpenCall>,
    /// What it may still answer on.
    pub(crate) streams: Option<Arc<FinishStreams>>,
    /// Where a legacy call asks.
    pub(crate) questions: Option<Questions>,
    /// What is counted of its request.
    pub(crate) charge: Charge,
}

/// What a request that may be a retry brings with it.
pub(crate) enum Entry {
    /// It begins a call.
    New { retry: Retry, explicit: Option<serde_json::Value> },
    /// It answers the questions of a call that waits.
    Retry { waiting: Waiting, retry: Retry },
}

impl Entry {
    /// How a call that waits is cancelled, so that the new request can do so, too.
    pub(crate) fn cancel(&self) -> Cancel {
        match self {
            Self::New { .. } => Cancel::default(),
            Self::Retry { waiting, .. } => waiting.cancel.clone(),
        }
    }
}

/// Tells a new call from a retry (2026-07-28, basic/patterns/mrtr).
pub(crate) fn enter(
    core: &Core,
    caller: &Caller,
    request: &Request,
    target: &Target,
) -> Result<Entry, ErrorObject> {
    if matches!(target, Target::Elsewhere(_)) {
        // The other node tells.
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
    let sealed = core.sealer.open(NodeId::unsigned(state), &binding, SystemTime::now());
    let sealed = sealed.map_err(refused)?;
    match sealed {
        Sealed::Waiting(handle) => {
            let waiting = core.suspended.take(&handle).map_err(refused)?;
            Ok(Entry::Retry { waiting, retry })
        }
        Sealed::Explicit(state) => {
            let explicit = serde_json::from_slice(&state).ok();
            Ok(Entry::New { retry, explicit })
        }
    }
}

/// A call that is [to run](run), or `None` if it is one that waited and now goes on. The request is
/// answered in any case.
///
/// No `async fn`, so that futures have no room for all that a call is made of.
pub(crate) fn begin(core: &Arc<Core>, start: Start, responder: Responder) -> Option<Box<Run>> {
    #[rustfmt::skip]
    let Start {
        request, caller, target, entry, cancel, open, streams, questions, charge,
    } = start;
    let Request { id: request, method, params, meta } = *request;
    let gate = Arc::new(Gate::new(meta.progress_token.clone()));
    let outlet = responder.outlet().clone();
    let running = Running {
        gate: gate.clone(),
        cancel: cancel.clone(),
        counted: core.calls.token(),
        streams,
    };
    let responder = responder.running(open, running);
    let lane = Lane::new(outlet, gate, &caller, meta.clone());
    let (retry, explicit) = match entry {
        Entry::New { retry, explicit } => (retry, explicit),
        Entry::Retry { waiting, retry } => {
            let answers = retry.input_responses.unwrap_or_default();
            let resume = Resume { lane, responder, answers };
            // A call that ended just now drops the responder, which answers.
            let _ = waiting.resume.send(resume);
            return None;
        }
    };
    let given = retry.input_responses.map(|given| Arc::new(Rounds::with_given(given)));
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
        lane: Lanes::new(lane),
        rounds: given.map_or_else(OnceLock::new, OnceLock::from),
        questions,
        explicit,
        arguments: target.task_arguments(),
        handover: Notify::new(),
        handed_over: Notify::new(),
        task: OnceLock::new(),
        checkpoint: None,
    });
    Some(Run::new(target, ctx, params, Side::Attached(responder), record, Some(charge), span))
}

/// Runs a call that begins. One that its like prove to be done at once runs here; any other, and
/// one that turns out not to be, in a task actor of its own, linked to that of
/// its session.
pub(crate) async fn run(run: Box<Run>, session: &Session) {
    if let Err(run) = run.in_place().await {
        // Boxed, as it is large and most calls do without.
        Box::pin(spawn_in(session, run)).await;
    }
}

async fn spawn_in(session: &Session, run: Box<Run>) {
    // Without one the session has ended; what is dropped with the call answers.
    if let Some(parent) = session.actor().await {
        spawn(run, parent.get_cell()).await;
    }
}

async fn spawn(mut run: Box<Run>, parent: ActorCell) {
    run.enlist();
    if let Err(error) = Actor::spawn_linked(None, TaskActor, run, parent).await {
        // What was dropped with it has answered.
        crate::log!(error, %error, "a call could not be started");
    }
}

/// Runs a tool again whose task ran when the last engine with its store ended.
pub(crate) async fn resume(core: &Arc<Core>, tool: Arc<ToolEntry>, task: TaskRecord) {
    let capabilities = serde_json::from_value(task.capabilities.clone()).unwrap_or_default();
    let caller = Caller::of_task(capabilities, task.owner.clone());
    let meta = Arc::new(RequestMeta::default());
    let gate = Arc::new(Gate::closed());
    let cancel = Cancel::default();
    let outlet = crate::session::of_stateless_call(core, &cancel);
    outlet.let_go();
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
    let rounds = Arc::new(Rounds::default());
    let target = Target::Tool(tool, Arguments::from(&task.arguments));
    let ctx = Context::new(Call {
        core: core.clone(),
        lane: Lanes::new(Lane::new(outlet, gate, &caller, meta)),
        caller,
        call,
        cancel: cancel.clone(),
        rounds: rounds.clone().into(),
        questions: None,
        explicit: None,
        arguments: target.task_arguments(),
        handover: Notify::new(),
        handed_over: Notify::new(),
        task: OnceLock::new(),
        checkpoint: task.checkpoint.clone(),
    });
    let guard = LiveTask::run(core, task, rounds, cancel);
    if let Some(task) = guard.task() {
        // Set once: it is one from the beginning.
        let _ = ctx.call().task.set(task.clone());
    }
    let Some(root) = core.refs.root.load_full() else { return };
    let run = Run::new(target, ctx, Params::default(), Side::Task(guard), record, None, span);
    spawn(run, root.get_cell()).await;
}
