//! **Owns** one running call: the author's code and the one answer to it.
//! **Receives** nothing but the word to run; cancelling is a token, so that it needs no turn.
//! **Sends** progress, log messages, questions and the answer into the outlet of its request.
//! **Dies when** the code returns, panics, is cancelled, or the session dies.
//! **Restarts as** nothing: the caller is answered at once, also when this actor is killed.

mod ask;
mod cancel;
mod context;
mod record;
mod responder;
mod rounds;
mod seal;
mod suspended;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::params::Retry;
use stentor_wire::{Era, ErrorObject, Request, RequestMeta};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep};
use tracing::Instrument as _;

pub use ask::{AskError, Elicit, InputRequired, Root, Sample, Sampled};
pub use cancel::CancelReason;
pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCall, OpenCalls};
pub use context::Context;
use context::{Call, Lane};
pub use record::CallView;
use record::Record;
pub(crate) use record::RunningCalls;
pub(crate) use responder::Responder;
use responder::Running;
use rounds::Rounds;
pub(crate) use seal::Sealer;
pub use seal::StateKey;
use seal::{Binding, Sealed, StateError};
pub(crate) use suspended::Suspended;
use suspended::{Place, Resume, Waiting};

use crate::core::Core;
use crate::dispatch::{Failure, Target};
use crate::events::{CallOutcome, CallRef};
use crate::outlet::Gate;
use crate::session::{Caller, FinishStreams, Questions};

/// Everything a call needs to run.
pub(crate) struct TaskArgs {
    target: Target,
    ctx: Context,
    binding: Binding,
    responder: Responder,
    record: Record,
    span: tracing::Span,
}

#[derive(Debug)]
pub(crate) enum TaskMsg {
    Run,
}

crate::message!(TaskMsg);

pub(crate) struct TaskActor;

impl Actor for TaskActor {
    type Msg = TaskMsg;
    type State = Option<Box<TaskArgs>>;
    type Arguments = Box<TaskArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<TaskMsg>,
        args: Box<TaskArgs>,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.cast(TaskMsg::Run)?;
        Ok(Some(args))
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskMsg>,
        message: TaskMsg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TaskMsg::Run => on_run(&myself, state).await,
        }
    }
}

async fn on_run(
    myself: &ActorRef<TaskMsg>,
    state: &mut Option<Box<TaskArgs>>,
) -> Result<(), ActorProcessingErr> {
    let Some(args) = state.take() else { return Ok(()) };
    let TaskArgs { target, ctx, binding, responder, record, span } = *args;
    let label = target.label();
    let mut run = Run { ctx: ctx.clone(), binding, side: Side::Attached(responder), record };
    // Also the call that makes the future is the author's code.
    let code =
        AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind().instrument(span);
    let finished = run.drive(code).await;
    let outcome = match finished {
        None => {
            run.end();
            myself.stop(None);
            return Ok(());
        }
        // What it came to as it was told to end is no answer, but for a result that somebody waits
        // for.
        Some(Ok(outcome)) if run.is_moot(&outcome) => {
            run.end();
            myself.stop(None);
            return Ok(());
        }
        Some(Ok(outcome)) => outcome,
        Some(Err(_panic)) => {
            run.answer(Err(ErrorObject::internal(format!("{label} panicked")).into())).await;
            return Err(format!("{label} panicked").into());
        }
    };
    run.answer(outcome).await;
    myself.stop(None);
    Ok(())
}

/// A call while it runs.
struct Run {
    ctx: Context,
    binding: Binding,
    side: Side,
    record: Record,
}

/// Whether a request of the client waits for the call, or the call for a request.
enum Side {
    Attached(Responder),
    Suspended { resumed: oneshot::Receiver<Resume>, until: Instant, _place: Place },
    Over,
}

