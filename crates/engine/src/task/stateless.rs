//! Calls that belong to no session: how many may run, and whose.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Cancel, CancelReason};
use crate::session::Caller;
use crate::shares::{Share, Shares, Ticket};

/// How many calls without a session may run at once. While less than half of them do, nobody counts
/// whose they are, but for large ones. When all do, a caller with less gets the place of the oldest one that is known of
/// the greediest.
#[derive(Debug)]
pub(crate) struct StatelessCalls {
    permits: Arc<Semaphore>,
    max: usize,
    crowd: Mutex<Shares<Slot>>,
    /// Calls that gave way and have not ended: the permits that they give back are taken out.
    owed: AtomicUsize,
}

/// From how many bytes on it is counted whose a call is, however few run.
const LARGE: usize = 64 * 1024;

/// How a call is cancelled that is let in first and made then.
type Slot = Arc<OnceLock<Cancel>>;

/// The right of a call to run.
#[derive(Debug)]
pub(crate) struct CallPermit {
    /// `None` for one in the place of another.
    permit: Option<OwnedSemaphorePermit>,
    /// Where it is counted.
    counted: Option<(Arc<StatelessCalls>, Ticket, Slot)>,
}

impl CallPermit {
    /// The call that has it is cancelled so.
    pub(crate) fn is_of(&self, cancel: &Cancel) {
        if let Some((.., slot)) = &self.counted {
            // Set once: a permit is for one call.
            let _ = slot.set(cancel.clone());
        }
    }
}

impl From<OwnedSemaphorePermit> for CallPermit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self { permit: Some(permit), counted: None }
    }
}

impl StatelessCalls {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max));
        Self { permits, max, crowd: Mutex::default(), owed: AtomicUsize::new(0) }
    }

    /// The right to run a call that takes so many bytes. Another call may be cancelled for it. `None` if there is no room.
    pub(crate) fn enter(self: &Arc<Self>, caller: &Caller, bytes: usize) -> Option<CallPermit> {
        let (permit, slot) = (self.permit(), Slot::default());
        if let Some(permit) = permit {
            if bytes <= LARGE && self.permits.available_permits() >= self.max / 2 {
                return Some(permit.into());
            }
            let ticket = self.crowd.lock().insert(caller.share(), bytes, true, slot.clone());
            let counted = Some((self.clone(), ticket, slot));
            return Some(CallPermit { permit: Some(permit), counted });
        }
        let share = caller.share();
        let (ticket, victim) = {
            let mut crowd = self.crowd.lock();
            let ticket = crowd.insert(share.clone(), bytes, true, slot.clone());
            let victim = crowd.busy_gives_way(&share).and_then(|it| crowd.remove(it.ticket));
            let Some(victim) = victim else {
                crowd.remove(ticket);
                return None;
            };
            (ticket, victim)
        };
        self.owed.fetch_add(1, Ordering::AcqRel);
        // One that is just being made runs on.
        if let Some(victim) = victim.get() {
            victim.cancel(CancelReason::GaveWay);
        }
        Some(CallPermit { permit: None, counted: Some((self.clone(), ticket, slot)) })
    }

    /// One call gives way to a caller who has less; returns how many bytes it takes.
    pub(crate) fn give_way(&self, newcomer: &Share) -> Option<usize> {
        let (cost, victim) = {
            let mut crowd = self.crowd.lock();
            let victim = crowd.busy_gives_way(newcomer)?;
            (victim.cost, crowd.remove(victim.ticket)?)
        };
        if let Some(victim) = victim.get() {
            victim.cancel(CancelReason::GaveWay);
        }
        Some(cost)
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let permit = self.permits.clone().try_acquire_owned().ok()?;
            let owed = |owed: usize| owed.checked_sub(1);
            if self.owed.load(Ordering::Acquire) == 0
                || self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, owed).is_err()
            {
                return Some(permit);
            }
            // It is that of a call which gave way, in whose place another one runs.
            permit.forget();
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some((calls, ticket, _)) = &self.counted {
            calls.crowd.lock().remove(*ticket);
            if self.permit.is_none() {
                calls.permits.add_permits(1);
            }
        }
    }
}
