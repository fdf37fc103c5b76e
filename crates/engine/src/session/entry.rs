//! The part of a session that others see: the directory's entry.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use ractor::ActorRef;
use stentor_wire::model::Implementation;
use stentor_wire::{Id, ProtocolVersion};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::questions::Questions;
use super::{Caller, SessionMsg};
use crate::core::Core;
use crate::directory::Seat;
use crate::ids::{SessionId, StreamId};
use crate::outlet::policy::Retention;
use crate::outlet::{Outlet, Tally, TallyView, Terms, WhenGone};
use crate::task::OpenCalls;

/// Messages of one client that may wait for its session; the actor handles each at once, so
/// few are enough to keep it busy.
pub(crate) const MAX_WAITING_MESSAGES: u32 = 64;

/// What kind of client a session serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionKind {
    /// One process at the other end of a pipe, in either era or both.
    Pipe,
    /// A legacy client over HTTP, known by its `Mcp-Session-Id`.
    Http,
    /// One modern `subscriptions/listen` over HTTP.
    Listen,
    /// All other modern requests over HTTP: the parent of their tasks.
    Stateless,
}

impl SessionKind {
    pub(crate) const fn serves_modern(self) -> bool {
        !matches!(self, Self::Http)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The client ended it.
    Deleted,
    /// The client stayed away for too long.
    IdleTimeout,
    /// The client's connection is gone, and nothing outlives it.
    Disconnected,
    /// `initialize` was refused.
    Refused,
    /// The engine shuts down.
    Shutdown,
}

/// The streams that a session writes to.
#[derive(Clone, Debug)]
pub(crate) enum Streams {
    /// One pipe or listen for everything.
    One(Outlet),
    /// A standalone stream for what belongs to no request; each request has its own.
    Http(Outlet),
    /// Each request has its own, and nothing else is said.
    None,
}

impl Streams {
    /// Where notices go.
    pub(crate) fn notices(&self) -> Option<&Outlet> {
        match self {
            Self::One(outlet) | Self::Http(outlet) => Some(outlet),
            Self::None => None,
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(outlet) = self.notices() {
            outlet.finish();
        }
    }
}

/// Ends the streams of a session when the last one drops it that may still answer on them:
/// the session itself, and each of its calls.
#[derive(Debug)]
pub(crate) struct FinishStreams(pub(crate) Streams);

impl Drop for FinishStreams {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// What is known of a session at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// What kind of client it serves.
    pub kind: SessionKind,
    /// The negotiated version of a legacy session.
    pub version: Option<ProtocolVersion>,
    /// The client of a legacy session, as it says itself.
    pub client: Option<Implementation>,
    /// Whether a legacy client has said that it is ready.
    pub initialized: bool,
    /// How long it has been open.
    pub age: Duration,
    /// Whether somebody reads its notices now.
    pub attached: bool,
    /// Frames that wait for it on the stream of its notices.
    pub unread: usize,
    /// Calls that run now.
    pub open_calls: usize,
    /// What became of what was sent to it.
    pub tally: TallyView,
}

/// A session as transports, the root and views know it.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    id: SessionId,
    kind: SessionKind,
    actor: ActorRef<SessionMsg>,
    streams: Streams,
    calls: OpenCalls,
    questions: Questions,
    client: OnceLock<(ProtocolVersion, Option<Arc<Implementation>>)>,
    initialized: AtomicBool,
    listen: Mutex<Option<Id>>,
    permits: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    next_stream: AtomicU64,
    /// Streams of requests that a client may come back to, oldest first.
    resumable: Mutex<VecDeque<Outlet>>,
    opened: Instant,
    last_seen: Mutex<Instant>,
    tally: Arc<Tally>,
    principal: Option<Arc<str>>,
    _seat: Option<Seat>,
}

impl SessionEntry {
    pub(crate) fn new(
        id: SessionId,
        kind: SessionKind,
        actor: ActorRef<SessionMsg>,
        streams: Streams,
        seat: Option<Seat>,
        principal: Option<Arc<str>>,
        core: &Core,
    ) -> Self {
        let tally = match streams.notices() {
            Some(outlet) => outlet.tally().clone(),
            None => Arc::new(Tally::within(core.tally.clone())),
        };
        Self {
            id,
            kind,
            actor,
            streams,
            calls: OpenCalls::default(),
            questions: Questions::default(),
            client: OnceLock::new(),
            initialized: AtomicBool::new(false),
            listen: Mutex::new(None),
            permits: Arc::new(Semaphore::new(core.config.max_requests())),
            turns: Arc::new(Semaphore::new(MAX_WAITING_MESSAGES as usize)),
            next_stream: AtomicU64::new(StreamId::STANDALONE.0 + 1),
            resumable: Mutex::default(),
            opened: Instant::now(),
            last_seen: Mutex::new(Instant::now()),
            tally,
            principal,
            _seat: seat,
        }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// Who opened it, as far as the transport knows; nobody else may use it.
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.principal.as_ref()
    }

