//! The part of a session that outlives its actor: what a new actor in its place goes on with,
//! and what transports and the root see.

mod ending;
mod presence;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ractor::{ActorId, ActorRef};
use stentor_wire::model::Implementation;
use stentor_wire::{Id, ProtocolVersion};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use ending::EndReason;
pub(crate) use presence::{Presence, TO_BE_USED};

use super::questions::Questions;
use super::state::SessionState;
use super::streams::{self, FinishStreams, Kept, Streams};
use super::{SessionMsg, SubscriberKey};
use crate::core::Core;
use crate::directory::Seat;
use crate::events::{EngineEvent, Events};
use crate::ids::{SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Outlet, Tally, TallyView, Trouble};
use crate::request_budget::Meter;
use crate::root::Restarts;
use crate::task::OpenCalls;

/// Messages of one client that may wait for its session; the actor handles each at once, so
/// few are enough to keep it busy.
pub(crate) const MAX_WAITING_MESSAGES: u32 = 64;

/// A session that crashes more often than this within a minute is ended.
const MOST_RESTARTS: usize = 5;

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

    /// The kind in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Http => "http",
            Self::Listen => "listen",
            Self::Stateless => "stateless",
        }
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
    /// Who opened it, as far as the transport knows.
    pub principal: Option<Arc<str>>,
    /// The negotiated version of a legacy session.
    pub version: Option<ProtocolVersion>,
    /// The client of a legacy session, as it says itself.
    pub client: Option<Arc<Implementation>>,
    /// Whether a legacy client has said that it is ready.
    pub initialized: bool,
    /// How long it has been open.
    pub age: Duration,
    /// Whether somebody reads its notices now.
    pub attached: bool,
    /// Frames that wait for it on the stream of its notices.
    pub unread: usize,
    /// Its streams: the one of its notices, and those of requests that a client may come back
    /// to.
    pub streams: usize,
    /// Listens and resources that it subscribes to.
    pub subscriptions: usize,
    /// The requests whose calls run now.
    pub open_calls: Vec<Id>,
    /// Messages of the client that wait for the session's actor.
    pub mailbox: usize,
    /// How often its actor was restarted within the last minute.
    pub recent_restarts: usize,
    /// What became of what was sent to it.
    pub tally: TallyView,
}

/// A session as transports, the root, views, and the next actor in its place know it.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    id: SessionId,
    kind: SessionKind,
    principal: Option<Arc<str>>,
    /// Its actor, if it has begun.
    actor: Mutex<Option<ActorRef<SessionMsg>>>,
    /// Told when there is another actor, or none will be.
    changed: Notify,
    state: Mutex<SessionState>,
    streams: Streams,
    finish: Mutex<Option<Arc<FinishStreams>>>,
    kept: Kept,
    next_stream: AtomicU64,
    /// What is known of the streams of the node that had it and died, if it did.
    earlier: Option<Box<Earlier>>,
    /// How often it has moved to another node.
    moves: u64,
    calls: OpenCalls,
    questions: Questions,
    /// Counts what is kept of what its client sent.
    requests: Arc<Meter>,
    permits: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    presence: Presence,
    tally: Arc<Tally>,
    restarts: Mutex<Restarts>,
    /// Why it has ended, or is about to.
    ending: Mutex<Option<EndReason>>,
    closed: AtomicBool,
    /// Whether a hub was lost and the client not yet told what it may have missed.
    hub_lost: AtomicBool,
    seat: Mutex<Option<Seat>>,
    /// The trouble that was told of already.
    told: Mutex<Trouble>,
}

/// The streams of a node that had a session and died.
#[derive(Debug)]
struct Earlier {
    /// Their names are below this.
    before: u64,
    /// Calls that ran there, by the streams that were to answer them.
    unanswered: HashMap<u64, Id>,
}

