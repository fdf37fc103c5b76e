//! The parts of one engine, put together: no globals, no names.

use std::sync::{Arc, OnceLock};

use ractor::ActorCell;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::model::JsonObject;

use crate::call::Calls;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::crashes::Crashes;
use crate::dispatch::Dispatcher;
use crate::events::Events;
use crate::extension::{Extension, ProtocolExtension};
use crate::handler::Layers;
use crate::hub::Hub;
use crate::identity::Labels;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Gauges, Metrics};
use crate::principal_limits::PrincipalLimits;
use crate::registry::Registry;
use crate::remote::{PeerNodes, Remote};
use crate::server_hello::ServerHello;
use crate::session::Sessions;
use crate::states::States;
use crate::streams::Streams;
use crate::tasks::Tasks;
use crate::viewers::{LabelsOf, Viewers};
use crate::watches::Watches;

/// The parts of one engine. Each is immutable, published whole, or made for concurrent use.
/// Decisions belong to the actors.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) watches: Watches,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) remote: Remote,
    pub(crate) crashes: Crashes,
    /// The supervisor's actor, once it runs.
    pub(crate) supervisor: OnceLock<ActorCell>,
}

/// What a server says of itself to its clients.
pub(crate) struct ServerOffer {
    pub(crate) identity: ServerIdentity,
    pub(crate) instructions: Option<String>,
    /// Capabilities of the application's own.
    pub(crate) capabilities: JsonObject,
    pub(crate) extensions: Vec<Extension>,
}

/// What an author adds around and beside the items.
pub(crate) struct Surroundings {
    pub(crate) states: Arc<States>,
    pub(crate) layers: Layers,
    pub(crate) labels: Option<LabelsOf>,
}

impl Core {
    pub(crate) fn new(
        config: Config,
        offer: ServerOffer,
        surroundings: Surroundings,
        catalog: Catalog,
    ) -> Self {
        let ServerOffer { identity, instructions, capabilities, extensions } = offer;
        let (events, lifecycle) = (Events::default(), Arc::<Lifecycle>::default());
        let members = extensions.iter().flat_map(Extension::notifications).cloned().collect();
        let (hub, metrics) = (Arc::new(Hub::new(members)), Arc::<Metrics>::default());
        let labels = surroundings.labels.unwrap_or_else(|| Arc::new(Labels::of));
        let viewers = Viewers::new(labels, &config.rights);
        let registry = Arc::new(Registry::new(
            catalog,
            config.registry.clone(),
            hub.clone(),
            surroundings.states,
            Arc::new(viewers),
            events.clone(),
            lifecycle.clone(),
        ));
        let streams = Arc::new(Streams::new(
            config.limits,
            config.retention,
            config.budget,
            config.event_store.clone(),
        ));
        let identity = Arc::new(identity);
        let calls = Arc::new(Calls::new(
            config.calls.clone(),
            config.node.clone(),
            streams,
            config.requests,
            PrincipalLimits::new(&config.rights),
            identity.clone(),
            registry.clone(),
            surroundings.layers,
            metrics.clone(),
        ));
        let max = config.sessions.max_subscriptions;
        let nodes = Arc::new(PeerNodes::new(config.node.clone()));
        let tasks = Tasks::new(config.tasks.clone(), max, hub.clone(), nodes.clone(), &calls);
        let tasks = Arc::new(tasks);
        calls.set_tasks(tasks.clone());
        let watches = Watches::new(config.watches.clone(), calls.clone());
        let own = extensions.into_iter().map(|it| Arc::new(it) as Arc<dyn ProtocolExtension>);
        let extensions: Vec<_> = own.chain([tasks.clone() as _]).collect();
        let (text, cache) = (instructions.as_deref(), config.lists.cache.discover);
        let hello = ServerHello::new(&identity, text, &extensions, &capabilities, cache);
        let dispatcher = Arc::new(Dispatcher::new(
            calls.clone(),
            extensions,
            nodes.clone(),
            hello,
            config.lists,
        ));
        let sessions = Arc::new(Sessions::new(
            config.sessions.clone(),
            hub.clone(),
            calls.clone(),
            dispatcher.clone(),
        ));
        if sessions.saver.is_some() {
            let saving = Arc::downgrade(&sessions);
            calls.set_save(move |id| {
                if let Some(sessions) = saving.upgrade()
                    && let Some(entry) = sessions.directory.get(id.as_str())
                {
                    sessions.session_changed(&entry);
                }
            });
        }
        let remote =
            Remote::new(nodes, sessions.clone(), dispatcher.clone(), config.remote.clone());
        Self {
            config,
            lifecycle,
            events,
            metrics,
            hub,
            registry,
            calls,
            tasks,
            watches,
            dispatcher,
            sessions,
            remote,
            crashes: Crashes::default(),
            supervisor: OnceLock::new(),
        }
    }

    /// Updates the metrics whose values the engine counts itself.
    pub(crate) fn record_metrics(&self) {
        let gauges = Gauges {
            nodes: self.remote.node_views(),
            peer_requests: self.remote.request_counts(),
            requests: self.calls.requests.held(),
            sessions: self.sessions.directory.by_kind(),
            calls: self.calls.tracker.len(),
            awaiting_input: self.calls.awaiting_input.len(),
        };
        self.metrics.record(&self.calls.streams.counters.view(), &gauges);
    }
}
