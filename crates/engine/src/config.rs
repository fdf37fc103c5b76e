//! The settings of an engine: those of its parts, and what several parts need.

use std::sync::Arc;
use std::time::Duration;

use stentor_delivery::policy::{Budget, Limits, Retention};
use stentor_delivery::{EventStore, MemoryEventStore};
use stentor_macros::Setters;

use crate::call::CallConfig;
use crate::dispatch::ListConfig;
use crate::ids::NodeId;
use crate::registry::RegistryConfig;
use crate::remote::RemoteConfig;
use crate::request_budget::RequestBudget;
use crate::session::SessionConfig;
use crate::tasks::TaskConfig;
use crate::viewers::RightsConfig;
use crate::watches::WatchConfig;

/// Limits and times of an engine.
///
/// Change them with [`EngineBuilder::configure`](crate::EngineBuilder::configure).
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct Config {
    /// The name of this engine in a cluster, which is part of all ids that it gives out.
    ///
    /// Default: a random name. With a name of its own, a node that restarts is the same node, and
    /// finds its tasks in a store again.
    pub node: NodeId,
    /// How changes are announced.
    pub registry: RegistryConfig,
    /// How lists are served.
    pub lists: ListConfig,
    /// How many calls may run and wait, and for how long.
    pub calls: CallConfig,
    /// How many sessions there may be, what each may have, and for how long.
    pub sessions: SessionConfig,
    /// How tasks are kept: calls whose result the client fetches later.
    pub tasks: TaskConfig,
    /// How hooks of resources run.
    pub watches: WatchConfig,
    /// How the rights of principals are kept and bounded.
    pub rights: RightsConfig,
    /// How requests to other nodes are served.
    pub remote: RemoteConfig,
    /// How many bytes may be kept of what clients sent.
    pub requests: RequestBudget,
    /// How much may wait unread on one stream.
    pub limits: Limits,
    /// How much of what was read a legacy HTTP stream keeps for a client that reconnects.
    pub retention: Retention,
    /// How much all streams may keep together.
    pub budget: Budget,
    /// The store of frames that were read. Default: [`MemoryEventStore`].
    pub event_store: Arc<dyn EventStore>,
    /// How long calls and tasks may run on after a shutdown began, or after the client of a pipe
    /// has closed its input: one limit for both together, if one leads to the other. Default 7 s,
    /// so that a whole shutdown takes less than the 10 s that Docker waits before it kills.
    pub drain_timeout: Duration,
    /// An HTTP stream is closed when frames wait and its client reads nothing for this time.
    /// Default 1 minute.
    pub stall_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeId::random(),
            registry: RegistryConfig::default(),
            lists: ListConfig::default(),
            calls: CallConfig::default(),
            sessions: SessionConfig::default(),
            tasks: TaskConfig::default(),
            watches: WatchConfig::default(),
            rights: RightsConfig::default(),
            remote: RemoteConfig::default(),
            requests: RequestBudget::default(),
            limits: Limits::default(),
            retention: Retention::default(),
            budget: Budget::default(),
            event_store: Arc::new(MemoryEventStore),
            drain_timeout: Duration::from_secs(7),
            stall_timeout: Duration::from_secs(60),
        }
    }
}