impl SessionEntry {
    pub(crate) fn new(
        core: &Core,
        id: SessionId,
        kind: SessionKind,
        streams: Streams,
        state: SessionState,
        principal: Option<Arc<str>>,
        seat: Option<Seat>,
    ) -> Self {
        let tally = match streams.notices() {
            Some(outlet) => outlet.tally().clone(),
            None => core.stateless_tally.clone(),
        };
        Self {
            id,
            kind,
            principal,
            requests: state.meter().clone(),
            actor: Mutex::default(),
            changed: Notify::new(),
            state: Mutex::new(state),
            finish: Mutex::new(Some(Arc::new(FinishStreams(streams.clone())))),
            streams,
            kept: Kept::default(),
            next_stream: AtomicU64::new(StreamId::STANDALONE.0 + 1),
            earlier: None,
            moves: 0,
            calls: OpenCalls::default(),
            questions: Questions::default(),
            permits: Arc::new(Semaphore::new(core.config.max_requests())),
            turns: Arc::new(Semaphore::new(MAX_WAITING_MESSAGES as usize)),
            presence: Presence::default(),
            tally,
            restarts: Mutex::new(Restarts::at_most(MOST_RESTARTS)),
            ending: Mutex::new(None),
            closed: AtomicBool::new(false),
            hub_lost: AtomicBool::new(false),
            seat: Mutex::new(seat),
            told: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// Who opened it, as far as the transport knows; nobody else may use it.
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.principal.as_ref()
    }

    /// Whether this principal opened it; `None` is who comes without one.
    pub(crate) fn is_of(&self, principal: Option<&str>) -> bool {
        self.principal.as_deref() == principal
    }

    pub(crate) fn kind(&self) -> SessionKind {
        self.kind
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// The name of the next stream of a request.
    pub(super) fn next_stream(&self) -> u64 {
        self.next_stream.load(Ordering::Relaxed)
    }

    pub(super) fn with_next_stream(self, next: u64) -> Self {
        self.next_stream.store(next, Ordering::Relaxed);
        self
    }

    /// How often it has moved to another node.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn with_moves(mut self, moves: u64) -> Self {
        self.moves = moves;
        self
    }

    /// Streams before this one are of a node that died.
    pub(crate) fn first_stream(&self) -> u64 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.before)
    }

    /// The request that such a stream was to answer when its node died.
    pub(super) fn unanswered(&self, stream: StreamId) -> Option<&Id> {
        self.earlier.as_ref()?.unanswered.get(&stream.0)
    }

    pub(super) fn with_first_stream(mut self, first: u64, unanswered: Vec<(u64, Id)>) -> Self {
        let unanswered = unanswered.into_iter().collect();
        self.earlier = Some(Box::new(Earlier { before: first, unanswered }));
        self
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

    /// Counts what is kept of what its client sent.
    pub(crate) fn requests(&self) -> &Arc<Meter> {
        &self.requests
    }

    /// How many more requests may run.
    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// What it remembers between messages. Not to be held over an `await`.
    pub(crate) fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock()
    }

    /// The negotiated version of a legacy session.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.state().legacy().map(|caller| caller.version)
    }

    /// The version and the name of a legacy client, once it has said them.
    pub(crate) fn client(&self) -> (Option<ProtocolVersion>, Option<Arc<Implementation>>) {
        let state = self.state();
        let legacy = state.legacy();
        (legacy.map(|caller| caller.version), legacy.and_then(|caller| caller.client.clone()))
    }

    /// What a call holds that may still answer on the session's streams.
    pub(crate) fn finish_streams(&self) -> Option<Arc<FinishStreams>> {
        self.finish.lock().clone()
    }

    /// The session's place in the hub, or that of one of its listens.
    pub(crate) fn key(&self, subscription: Option<stentor_wire::SubscriptionId>) -> SubscriberKey {
        SubscriberKey { session: self.id.clone(), subscription }
    }

    // Its actor

    /// Whether a message of its client may be served at once: none that came before waits for the
    /// actor.
    pub(crate) fn is_free(&self) -> bool {
        // A message holds its turn until it is handled.
        self.turns.available_permits() == MAX_WAITING_MESSAGES as usize && self.ending().is_none()
    }

    /// Its actor, if it has begun.
    pub(crate) fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        self.actor.lock().clone()
    }

    pub(crate) fn is_actor(&self, id: ActorId) -> bool {
        self.actor.lock().as_ref().is_some_and(|actor| actor.get_id() == id)
    }

    /// Takes an actor that has begun, in the place of the one with that name or of none. `false` if
    /// another was first, or the session has ended.
    pub(super) fn take_actor(&self, begun: &ActorRef<SessionMsg>, place: Option<ActorId>) -> bool {
        let mut actor = self.actor.lock();
        // Looked at while it is locked: who ends the session stops the actor that it finds.
        let takes = !self.is_closed() && actor.as_ref().map(|actor| actor.get_id()) == place;
        if takes {
            *actor = Some(begun.clone());
            self.changed.notify_waiters();
        }
        takes
    }

    /// Completes when there is another actor, or none will be.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// It may have missed notices, which its client is to be told when it joins the hub.
    pub(crate) fn missed_some(&self) {
        self.hub_lost.store(true, Ordering::Release);
    }

    /// Whether a hub was lost since this was asked last.
    pub(crate) fn hub_was_lost(&self) -> bool {
        self.hub_lost.swap(false, Ordering::AcqRel)
    }

    /// Whether its actor may be restarted once more.
    pub(crate) fn may_restart(&self) -> bool {
        self.ending().is_none() && self.restarts.lock().spend()
    }

    /// Tells of frames that were dropped and streams that were closed since the last time.
    pub(crate) fn tell_trouble(&self, events: &Events) {
        let (before, now) = {
            let mut told = self.told.lock();
            // Looked at while it is locked: another may tell of the same.
            let now = self.tally.trouble();
            (std::mem::replace(&mut *told, now), now)
        };
        if now == before {
            return;
        }
        let session = || Some(self.id.clone()).filter(|_| self.kind != SessionKind::Stateless);
        for class in Class::ALL {
            let count = now.dropped[class as usize] - before.dropped[class as usize];
            if count > 0 {
                events.emit(|| EngineEvent::FramesDropped { session: session(), class, count });
            }
        }
        let count = now.closed - before.closed;
        if count > 0 {
            events.emit(|| EngineEvent::StreamsClosed { session: session(), count });
        }
    }

    // Its client

    /// What its client was seen to do.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The client went away before it asked for anything, and is counted as that.
    pub(crate) fn unused(&self, seat: Seat) {
        self.presence.unused(seat, || self.is_closed());
    }

    /// Whether its client was seen to go away, and is away, and did not use it.
    pub(crate) fn is_left(&self) -> bool {
        self.presence.is_counted_unused() && self.unused_since().is_some()
    }

    /// It is no longer counted among those; whether it was one.
    pub(crate) fn count_out(&self) -> bool {
        self.presence.count_out() && self.unused_since().is_some()
    }

    /// Since when the client is away, if it opened the session and did nothing with it. One that
    /// is seen to listen after [`TO_BE_USED`] uses it. To be called from time to time.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        if self.presence.is_used() || self.kind != SessionKind::Http {
            return None;
        }
        if !self.is_idle(Duration::ZERO) {
            if self.presence.age() >= TO_BE_USED {
                self.presence.used();
            }
            return None;
        }
        Some(self.presence.last_seen())
    }

    /// A client that reads a stream is there. To be called from time to time.
    pub(crate) fn look(&self) {
        if self.is_attached() {
            self.presence.touch();
        }
    }

    /// Whether the client has been away for this long.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        self.kind == SessionKind::Http
            && self.presence.last_seen().elapsed() >= timeout
            && !self.is_attached()
    }

    fn is_attached(&self) -> bool {
        self.streams.notices().is_some_and(Outlet::is_attached)
            || self.kept.all().iter().any(Outlet::is_attached)
    }

    /// Closes the streams whose client has stopped reading; returns which.
    pub(crate) fn close_stalled(&self, timeout: Duration) -> Vec<StreamId> {
        if self.kind == SessionKind::Pipe {
            return Vec::new();
        }
        let streams = self.streams.notices().cloned().into_iter().chain(self.kept.all());
        let stalled = streams.filter(|stream| stream.close_if_stalled(timeout));
        stalled.map(|stream| stream.stream()).collect()
    }

    /// The stream of one request on a legacy HTTP session.
    pub(crate) fn open_stream(&self, core: &Core, request: &Id) -> Outlet {
        let stream = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let outlet = streams::of_request(core, stream, self.tally.clone());
        if core.saver.is_some() {
            outlet.answers(request);
        }
        outlet
    }

    /// Keeps the stream of a request for a client that comes back: while its call runs, and
    /// for some calls more. `read` is all that was read from it so far.
    pub(crate) fn keep_stream(&self, core: &Core, outlet: Outlet, read: &[Delivered]) {
        outlet.keep_log(streams::log(core, &self.id, outlet.stream()), read);
        self.kept.keep(outlet, core.config.kept_streams);
        // The session may have been closed meanwhile.
        if self.is_closed() {
            self.kept.clear();
        }
    }

    /// The stream of this session with that name, if it is kept.
    pub(crate) fn find_stream(&self, stream: StreamId) -> Option<Outlet> {
        if stream == StreamId::STANDALONE {
            return self.streams.notices().cloned();
        }
        self.kept.find(stream)
    }

    pub(crate) fn view(&self) -> SessionView {
        let notices = self.streams.notices();
        let (version, client) = self.client();
        let (initialized, subscriptions) = {
            let state = self.state();
            (state.is_initialized(), state.subscribed())
        };
        SessionView {
            id: self.id.clone(),
            kind: self.kind,
            principal: self.principal.clone(),
            version,
            client,
            initialized,
            age: self.presence.age(),
            attached: notices.is_some_and(Outlet::is_attached),
            unread: notices.map_or(0, Outlet::unread),
            streams: usize::from(notices.is_some()) + self.kept.len(),
            subscriptions,
            open_calls: self.calls.ids(),
            mailbox: MAX_WAITING_MESSAGES as usize - self.turns.available_permits(),
            recent_restarts: self.restarts.lock().recent(),
            tally: self.tally.view(),
        }
    }
}
