//! When a client was last seen, and whether it used its session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::session::directory::SessionPermit;

/// The longest time from when a client opens a session until it sends a request or reads its
/// notices.
pub(crate) const TO_BE_USED: Duration = Duration::from_secs(1);

/// When a client came, when it was last seen, and whether it did more than open its session.
#[derive(Debug)]
pub(crate) struct Presence {
    opened: Instant,
    last_seen: Mutex<Instant>,
    /// When the session's actor handled the last message.
    last_message: Mutex<Instant>,
    used: AtomicBool,
    /// Set while the session counts as left: from when the client was seen to disconnect until it
    /// uses the session after all.
    unused: Mutex<Option<SessionPermit>>,
}

impl Default for Presence {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            last_seen: Mutex::new(now),
            last_message: Mutex::new(now),
            used: AtomicBool::new(false),
            unused: Mutex::default(),
        }
    }
}

impl Presence {
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn last_seen(&self) -> Instant {
        *self.last_seen.lock()
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn touch(&self) {
        *self.last_seen.lock() = Instant::now();
    }

    /// Records that the client has sent a message, which is handled now.
    pub(crate) fn has_message(&self) {
        let now = Instant::now();
        *self.last_seen.lock() = now;
        *self.last_message.lock() = now;
    }

    pub(super) fn last_message(&self) -> Instant {
        *self.last_message.lock()
    }

    pub(crate) fn used(&self) {
        if !self.used.swap(true, Ordering::AcqRel) {
            self.unused.lock().take();
        }
    }

    /// Counts the session as left by a client that sent no request. Calls `is_closed` after that.
    pub(super) fn unused(&self, permit: SessionPermit, is_closed: impl FnOnce() -> bool) {
        *self.unused.lock() = Some(permit);
        // The client may have sent a request meanwhile, or the session may have ended.
        if self.is_used() || is_closed() {
            self.unused.lock().take();
        }
    }

    /// Whether the session counts as left.
    pub(super) fn is_counted_unused(&self) -> bool {
        self.unused.lock().is_some()
    }

    /// Stops counting the session as left. `true` if it was counted.
    pub(super) fn uncount_left(&self) -> bool {
        self.unused.lock().take().is_some()
    }
}
