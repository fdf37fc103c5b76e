//! What is known of a connection by all who have to do with it: how writing to its client goes, and what
//! its client is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::time::Instant;

/// All of an answer is there, and may still be written; or the connection is new.
const ANSWERED: u8 = 0;
/// The head of a request is waited for, or the rest of one.
const HEAD: u8 = 1;
/// The body of a request is waited for, or the rest of one.
const BODY: u8 = 2;
/// A request is answered, and its client not waited for.
const ANSWERING: u8 = 3;
/// It is closed for another one.
const CUT: u8 = 4;

/// What is known of a connection. Clones are of the same one.
#[derive(Clone, Debug)]
pub(super) struct Flow(Arc<Flags>);

#[derive(Debug)]
struct Flags {
    blocked: AtomicBool,
    stalled: AtomicBool,
    doubtful: AtomicBool,
    lingers: AtomicBool,
    /// How often something came that the client was waited for.
    came: AtomicUsize,
    phase: AtomicU8,
    /// Since when the client is waited for, in milliseconds since `born`.
    since: AtomicU64,
    /// When the server began.
    born: Instant,
}

impl Flow {
    /// Of a new connection of a server that began then.
    pub(super) fn new(born: Instant) -> Self {
        Self(Arc::new(Flags {
            blocked: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            came: AtomicUsize::new(0),
            phase: AtomicU8::new(ANSWERED),
            since: AtomicU64::new(0),
            born,
        }))
    }

    /// Whether something is written that was not taken yet.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    pub(super) fn blocked(&self, blocked: bool) {
        self.0.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the connection was given up because its client took nothing any more.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn stalled(&self) {
        self.0.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether reading does not tell if the client is there: it has said that it sends no more, or has
    /// sent more than is read. Then only writing to it tells.
    pub(super) fn may_be_gone(&self) -> bool {
        self.0.doubtful.load(Ordering::Relaxed)
    }

    /// The client may be gone. `false` if that was known.
    pub(super) fn doubt(&self) -> bool {
        !self.may_be_gone() && !self.0.doubtful.swap(true, Ordering::Relaxed)
    }

    /// The head of a request was read, or a piece of its body, and more is to come. `false` if the
    /// connection is closed for another one.
    pub(super) fn goes_on(&self) -> bool {
        self.0.came.fetch_add(1, Ordering::Relaxed);
        self.enter(BODY)
    }

    /// All of a request was read that is to be. `false` if the connection is closed for another one.
    pub(super) fn asked(&self) -> bool {
        self.enter(ANSWERING)
    }

    /// The request has its answer, all of it; what of that is not written yet will be.
    pub(super) fn answered(&self) {
        self.0.came.fetch_add(1, Ordering::Relaxed);
        self.0.doubtful.store(false, Ordering::Relaxed);
        self.enter(ANSWERED);
    }

    fn enter(&self, phase: u8) -> bool {
        let cut = self.0.phase.swap(phase, Ordering::AcqRel) == CUT;
        if cut {
            self.0.phase.store(CUT, Ordering::Release);
        }
        !cut
    }

    /// How often something came that the client was waited for.
    pub(super) fn came(&self) -> usize {
        self.0.came.load(Ordering::Relaxed)
    }

    /// What is waited for, unless a request is answered now.
    pub(super) fn awaits(&self) -> Option<usize> {
        let answering = self.0.phase.load(Ordering::Relaxed) == ANSWERING;
        (!answering).then(|| self.came())
    }

    /// Whether the head of a request is waited for.
    pub(super) fn awaits_head(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == HEAD
    }

    /// From now on the client is waited for.
    pub(super) fn waits(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.born).as_millis();
        self.0.since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        // All that was written before is with the kernel: else it would not be read.
        let _ = self.0.phase.compare_exchange(ANSWERED, HEAD, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Since when it is waited for the head of a request, or for more of a body; whichever, too.
    pub(super) fn idle(&self) -> Option<(bool, u64)> {
        let head = match self.0.phase.load(Ordering::Relaxed) {
            HEAD => true,
            BODY => false,
            _ => return None,
        };
        (!self.is_blocked()).then(|| (head, self.0.since.load(Ordering::Relaxed)))
    }

    /// Whether a request is answered.
    pub(super) fn is_answering(&self) -> bool {
        self.awaits().is_none()
    }

    /// The connection is closed after an answer although not all was read that its client sent.
    pub(super) fn linger(&self) {
        self.0.lingers.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    pub(super) fn lingers(&self) -> bool {
        self.0.lingers.load(Ordering::Relaxed)
    }

    /// Whether it is closed for another one.
    pub(super) fn is_cut(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == CUT
    }

    /// Closes the connection for another one, unless something came since `idle` was asked. Whoever
    /// does this ends its task.
    pub(super) fn cut(&self, idle: (bool, u64)) -> bool {
        if self.idle() != Some(idle) {
            return false;
        }
        let phase = if idle.0 { HEAD } else { BODY };
        self.0.phase.compare_exchange(phase, CUT, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
