//! The part of a session that outlives its actor: the next actor continues with it, and transports
//! and the supervisor read it.

mod ending;
mod life;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use stentor_delivery::{Counters, Delivered, StreamSender};
use stentor_wire::model::Implementation;
use stentor_wire::{Id, ProtocolVersion};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::SubscriberKey;
use super::state::SessionState;
use super::streams::{self, Kept};
use crate::call::{FinishStreams, OpenCalls};
use crate::handler::PendingRequests;
use crate::identity::{Owner, Who};
use crate::ids::{SessionId, StreamId};
use crate::principal_limits::Counted;
use crate::reasons::SessionKind;
use crate::request_budget::Meter;
use crate::session::Sessions;
use crate::session::directory::SessionPermit;
use life::Life;
pub(crate) use life::TO_BE_USED;
pub use view::SessionView;

/// Messages of one client that may wait for its session. The actor handles nearly all at once (a
/// listen may wait for the store of tasks), so a few are enough to keep it busy.
pub(crate) const MAX_WAITING_MESSAGES: u32 = 64;

/// A session, for transports, the supervisor, views, and the next actor.
///
/// The state is written by the actor, in the turn of a message. Only three others write it: the code
/// that opens the session, before any message comes; code that has a [turn](Self::turn) itself; and the
/// [end](Self::end), which may come during a message, so that the actor looks again after each `await`.
///
/// It has three locks, which are taken in this order if two are needed: `state` guards what the client
/// has said and asked for, `life` guards what becomes of the session and of its actor, and `kept`
/// guards the streams that a client may resume.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    id: SessionId,
    kind: SessionKind,
    owner: Owner,
    opened: Instant,
    state: Mutex<SessionState>,
    life: Mutex<Life>,
    kept: Kept,
    /// Notified when a dead actor is forgotten, and when there will be none any more.
    changed: Notify,
    /// The stream of what belongs to no request.
    notices: StreamSender,
    next_stream: AtomicU64,
    /// Streams from a node that had the session and died, if there was one.
    dead_node: Option<Box<DeadNodeStreams>>,
    moves: u64,
    calls: OpenCalls,
    questions: PendingRequests,
    /// Counts the bytes that are kept of what the client sent.
    requests: Arc<Meter>,
    permits: Arc<Semaphore>,
    mailbox_permits: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Streams from a node that had the session and died.
#[derive(Debug)]
struct DeadNodeStreams {
    /// Their ids are below this.
    before: u64,
    /// Requests of calls that ran on that node, by the id of the stream that had to answer them.
    unanswered: HashMap<u64, Id>,
    /// What the reader of a stream has to have, by its id.
    needs: HashMap<u64, Vec<Arc<str>>>,
}

impl SessionEntry {
    pub(crate) fn new(
        sessions: &Sessions,
        id: SessionId,
        kind: SessionKind,
        notices: StreamSender,
        mut state: SessionState,
        who: Who,
        permit: SessionPermit,
    ) -> Self {
        let owner = who.owner();
        if kind != SessionKind::Listen {
            let limits = &sessions.calls.per_principal;
            state.set_limit(limits.nothing(who.principal(), Counted::Subscriptions));
        }
        state.viewer = sessions.registry.viewers.viewer(&who);
        state.who = who;
        let counters = notices.counters().clone();
        Self {
            id,
            kind,
            owner,
            opened: Instant::now(),
            requests: state.meter().clone(),
            state: Mutex::new(state),
            life: Mutex::new(Life::new(FinishStreams(notices.clone()), permit)),
            kept: Kept::default(),
            changed: Notify::new(),
            notices,
            next_stream: AtomicU64::new(StreamId::STANDALONE.0 + 1),
            dead_node: None,
            moves: 0,
            calls: OpenCalls::default(),
            questions: PendingRequests::default(),
            permits: match kind {
                SessionKind::Listen => sessions.listen_permits.clone(),
                _ => Arc::new(Semaphore::new(sessions.max_requests() as usize)),
            },
            mailbox_permits: Arc::new(Semaphore::new(MAX_WAITING_MESSAGES as usize)),
            counters,
        }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// Who opened the session. Nobody else may use it.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The principal that opened the session, if the transport knows one.
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.owner.principal.as_ref()
    }

    /// Whether the session is this sender's own.
    pub(crate) fn is_of(&self, who: &Who) -> bool {
        who.owns(&self.owner)
    }

    /// Who used the session last, and with which rights.
    pub(crate) fn who(&self) -> Who {
        self.state().who.clone()
    }

    pub(crate) fn kind(&self) -> SessionKind {
        self.kind
    }

    /// What the author keeps of this type for this session. It is made when it is first asked for,
    /// and freed when the session ends.
    pub(crate) fn slot<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let present = self.state().slots.get();
        present.unwrap_or_else(|| {
            // Made without the lock, because this is the author's code.
            let new = Arc::new(T::default());
            let kept = {
                let mut state = self.state();
                // Looked at under the lock, under which the end takes the slots away.
                if !self.is_closed() {
                    state.slots.set(new.clone());
                }
                state.slots.get()
            };
            kept.unwrap_or(new)
        })
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
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

    /// What the reader of this stream has to have, if its node died.
    pub(super) fn needs_of(&self, stream: StreamId) -> impl Iterator<Item = Arc<str>> + '_ {
        let dead = self.dead_node.as_ref();
        dead.and_then(|dead| dead.needs.get(&stream.0)).into_iter().flatten().cloned()
    }

    pub(super) fn with_first_stream(
        mut self,
        first: u64,
        unanswered: Vec<(u64, Id)>,
        needs: Vec<(u64, Vec<Arc<str>>)>,
    ) -> Self {
        let (unanswered, needs) = (unanswered.into_iter().collect(), needs.into_iter().collect());
        self.dead_node = Some(Box::new(DeadNodeStreams { before: first, unanswered, needs }));
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
    pub(crate) fn mailbox_permits(&self) -> &Arc<Semaphore> {
        &self.mailbox_permits
    }

    pub(crate) fn requests(&self) -> &Arc<Meter> {
        &self.requests
    }

    pub(crate) fn request_permits(&self) -> &Arc<Semaphore> {
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

    /// The key of the session in the hub, or of one of its listens.
    pub(crate) fn key(&self, subscription: Option<stentor_wire::SubscriptionId>) -> SubscriberKey {
        SubscriberKey { session: self.id.clone(), subscription }
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
    /// that among the last `SessionConfig::kept_streams` answered ones. `read` contains all frames
    /// read so far.
    pub(crate) fn keep_stream(
        &self,
        sessions: &Sessions,
        sender: StreamSender,
        read: &[Delivered],
    ) {
        sender.keep_log(streams::log(sessions, &self.id, sender.stream_id()), read);
        self.kept.keep(sender, sessions.config.kept_streams);
        // The session may have been closed meanwhile.
        if self.is_closed() {
            self.kept.clear();
        }
    }

    /// Drops answered streams beyond the number that is kept.
    pub(crate) fn trim_streams(&self, sessions: &Sessions) {
        self.kept.trim(sessions.config.kept_streams);
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
            principal: self.principal().cloned(),
            version,
            client,
            initialized,
            age: self.opened.elapsed(),
            attached: notices.is_attached(),
            unread: notices.unread(),
            streams: 1 + self.kept.len(),
            subscriptions,
            open_calls: self.calls.ids(),
            mailbox: MAX_WAITING_MESSAGES as usize - self.mailbox_permits.available_permits(),
            recent_restarts: self.life.lock().recent_restarts(),
            counters: self.counters.view(),
        }
    }
}
