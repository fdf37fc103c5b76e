//! The gate of a running call: all its messages pass the gate before they are queued.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use stentor_wire::ProgressToken;

use crate::ids::Seq;

/// Admits messages of a call while it runs, and the progress that the client may receive: with a
/// token, finite, strictly increasing (2026-07-28, basic/patterns/progress).
///
/// The gate changes only under the lock of the stream that the call writes to, together with the
/// queueing of a frame. So nothing follows the call's response, and the atomics need no order of
/// their own. Reads need no lock.
#[derive(Debug)]
pub struct ProgressGate {
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

/// No frame has this number.
const NONE: u64 = u64::MAX;

impl ProgressGate {
    /// A gate for a call whose request has this progress token.
    pub fn new(token: Option<ProgressToken>) -> Self {
        Self {
            token,
            closed: AtomicBool::new(false),
            has_sent: AtomicBool::new(false),
            last: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            unread: AtomicU32::new(0),
            latest: AtomicU64::new(NONE),
        }
    }

    /// A gate that admits nothing.
    pub fn closed() -> Self {
        let gate = Self::new(None);
        gate.close();
        gate
    }

    /// The progress token of the request.
    pub fn token(&self) -> Option<&ProgressToken> {
        self.token.as_ref()
    }

    /// Whether the call has sent a message.
    pub fn has_sent(&self) -> bool {
        self.has_sent.load(Relaxed)
    }

    /// How many progress values wait for the client.
    pub fn unread(&self) -> u32 {
        self.unread.load(Relaxed)
    }

    // The methods below are called under the lock of the stream.

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// The call sends a message that is not progress.
    pub(crate) fn mark_sent(&self) {
        self.has_sent.store(true, Relaxed);
    }

    /// Whether a value may follow the last one. If so, the value becomes the last one.
    pub(crate) fn admit(&self, progress: f64) -> bool {
        let admitted = progress.is_finite() && progress > f64::from_bits(self.last.load(Relaxed));
        if admitted {
            self.has_sent.store(true, Relaxed);
            self.last.store(progress.to_bits(), Relaxed);
        }
        admitted
    }

    /// The frame number of the last queued value, which may have been read.
    pub(crate) fn latest(&self) -> Option<Seq> {
        Some(self.latest.load(Relaxed)).filter(|seq| *seq != NONE).map(Seq)
    }

    pub(crate) fn queued(&self, seq: u64) {
        self.latest.store(seq, Relaxed);
        self.unread.store(self.unread() + 1, Relaxed);
    }

    pub(crate) fn read(&self) {
        self.unread.store(self.unread().saturating_sub(1), Relaxed);
    }
}