impl Run {
    /// Runs the code to its end; `None` if it was told to end before.
    async fn drive<T>(&mut self, code: impl Future<Output = T>) -> Option<T> {
        let call = self.ctx.call();
        let (cancel, rounds) = (call.cancel.clone(), call.rounds.clone());
        let mut code = pin!(code);
        let mut deadline = pin!(deadline(call.core.config.call_timeout));
        loop {
            let attached = matches!(self.side, Side::Attached(_));
            tokio::select! {
                // The code first: told to end, it is polled once more before it is dropped, and
                // all that it asks before it waits is asked together.
                biased;
                finished = &mut code => return Some(finished),
                () = cancel.token().cancelled() => return None,
                () = &mut deadline => {
                    cancel.cancel(CancelReason::TimedOut);
                    return None;
                }
                () = rounds.asked(), if attached => self.suspend(),
                () = self.resumed(), if !attached => {}
            }
        }
    }

    /// Answers the request with the questions, and waits for the client to retry.
    fn suspend(&mut self) {
        let call = self.ctx.call();
        let (resume, resumed) = oneshot::channel();
        let waiting = Waiting { cancel: call.cancel.clone(), resume };
        let Some(place) = call.core.suspended.insert(waiting) else {
            // No room to wait: the code goes on without an answer.
            return call.rounds.fail();
        };
        let sealed = Sealed::Waiting(place.handle());
        let state = call.core.sealer.seal(&sealed, &self.binding, SystemTime::now());
        let round = call.rounds.round();
        let until = Instant::now() + call.core.config.ask_timeout;
        let side = Side::Suspended { resumed, until, _place: place };
        if let Side::Attached(responder) = std::mem::replace(&mut self.side, side) {
            responder.ask(&round, &state);
        }
    }

    /// Waits for the client's retry. Ends the call if none comes in time. Cancel safe.
    async fn resumed(&mut self) {
        let Side::Suspended { resumed, until, .. } = &mut self.side else { return };
        let call = self.ctx.call();
        let resume = match tokio::time::timeout_at(*until, resumed).await {
            Ok(Ok(resume)) => resume,
            _ => return call.cancel.cancel(CancelReason::Abandoned),
        };
        let Resume { lane, responder, answers } = resume;
        call.lane.store(Arc::new(lane));
        self.side = Side::Attached(responder);
        call.rounds.deliver(answers);
    }

    /// Answers the client, if need be when it retries.
    async fn answer(&mut self, outcome: Result<ResultBody, Failure>) {
        while matches!(self.side, Side::Suspended { .. }) && !self.ctx.is_cancelled() {
            self.resumed().await;
        }
        let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Over) else {
            return;
        };
        let outcome = match outcome {
            Ok(result) => Ok(result),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Ask(asked)) => match asked.check(&self.ctx) {
                Ok(()) => {
                    self.record.answered(CallOutcome::Ok);
                    return responder.ask(&asked.questions, &self.seal(&asked));
                }
                Err(error) => Err(error),
            },
        };
        self.record.answered(CallOutcome::of(&outcome));
        responder.answer(outcome);
    }

    fn seal(&self, asked: &InputRequired) -> String {
        let sealed = Sealed::Explicit(asked.state.to_string().into_bytes());
        self.ctx.call().core.sealer.seal(&sealed, &self.binding, SystemTime::now())
    }

    /// Whether the call was cancelled before it came to this.
    fn is_moot(&self, outcome: &Result<ResultBody, Failure>) -> bool {
        self.ctx.is_cancelled()
            && (outcome.is_err() || self.ctx.call().cancel.reason().error().is_none())
    }

    /// Ends the call as its cancellation says.
    fn end(&mut self) {
        if let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Over) {
            match self.ctx.call().cancel.reason().error() {
                Some(error) => responder.answer(Err(error)),
                None => responder.withhold(),
            }
        }
    }
}

