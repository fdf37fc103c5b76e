//! Views of a running engine: of its actors and its sessions.

use crate::actor_pool::ActorPoolView;
use crate::hub::HubView;
use crate::registry::RegistryView;
use crate::session::SessionView;
use crate::supervisor::SupervisorView;

/// A view of an engine at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineView {
    /// The supervisor.
    pub supervisor: SupervisorView,
    /// The registry.
    pub registry: RegistryView,
    /// The hub.
    pub hub: HubView,
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// Calls that run now.
    pub running_calls: usize,
    /// Modern calls that are awaiting input of their client.
    pub calls_awaiting_input: usize,
    /// Calls that run as tasks of the tasks extension. Each has a task actor, as any call has.
    pub running_tasks: usize,
    /// The task actors. Each runs one call, which need not be a task of the tasks extension.
    pub task_pool: ActorPoolView,
    /// The session actors.
    pub session_pool: ActorPoolView,
}
