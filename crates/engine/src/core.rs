//! The parts of one engine, put together: no globals, no names.

use std::sync::Arc;

use stentor_delivery::Counters;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::model::JsonObject;

use crate::call::{CallLimits, Calls};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::dispatch::{Dispatcher, ListLimits};
use crate::events::Events;
use crate::extension::{Extension, ProtocolExtension};
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Gauges, Metrics};
use crate::registry::Registry;
use crate::remote::{PeerNodes, Remote};
use crate::server_hello::ServerHello;
use crate::session::{SessionLimits, Sessions};
use crate::tasks::Tasks;

/// The parts of one engine. Each is immutable, published whole, or made for concurrent use.
/// Decisions belong to the actors.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    /// Counts the frames of all streams.
    pub(crate) counters: Arc<Counters>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) remote: Remote,
}

/// What a server says of itself to its clients.
pub(crate) struct ServerOffer {
    pub(crate) identity: ServerIdentity,
    pub(crate) instructions: Option<String>,
    /// Capabilities of the application's own.
    pub(crate) capabilities: JsonObject,
    pub(crate) extensions: Vec<Extension>,
}

impl Core {
    pub(crate) fn new(config: Config, offer: ServerOffer, catalog: Catalog) -> Self {
        let ServerOffer { identity, instructions, capabilities, extensions } = offer;
        let (events, lifecycle) = (Events::default(), Arc::<Lifecycle>::default());
        let members = extensions.iter().flat_map(Extension::notifications).cloned().collect();
        let (hub, metrics) = (Arc::new(Hub::new(members)), Arc::<Metrics>::default());
        let registry = Arc::new(Registry::new(
            catalog,
            config.coalesce_window,
            hub.clone(),
            events.clone(),
            lifecycle.clone(),
        ));
        let counters = Arc::new(Counters::total(config.budget.total));
        let identity = Arc::new(identity);
        let calls = Arc::new(Calls::new(
            CallLimits::of(&config),
            identity.clone(),
            registry.clone(),
            lifecycle.clone(),
            events.clone(),
            metrics.clone(),
            &counters,
        ));
        let max = config.max_subscriptions;
        let nodes = Arc::new(PeerNodes::new(config.node.clone()));
        let tasks = Tasks::new(config.tasks.clone(), max, hub.clone(), nodes.clone(), &calls);
        let tasks = Arc::new(tasks);
        calls.set_tasks(tasks.clone());
        let own = extensions.into_iter().map(|it| Arc::new(it) as Arc<dyn ProtocolExtension>);
        let extensions: Vec<_> = own.chain([tasks.clone() as _]).collect();
        let (text, cache) = (instructions.as_deref(), config.list_cache.discover);
        let hello = ServerHello::new(&identity, text, &extensions, &capabilities, cache);
        let dispatcher = Arc::new(Dispatcher::new(
            calls.clone(),
            extensions,
            nodes.clone(),
            hello,
            ListLimits { page_size: config.page_size, list_cache: config.list_cache },
        ));
        let sessions = Arc::new(Sessions::new(
            SessionLimits::of(&config),
            hub.clone(),
            calls.clone(),
            dispatcher.clone(),
            counters.clone(),
        ));
        let timeout = config.reconnect_timeout;
        let remote = Remote::new(nodes, sessions.clone(), dispatcher.clone(), timeout);
        Self {
            config,
            lifecycle,
            events,
            metrics,
            counters,
            hub,
            registry,
            calls,
            tasks,
            dispatcher,
            sessions,
            remote,
        }
    }

    /// Updates the metrics whose values the engine counts itself.
    pub(crate) fn record_metrics(&self) {
        let gauges = Gauges {
            requests: self.calls.requests.held(),
            sessions: self.sessions.directory.len(),
            calls: self.calls.tracker.len(),
            awaiting_input: self.calls.awaiting_input.len(),
        };
        self.metrics.record(&self.counters.view(), gauges);
    }
}

impl CallLimits {
    fn of(config: &Config) -> Self {
        Self {
            node: config.node.clone(),
            max_argument_values: config.max_argument_values,
            max_stateless_calls: config.max_stateless_calls,
            max_awaiting_input: config.max_awaiting_input,
            max_awaiting_input_bytes: config.max_awaiting_input_bytes,
            ask_timeout: config.ask_timeout,
            state_keys: config.state_keys.clone(),
            call_timeout: config.call_timeout,
            task_cancel_grace: config.tasks.cancel_grace,
            stream: config.limits,
            requests: config.requests,
        }
    }
}

impl SessionLimits {
    fn of(config: &Config) -> Self {
        Self {
            node: config.node.clone(),
            max_sessions: config.max_sessions,
            max_requests: config.max_requests_per_session.min(u32::MAX as usize),
            max_subscriptions: config.max_subscriptions,
            max_left_sessions: config.max_left_sessions,
            session_idle_timeout: config.session_idle_timeout,
            passivate_after: config.passivate_after,
            drain_timeout: config.drain_timeout,
            kept_streams: config.kept_streams,
            stream: config.limits,
            retention: config.retention,
            session_budget: config.budget.session,
            session_requests: config.requests.session,
            event_store: config.event_store.clone(),
            session_store: config.session_store.clone(),
        }
    }
}