async fn deadline(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// A call that may run: who asks for what, and how the answer gets back.
pub(crate) struct Start {
    pub(crate) request: Request,
    pub(crate) meta: RequestMeta,
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
}

/// What a request that may be a retry brings with it.
pub(crate) enum Entry {
    /// It begins a call.
    New { retry: Retry, explicit: Option<serde_json::Value>, binding: Binding },
    /// It answers the questions of a call that waits.
    Retry { waiting: Waiting, retry: Retry },
}

impl Entry {
    /// How a call that waits is cancelled, so that the new request can do so, too.
    pub(crate) fn cancel(&self, core: &Core) -> Cancel {
        match self {
            Self::New { .. } => Cancel::within(core),
            Self::Retry { waiting, .. } => waiting.cancel.clone(),
        }
    }
}

/// Tells a new call from a retry (2026-07-28, basic/patterns/mrtr).
pub(crate) fn enter(core: &Core, caller: &Caller, request: &Request) -> Result<Entry, ErrorObject> {
    let binding = Binding::new(caller.principal.as_deref(), &request.method, &request.params);
    let retry = match caller.era() {
        Era::Modern if request.method.may_ask() => request.params.parse::<Retry>()?,
        _ => Retry::default(),
    };
    let refused = |error: StateError| ErrorObject::invalid_params(error.to_string());
    let Some(state) = &retry.request_state else {
        return Ok(Entry::New { retry, explicit: None, binding });
    };
    let sealed = core.sealer.open(state, &binding, SystemTime::now()).map_err(refused)?;
    match sealed {
        Sealed::Waiting(handle) => {
            let waiting = core.suspended.take(&handle);
            let waiting = waiting.ok_or_else(|| refused(StateError::Expired))?;
            Ok(Entry::Retry { waiting, retry })
        }
        Sealed::Explicit(state) => {
            let explicit = serde_json::from_slice(&state).ok();
            Ok(Entry::New { retry, explicit, binding })
        }
    }
}

/// Begins a call in a task actor of its own, linked to `parent`, or goes on with one that
/// waits. The request is answered in any case.
pub(crate) async fn start(core: &Arc<Core>, parent: ActorCell, start: Start, responder: Responder) {
    let Start { request, meta, caller, target, entry, cancel, open, streams, questions } = start;
    let gate = Arc::new(Gate::new(meta.progress_token.clone()));
    let outlet = responder.outlet().clone();
    let running = Running {
        gate: gate.clone(),
        cancel: cancel.clone(),
        counted: core.calls.token(),
        streams,
    };
    let responder = responder.running(open, running);
    let meta = Arc::new(meta);
    let lane = Lane::new(outlet, gate, &caller, meta.clone());
    let (retry, explicit, binding) = match entry {
        Entry::New { retry, explicit, binding } => (retry, explicit, binding),
        Entry::Retry { waiting, retry } => {
            let answers = retry.input_responses.unwrap_or_default();
            let resume = Resume { lane, responder, answers };
            // A call that ended just now drops the responder, which answers.
            let _ = waiting.resume.send(resume);
            return;
        }
    };
    let id = core.running.next_id();
    let subject: Arc<str> = target.subject().into();
    let call = CallRef {
        id,
        session: caller.session.clone(),
        request: request.id.clone(),
        subject: subject.clone(),
    };
    let span = tracing::info_span!(
        "mcp.call",
        call = %id,
        mcp.method.name = %request.method,
        mcp.session.id = caller.session.as_ref().map(tracing::field::debug),
        jsonrpc.request.id = %request.id,
        subject = &*subject,
        traceparent = meta.trace.traceparent.as_deref(),
        tracestate = meta.trace.tracestate.as_deref(),
    );
    let record = Record::new(core.clone(), call.clone(), request.method, cancel.clone());
    let ctx = Context::new(Call {
        core: core.clone(),
        caller,
        call,
        cancel,
        lane: ArcSwap::from_pointee(lane),
        rounds: Arc::new(Rounds::with_given(retry.input_responses.unwrap_or_default())),
        questions,
        explicit,
    });
    let args = Box::new(TaskArgs { target, ctx, binding, responder, record, span });
    if let Err(error) = Actor::spawn_linked(None, TaskActor, args, parent).await {
        // The responder was dropped, which has answered.
        tracing::error!(%error, "a call could not be started");
    }
}

/// A finished answer for a request that needs no task.
pub(crate) fn answer_now(
    core: &Core,
    era: Era,
    id: &stentor_wire::Id,
    outcome: &Result<ResultBody, ErrorObject>,
) -> (bytes::Bytes, Option<i32>) {
    match outcome {
        Ok(result) => (encode::response(id, era, &core.identity, result), None),
        Err(error) => (encode::error(Some(id), error), Some(error.code)),
    }
}
