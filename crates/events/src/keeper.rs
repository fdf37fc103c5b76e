//! **Owns** the actors of the extension: one for each event type and each branch, a checker for each
//! branch, one for each webhook that has something to deliver, and emitters.
//! **Receives** types that come and go, webhooks that have something to deliver, and ticks.
//! **Sends** heartbeats to the actors of types, and ends what is over.
//! **Dies when** the engine's supervisor stops, or a bug panics.
//! **Restarts as** a keeper that starts all actors anew. Logs and webhooks outlive it.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use crate::checker::{Checker, CheckerArgs};
use crate::peers::look_at_members;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::type_actor::{TypeActor, TypeActorArgs, TypeMsg};
use crate::webhook::{Deliverer, DelivererArgs, Subscription};

/// How often what is over is looked for.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) enum KeeperMsg {
    Added(Arc<RunningType>),
    Removed(Arc<RunningType>),
    /// A webhook has something to deliver, and no actor.
    Deliver(Arc<Subscription>),
    Tick,
    Beat,
}

#[cfg(feature = "cluster")]
impl ractor::Message for KeeperMsg {}

#[derive(Debug)]
pub(crate) struct Keeper;

pub(crate) struct KeeperState {
    shared: Arc<Shared>,
    types: HashMap<ActorId, Arc<RunningType>>,
    checkers: HashMap<ActorId, Arc<RunningType>>,
    deliverers: HashMap<ActorId, Arc<Subscription>>,
}

impl Actor for Keeper {
    type Msg = KeeperMsg;
    type State = KeeperState;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<KeeperMsg>,
        shared: Arc<Shared>,
    ) -> Result<KeeperState, ActorProcessingErr> {
        shared.keeper.store(Some(Arc::new(myself.get_cell())));
        myself.send_interval(TICK, || KeeperMsg::Tick);
        myself.send_interval(shared.config.heartbeat, || KeeperMsg::Beat);
        for running in shared.all_running() {
            myself.cast(KeeperMsg::Added(running))?;
        }
        shared.webhooks.deliver_all(&shared);
        let (types, checkers, deliverers) = Default::default();
        Ok(KeeperState { shared, types, checkers, deliverers })
    }

    async fn handle(
        &self,
        myself: ActorRef<KeeperMsg>,
        message: KeeperMsg,
        state: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KeeperMsg::Added(running) => {
                // Also said by the one who adds it while a keeper starts. It may be gone by then.
                if !running.is_closed() && !state.types.values().any(|it| Arc::ptr_eq(it, &running))
                {
                    state.start_type(&myself, running.clone()).await?;
                    state.start_checker(&myself, running).await?;
                }
            }
            // After what was sent to it before: its streams have to end.
            KeeperMsg::Removed(running) => running.stop(),
            KeeperMsg::Deliver(subscription) => {
                state.start_deliverer(&myself, subscription).await?;
            }
            KeeperMsg::Tick => state.on_tick(),
            KeeperMsg::Beat => {
                let busy = state.types.values().filter(|running| running.has_listeners());
                busy.for_each(|running| running.send(TypeMsg::Beat));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<KeeperMsg>,
        event: SupervisionEvent,
        state: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        let (child, failed) = match event {
            SupervisionEvent::ActorFailed(child, error) => {
                tracing::error!(%error, "an actor of the events extension failed");
                (child.get_id(), true)
            }
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                (child.get_id(), reason.is_some())
            }
            _ => return Ok(()),
        };
        if let Some(running) = state.types.remove(&child)
            && !running.is_closed()
        {
            state.start_type(&myself, running).await?;
        }
        if let Some(running) = state.checkers.remove(&child)
            && !running.is_closed()
        {
            state.start_checker(&myself, running).await?;
        }
        if let Some(subscription) = state.deliverers.remove(&child)
            && subscription.deliverer_ended(child, failed)
        {
            state.start_deliverer(&myself, subscription).await?;
        }
        Ok(())
    }
}

impl KeeperState {
    async fn start_type(
        &mut self,
        myself: &ActorRef<KeeperMsg>,
        running: Arc<RunningType>,
    ) -> Result<(), ActorProcessingErr> {
        let webhooks = self.shared.webhooks.clone();
        let args = TypeActorArgs { running: running.clone(), webhooks };
        let (actor, _) = Actor::spawn_linked(None, TypeActor, args, myself.get_cell()).await?;
        self.types.insert(actor.get_id(), running.clone());
        running.set_actor(Some(actor));
        Ok(())
    }

    /// A branch needs one.
    async fn start_checker(
        &mut self,
        myself: &ActorRef<KeeperMsg>,
        running: Arc<RunningType>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(branch) = running.branch() else { return Ok(()) };
        let args = CheckerArgs { running: running.clone(), webhooks: self.shared.webhooks.clone() };
        let (actor, _) = Actor::spawn_linked(None, Checker, args, myself.get_cell()).await?;
        self.checkers.insert(actor.get_id(), running.clone());
        branch.set_checker(actor);
        Ok(())
    }

    async fn start_deliverer(
        &mut self,
        myself: &ActorRef<KeeperMsg>,
        subscription: Arc<Subscription>,
    ) -> Result<(), ActorProcessingErr> {
        // It may have been asked for twice.
        if subscription.look() {
            return Ok(());
        }
        let webhooks = self.shared.webhooks.clone();
        let args = DelivererArgs { subscription: subscription.clone(), webhooks };
        let (actor, _) = Actor::spawn_linked(None, Deliverer, args, myself.get_cell()).await?;
        self.deliverers.insert(actor.get_id(), subscription.clone());
        subscription.has_deliverer(actor);
        Ok(())
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for running in self.types.values() {
            running.log.lock().expire(now);
            running.watches.expire(now);
            running.publish_counts();
        }
        self.shared.webhooks.report_abandoned();
        self.shared.webhooks.expire(now);
        self.shared.webhooks.take_over(&self.shared, None);
        if self.shared.peers.are_some() {
            look_at_members(&self.shared);
        }
    }
}
