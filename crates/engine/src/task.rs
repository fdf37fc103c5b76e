//! **Owns** one running call: the author's code and the one answer to it.
//! **Receives** nothing but the word to run; cancelling is a token, so that it needs no turn.
//! **Sends** progress, log messages and the answer into the outlet of its request.
//! **Dies when** the code returns, panics, is cancelled, or the session dies.
//! **Restarts as** nothing: the caller is answered at once, also when this actor is killed.

mod cancel;
mod context;
mod responder;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Request, RequestMeta};
use tokio::time::{Duration, sleep};
use tracing::Instrument as _;

pub use cancel::CancelReason;
pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCalls};
use context::Call;
pub use context::Context;
pub(crate) use responder::{Held, Responder};

use crate::core::Core;
use crate::dispatch::Target;
use crate::outlet::{Gate, Outlet};
use crate::session::Caller;

/// Everything a call needs to run.
pub(crate) struct TaskArgs {
    target: Target,
    ctx: Context,
    cancel: Cancel,
    timeout: Option<Duration>,
    responder: Responder,
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
    let TaskArgs { target, ctx, cancel, timeout, responder, span } = *args;
    let label = target.label();
    // Also the call that makes the future is the author's code.
    let code =
        AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind().instrument(span);
    let deadline = async {
        match timeout {
            Some(timeout) => sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // The code first: told to end, it is polled once more before it is dropped.
        biased;
        outcome = code => match outcome {
            Ok(outcome) => responder.answer(outcome),
            Err(_panic) => {
                responder.answer(Err(ErrorObject::internal(format!("{label} panicked"))));
                return Err(format!("{label} panicked").into());
            }
        },
        () = cancel.token().cancelled() => end(responder, &cancel),
        () = deadline => {
            cancel.cancel(CancelReason::TimedOut);
            end(responder, &cancel);
        }
    }
    myself.stop(None);
    Ok(())
}

fn end(responder: Responder, cancel: &Cancel) {
    match cancel.reason().error() {
        Some(error) => responder.answer(Err(error)),
        None => responder.withhold(),
    }
}

/// Who is asked, and how the answer gets back.
pub(crate) struct Start {
    pub(crate) request: Request,
    pub(crate) meta: RequestMeta,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) outlet: Outlet,
    pub(crate) cancel: Cancel,
    pub(crate) held: Held,
}

/// Runs a call in a task actor of its own, linked to `parent`. The request is answered in
/// any case.
pub(crate) async fn start(core: &Arc<Core>, parent: ActorCell, start: Start) {
    let Start { request, meta, caller, target, outlet, cancel, mut held } = start;
    held.running = Some(core.calls.token());
    let gate = Arc::new(Gate::new(meta.progress_token.clone()));
    let era = caller.version.era();
    let span = tracing::info_span!(
        "mcp.call",
        mcp.method.name = %request.method,
        mcp.session.id = caller.session.as_ref().map(tracing::field::debug),
        jsonrpc.request.id = %request.id,
        subject = target.subject(),
        traceparent = meta.trace.traceparent.as_deref(),
    );
    let responder = Responder::new(
        core.clone(),
        outlet.clone(),
        gate.clone(),
        cancel.clone(),
        era,
        request.id.clone(),
        held,
    );
    let ctx = Context::new(Call {
        core: core.clone(),
        caller,
        request: request.id,
        meta,
        subject: target.subject().to_owned(),
        outlet,
        gate,
        cancel: cancel.clone(),
    });
    let timeout = core.config.call_timeout;
    let args = Box::new(TaskArgs { target, ctx, cancel, timeout, responder, span });
    if let Err(error) = Actor::spawn_linked(None, TaskActor, args, parent).await {
        // The responder was dropped, which has answered.
        tracing::error!(%error, "a call could not be started");
    }
}

/// A finished answer for a request that needs no task.
pub(crate) fn answer_now(
    core: &Core,
    era: stentor_wire::Era,
    id: &stentor_wire::Id,
    outcome: &Result<ResultBody, ErrorObject>,
) -> (bytes::Bytes, Option<i32>) {
    use stentor_wire::encode;
    match outcome {
        Ok(result) => (encode::response(id, era, &core.identity, result), None),
        Err(error) => (encode::error(Some(id), error), Some(error.code)),
    }
}
