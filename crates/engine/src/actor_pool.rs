//! Actors of one kind that are reused, because the birth and the death of an actor cost more than
//! most of its work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorRef, ActorStatus};

/// Idle actors that are kept. One more stops as soon as it is idle.
const MAX_IDLE: usize = 1_024;

/// The actors of one kind at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ActorPoolView {
    /// Actors that work: each runs a call, or serves a session.
    pub working: usize,
    /// Actors that wait for work.
    pub idle: usize,
}

/// An actor that belongs to a pool. It [gives itself back](ActorPool::give_back) when it is idle.
pub(crate) trait Pooled:
    Actor<Arguments = Arc<ActorPool<Self>>, State = PoolMember<Self>> + Default + Sized
{
}

/// The actors of one kind, which belong to the supervisor of their engine.
pub(crate) struct ActorPool<A: Actor> {
    supervisor: ArcSwapOption<ActorCell>,
    idle: Mutex<Idle<A::Msg>>,
    /// Actors that exist.
    actors: AtomicUsize,
}

struct Idle<M> {
    /// The actor that became idle last is used first: its memory is still in the cache.
    actors: Vec<ActorRef<M>>,
    /// The fewest idle actors since the last [sweep](ActorPool::sweep): so many were not needed.
    fewest: usize,
}

impl<A: Actor> Default for ActorPool<A> {
    fn default() -> Self {
        Self {
            supervisor: ArcSwapOption::empty(),
            idle: Mutex::new(Idle { actors: Vec::new(), fewest: 0 }),
            actors: AtomicUsize::new(0),
        }
    }
}

impl<A: Actor> fmt::Debug for ActorPool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorPool").field("actors", &self.actors).finish_non_exhaustive()
    }
}

impl<A: Pooled> ActorPool<A> {
    /// Sets the supervisor of all actors.
    pub(crate) fn open(&self, supervisor: ActorCell) {
        self.supervisor.store(Some(Arc::new(supervisor)));
    }

    /// Forgets all actors, because the supervisor ends, and they end with it.
    pub(crate) fn close(&self) {
        self.supervisor.store(None);
        self.idle.lock().actors.clear();
    }

    /// An idle actor, if there is one.
    pub(crate) fn idle(&self) -> Option<ActorRef<A::Msg>> {
        let mut idle = self.idle.lock();
        loop {
            let actor = idle.actors.pop();
            idle.fewest = idle.fewest.min(idle.actors.len());
            // An actor may have been killed while it was idle.
            if actor.as_ref().is_none_or(|actor| actor.get_status() <= ActorStatus::Running) {
                return actor;
            }
        }
    }

    /// An idle actor, or a new one. `None` if the engine has stopped.
    pub(crate) async fn get(self: &Arc<Self>) -> Option<ActorRef<A::Msg>> {
        match self.idle() {
            Some(actor) => Some(actor),
            // Boxed to keep the common future small: few get a new actor.
            None => Box::pin(self.spawn()).await,
        }
    }

    async fn spawn(self: &Arc<Self>) -> Option<ActorRef<A::Msg>> {
        let supervisor = ActorCell::clone(&*self.supervisor.load_full()?);
        match Actor::spawn_linked(None, A::default(), self.clone(), supervisor).await {
            Ok((actor, _)) => Some(actor),
            Err(error) => {
                crate::log!(error, %error, "an actor could not be started");
                None
            }
        }
    }

    /// Takes an actor back that is idle. It stops if there are enough idle ones.
    pub(crate) fn give_back(&self, actor: ActorRef<A::Msg>) {
        let surplus = {
            let mut idle = self.idle.lock();
            if idle.actors.len() < MAX_IDLE && self.supervisor.load().is_some() {
                idle.actors.push(actor);
                return;
            }
            actor
        };
        stop(&surplus);
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

    pub(crate) fn view(&self) -> ActorPoolView {
        let idle = self.idle.lock().actors.len();
        ActorPoolView { working: self.actors.load(Ordering::Relaxed).saturating_sub(idle), idle }
    }

    /// A new member of the pool, for the actor that begins.
    pub(crate) fn member(self: Arc<Self>) -> PoolMember<A> {
        self.actors.fetch_add(1, Ordering::Relaxed);
        PoolMember { pool: self, has_worked: false }
    }
}

/// Stops an idle actor. The supervisor has nothing to do for it, so it is not woken.
fn stop<M>(actor: &ActorRef<M>) {
    if let Some(supervisor) = actor.try_get_supervisor() {
        actor.unlink(supervisor);
    }
    actor.stop(None);
}

/// One actor among those that exist: the state of each.
pub(crate) struct PoolMember<A: Actor> {
    pool: Arc<ActorPool<A>>,
    has_worked: bool,
}

impl<A: Actor> PoolMember<A> {
    pub(crate) fn pool(&self) -> &ActorPool<A> {
        &self.pool
    }

    /// Lets others run before the first work of an actor that runs an author's code. Its birth has
    /// woken the supervisor, which tokio runs next on this thread and on no other: code that blocks
    /// the thread would hold the supervisor up.
    pub(crate) async fn before_work(&mut self) {
        if !std::mem::replace(&mut self.has_worked, true) {
            tokio::task::yield_now().await;
        }
    }
}

impl<A: Actor> Drop for PoolMember<A> {
    fn drop(&mut self) {
        self.pool.actors.fetch_sub(1, Ordering::Relaxed);
    }
}
