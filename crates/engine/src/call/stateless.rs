//! Calls without a session: how many may run at once, and whose they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;
use crate::handler::Cancel;
use crate::reasons::CancelReason;
use crate::shares::{Share, Shares, Ticket};

/// Bounds how many calls without a session run at once. While less than half of them run, only
/// large calls are counted by caller. When all run, a caller with a smaller share gets the place of
/// the oldest counted call of the largest share.
#[derive(Debug)]
pub(crate) struct StatelessCalls {
    permits: Arc<Semaphore>,
    max: usize,
    shares: Mutex<Shares<Slot>>,
    /// How many calls gave way and have not ended. The permits that they give back are removed.
    owed: AtomicUsize,
}

/// A call of more bytes than this is counted by caller, however few calls run.
const LARGE_CALL: usize = 64 * 1024;

/// The cancel handle of a call. It is set later: a call gets its permit before it is made.
type Slot = Arc<OnceLock<Cancel>>;

/// The right of a call to run.
#[derive(Debug)]
pub(crate) struct CallPermit {
    /// `None` for a call that runs in the place of another.
    permit: Option<OwnedSemaphorePermit>,
    /// The call's entry, if it is counted by caller.
    counted: Option<(Arc<StatelessCalls>, Ticket, Slot)>,
}

impl CallPermit {
    /// Sets the cancel handle of the call that has this permit.
    pub(crate) fn set_cancel(&self, cancel: &Cancel) {
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
        Self { permits, max, shares: Mutex::default(), owed: AtomicUsize::new(0) }
    }

    /// Gives a call of so many bytes the right to run, and may cancel another call for it. `None`
    /// if there is no space.
    pub(crate) fn enter(self: &Arc<Self>, caller: &Caller, bytes: usize) -> Option<CallPermit> {
        let (permit, slot) = (self.permit(), Slot::default());
        if let Some(permit) = permit {
            if bytes <= LARGE_CALL && self.permits.available_permits() >= self.max / 2 {
                return Some(permit.into());
            }
            let ticket = self.shares.lock().insert(caller.share(), bytes, true, slot.clone());
            let counted = Some((self.clone(), ticket, slot));
            return Some(CallPermit { permit: Some(permit), counted });
        }
        let share = caller.share();
        let (ticket, target) = {
            let mut shares = self.shares.lock();
            let ticket = shares.insert(share.clone(), bytes, true, slot.clone());
            let target = shares.busy_gives_way(&share).and_then(|it| shares.remove(it.ticket));
            let Some(target) = target else {
                shares.remove(ticket);
                return None;
            };
            (ticket, target)
        };
        self.owed.fetch_add(1, Ordering::AcqRel);
        // A call that is just being made has no handle yet, and runs on.
        if let Some(target) = target.get() {
            target.cancel(CancelReason::GaveWay);
        }
        Some(CallPermit { permit: None, counted: Some((self.clone(), ticket, slot)) })
    }

    /// Makes one call give way to a caller with a smaller share. Returns the bytes of that call.
    pub(crate) fn give_way(&self, newcomer: &Share) -> Option<usize> {
        let (cost, target) = {
            let mut shares = self.shares.lock();
            let target = shares.busy_gives_way(newcomer)?;
            (target.cost, shares.remove(target.ticket)?)
        };
        if let Some(target) = target.get() {
            target.cancel(CancelReason::GaveWay);
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
            // A call that gave way has returned this permit, and another call runs in its place.
            permit.forget();
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some((calls, ticket, _)) = &self.counted {
            calls.shares.lock().remove(*ticket);
            if self.permit.is_none() {
                calls.permits.add_permits(1);
            }
        }
    }
}
