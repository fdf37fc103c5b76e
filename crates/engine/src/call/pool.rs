//! **Owns** one running call at a time: the author's code and the one response to its request.
//! **Receives** the calls to run. A call is cancelled by a token, not by a message.
//! **Sends** progress, log messages, questions and the response into the stream of its request.
//! **Dies when** it is idle and not needed, when it is killed, or when the engine stops.
//! **Restarts as** nothing: the client is answered at once, also when the actor is killed; and the
//! next call that finds no idle actor makes a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, MessagingErr};

use super::run::Run;

/// Idle actors that are kept. One more stops as soon as its call has ended.
const MAX_IDLE: usize = 1_024;

#[derive(Debug)]
pub(crate) enum TaskMsg {
    Run(Box<Run>),
}

crate::message!(TaskMsg);

/// The task actors of an engine at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskPoolView {
    /// Actors that run a call.
    pub running: usize,
    /// Actors that wait for a call.
    pub idle: usize,
}

/// The task actors of an engine, which belong to its supervisor. An actor runs one call after the
/// other, because its birth and its death cost more than most calls.
#[derive(Debug, Default)]
pub(crate) struct TaskPool {
    supervisor: ArcSwapOption<ActorCell>,
    idle: Mutex<Idle>,
    /// Actors that exist.
    actors: AtomicUsize,
}

#[derive(Debug, Default)]
struct Idle {
    /// The actor that became idle last comes first: its memory is still in the cache.
    actors: Vec<ActorRef<TaskMsg>>,
    /// The fewest idle actors since the last [sweep](TaskPool::sweep): so many were not needed.
    fewest: usize,
}

impl TaskPool {
    /// Sets the supervisor of all actors.
    pub(crate) fn open(&self, supervisor: ActorCell) {
        self.supervisor.store(Some(Arc::new(supervisor)));
    }

    /// Forgets all actors, because the supervisor ends, and they end with it.
    pub(crate) fn close(&self) {
        self.supervisor.store(None);
        self.idle.lock().actors.clear();
    }

    /// Runs a call in an idle actor, or in a new one. If the engine has stopped, the call is
    /// dropped, and answers.
    pub(crate) async fn run(self: &Arc<Self>, run: Box<Run>) {
        let mut message = TaskMsg::Run(run);
        while let Some(actor) = self.take_idle() {
            match actor.cast(message) {
                Ok(()) => return,
                // The actor has been killed meanwhile.
                Err(MessagingErr::SendErr(returned)) => message = returned,
                Err(_) => return,
            }
        }
        // Boxed to keep the common future small: few calls need a new actor.
        Box::pin(self.spawn(message)).await;
    }

    async fn spawn(self: &Arc<Self>, first: TaskMsg) {
        let Some(supervisor) = self.supervisor.load_full() else { return };
        let (pool, supervisor) = (self.clone(), ActorCell::clone(&supervisor));
        match Actor::spawn_linked(None, TaskActor, pool, supervisor).await {
            Ok((actor, _)) => {
                let _ = actor.cast(first);
            }
            // The call is dropped here, and answers.
            Err(error) => crate::log!(error, %error, "a call could not be started"),
        }
    }

    fn take_idle(&self) -> Option<ActorRef<TaskMsg>> {
        let mut idle = self.idle.lock();
        let actor = idle.actors.pop();
        idle.fewest = idle.fewest.min(idle.actors.len());
        actor
    }

    /// Takes an actor back whose call has ended. `false` if there are enough idle ones.
    fn put_idle(&self, actor: ActorRef<TaskMsg>) -> bool {
        let mut idle = self.idle.lock();
        let may_stay = idle.actors.len() < MAX_IDLE;
        if may_stay {
            idle.actors.push(actor);
        }
        may_stay
    }

    /// Stops the actors that were not needed since the last sweep.
    pub(crate) fn sweep(&self) {
        let not_needed: Vec<_> = {
            let mut idle = self.idle.lock();
            let count = idle.fewest.min(idle.actors.len());
            let not_needed = idle.actors.drain(..count).collect();
            idle.fewest = idle.actors.len();
            not_needed
        };
        not_needed.iter().for_each(stop);
    }

    pub(crate) fn view(&self) -> TaskPoolView {
        let idle = self.idle.lock().actors.len();
        TaskPoolView { running: self.actors.load(Ordering::Relaxed).saturating_sub(idle), idle }
    }
}

/// Stops an idle actor. The supervisor has nothing to do for it, so it is not woken.
fn stop(actor: &ActorRef<TaskMsg>) {
    if let Some(supervisor) = actor.try_get_supervisor() {
        actor.unlink(supervisor);
    }
    actor.stop(None);
}

/// One actor among those that exist.
#[derive(Debug)]
pub(crate) struct Member(Arc<TaskPool>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.actors.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) struct TaskActor;

impl Actor for TaskActor {
    type Msg = TaskMsg;
    type State = Member;
    type Arguments = Arc<TaskPool>;

    async fn pre_start(
        &self,
        _myself: ActorRef<TaskMsg>,
        pool: Arc<TaskPool>,
    ) -> Result<Member, ActorProcessingErr> {
        pool.actors.fetch_add(1, Ordering::Relaxed);
        Ok(Member(pool))
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskMsg>,
        message: TaskMsg,
        Member(pool): &mut Member,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TaskMsg::Run(run) => on_run(myself, run, pool).await,
        }
        Ok(())
    }
}

async fn on_run(myself: ActorRef<TaskMsg>, run: Box<Run>, pool: &TaskPool) {
    run.run().await;
    if !pool.put_idle(myself.clone()) {
        stop(&myself);
    }
}
