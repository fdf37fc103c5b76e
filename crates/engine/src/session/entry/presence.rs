//! What a client was seen to do with its session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::directory::Seat;

/// A client that opened a session takes this long at most until it asks for something or comes
/// to hear its notices.
pub(crate) const TO_BE_USED: Duration = Duration::from_secs(1);

/// When a client came, when it was heard of last, and whether it did anything but open its session.
#[derive(Debug)]
pub(crate) struct Presence {
    opened: Instant,
    last_seen: Mutex<Instant>,
    used: AtomicBool,
    /// Held from when it was seen to go away until the session is used after all.
    unused: Mutex<Option<Seat>>,
}

impl Default for Presence {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            last_seen: Mutex::new(now),
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

    /// The client was heard of.
    pub(crate) fn touch(&self) {
        *self.last_seen.lock() = Instant::now();
    }

    /// The client asked for something.
    pub(crate) fn used(&self) {
        if !self.used.swap(true, Ordering::AcqRel) {
            self.unused.lock().take();
        }
    }

    /// The client went away before it asked for anything. `is_closed` is asked after it is counted.
    pub(super) fn unused(&self, seat: Seat, is_closed: impl FnOnce() -> bool) {
        *self.unused.lock() = Some(seat);
        // It may have asked meanwhile, or the session may have ended.
        if self.is_used() || is_closed() {
            self.unused.lock().take();
        }
    }

    /// Whether it is counted among those that went away.
    pub(super) fn is_counted_unused(&self) -> bool {
        self.unused.lock().is_some()
    }

    /// It is no longer counted among those; whether it was.
    pub(super) fn count_out(&self) -> bool {
        self.unused.lock().take().is_some()
    }
}
