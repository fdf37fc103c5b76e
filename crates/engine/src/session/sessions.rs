//! What all sessions of an engine use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ractor::ActorId;
use stentor_delivery::History;
use stentor_macros::Setters;
use stentor_wire::KeyKind;
use stentor_wire::encode::ServerIdentity;
use tokio::sync::Semaphore;

use super::directory::Directory;
use super::entry::SessionEntry;
use super::saver::Saver;
use super::store::SessionStore;
use super::{Session, SessionActor};
use crate::actor_pool::ActorPool;
use crate::call::Calls;
use crate::dispatch::Dispatcher;
use crate::events::{EngineEvent, Events};
use crate::extension::ProtocolExtension;
use crate::hub::{Hub, HubMsg};
use crate::ids::SessionId;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::reasons::{CancelReason, EndReason, SessionKind};
use crate::registry::Registry;
use crate::streams::Streams;

/// How many sessions there may be, what each may have, and for how long.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct SessionConfig {
    /// Sessions that may be open at once. With HTTP, one more is refused with 503. Default 100,000.
    pub max_sessions: usize,
    /// Requests of one session that may run at once. Default 1,000.
    pub max_requests: usize,
    /// Resources that one session may watch at once. Default 1,000.
    pub max_subscriptions: usize,
    /// A legacy HTTP session ends, and with it the calls that still run, when its client has no
    /// stream open and sends nothing for this time. Default 30 minutes.
    pub idle_timeout: Duration,
    /// A session is passive, and has no actor, when its client has sent no message for this time.
    /// The next message gives it one again, from a pool, which costs next to nothing. `None` keeps
    /// one actor from the opening of the session to its end, for hosts that watch it. With 0 a
    /// session has an actor while it has messages. Default 0.
    pub passivate_after: Option<Duration>,
    /// Legacy HTTP sessions that are kept although their clients have sent no request and have not
    /// listened for a second or two. Above that, the least recently seen ones end. Default 1,000.
    pub max_unused_sessions: usize,
    /// Sessions of this kind that are kept although their clients were seen to disconnect, as
    /// crashing clients do. Above that, those that were left first end at once. Default 100.
    pub max_left_sessions: usize,
    /// Streams of answered requests that a legacy HTTP session keeps for a client that reconnects.
    /// Default 8.
    pub kept_streams: usize,
    /// One of so many new sessions is followed for its first hour, as by
    /// [`SessionRef::follow`](crate::SessionRef::follow); with 0 none is. Default 0.
    pub follow_one_in: usize,
    /// The store of legacy HTTP sessions that must survive their node.
    ///
    /// All nodes need the same store, and should have the same
    /// [`event_store`](crate::Config::event_store). Nodes that share a store must know each other
    /// as peers, or must not run at the same time: without peers, a node takes over any session
    /// that it is asked for. Default: none, and a session ends with its node.
    pub store: Option<Arc<dyn SessionStore>>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
            max_requests: 1_000,
            max_subscriptions: 1_000,
            idle_timeout: Duration::from_secs(30 * 60),
            passivate_after: Some(Duration::ZERO),
            max_unused_sessions: 1_000,
            max_left_sessions: 100,
            kept_streams: 8,
            follow_one_in: 0,
            store: None,
        }
    }
}

impl SessionConfig {
    fn request_permits(&self) -> u32 {
        u32::try_from(self.max_requests).unwrap_or(u32::MAX)
    }
}

/// Messages whose history is kept of one session.
const FOLLOWED: usize = 256;
/// How long a session is followed that nobody chose.
const SAMPLED_FOR: Duration = Duration::from_secs(60 * 60);

