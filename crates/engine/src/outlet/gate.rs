//! What a running call says: everything passes its gate before it reaches a queue.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use arrayvec::ArrayString;
use stentor_wire::ProgressToken;

use super::Outlet;
use super::policy::Class;
use super::queue::{Frame, Pushed, Report};
use crate::ids::Seq;

/// Lets a call speak while it runs, and lets through the progress that a client may hear:
/// with a token, finite, strictly increasing (2026-07-28, basic/patterns/progress).
///
/// It changes only under the lock of the outlet that its call speaks on, in the moment in which a
/// frame is queued: so nothing follows the call's response, and no order of its own is needed. It may
/// be looked at without.
#[derive(Debug)]
pub(crate) struct Gate {
    token: Option<ProgressToken>,
    over: AtomicBool,
    /// Whether the call has said something.
    spoken: AtomicBool,
    /// The last value of progress, in bits.
    last: AtomicU64,
    /// How many values wait for the client.
    unread: AtomicU32,
    /// The number of the last of them, which a newer one may replace; or [`NONE`].
    latest: AtomicU64,
}

/// Messages of so many bytes need no memory to be put together.
const SHORT: usize = 256;

/// No queue comes to this number.
const NONE: u64 = u64::MAX;

impl Gate {
    pub(crate) fn new(token: Option<ProgressToken>) -> Self {
        Self {
            token,
            over: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
            last: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            unread: AtomicU32::new(0),
            latest: AtomicU64::new(NONE),
        }
    }

    /// One that lets nothing pass.
    pub(crate) fn closed() -> Self {
        let gate = Self::new(None);
        gate.close();
        gate
    }

    pub(crate) fn token(&self) -> Option<&ProgressToken> {
        self.token.as_ref()
    }

    /// Whether the call has said something.
    pub(crate) fn has_spoken(&self) -> bool {
        self.spoken.load(Relaxed)
    }

    /// How many values wait for the client.
    pub(crate) fn unread(&self) -> u32 {
        self.unread.load(Relaxed)
    }

    // What follows is for who holds the lock of the outlet.

    /// Whether nothing passes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Nothing passes any more.
    fn close(&self) {
        self.over.store(true, Relaxed);
    }

    /// Something is said that is no progress.
    fn say(&self) {
        self.spoken.store(true, Relaxed);
    }

    /// Whether a value may follow the last one; if so it becomes the last one.
    pub(super) fn admit(&self, progress: f64) -> bool {
        let admitted = progress.is_finite() && progress > f64::from_bits(self.last.load(Relaxed));
        if admitted {
            self.spoken.store(true, Relaxed);
            self.last.store(progress.to_bits(), Relaxed);
        }
        admitted
    }

    /// The last value that was queued, which may have been read.
    pub(super) fn latest(&self) -> Option<Seq> {
        Some(self.latest.load(Relaxed)).filter(|seq| *seq != NONE).map(Seq)
    }

    /// A value is queued.
    pub(super) fn queued(&self, seq: u64) {
        self.latest.store(seq, Relaxed);
        self.unread.store(self.unread() + 1, Relaxed);
    }

    /// A value was read.
    pub(super) fn read(&self) {
        self.unread.store(self.unread().saturating_sub(1), Relaxed);
    }
}

impl Outlet {
    /// Queues something that a running call says; nothing, and `false`, once it is over.
    pub(crate) fn say(&self, gate: &Gate, class: Class, frame: Frame) -> bool {
        let limits = self.limits_of(class);
        let mut passes = false;
        self.with_queue(class, |queue| {
            passes = !gate.is_closed();
            if !passes {
                return Pushed::Closed;
            }
            gate.say();
            queue.push(class, frame, &limits)
        });
        passes
    }

    /// The call is over: it says nothing more.
    pub(crate) fn close_gate(&self, gate: &Gate) {
        let _state = self.0.state.lock();
        gate.close();
    }

    /// Reports progress: admitted by `gate`, then queued, or put in the place of an older
    /// value when the client falls behind.
    pub(crate) fn progress(
        &self,
        gate: &Arc<Gate>,
        progress: f64,
        total: Option<f64>,
        message: &dyn Display,
    ) {
        // Put together before any lock is taken, as this is the author's code.
        let mut short = ArrayString::<SHORT>::new();
        let mut long = String::new();
        let message = match write!(short, "{message}") {
            Ok(()) => short.as_str(),
            Err(_) => {
                // Writing to memory does not fail, and what a message leaves out is its own choice.
                let _ = write!(long, "{message}");
                &long
            }
        };
        let total = total.filter(|total| total.is_finite());
        let report = Report { gate, progress, total, message };
        self.with_queue(Class::Progress, |queue| queue.push_progress(report, self.is_behind(gate)));
    }

    /// As [`progress`](Self::progress), but waits until the value can be queued without
    /// taking the place of another.
    pub(crate) async fn progress_paced(
        &self,
        gate: &Arc<Gate>,
        progress: f64,
        total: Option<f64>,
        message: &(dyn Display + Sync),
    ) {
        loop {
            let room = self.0.room.notified();
            // Without a reader nobody makes room: then the latest wins.
            if !self.is_behind(gate) || !self.0.state.lock().is_read() {
                return self.progress(gate, progress, total, message);
            }
            room.await;
        }
    }

    /// Whether as many values of a call wait as may.
    fn is_behind(&self, gate: &Gate) -> bool {
        let unread = gate.unread();
        // The budgets can only make it fewer.
        unread >= self.0.terms.limits.progress || unread >= self.limits().progress
    }
}
