//! Events for an actor of the host, whose mailbox has no bound.

use std::collections::vec_deque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{ActorRef, ActorStatus};

use super::ring::Ring;
use super::{EngineEvent, EventSubscriber};

struct Waiting {
    ring: Ring,
    batch_sent: bool,
}

/// Sends a batch to an actor, and no further one until the actor has read it.
pub(super) struct ActorSubscriber<M, W> {
    // Apart from the actor: a batch must not keep the mailbox of its own actor alive.
    waiting: Arc<Mutex<Waiting>>,
    actor: ActorRef<M>,
    wrap: W,
}

impl<M, W> ActorSubscriber<M, W> {
    pub(super) fn new(actor: ActorRef<M>, capacity: usize, wrap: W) -> Self {
        let waiting = Waiting { ring: Ring::new(capacity), batch_sent: false };
        Self { waiting: Arc::new(Mutex::new(waiting)), actor, wrap }
    }
}

impl<M, W> EventSubscriber for ActorSubscriber<M, W>
where
    M: ractor::Message,
    W: Fn(EventBatch) -> M + Send + Sync,
{
    fn push(&self, event: &EngineEvent) -> bool {
        // Checked for each event: if a batch is never read, no further one is sent, and no send
        // would notice that the actor has ended.
        if self.actor.get_status() >= ActorStatus::Draining {
            return false;
        }
        {
            let mut waiting = self.waiting.lock();
            waiting.ring.push(event.clone());
            if std::mem::replace(&mut waiting.batch_sent, true) {
                return true;
            }
        }
        let batch = EventBatch(Some(self.waiting.clone()));
        // `wrap` is the host's code; its panic must not end the caller.
        catch_unwind(AssertUnwindSafe(|| self.actor.cast((self.wrap)(batch)).is_ok()))
            .unwrap_or_else(|_| {
                crate::log!(error, actor = %self.actor.get_id(), "wrapping a batch of events panicked");
                false
            })
    }

    fn close(&self) {
        // A batch that is on its way can still be read.
    }
}

/// Notifies an actor that events wait for it; from [`Engine::subscribe`](crate::Engine::subscribe).
///
/// Iterating takes all events that wait at that moment, in order, and allows the next batch. If a
/// batch is dropped instead, no event is lost: the next event sends a batch with all that wait.
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
        // Taken out, because the drop at the end must not reset the flag of a later event.
        let waiting = self.0.take();
        let taken = waiting.map(|waiting| {
            let mut waiting = waiting.lock();
            waiting.batch_sent = false;
            waiting.ring.take()
        });
        taken.unwrap_or_default().into_iter()
    }
}

impl Drop for EventBatch {
    fn drop(&mut self) {
        if let Some(waiting) = &self.0 {
            waiting.lock().batch_sent = false;
        }
    }
}
