//! The part of a session that outlives its actor: the next actor continues with it, and transports
//! and the supervisor read it.

mod ending;
mod presence;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ractor::{ActorId, ActorRef};
use stentor_delivery::{Counters, Delivered, StreamSender};
use stentor_wire::model::Implementation;
use stentor_wire::{Id, ProtocolVersion};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::state::SessionState;
use super::streams::{self, Kept};
use super::{SessionMsg, SubscriberKey};
use crate::call::{FinishStreams, OpenCalls};
use crate::events::{Events, ReportedLosses};
use crate::handler::PendingRequests;
use crate::ids::{SessionId, StreamId};
use crate::reasons::{EndReason, SessionKind};
use crate::request_budget::Meter;
use crate::restarts::Restarts;
use crate::session::Sessions;
use crate::session::directory::SessionPermit;
pub(crate) use presence::{Presence, TO_BE_USED};
pub use view::SessionView;

/// Messages of one client that may wait for its session. The actor handles each at once, so a few
/// are enough to keep it busy.
pub(crate) const MAX_WAITING_MESSAGES: u32 = 64;

/// A session that crashes more often than this within a minute is ended.
const MAX_RESTARTS: usize = 5;

/// Stops an actor that has nothing to do. The supervisor has nothing to do for it, so it is not
/// woken.
fn stop_quietly(actor: &ActorRef<SessionMsg>) {
    if let Some(supervisor) = actor.try_get_supervisor() {
        actor.unlink(supervisor);
    }
    actor.stop(None);
}

/// A session, for transports, the supervisor, views, and the next actor.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    id: SessionId,
    kind: SessionKind,
    principal: Option<Arc<str>>,
    /// `None` while the session is passive, and after it has ended.
    actor: Mutex<Option<ActorRef<SessionMsg>>>,
    /// Notified when the actor is replaced, and when there will be none any more.
    changed: Notify,
    state: Mutex<SessionState>,
    /// The stream of what belongs to no request.
    notices: StreamSender,
    finish: Mutex<Option<Arc<FinishStreams>>>,
    kept: Kept,
    next_stream: AtomicU64,
    /// Streams from a node that had the session and died, if there was one.
    dead_node: Option<Box<DeadNodeStreams>>,
    moves: u64,
    calls: OpenCalls,
    questions: PendingRequests,
    /// Counts the bytes that are kept of what the client sent.
    requests: Arc<Meter>,
    permits: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    presence: Presence,
    counters: Arc<Counters>,
    restarts: Mutex<Restarts>,
    ending: Mutex<Option<EndReason>>,
    closed: AtomicBool,
    /// Whether notices may have been lost, and the client is not yet notified of that.
    hub_lost: AtomicBool,
    permit: Mutex<Option<SessionPermit>>,
    reported: ReportedLosses,
}

/// Streams from a node that had the session and died.
#[derive(Debug)]
struct DeadNodeStreams {
    /// Their ids are below this.
    before: u64,
    /// Requests of calls that ran on that node, by the id of the stream that had to answer them.
    unanswered: HashMap<u64, Id>,
}

impl SessionEntry {
    pub(crate) fn new(
        sessions: &Sessions,
        id: SessionId,
        kind: SessionKind,
        notices: StreamSender,
        state: SessionState,
        principal: Option<Arc<str>>,
        permit: SessionPermit,
    ) -> Self {
        let counters = notices.counters().clone();
        Self {
            id,
            kind,
            principal,
            requests: state.meter().clone(),
            actor: Mutex::default(),
            changed: Notify::new(),
            state: Mutex::new(state),
            finish: Mutex::new(Some(Arc::new(FinishStreams(notices.clone())))),
            notices,
            kept: Kept::default(),
            next_stream: AtomicU64::new(StreamId::STANDALONE.0 + 1),
            dead_node: None,
            moves: 0,
            calls: OpenCalls::default(),
            questions: PendingRequests::default(),
            permits: Arc::new(Semaphore::new(sessions.limits.max_requests)),
            turns: Arc::new(Semaphore::new(MAX_WAITING_MESSAGES as usize)),
            presence: Presence::default(),
            counters,
            restarts: Mutex::new(Restarts::at_most(MAX_RESTARTS)),
            ending: Mutex::new(None),
            closed: AtomicBool::new(false),
            hub_lost: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
            reported: ReportedLosses::default(),
        }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// The principal that opened the session, if the transport knows one. No other may use it.
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.principal.as_ref()
    }

