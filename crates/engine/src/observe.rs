//! Views of a running engine: of its actors and its sessions.

use std::time::Duration;

use serde::Serialize;
use stentor_delivery::CountersView;

use crate::actor_pool::ActorPoolView;
use crate::hub::HubView;
use crate::reasons::SessionKind;
use crate::registry::RegistryView;
use crate::session::SessionView;
use crate::supervisor::SupervisorView;

/// A view of an engine at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
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

/// The actors that serve all clients, as they answered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ActorsView {
    /// The supervisor.
    pub supervisor: SupervisorView,
    /// The registry.
    pub registry: RegistryView,
    /// The hub.
    pub hub: HubView,
    /// How long each took to answer, in this order: so long a message waits in its mailbox. In JSON in
    /// milliseconds.
    #[serde(serialize_with = "all_millis")]
    pub took: [Duration; 3],
}

/// What an engine has now, in numbers. No actor is asked, and no session is looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TotalsView {
    /// Open sessions of each kind.
    pub sessions: Vec<(SessionKind, usize)>,
    /// Calls that run now.
    pub running_calls: usize,
    /// Modern calls that are awaiting input of their client.
    pub calls_awaiting_input: usize,
    /// Calls that run as tasks of the tasks extension.
    pub running_tasks: usize,
    /// What became of all frames, by class, and the bytes that wait.
    pub frames: CountersView,
    /// How many bytes may wait.
    pub frames_budget: usize,
    /// Bytes that are kept of what clients sent.
    pub request_bytes: usize,
    /// How many bytes of them may be kept.
    pub request_budget: usize,
    /// Actors that failed since the engine started.
    pub crashes: u64,
    /// The task actors.
    pub task_pool: ActorPoolView,
    /// The session actors.
    pub session_pool: ActorPoolView,
}

fn all_millis<S: serde::Serializer>(times: &[Duration; 3], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(times.iter().map(|time| time.as_secs_f64() * 1_000.0))
}
