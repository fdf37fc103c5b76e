//! What all sessions of an engine use together.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;
use stentor_delivery::policy::{Limits, Retention};
use stentor_delivery::{Counters, EventStore};
use stentor_wire::KeyKind;
use stentor_wire::encode::ServerIdentity;

use super::SessionActor;
use super::directory::Directory;
use super::entry::SessionEntry;
use super::saver::Saver;
use super::store::SessionStore;
use crate::actor_pool::ActorPool;
use crate::call::Calls;
use crate::dispatch::Dispatcher;
use crate::events::{EngineEvent, Events};
use crate::extension::ProtocolExtension;
use crate::hub::Hub;
use crate::ids::{NodeId, SessionId};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::reasons::{CancelReason, EndReason};
use crate::registry::Registry;
use crate::request_budget::Meter;
use crate::shares::Share;

/// How many sessions there may be, what each may have, and for how long. The fields are those of
/// [`Config`](crate::Config).
#[derive(Clone, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) node: NodeId,
    pub(crate) max_sessions: usize,
    /// As a number of permits that a semaphore can have.
    pub(crate) max_requests: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_left_sessions: usize,
    pub(crate) session_idle_timeout: Duration,
    pub(crate) passivate_after: Option<Duration>,
    pub(crate) drain_timeout: Duration,
    pub(crate) kept_streams: usize,
    pub(crate) stream: Limits,
    pub(crate) retention: Retention,
    /// Bytes of unread frames that one session may have.
    pub(crate) session_budget: usize,
    /// Bytes of messages of its client that one session may keep.
    pub(crate) session_requests: usize,
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) session_store: Option<Arc<dyn SessionStore>>,
}

/// All sessions of an engine: where they are found, what they share, and what bounds them.
pub(crate) struct Sessions {
    pub(crate) limits: SessionLimits,
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
    /// Counts the frames of all streams.
    pub(crate) counters: Arc<Counters>,
    pub(crate) directory: Directory,
    /// Saves sessions in case this node dies, if there is a session store.
    pub(crate) saver: Option<Arc<Saver>>,
    /// The members of a listen that extensions bring.
    pub(crate) members: Vec<Arc<str>>,
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
        limits: SessionLimits,
        hub: Arc<Hub>,
        calls: Arc<Calls>,
        dispatcher: Arc<Dispatcher>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
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
            counters,
            directory: Directory::new(limits.max_sessions),
            saver: Saver::new(&limits).map(Arc::new),
            pool: Arc::default(),
            limits,
        }
    }

    /// Whether a session has an actor from its opening to its end.
    pub(crate) fn never_passive(&self) -> bool {
        self.limits.passivate_after.is_none()
    }

    /// Whether a session keeps its actor when no message is left.
    pub(super) fn keeps_actors(&self) -> bool {
        self.limits.passivate_after != Some(Duration::ZERO)
    }

    /// Counts the frames of a new session.
    pub(super) fn session_counters(&self) -> Arc<Counters> {
        Arc::new(Counters::within(self.counters.clone(), self.limits.session_budget))
    }

    /// Counts the bytes that are kept of what the client of a new session sends.
    pub(super) fn session_meter(&self, share: &Share) -> Arc<Meter> {
        Meter::session(self.calls.requests.of(share), self.limits.session_requests)
    }

    /// Ends a session. `false` if there is no such session.
    pub(crate) fn end_session(&self, id: &SessionId) -> bool {
        let session = self.directory.get(id.as_str());
        if let Some(session) = &session {
            session.end(self, EndReason::Ended);
        }
        session.is_some()
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