    /// Whether this principal opened the session. `None` means a request without a principal.
    pub(crate) fn is_of(&self, principal: Option<&str>) -> bool {
        self.principal.as_deref() == principal
    }

    pub(crate) fn kind(&self) -> SessionKind {
        self.kind
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub(super) fn next_stream(&self) -> u64 {
        self.next_stream.load(Ordering::Relaxed)
    }

    pub(super) fn with_next_stream(self, next: u64) -> Self {
        self.next_stream.store(next, Ordering::Relaxed);
        self
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn with_moves(mut self, moves: u64) -> Self {
        self.moves = moves;
        self
    }

    /// Streams with an id below this are from a node that died.
    pub(crate) fn first_stream(&self) -> u64 {
        self.dead_node.as_ref().map_or(0, |dead_node| dead_node.before)
    }

    /// The request that this stream still had to answer when its node died.
    pub(super) fn unanswered(&self, stream: StreamId) -> Option<&Id> {
        self.dead_node.as_ref()?.unanswered.get(&stream.0)
    }

    pub(super) fn with_first_stream(mut self, first: u64, unanswered: Vec<(u64, Id)>) -> Self {
        let unanswered = unanswered.into_iter().collect();
        self.dead_node = Some(Box::new(DeadNodeStreams { before: first, unanswered }));
        self
    }

    /// The stream of what belongs to no request.
    pub(crate) fn notices(&self) -> &StreamSender {
        &self.notices
    }

    pub(crate) fn questions(&self) -> &PendingRequests {
        &self.questions
    }

    pub(crate) fn calls(&self) -> &OpenCalls {
        &self.calls
    }

    /// Permits for messages in the actor's mailbox.
    pub(crate) fn turns(&self) -> &Arc<Semaphore> {
        &self.turns
    }

    pub(crate) fn requests(&self) -> &Arc<Meter> {
        &self.requests
    }

    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// The state that the session keeps between messages. Do not keep it locked over an `await`.
    pub(crate) fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock()
    }

    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.state().legacy().map(|caller| caller.version)
    }

    /// The version and the name of a legacy client, after `initialize`.
    pub(crate) fn client(&self) -> (Option<ProtocolVersion>, Option<Arc<Implementation>>) {
        let state = self.state();
        let legacy = state.legacy();
        (legacy.map(|caller| caller.version), legacy.and_then(|caller| caller.client.clone()))
    }

    /// Kept by a call as long as it may still answer on the session's streams.
    pub(crate) fn finish_streams(&self) -> Option<Arc<FinishStreams>> {
        self.finish.lock().clone()
    }

    /// The key of the session in the hub, or of one of its listens.
    pub(crate) fn key(&self, subscription: Option<stentor_wire::SubscriptionId>) -> SubscriberKey {
        SubscriberKey { session: self.id.clone(), subscription }
    }

    // The actor