/// All sessions of an engine: where they are found, what they share, and what bounds them.
pub(crate) struct Sessions {
    pub(crate) config: SessionConfig,
    pub(crate) streams: Arc<Streams>,
    pub(crate) identity: Arc<ServerIdentity>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) calls: Arc<Calls>,
    /// The extensions that own topics.
    pub(crate) owners: Vec<(KeyKind, Arc<dyn ProtocolExtension>)>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) directory: Directory,
    /// Saves sessions in case this node dies, if there is a session store.
    pub(crate) saver: Option<Arc<Saver>>,
    /// The members of a listen that extensions bring.
    pub(crate) members: Vec<Arc<str>>,
    /// How many sessions were opened, where some of them are followed.
    opened: AtomicUsize,
    /// Those of all listens together, which have no other requests: nobody keeps one.
    pub(super) listen_permits: Arc<Semaphore>,
    /// The session actors.
    pub(crate) pool: Arc<ActorPool<SessionActor>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.directory.len()).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn new(
        config: SessionConfig,
        hub: Arc<Hub>,
        calls: Arc<Calls>,
        dispatcher: Arc<Dispatcher>,
    ) -> Self {
        let permits = config.request_permits();
        Self {
            directory: Directory::new(config.max_sessions),
            saver: Saver::new(&config, &calls.node).map(Arc::new),
            config,
            streams: calls.streams.clone(),
            identity: calls.identity.clone(),
            members: hub.members().cloned().collect(),
            hub,
            registry: calls.registry.clone(),
            lifecycle: calls.lifecycle.clone(),
            events: calls.events.clone(),
            metrics: calls.metrics.clone(),
            calls,
            owners: dispatcher.owners().collect(),
            dispatcher,
            opened: AtomicUsize::new(0),
            listen_permits: Arc::new(Semaphore::new(permits as usize)),
            pool: Arc::default(),
        }
    }

    /// Notes what becomes of each message to a session from now on, for this long.
    pub(crate) fn follow(&self, session: &SessionEntry, time: Duration) {
        session.counters().follow(History::new(FOLLOWED, time));
        self.hub.send(HubMsg::Follow(session.id().clone()));
    }

    /// Follows some of the new sessions.
    pub(super) fn sample(&self, session: &SessionEntry) {
        let one_in = self.config.follow_one_in;
        if one_in > 0 && self.opened.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
            // It has yet to join the hub.
            session.counters().follow(History::new(FOLLOWED, SAMPLED_FOR));
        }
    }

    /// Whether a session has an actor from its opening to its end.
    pub(crate) fn never_passive(&self) -> bool {
        self.config.passivate_after.is_none()
    }

    /// Whether a session keeps its actor when no message is left.
    pub(super) fn keeps_actors(&self) -> bool {
        self.config.passivate_after != Some(Duration::ZERO)
    }

    /// How many requests of one session may run, as a number of permits of a semaphore.
    pub(super) fn max_requests(&self) -> u32 {
        self.config.request_permits()
    }

    /// Ends a session. `false` if there is no such session.
    pub(crate) fn end_session(&self, id: &SessionId) -> bool {
        let session = self.directory.get(id.as_str());
        if let Some(session) = &session {
            session.end(self, EndReason::Ended);
        }
        session.is_some()
    }

    /// Ends what only waits, because no new work will come.
    pub(crate) fn drain(self: &Arc<Self>) {
        for entry in self.directory.all() {
            match entry.kind() {
                SessionKind::Listen => entry.end(self, EndReason::Shutdown),
                SessionKind::Pipe => {
                    let session = Session::new(self.clone(), entry);
                    // Spawned, because a message may be handled just now.
                    tokio::spawn(async move { session.end_listens().await });
                }
                SessionKind::Http => {}
            }
        }
    }

    /// Restarts a session, as if its actor had crashed. `false` if there is no such session.
    pub(crate) fn restart_session(&self, id: &SessionId) -> bool {
        let session = self.directory.get(id.as_str());
        if let Some(session) = &session
            && session.kill_actor().is_none()
        {
            // A passive session has no actor whose end the supervisor would hear of.
            self.crashed(session, None);
        }
        session.is_some()
    }

    /// Handles the crash of a session's actor: the calls of the session end with an error, and its
    /// next message gives it a new actor. `false` if it crashed too often, and has ended.
    pub(crate) fn crashed(&self, entry: &SessionEntry, actor: Option<ActorId>) -> bool {
        let session = entry.id();
        let restarts = !self.lifecycle.is_draining() && entry.may_restart();
        self.events.emit(|| EngineEvent::SessionCrashed { session: session.clone() });
        // Before a message that waits for the next actor can begin a call.
        entry.calls().cancel_all(&CancelReason::SessionCrashed);
        if let Some(actor) = actor {
            entry.lost_actor(actor);
        }
        if restarts {
            crate::log!(warn, ?session, "restarted");
            self.metrics.restarted("session");
            self.events.emit(|| EngineEvent::SessionRestarted { session: session.clone() });
        } else {
            entry.end(self, EndReason::Crashed);
        }
        restarts
    }

    /// Marks a session to be saved, if there is a session store.
    pub(crate) fn session_changed(&self, entry: &Arc<SessionEntry>) {
        if let Some(saver) = &self.saver {
            saver.changed(entry);
        }
    }
}
