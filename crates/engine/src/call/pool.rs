//! **Owns** one running call at a time: the author's code and the one response to its request.
//! **Receives** the calls to run. A call is cancelled by a token, not by a message.
//! **Sends** progress, log messages, questions and the response into the stream of its request.
//! **Dies when** it is idle and not needed, when it is killed, or when the engine stops.
//! **Restarts as** nothing: the client is answered at once, also when the actor is killed; and the
//! next call that finds no idle actor makes a new one.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};

use super::run::Run;
use crate::actor_pool::{ActorPool, PoolMember, Pooled};

#[derive(Debug)]
pub(crate) enum TaskMsg {
    Run(Box<Run>),
}

crate::message!(TaskMsg);

#[derive(Debug, Default)]
pub(crate) struct TaskActor;

impl Pooled for TaskActor {}

impl Actor for TaskActor {
    type Msg = TaskMsg;
    type State = PoolMember<Self>;
    type Arguments = Arc<ActorPool<Self>>;

    async fn pre_start(
        &self,
        _myself: ActorRef<TaskMsg>,
        pool: Arc<ActorPool<Self>>,
    ) -> Result<PoolMember<Self>, ActorProcessingErr> {
        Ok(pool.member())
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskMsg>,
        message: TaskMsg,
        member: &mut PoolMember<Self>,
    ) -> Result<(), ActorProcessingErr> {
        member.before_work().await;
        match message {
            TaskMsg::Run(run) => run.run().await,
        }
        member.pool().give_back(myself);
        Ok(())
    }
}

/// Runs a call in a task actor. If the engine has stopped, the call is dropped, and answers.
pub(crate) async fn run(pool: &Arc<ActorPool<TaskActor>>, run: Box<Run>) {
    let mut message = TaskMsg::Run(run);
    while let Some(actor) = pool.get().await {
        match actor.cast(message) {
            Err(MessagingErr::SendErr(returned)) => message = returned,
            _ => return,
        }
    }
}
