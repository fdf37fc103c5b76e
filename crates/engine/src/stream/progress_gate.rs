//! The gate of a running call: all its messages pass the gate before they are queued.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use arrayvec::ArrayString;
use stentor_wire::ProgressToken;

use super::StreamSender;
use super::policy::Class;
use super::queue::{Frame, Pushed, Report};
use crate::ids::Seq;

/// Admits messages of a call while it runs, and the progress that the client may receive: with a
/// token, finite, strictly increasing (2026-07-28, basic/patterns/progress).
///
/// The gate changes only under the lock of the stream that the call writes to, together with the
/// queueing of a frame. So nothing follows the call's response, and the atomics need no order of
/// their own. Reads need no lock.
#[derive(Debug)]
pub(crate) struct ProgressGate {
    token: Option<ProgressToken>,
    closed: AtomicBool,
    /// Whether the call has sent a message.
    has_sent: AtomicBool,
    /// The last admitted progress value, as bits.
    last: AtomicU64,
    /// How many progress values wait for the client.
    unread: AtomicU32,
    /// The frame number of the last queued value, which a newer one may replace; or [`NONE`].
    latest: AtomicU64,
}

/// Messages up to this many bytes are formatted without an allocation.
const SHORT: usize = 256;

/// No frame has this number.
const NONE: u64 = u64::MAX;

impl ProgressGate {
    pub(crate) fn new(token: Option<ProgressToken>) -> Self {
        Self {
            token,
            closed: AtomicBool::new(false),
            has_sent: AtomicBool::new(false),
            last: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            unread: AtomicU32::new(0),
            latest: AtomicU64::new(NONE),
        }
    }

    pub(crate) fn closed() -> Self {
        let gate = Self::new(None);
        gate.close();
        gate
    }

    pub(crate) fn token(&self) -> Option<&ProgressToken> {
        self.token.as_ref()
    }

    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent.load(Relaxed)
    }

    pub(crate) fn unread(&self) -> u32 {
        self.unread.load(Relaxed)
    }

    // The methods below are called under the lock of the stream.

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// The call sends a message that is not progress.
    fn mark_sent(&self) {
        self.has_sent.store(true, Relaxed);
    }

    /// Whether a value may follow the last one. If so, the value becomes the last one.
    pub(super) fn admit(&self, progress: f64) -> bool {
        let admitted = progress.is_finite() && progress > f64::from_bits(self.last.load(Relaxed));
        if admitted {
            self.has_sent.store(true, Relaxed);
            self.last.store(progress.to_bits(), Relaxed);
        }
        admitted
    }

    /// The frame number of the last queued value, which may have been read.
    pub(super) fn latest(&self) -> Option<Seq> {
        Some(self.latest.load(Relaxed)).filter(|seq| *seq != NONE).map(Seq)
    }

    pub(super) fn queued(&self, seq: u64) {
        self.latest.store(seq, Relaxed);
        self.unread.store(self.unread() + 1, Relaxed);
    }

    pub(super) fn read(&self) {
        self.unread.store(self.unread().saturating_sub(1), Relaxed);
    }
}

impl StreamSender {
    /// Queues a message of a call. Queues nothing and returns `false` once the call has ended.
    pub(crate) fn send(&self, gate: &ProgressGate, class: Class, frame: Frame) -> bool {
        let limits = self.limits_of(class);
        let mut passes = false;
        self.with_queue(class, |queue| {
            passes = !gate.is_closed();
            if !passes {
                return Pushed::Closed;
            }
            gate.mark_sent();
            queue.push(class, frame, &limits)
        });
        passes
    }

    pub(crate) fn close_gate(&self, gate: &ProgressGate) {
        let _state = self.0.state.lock();
        gate.close();
    }

    /// Reports progress. If `gate` admits the value, it is queued, or replaces an older value when
    /// the client falls behind.
    pub(crate) fn progress(
        &self,
        gate: &Arc<ProgressGate>,
        progress: f64,
        total: Option<f64>,
        message: &dyn Display,
    ) {
        // Formatted before any lock is taken: `Display` is the author's code.
        let mut short = ArrayString::<SHORT>::new();
        let mut long = String::new();
        let message = match write!(short, "{message}") {
            Ok(()) => short.as_str(),
            Err(_) => {
                // Writing to memory does not fail. If the message's own code fails, the message
                // ends there.
                let _ = write!(long, "{message}");
                &long
            }
        };
        let total = total.filter(|total| total.is_finite());
        let report = Report { gate, progress, total, message };
        self.with_queue(Class::Progress, |queue| queue.push_progress(report, self.is_behind(gate)));
    }

    /// As [`progress`](Self::progress), but waits until the value can be queued without replacing
    /// another.
    pub(crate) async fn progress_paced(
        &self,
        gate: &Arc<ProgressGate>,
        progress: f64,
        total: Option<f64>,
        message: &(dyn Display + Sync),
    ) {
        loop {
            let space = self.0.space.notified();
            // Without a reader no space becomes free; then the latest wins.
            if !self.is_behind(gate) || !self.0.state.lock().is_read() {
                return self.progress(gate, progress, total, message);
            }
            space.await;
        }
    }

    /// Whether as many values of the call wait as the limits allow.
    fn is_behind(&self, gate: &ProgressGate) -> bool {
        let unread = gate.unread();
        // The budgets can only lower the limit, so the cheap comparison comes first.
        unread >= self.0.terms.limits.progress || unread >= self.limits().progress
    }
}
