//! The state that all actors of one engine share: no globals, no names.

use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::registry::Registry;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use ractor::ActorRef;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::{DecodeError, Message};
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::directory::Directory;
use crate::events::Events;
use crate::ids::SessionId;
use crate::metrics::{Gauges, Metrics};
use crate::offload::{LARGE, Offload};
use crate::reasons::CancelReason;
use crate::reasons::{EndReason, SessionKind};
use crate::remote::{Migrations, Peers};
use crate::request_budget::{Callers, Meter};
use crate::server_hello::ServerHello;
use crate::session::{Saver, SessionEntry};
use crate::shares::Share;
use crate::supervisor::EngineMsg;
use crate::task::{AwaitingInput, Binding, RunningCalls, StateSealer, StateToken, StatelessCalls};
use crate::tasks::Tasks;
use stentor_delivery::Counters;

/// The shared state of one engine. Everything in it is immutable, published whole, or made for
/// concurrent use. Decisions belong to the actors.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) identity: ServerIdentity,
    pub(crate) server_hello: ServerHello,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// The current supervisor.
    pub(crate) supervisor: ArcSwapOption<ActorRef<EngineMsg>>,
    pub(crate) directory: Directory,
    pub(crate) migrations: Migrations,
    /// Saves sessions in case this node dies, if there is a session store.
    pub(crate) saver: Option<Arc<Saver>>,
    pub(crate) peers: ArcSwapOption<Arc<dyn Peers>>,
    /// Counts running calls, because a shutdown waits for them.
    pub(crate) calls: TaskTracker,
    /// The session of all calls that belong to no session.
    pub(crate) stateless: ArcSwapOption<SessionEntry>,
    pub(crate) stateless_calls: Arc<StatelessCalls>,
    pub(crate) running: RunningCalls,
    pub(crate) tasks: Tasks,
    /// Modern calls that wait for their client's answer to a question.
    pub(crate) awaiting_input: AwaitingInput,
    pub(crate) sealer: StateSealer,
    pub(crate) counters: Arc<Counters>,
    /// Counts the bytes that are kept of what clients sent.
    pub(crate) requests: Callers,
    /// Reads large input on other threads.
    pub(crate) offload: Offload,
    /// Counters of calls that belong to no session.
    pub(crate) stateless_counters: Arc<Counters>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("server", &self.identity.info().name).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        config: Config,
        identity: ServerIdentity,
        server_hello: ServerHello,
        catalog: Catalog,
    ) -> Self {
        let stateless_calls = Arc::new(StatelessCalls::new(config.max_stateless_calls));
        let counters = Arc::new(Counters::total(config.budget.total));
        // Many clients share these counters, so only the budget of all clients limits them.
        let stateless_counters = Arc::new(Counters::within(counters.clone(), usize::MAX));
        let (hub, events) = (Arc::<Hub>::default(), Events::default());
        let lifecycle = Arc::<Lifecycle>::default();
        let window = config.coalesce_window;
        let (to, by) = (hub.clone(), lifecycle.clone());
        let registry = Arc::new(Registry::new(catalog, window, to, events.clone(), by));
        let sealer = StateSealer::new(config.state_keys.clone(), config.ask_timeout);
        Self {
            awaiting_input: AwaitingInput::new(
                config.max_awaiting_input,
                config.max_awaiting_input_bytes,
            ),
            sealer,
            directory: Directory::new(config.max_sessions),
            counters,
            stateless_counters,
            requests: Callers::new(config.requests),
            offload: Offload::default(),
            saver: Saver::new(&config).map(Arc::new),
            config,
            identity,
            server_hello,
            hub,
            registry,
            lifecycle,
            supervisor: ArcSwapOption::empty(),
            events,
            migrations: Migrations::default(),
            peers: ArcSwapOption::empty(),
            calls: TaskTracker::new(),
            running: RunningCalls::default(),
            tasks: Tasks::default(),
            stateless: ArcSwapOption::empty(),
            stateless_calls,
            metrics: Metrics::default(),
        }
    }

    /// Decodes a message within the bounds of this engine, a large one on another thread.
    pub(crate) async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        let max_values = self.config.max_argument_values;
        if input.len() <= LARGE {
            return Message::decode_within(&input, max_values);
        }
        // Boxed to keep the common future small: few messages are large.
        Box::pin(self.offload.run(move || Message::decode_within(&input, max_values))).await
    }

    /// Updates the metrics whose values the engine counts itself.
    pub(crate) fn record_metrics(&self) {
        let gauges = Gauges {
            requests: self.requests.held(),
            sessions: self.directory.len(),
            calls: self.calls.len(),
            awaiting_input: self.awaiting_input.len(),
        };
        self.metrics.record(&self.counters.view(), gauges);
    }

    pub(crate) fn session_counters(&self) -> Arc<Counters> {
        Arc::new(Counters::within(self.counters.clone(), self.config.budget.session))
    }

    /// Counts the bytes that are kept of what the client of a new session sends.
    pub(crate) fn session_meter(&self, share: &Share) -> Arc<Meter> {
        Meter::session(self.requests.of(share), self.config.requests.session)
    }

    /// Ends a session. `false` if there is no such session.
    pub(crate) fn end_session(&self, id: &SessionId) -> bool {
        let session = self.client_session(id);
        if let Some(session) = &session {
            session.end(self, EndReason::Ended);
        }
        session.is_some()
    }

    /// Kills the actor of a session. `false` if there is no such session.
    pub(crate) fn restart_session(&self, id: &SessionId) -> bool {
        let session = self.client_session(id);
        // A session without an actor has nothing to restart.
        if let Some(actor) = session.as_ref().and_then(|session| session.actor()) {
            actor.kill();
        }
        session.is_some()
    }

    fn client_session(&self, id: &SessionId) -> Option<Arc<SessionEntry>> {
        let session = self.directory.get(id.as_str());
        session.filter(|session| session.kind() != SessionKind::Stateless)
    }

    /// Marks a session to be saved, if there is a session store.
    pub(crate) fn session_changed(&self, entry: &Arc<SessionEntry>) {
        if let Some(saver) = &self.saver {
            saver.changed(entry);
        }
    }

    /// The state token that a client sends back. It names this node.
    pub(crate) fn seal(&self, sealed: &StateToken, binding: &Binding) -> String {
        self.config.node.sign(&self.sealer.seal(sealed, binding, SystemTime::now()))
    }

    /// Cancels all calls that run, and those that begin later.
    pub(crate) fn end_calls(&self) {
        self.lifecycle.end_calls();
        self.running.cancel_all(&CancelReason::Shutdown);
    }
}
