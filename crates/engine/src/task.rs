//! **Owns** one running call: the author's code and the one response to its request. A call that
//! ends at its first poll needs no actor (see [`pace`]).
//! **Receives** only the message to run. A call is cancelled by a token, not by a message.
//! **Sends** progress, log messages, questions and the response into the stream of its request.
//! **Dies when** the code returns, panics or is cancelled, or when the session dies.
//! **Restarts as** nothing: the client is answered at once, also when this actor is killed.

mod ask;
mod awaiting_input;
mod cancel;
mod charge;
mod context;
mod output;
mod pace;
mod pending_inputs;
mod record;
mod responder;
mod run;
mod start;
mod state_token;
mod stateless;
mod url_elicitation;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use stentor_wire::ErrorObject;
use stentor_wire::encode::{self, ResultBody};

pub use ask::{AskError, ClientRoot, Elicit, InputRequired, Sample, Sampled};
pub(crate) use awaiting_input::AwaitingInput;

pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCall, OpenCalls};
pub(crate) use charge::charge;
pub use context::Context;
pub(crate) use pace::Pace;
pub(crate) use pending_inputs::PendingInputs;
pub use record::CallView;
pub(crate) use record::RunningCalls;
pub(crate) use responder::Responder;
pub(crate) use run::Run;
pub(crate) use start::{Start, begin, enter, resume, run};
pub use state_token::StateKey;
pub(crate) use state_token::{Binding, StateSealer, StateToken};
pub(crate) use stateless::{CallPermit, StatelessCalls};
pub use url_elicitation::UrlElicitation;

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

/// Encodes the response to a request that runs no call. Also returns the code, if it is an error.
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
