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
mod run;
mod seal;
mod start;
mod suspended;

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::{Era, ErrorObject};
use tracing::Instrument as _;

pub use ask::{AskError, Elicit, InputRequired, Root, Sample, Sampled};
pub use cancel::CancelReason;
pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCall, OpenCalls};
pub use context::Context;
pub use record::CallView;
use record::Record;
pub(crate) use record::RunningCalls;
pub(crate) use responder::Responder;
pub(crate) use rounds::Rounds;
use run::{Run, Side};
use seal::Binding;
pub(crate) use seal::Sealer;
pub use seal::StateKey;
pub(crate) use start::{Start, enter, resume, start};
pub(crate) use suspended::Suspended;

use crate::core::Core;
use crate::dispatch::Target;

/// Everything a call needs to run.
pub(crate) struct TaskArgs {
    target: Target,
    ctx: Context,
    binding: Binding,
    side: Side,
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
    let TaskArgs { target, ctx, binding, side, record, span } = *args;
    let label = target.label();
    let as_task = target.as_task();
    let mut run = Run { ctx: ctx.clone(), binding, side, record, myself: myself.get_cell() };
    // Also the call that makes the future is the author's code.
    let code =
        AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind().instrument(span);
    let finished = match run.begin(as_task).await {
        true => run.drive(code, as_task).await,
        false => None,
    };
    match finished {
        None => run.end().await,
        Some(Ok(outcome)) if run.is_moot(&outcome) => run.end().await,
        Some(Ok(outcome)) => run.answer(outcome).await,
        Some(Err(_panic)) => {
            run.answer(Err(ErrorObject::internal(format!("{label} panicked")).into())).await;
            return Err(format!("{label} panicked").into());
        }
    }
    myself.stop(None);
    Ok(())
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