    pub(crate) fn kind(&self) -> SessionKind {
        self.kind
    }

    pub(crate) fn actor(&self) -> &ActorRef<SessionMsg> {
        &self.actor
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.questions
    }

    pub(crate) fn calls(&self) -> &OpenCalls {
        &self.calls
    }

    /// How many more messages may wait in the actor's mailbox.
    pub(crate) fn turns(&self) -> &Arc<Semaphore> {
        &self.turns
    }

    /// How many more requests may run.
    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// The negotiated version of a legacy session.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.client.get().map(|(version, _)| *version)
    }

    pub(crate) fn set_client(&self, caller: &Caller) {
        // Set once: a second `initialize` is refused.
        let _ = self.client.set((caller.version, caller.client.clone()));
    }

    pub(crate) fn set_initialized(&self) {
        self.initialized.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_listen(&self, request: Id) {
        *self.listen.lock() = Some(request);
    }

    pub(crate) fn take_listen(&self) -> Option<Id> {
        self.listen.lock().take()
    }

    /// The client was heard of.
    pub(crate) fn touch(&self) {
        *self.last_seen.lock() = Instant::now();
    }

    /// Whether the client has been away for this long, with nothing running for it.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        self.kind == SessionKind::Http
            && self.calls.len() == 0
            && !self.streams.notices().is_some_and(Outlet::is_attached)
            && self.last_seen.lock().elapsed() >= timeout
    }

    /// The stream of one request on a legacy HTTP session. It outlives its reader: a client
    /// that goes away has not cancelled.
    pub(crate) fn open_stream(&self, core: &Core) -> Outlet {
        let stream = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let terms =
            Terms { limits: core.config.limits, retention: core.config.retention, one_reply: true };
        Outlet::new(stream, terms, self.tally.clone(), WhenGone::Wait)
    }

    /// Keeps the stream of a request for a client that comes back: while its call runs, and
    /// for some calls more.
    pub(crate) fn keep_stream(&self, outlet: Outlet, kept: usize) {
        let mut streams = self.resumable.lock();
        let finished = streams.iter().filter(|stream| stream.is_finished()).count();
        if finished >= kept
            && let Some(oldest) = streams.iter().position(Outlet::is_finished)
        {
            streams.remove(oldest);
        }
        streams.push_back(outlet);
    }

    /// The stream of this session with that name, if it is kept.
    pub(crate) fn find_stream(&self, stream: StreamId) -> Option<Outlet> {
        if stream == StreamId::STANDALONE {
            return self.streams.notices().cloned();
        }
        self.resumable.lock().iter().find(|outlet| outlet.stream() == stream).cloned()
    }

    pub(crate) fn view(&self) -> SessionView {
        let notices = self.streams.notices();
        let client = self.client.get();
        SessionView {
            id: self.id.clone(),
            kind: self.kind,
            version: client.map(|(version, _)| *version),
            client: client.and_then(|(_, client)| client.as_deref().cloned()),
            initialized: self.initialized.load(Ordering::Relaxed),
            age: self.opened.elapsed(),
            attached: notices.is_some_and(Outlet::is_attached),
            unread: notices.map_or(0, Outlet::unread),
            open_calls: self.calls.len(),
            tally: self.tally.view(),
        }
    }
}

/// The stream of a request that belongs to no session.
pub(crate) fn request_outlet(core: &Core, tally: Arc<Tally>, when_gone: WhenGone) -> Outlet {
    let terms = Terms { limits: core.config.limits, retention: Retention::NONE, one_reply: true };
    Outlet::new(StreamId(1), terms, tally, when_gone)
}
