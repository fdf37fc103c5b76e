//! **Owns** one running call: the author's code and the one answer to it. A call that is done as
//! soon as it is looked at needs no actor (see [`pace`]).
//! **Receives** nothing but the word to run; cancelling is a token, so that it needs no turn.
//! **Sends** progress, log messages, questions and the answer into the outlet of its request.
//! **Dies when** the code returns, panics, is cancelled, or the session dies.
//! **Restarts as** nothing: the caller is answered at once, also when this actor is killed.

mod ask;
mod cancel;
mod context;
mod lane;
mod pace;
mod record;
mod responder;
mod room;
mod rounds;
mod run;
mod seal;
mod start;
mod stateless;
mod suspended;
mod visit;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use stentor_wire::ErrorObject;
use stentor_wire::encode::{self, ResultBody};

pub use ask::{AskError, Elicit, InputRequired, Root, Sample, Sampled};
pub use cancel::CancelReason;
pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCall, OpenCalls};
pub use context::Context;
pub(crate) use pace::Pace;
pub use record::CallView;
pub(crate) use record::RunningCalls;
pub(crate) use responder::Responder;
pub(crate) use room::charge;
pub(crate) use rounds::Rounds;
pub(crate) use run::Run;
pub use seal::StateKey;
pub(crate) use seal::{Binding, Sealed, Sealer};
pub(crate) use start::{Start, begin, enter, resume, run};
pub(crate) use stateless::{CallPermit, StatelessCalls};
pub(crate) use suspended::Suspended;
pub use visit::UrlElicitation;

use crate::core::Core;
use crate::offload::LARGE;
use crate::session::Caller;

#[derive(Debug)]
pub(crate) enum TaskMsg {
    Run,
}

crate::message!(TaskMsg);

pub(crate) struct TaskActor;

impl Actor for TaskActor {
    type Msg = TaskMsg;
    type State = Option<Box<Run>>;
    type Arguments = Box<Run>;

    async fn pre_start(
        &self,
        myself: ActorRef<TaskMsg>,
        run: Box<Run>,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.cast(TaskMsg::Run)?;
        Ok(Some(run))
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
    state: &mut Option<Box<Run>>,
) -> Result<(), ActorProcessingErr> {
    let Some(mut run) = state.take() else { return Ok(()) };
    run.run_in(myself.get_cell()).await?;
    myself.stop(None);
    Ok(())
}

/// A finished answer for a request that needs no task.
pub(crate) fn answer_now(
    core: &Core,
    caller: &Caller,
    id: &stentor_wire::Id,
    outcome: &Result<ResultBody, ErrorObject>,
) -> (bytes::Bytes, Option<i32>) {
    match outcome {
        Ok(result) => {
            let mut answer = encode::response(id, caller.era(), &core.identity, result);
            if answer.len() > LARGE {
                answer = core.requests.of(&caller.share()).counted(answer);
            }
            (answer, None)
        }
        Err(error) => (encode::error(Some(id), error), Some(error.code)),
    }
}