    pub(crate) fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        self.actor.lock().clone()
    }

    pub(crate) fn is_actor(&self, id: ActorId) -> bool {
        self.actor.lock().as_ref().is_some_and(|actor| actor.get_id() == id)
    }

    /// Sets a spawned actor in place of `predecessor`, or as the first one. `false` if another
    /// actor was first, or the session has ended.
    pub(super) fn take_actor(
        &self,
        spawned: &ActorRef<SessionMsg>,
        predecessor: Option<ActorId>,
    ) -> bool {
        let mut actor = self.actor.lock();
        // Checked while it is locked, because `end` stops the actor that it finds here.
        let taken = !self.is_closed() && actor.as_ref().map(|actor| actor.get_id()) == predecessor;
        if taken {
            *actor = Some(spawned.clone());
            self.changed.notify_waiters();
        }
        taken
    }

    /// Stops the actor if the session had no message for `idle`. The next message activates the
    /// session again.
    pub(crate) fn passivate(&self, idle: Duration) {
        let mut actor = self.actor.lock();
        // A message takes its permit before it looks for the actor, and keeps it until it is
        // handled. So while this is locked, either the message is seen here or it finds no actor.
        let is_idle = self.turns.available_permits() == MAX_WAITING_MESSAGES as usize
            && self.presence.last_message().elapsed() >= idle;
        if is_idle && let Some(actor) = actor.take() {
            stop_quietly(&actor);
        }
    }

    /// Completes when the actor is replaced, and when there will be none any more.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Records that notices may have been lost. The client is notified when the session joins the
    /// hub.
    pub(crate) fn mark_missed(&self) {
        self.hub_lost.store(true, Ordering::Release);
    }

    /// Whether notices may have been lost since the last call of this function.
    pub(crate) fn take_missed(&self) -> bool {
        self.hub_lost.swap(false, Ordering::AcqRel)
    }

    /// Whether the actor may be restarted. Uses up one of the restarts.
    pub(crate) fn may_restart(&self) -> bool {
        self.ending().is_none() && self.restarts.lock().spend()
    }

    /// Emits events for frames dropped and streams closed since the last report.
    pub(crate) fn report_losses(&self, events: &Events) {
        self.reported.report(&self.counters, Some(&self.id), events);
    }

    // The client

    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Counts the session as left: its client disconnected before it sent a request.
    pub(crate) fn unused(&self, permit: SessionPermit) {
        self.presence.unused(permit, || self.is_closed());
    }

    /// Whether the client was seen to disconnect, is still away, and did not use the session.
    pub(crate) fn is_left(&self) -> bool {
        self.presence.is_counted_unused() && self.unused_since().is_some()
    }

    /// Stops counting the session as left. `true` if it was counted and its client is still away.
    pub(crate) fn uncount_left(&self) -> bool {
        self.presence.uncount_left() && self.unused_since().is_some()
    }

    /// Since when the client is away, if it opened the session and did nothing with it.
    ///
    /// A client that is still connected after [`TO_BE_USED`] counts as using its session. Must be
    /// called periodically.
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

    /// Counts a client that reads a stream as seen. Must be called periodically.
    pub(crate) fn look(&self) {
        if self.is_attached() {
            self.presence.touch();
        }
    }

    /// Whether the client has been away for `timeout`.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        self.kind == SessionKind::Http
            && self.presence.last_seen().elapsed() >= timeout
            && !self.is_attached()
    }

    fn is_attached(&self) -> bool {
        self.notices.is_attached() || self.kept.all().iter().any(StreamSender::is_attached)
    }

    /// Closes the streams whose client has stopped reading, and returns their ids.
    pub(crate) fn close_stalled(&self, timeout: Duration) -> Vec<StreamId> {
        if self.kind == SessionKind::Pipe {
            return Vec::new();
        }
        let streams = std::iter::once(self.notices.clone()).chain(self.kept.all());
        let stalled = streams.filter(|stream| stream.close_if_stalled(timeout));
        stalled.map(|stream| stream.stream_id()).collect()
    }

    /// Opens the stream of one request on a legacy HTTP session.
    pub(crate) fn open_stream(&self, sessions: &Sessions, request: &Id) -> StreamSender {
        let stream = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let sender = streams::of_request(sessions, stream, self.counters.clone());
        if sessions.saver.is_some() {
            sender.answers(request);
        }
        sender
    }

    /// Keeps the stream of a request for a client that reconnects: while its call runs, and after
    /// that among the last `Config::kept_streams` answered ones. `read` contains all frames read so
    /// far.
    pub(crate) fn keep_stream(
        &self,
        sessions: &Sessions,
        sender: StreamSender,
        read: &[Delivered],
    ) {
        sender.keep_log(streams::log(sessions, &self.id, sender.stream_id()), read);
        self.kept.keep(sender, sessions.limits.kept_streams);
        // The session may have been closed meanwhile.
        if self.is_closed() {
            self.kept.clear();
        }
    }

    pub(crate) fn find_stream(&self, stream: StreamId) -> Option<StreamSender> {
        if stream == StreamId::STANDALONE {
            return Some(self.notices.clone());
        }
        self.kept.find(stream)
    }

    pub(crate) fn view(&self) -> SessionView {
        let notices = &self.notices;
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
            attached: notices.is_attached(),
            unread: notices.unread(),
            streams: 1 + self.kept.len(),
            subscriptions,
            open_calls: self.calls.ids(),
            mailbox: MAX_WAITING_MESSAGES as usize - self.turns.available_permits(),
            recent_restarts: self.restarts.lock().recent(),
            counters: self.counters.view(),
        }
    }
}
