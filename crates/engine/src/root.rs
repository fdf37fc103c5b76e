//! **Owns** the life of the other actors: hub, registry and all sessions are its children.
//! **Receives** word of every child that ends, and the time to look for idle sessions.
//! **Sends** the word to join again when the hub is a new one.
//! **Dies when** the engine shuts down, its supervisor stops, or restarts help no more.
//! **Restarts as** nothing by itself: that is for the supervisor it was started under.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use tokio::time::Instant;

use crate::core::Core;
use crate::hub::HubActor;
use crate::ids::SessionId;
use crate::registry::{RegistryActor, RegistryArgs};
use crate::session::{EndReason, SessionActor, SessionArgs, SessionKind, SessionMsg, Streams};

/// More restarts than this within [`RESTART_WINDOW`] help nobody: the root gives up.
const RESTART_BUDGET: usize = 10;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// What the root knows about its children.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootView {
    /// Children that were restarted within the last minute.
    pub recent_restarts: usize,
    /// Sessions in the directory.
    pub sessions: usize,
}

#[derive(Debug)]
pub(crate) enum RootMsg {
    SweepIdle,
    Observe(RpcReplyPort<RootView>),
}

crate::message!(RootMsg);

pub(crate) struct RootState {
    core: Arc<Core>,
    registry: ActorId,
    hub: ActorId,
    stateless: ActorId,
    restarts: VecDeque<Instant>,
}

pub(crate) struct RootActor;

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        core: Arc<Core>,
    ) -> Result<RootState, ActorProcessingErr> {
        let cell = myself.get_cell();
        let hub = spawn_hub(&core, cell.clone()).await?;
        let registry = spawn_registry(&core, cell.clone(), false).await?;
        let stateless = spawn_stateless(&core, cell).await?;
        core.refs.root.store(Some(Arc::new(myself.clone())));
        let sweep = (core.config.session_idle_timeout / 4)
            .clamp(Duration::from_millis(100), Duration::from_secs(60));
        myself.send_interval(sweep, || RootMsg::SweepIdle);
        Ok(RootState { core, registry, hub, stateless, restarts: VecDeque::new() })
    }

    async fn handle(
        &self,
        _myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::SweepIdle => state.on_sweep_idle(),
            RootMsg::Observe(reply) => state.on_observe(reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        let (child, error) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child.get_id(), Some(error)),
            SupervisionEvent::ActorTerminated(child, ..) => (child.get_id(), None),
            _ => return Ok(()),
        };
        if let Some(error) = error {
            tracing::error!(%child, %error, "an actor failed");
        }
        state.on_child_ended(&myself, child).await
    }
}

impl RootState {
    /// The restart table.
    async fn on_child_ended(
        &mut self,
        myself: &ActorRef<RootMsg>,
        child: ActorId,
    ) -> Result<(), ActorProcessingErr> {
        let root = myself.get_cell();
        match child {
            // From the last published catalog; the revision goes on, all lists are announced.
            id if id == self.registry => {
                self.spend_restart("registry")?;
                self.registry = spawn_registry(&self.core, root, true).await?;
            }
            // Empty; every session joins again, and tells its client what it may have missed.
            id if id == self.hub => {
                self.spend_restart("hub")?;
                self.hub = spawn_hub(&self.core, root).await?;
                for session in self.core.directory.all() {
                    let _ = session.actor().cast(SessionMsg::Rejoin);
                }
            }
            // Its calls have been answered by their end.
            id if id == self.stateless => {
                self.spend_restart("stateless session")?;
                self.stateless = spawn_stateless(&self.core, root).await?;
            }
            // A session took itself out of every list when it ended, in whatever way.
            _session => {}
        }
        Ok(())
    }

    fn spend_restart(&mut self, what: &str) -> Result<(), ActorProcessingErr> {
        self.forget_old_restarts();
        if self.restarts.len() >= RESTART_BUDGET {
            return Err(
                format!("the {what} failed once more after {RESTART_BUDGET} restarts").into()
            );
        }
        self.restarts.push_back(Instant::now());
        tracing::warn!(what, "restarting");
        Ok(())
    }

    fn forget_old_restarts(&mut self) {
        while self.restarts.front().is_some_and(|at| at.elapsed() > RESTART_WINDOW) {
            self.restarts.pop_front();
        }
    }

    fn on_sweep_idle(&self) {
        let timeout = self.core.config.session_idle_timeout;
        for session in self.core.directory.all() {
            if session.is_idle(timeout) {
                let _ = session.actor().cast(SessionMsg::End(EndReason::IdleTimeout));
            }
        }
    }

    fn on_observe(&mut self, reply: RpcReplyPort<RootView>) {
        self.forget_old_restarts();
        let view =
            RootView { recent_restarts: self.restarts.len(), sessions: self.core.directory.len() };
        // Whoever asked may have gone.
        let _ = reply.send(view);
    }
}

impl Drop for RootState {
    fn drop(&mut self) {
        // The author's code may hold the engine, which holds the core: let go of it.
        self.core.draining.cancel();
        self.core.ending.cancel();
        self.core.clear_catalog();
        self.core.refs.clear();
        self.core.events.close();
    }
}

async fn spawn_hub(core: &Arc<Core>, root: ActorCell) -> Result<ActorId, SpawnErr> {
    let (hub, _) = Actor::spawn_linked(None, HubActor, (), root).await?;
    let id = hub.get_id();
    core.refs.hub.store(Some(Arc::new(hub)));
    Ok(id)
}

async fn spawn_registry(
    core: &Arc<Core>,
    root: ActorCell,
    restarted: bool,
) -> Result<ActorId, SpawnErr> {
    let args = RegistryArgs { core: core.clone(), restarted };
    let (registry, _) = Actor::spawn_linked(None, RegistryActor, args, root).await?;
    let id = registry.get_id();
    core.refs.registry.store(Some(Arc::new(registry)));
    Ok(id)
}

async fn spawn_stateless(core: &Arc<Core>, root: ActorCell) -> Result<ActorId, SpawnErr> {
    let args = SessionArgs {
        core: core.clone(),
        id: SessionId::random(),
        kind: SessionKind::Stateless,
        streams: Streams::None,
        seat: None,
        principal: None,
        listen: None,
    };
    let (stateless, _) = Actor::spawn_linked(None, SessionActor, args, root).await?;
    let id = stateless.get_id();
    core.refs.stateless.store(Some(Arc::new(stateless)));
    Ok(id)
}
