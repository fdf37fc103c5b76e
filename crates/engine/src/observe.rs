//! Views of a running engine: of its actors and its sessions.

use ractor::rpc::CallResult;
use ractor::{ActorRef, RpcReplyPort};

use crate::embed::EngineMsg;
use crate::engine::{Engine, Stopped};
use crate::hub::{HubMsg, HubView};
use crate::registry::{RegistryMsg, RegistryView};
use crate::session::SessionView;
use crate::supervisor::SupervisorView;

/// A view of an engine at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineView {
    /// The supervisor.
    pub root: SupervisorView,
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
    /// Calls that run as tasks.
    pub running_tasks: usize,
}

impl Engine {
    /// Asks supervisor, registry and hub for their views, which they give after the messages that
    /// are in their mailboxes now. Also reads the state of every session.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the engine stops meanwhile, or an actor is being restarted.
    pub async fn observe(&self) -> Result<EngineView, Stopped> {
        let core = self.core();
        let root = ask(self.root(), EngineMsg::Observe).await?;
        let registry = core.refs.registry.load_full().ok_or(Stopped)?;
        let registry = ask(&registry, RegistryMsg::Observe).await?;
        let hub = core.refs.hub.load_full().ok_or(Stopped)?;
        let hub = ask(&hub, HubMsg::Observe).await?;
        let sessions = core.directory.all().iter().map(|session| session.view()).collect();
        let (running_calls, calls_awaiting_input) = (core.calls.len(), core.awaiting_input.len());
        let running_tasks = core.tasks.len();
        Ok(EngineView {
            root,
            registry,
            hub,
            sessions,
            running_calls,
            calls_awaiting_input,
            running_tasks,
        })
    }
}

async fn ask<M: ractor::Message, V: Send + 'static>(
    actor: &ActorRef<M>,
    question: impl FnOnce(RpcReplyPort<V>) -> M,
) -> Result<V, Stopped> {
    match actor.call(question, None).await {
        Ok(CallResult::Success(view)) => Ok(view),
        _ => Err(Stopped),
    }
}
