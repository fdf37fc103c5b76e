//! The gate that everything a call says passes before it reaches any queue.

use std::sync::atomic::{AtomicU32, Ordering};

use compact_str::CompactString;
use parking_lot::{Mutex, MutexGuard};
use stentor_wire::ProgressToken;

use crate::ids::Seq;

/// Lets a call speak while it runs, and lets through the progress that a client may hear:
/// with a token, finite, strictly increasing (2026-07-28, basic/patterns/progress).
///
/// Its lock is held while a frame is queued, so that nothing follows the call's response.
#[derive(Debug)]
pub(crate) struct Gate {
    token: Option<ProgressToken>,
    unread: AtomicU32,
    state: Mutex<GateState>,
}

#[derive(Debug)]
pub(crate) struct GateState {
    over: bool,
    /// Whether the call has said something.
    spoken: bool,
    last: f64,
    /// The call's last value in the queue, which a newer one may replace.
    pub(crate) latest: Option<Seq>,
    /// Where messages are put together: in the room of the one that was overtaken last.
    pub(crate) message: CompactString,
}

impl GateState {
    /// Something is said that is no progress.
    pub(crate) fn say(&mut self) {
        self.spoken = true;
    }

    /// Whether a value may follow the last one; if so it becomes the last one.
    pub(crate) fn admit(&mut self, progress: f64) -> bool {
        let admitted = progress.is_finite() && progress > self.last;
        if admitted {
            self.spoken = true;
            self.last = progress;
        }
        admitted
    }
}

impl Gate {
    pub(crate) fn new(token: Option<ProgressToken>) -> Self {
        let (last, message) = (f64::NEG_INFINITY, CompactString::default());
        let state = GateState { over: false, spoken: false, last, latest: None, message };
        Self { token, unread: AtomicU32::new(0), state: Mutex::new(state) }
    }

    pub(crate) fn token(&self) -> Option<&ProgressToken> {
        self.token.as_ref()
    }

    /// The right to queue something; `None` once the call is over.
    pub(crate) fn pass(&self) -> Option<MutexGuard<'_, GateState>> {
        Some(self.state.lock()).filter(|state| !state.over)
    }

    /// Whether the call has said something.
    pub(crate) fn has_spoken(&self) -> bool {
        self.state.lock().spoken
    }

    /// Nothing passes any more.
    pub(crate) fn close(&self) {
        self.state.lock().over = true;
    }

    /// How many values wait for the client.
    pub(crate) fn unread(&self) -> u32 {
        self.unread.load(Ordering::Relaxed)
    }

    // Both are called under the queue's lock, so that no other change falls in between.
    pub(crate) fn queued(&self) {
        self.unread.store(self.unread() + 1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) {
        self.unread.store(self.unread().saturating_sub(1), Ordering::Relaxed);
    }
}
