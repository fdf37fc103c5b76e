//! Events for an actor of the host, whose mailbox has no bound.

use std::collections::vec_deque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{ActorRef, ActorStatus};

use super::ring::Ring;
use super::{EngineEvent, Subscriber};

/// What waits for one actor, and whether a batch is on its way there.
struct Waiting {
    ring: Ring,
    rung: bool,
}

/// Rings at an actor, once until it has looked.
pub(super) struct Bell<M, W> {
    // Apart from the rest: a batch must not keep its own actor's mailbox.
    waiting: Arc<Mutex<Waiting>>,
    actor: ActorRef<M>,
    wrap: W,
}

impl<M, W> Bell<M, W> {
    pub(super) fn new(actor: ActorRef<M>, capacity: usize, wrap: W) -> Self {
        let waiting = Waiting { ring: Ring::new(capacity), rung: false };
        Self { waiting: Arc::new(Mutex::new(waiting)), actor, wrap }
    }
}

impl<M, W> Subscriber for Bell<M, W>
where
    M: ractor::Message,
    W: Fn(EventBatch) -> M + Send + Sync,
{
    fn push(&self, event: &EngineEvent) -> bool {
        // Asked each time: a batch that is never read would keep it from being rung at.
        if self.actor.get_status() >= ActorStatus::Draining {
            return false;
        }
        {
            let mut waiting = self.waiting.lock();
            waiting.ring.push(event.clone());
            if std::mem::replace(&mut waiting.rung, true) {
                return true;
            }
        }
        let batch = EventBatch(Some(self.waiting.clone()));
        // The host's code, which must not bring down whoever emits.
        catch_unwind(AssertUnwindSafe(|| self.actor.cast((self.wrap)(batch)).is_ok()))
            .unwrap_or_else(|_| {
                crate::log!(error, actor = %self.actor.get_id(), "wrapping a batch of events panicked");
                false
            })
    }

    fn close(&self) {
        // Its batch can still be read; the subscription itself is gone.
    }
}

/// Word that events wait for an actor; from [`Engine::subscribe`](crate::Engine::subscribe).
///
/// Iterating takes all that wait at that moment, in order, and lets the next batch come. A
/// batch that is dropped instead loses nothing: what waits comes with the next one, which the
/// next event sends.
#[must_use = "events wait until it is iterated"]
pub struct EventBatch(Option<Arc<Mutex<Waiting>>>);

impl fmt::Debug for EventBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBatch").finish_non_exhaustive()
    }
}

impl IntoIterator for EventBatch {
    type Item = EngineEvent;
    type IntoIter = vec_deque::IntoIter<EngineEvent>;

    fn into_iter(mut self) -> Self::IntoIter {
        // Taken out, as the drop at the end must not undo the ring of a later event.
        let waiting = self.0.take();
        let taken = waiting.map(|waiting| {
            let mut waiting = waiting.lock();
            waiting.rung = false;
            waiting.ring.take()
        });
        taken.unwrap_or_default().into_iter()
    }
}

impl Drop for EventBatch {
    fn drop(&mut self) {
        if let Some(waiting) = &self.0 {
            waiting.lock().rung = false;
        }
    }
}
