//! The state of a connection, shared by the tasks that handle it: whether writing to the client is
//! blocked, and what the server waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::time::Instant;

/// The response is complete, but may not be written yet; or the connection is new.
const ANSWERED: u8 = 0;
/// The server waits for the head of a request, or for the rest of it.
const HEAD: u8 = 1;
/// The server waits for the body of a request, or for the rest of it.
const BODY: u8 = 2;
/// The server is answering a request, and does not wait for the client.
const ANSWERING: u8 = 3;
/// The connection is closed for another one.
const CUT: u8 = 4;

/// The state of a connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Flow(Arc<Flags>);

#[derive(Debug)]
struct Flags {
    blocked: AtomicBool,
    stalled: AtomicBool,
    doubtful: AtomicBool,
    lingers: AtomicBool,
    unread: AtomicBool,
    /// How often the client has sent something that the server waited for, or got its response.
    came: AtomicUsize,
    phase: AtomicU8,
    /// Since when the server waits for the client, in milliseconds since `born`.
    since: AtomicU64,
    /// When the server started.
    born: Instant,
}

impl Flow {
    pub(super) fn new(born: Instant) -> Self {
        Self(Arc::new(Flags {
            blocked: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            came: AtomicUsize::new(0),
            phase: AtomicU8::new(ANSWERED),
            since: AtomicU64::new(0),
            born,
        }))
    }

    /// Whether written bytes wait for the client to read.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    pub(super) fn blocked(&self, blocked: bool) {
        self.0.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the connection was closed because its client had stopped reading.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn stalled(&self) {
        self.0.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether reading cannot show that the client has disconnected: the client has closed its
    /// sending half, or has sent more than the server reads ahead. Then only a write can show it.
    pub(super) fn may_be_gone(&self) -> bool {
        self.0.doubtful.load(Ordering::Relaxed)
    }

    /// Notes that the client may have disconnected. `false` if that was known.
    pub(super) fn doubt(&self) -> bool {
        !self.may_be_gone() && !self.0.doubtful.swap(true, Ordering::Relaxed)
    }

    /// The head of a request or a piece of its body was read, and more is to come. `false` if the
    /// connection is closed for another one.
    pub(super) fn goes_on(&self) -> bool {
        self.0.came.fetch_add(1, Ordering::Relaxed);
        self.enter(BODY)
    }

    /// The request was read as far as it is read at all. `false` if the connection is closed for
    /// another one.
    pub(super) fn asked(&self) -> bool {
        self.enter(ANSWERING)
    }

    /// As [`goes_on`](Self::goes_on), for a request that is being answered while its body arrives:
    /// now the answer waits for the body.
    pub(super) fn awaits_more(&self) {
        self.0.came.fetch_add(1, Ordering::Relaxed);
        // Else the response is complete, and nobody should wait for the body.
        let _ = self.0.phase.compare_exchange(ANSWERING, BODY, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The opposite: the answer goes on. `false` if the connection is closed for another one.
    pub(super) fn got_more(&self) -> bool {
        let _ = self.0.phase.compare_exchange(BODY, ANSWERING, Ordering::AcqRel, Ordering::Relaxed);
        !self.is_cut()
    }

    /// The response of the request is complete; its last bytes may not be written yet.
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

    /// The current value of the counter `Flags::came`.
    pub(super) fn came(&self) -> usize {
        self.0.came.load(Ordering::Relaxed)
    }

    /// The value of `came` if the server waits for the client; `None` while it answers a request.
    pub(super) fn awaits(&self) -> Option<usize> {
        let answering = self.0.phase.load(Ordering::Relaxed) == ANSWERING;
        (!answering).then(|| self.came())
    }

    pub(super) fn awaits_head(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == HEAD
    }

    /// Notes that the server waits for the client from now on.
    pub(super) fn waits(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.born).as_millis();
        self.0.since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        // The response is written to the kernel: else the server would not read the next request.
        let _ = self.0.phase.compare_exchange(ANSWERED, HEAD, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether the server waits for a head (else for a body), and since when; `None` if it waits
    /// for neither, or if a write is blocked.
    pub(super) fn idle(&self) -> Option<(bool, u64)> {
        let head = match self.0.phase.load(Ordering::Relaxed) {
            HEAD => true,
            BODY => false,
            _ => return None,
        };
        (!self.is_blocked()).then(|| (head, self.0.since.load(Ordering::Relaxed)))
    }

    pub(super) fn is_answering(&self) -> bool {
        self.awaits().is_none()
    }

    /// Notes that the connection is closed after a response although the client's bytes were not
    /// all read.
    pub(super) fn linger(&self) {
        self.0.lingers.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.0.lingers.load(Ordering::Relaxed)
    }

    /// Notes whether some of the request's body was not read. Known where there are layers only.
    pub(super) fn unread(&self, unread: bool) {
        self.0.unread.store(unread, Ordering::Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed)
    }

    /// Whether the response is written, although some of the request's body was not read.
    pub(super) fn is_left_unread(&self) -> bool {
        self.is_unread() && matches!(self.0.phase.load(Ordering::Relaxed), ANSWERED | HEAD)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == CUT
    }

    /// Closes the connection for another one, unless the client has sent something since `idle` was
    /// read. The caller then aborts the connection's task.
    pub(super) fn cut(&self, idle: (bool, u64)) -> bool {
        if self.idle() != Some(idle) {
            return false;
        }
        let phase = if idle.0 { HEAD } else { BODY };
        self.0.phase.compare_exchange(phase, CUT, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
