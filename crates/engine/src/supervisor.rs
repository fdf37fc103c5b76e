//! **Owns** the life of the other actors: the hub, the registry, session actors and task actors are its
//! children.
//! **Receives** the end of every child, messages of the host's actors, and ticks to look for idle
//! sessions and stalled streams.
//! **Sends** all sessions to a new hub, and messages of the host to the actors that they are for.
//! **Dies when** the engine shuts down, the host's supervisor stops, or restarts help no more.
//! **Restarts as** nothing by itself: a supervisor of the host may restart the engine.

mod message;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use ractor::{
    Actor, ActorId, ActorProcessingErr, ActorRef, MessagingErr, RpcReplyPort, SupervisionEvent,
};
use stentor_delivery::LossCounters;
use tokio::time::{Instant, timeout};

use crate::catalog::{CatalogError, Change, Mutation};
use crate::core::Core;
use crate::events::{EngineEvent, report_losses};
use crate::lifecycle::CANCEL_GRACE;
use crate::reasons::{CancelReason, EndReason};
use crate::registry::RegistryMsg;
use crate::restarts::Restarts;
use crate::session::{Session, SessionEntry, TO_BE_USED, rejoin_all};
pub use message::EngineMsg;

/// With more restarts than this within a minute, the supervisor gives up. Each session has a budget
/// of its own, so that no client uses up this one.
const MAX_RESTARTS: usize = 10;

const METER_INTERVAL: Duration = Duration::from_secs(5);

/// A view of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SupervisorView {
    /// Restarts of registry and hub within the last minute.
    pub recent_restarts: usize,
    /// Sessions in the directory.
    pub sessions: usize,
}

/// Starts a search for idle sessions and stalled streams. Only the engine can make one.
#[derive(Debug)]
pub struct Tick(());

pub(crate) struct SupervisorState {
    core: Arc<Core>,
    registry: ActorId,
    hub: ActorId,
    restarts: Restarts,
    metered: Instant,
    /// The losses of calls without a session that are already reported.
    reported: LossCounters,
}

pub(crate) struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = EngineMsg;
    type State = SupervisorState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<EngineMsg>,
        core: Arc<Core>,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let cell = myself.get_cell();
        let watchers = Arc::new(core.watches.clone());
        let hub = core.hub.spawn(cell.clone(), watchers, false).await?;
        let registry = core.registry.spawn(cell.clone(), false).await?;
        core.calls.pool.open(cell.clone());
        core.sessions.pool.open(cell);
        let shortest = core.config.sessions.idle_timeout.min(core.config.stall_timeout);
        let sweep = (shortest / 4).clamp(Duration::from_millis(100), Duration::from_secs(1));
        myself.send_interval(sweep, || EngineMsg::Tick(Tick(())));
        let restarts = Restarts::at_most(MAX_RESTARTS);
        let (metered, reported) = (Instant::now(), LossCounters::default());
        Ok(SupervisorState { core, registry, hub, restarts, metered, reported })
    }

    async fn handle(
        &self,
        myself: ActorRef<EngineMsg>,
        message: EngineMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let core = state.core.clone();
        record_failure(&core, async { state.on_message(myself, message) }).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<EngineMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let core = state.core.clone();
        record_failure(&core, state.on_supervision(&myself, event)).await
    }

    /// Not called when the actor is killed.
    async fn post_stop(
        &self,
        _myself: ActorRef<EngineMsg>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        state.core.lifecycle.ask();
        Ok(())
    }
}

/// Records why the supervisor fails: ractor notifies the actor's own supervisor, but not the code
/// that serves the engine.
async fn record_failure(
    core: &Core,
    work: impl Future<Output = Result<(), ActorProcessingErr>>,
) -> Result<(), ActorProcessingErr> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    let done = done.unwrap_or_else(|_panic| Err("the supervisor panicked".into()));
    if let Err(error) = &done {
        core.lifecycle.fail(error.to_string());
    }
    done
}

impl SupervisorState {
    fn on_message(
        &mut self,
        myself: ActorRef<EngineMsg>,
        message: EngineMsg,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EngineMsg::Apply(mutations, reply) => self.on_apply(mutations, reply),
            EngineMsg::Changed(topic) => self.in_order(RegistryMsg::Announce(topic)),
            EngineMsg::Notify(audience, method, params) => {
                self.in_order(RegistryMsg::Notify(audience, method.into(), params));
            }
            EngineMsg::Sessions(reply) => {
                // The requester may have ended.
                let _ = reply.send(self.core.sessions.directory.views());
            }
            EngineMsg::EndSession(id) => {
                self.core.sessions.end_session(&id);
            }
            EngineMsg::RestartSession(id) => {
                self.core.sessions.restart_session(&id);
            }
            EngineMsg::CancelCall(id) => {
                self.core.calls.running.cancel(id, CancelReason::Application);
            }
            EngineMsg::Observe(reply) => self.on_observe(reply),
            EngineMsg::Shutdown => {
                let core = self.core.clone();
                // In a task of its own, because it waits for this actor to end.
                tokio::spawn(async move {
                    shutdown(&core, &myself, core.config.drain_timeout).await;
                });
            }
            EngineMsg::Tick(_) => self.on_tick(),
        }
        Ok(())
    }

    async fn on_supervision(
        &mut self,
        myself: &ActorRef<EngineMsg>,
        event: SupervisionEvent,
    ) -> Result<(), ActorProcessingErr> {
        let child = match event {
            SupervisionEvent::ActorFailed(child, error) => {
                crate::log!(error, child = %child.get_id(), %error, "an actor failed");
                self.record_crash(child.get_id(), error);
                child
            }
            // `kill()` also ends an actor with a reason.
            SupervisionEvent::ActorTerminated(child, _, Some(reason)) => {
                crate::log!(error, child = %child.get_id(), %reason, "an actor ended");
                self.record_crash(child.get_id(), reason);
                child
            }
            SupervisionEvent::ActorTerminated(child, _, None)
                if self.never_stops(child.get_id()) =>
            {
                child
            }
            // Somebody stopped the actor of a session from outside: the session is passive now.
            SupervisionEvent::ActorTerminated(child, ..) if !self.core.lifecycle.is_draining() => {
                if let Some(entry) = self.core.sessions.directory.of_actor(child.get_id()) {
                    entry.lost_actor(child.get_id());
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.on_child_ended(myself, child.get_id()).await
    }

    /// Keeps why an actor ended, to be read afterwards.
    fn record_crash(&self, child: ActorId, reason: impl ToString) {
        let session = self.core.sessions.directory.of_actor(child).map(|it| it.id().clone());
        let actor = match child {
            id if id == self.registry => "registry",
            id if id == self.hub => "hub",
            _ if session.is_some() => "session",
            _ => "other",
        };
        self.core.crashes.record(actor, session, reason);
    }

    /// Whether this child does not stop as long as the engine runs.
    fn never_stops(&self, child: ActorId) -> bool {
        [self.registry, self.hub].contains(&child)
    }

    /// The restart table.
    async fn on_child_ended(
        &mut self,
        myself: &ActorRef<EngineMsg>,
        child: ActorId,
    ) -> Result<(), ActorProcessingErr> {
        let root = myself.get_cell();
        match child {
            // From the last published catalog. The revision continues, and all lists are announced.
            id if id == self.registry => {
                self.spend_restart("registry")?;
                self.registry = self.core.registry.spawn(root, true).await?;
            }
            // Empty. Every session joins again, and its client is notified of what it may have
            // missed.
            id if id == self.hub => {
                self.spend_restart("hub")?;
                let watchers = Arc::new(self.core.watches.clone());
                self.hub = self.core.hub.spawn(root, watchers, true).await?;
                rejoin_all(&self.core.sessions);
            }
            // As the same session. Its calls end with an error.
            session => {
                // Of task actors there is nothing left to do: each request has its answer.
                if let Some(entry) = self.core.sessions.directory.of_actor(session) {
                    let sessions = self.core.sessions.clone();
                    if sessions.crashed(&entry, Some(session)) && sessions.never_passive() {
                        Session::new(sessions, entry).actor().await;
                    }
                }
            }
        }
        Ok(())
    }

    fn spend_restart(&mut self, what: &'static str) -> Result<(), ActorProcessingErr> {
        if !self.restarts.spend() {
            return Err(format!("the {what} failed once more after {MAX_RESTARTS} restarts").into());
        }
        crate::log!(warn, what, "restarting");
        self.core.metrics.restarted(what);
        self.core.events.emit(|| EngineEvent::ActorRestarted { actor: what });
        Ok(())
    }

    fn on_apply(
        &self,
        mutations: Vec<Mutation>,
        reply: Option<RpcReplyPort<Result<Change, CatalogError>>>,
    ) {
        let refuse = |error: CatalogError, reply: Option<RpcReplyPort<_>>| match reply {
            Some(reply) => {
                let _ = reply.send(Err(error));
            }
            None => crate::log!(warn, %error, "a change of the catalog is refused"),
        };
        let states = &self.core.registry.states;
        let checked = mutations.into_iter().map(|mutation| mutation.check(states));
        let checked = checked.collect::<Result<Vec<_>, _>>();
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => return refuse(error, reply),
        };
        let registry = self.core.registry.actor();
        let Some(registry) = registry else { return refuse(CatalogError::Stopped, reply) };
        if let Err(MessagingErr::SendErr(RegistryMsg::Apply(_, reply))) =
            registry.cast(RegistryMsg::Apply(checked, reply))
        {
            refuse(CatalogError::Interrupted, reply);
        }
    }

    /// Sends a message through the registry, so that it is handled after the changes of the catalog
    /// that were sent before.
    fn in_order(&self, message: RegistryMsg) {
        if let Some(registry) = self.core.registry.actor() {
            // A registry that has crashed would have lost the message.
            if let Err(MessagingErr::SendErr(message)) = registry.cast(message) {
                match message {
                    RegistryMsg::Announce(topic) => self.core.registry.announce(topic),
                    RegistryMsg::Notify(audience, method, params) => {
                        self.core.registry.send_notification(audience, method, params, None);
                    }
                    _ => {}
                }
            }
        }
    }

    fn on_tick(&mut self) {
        if self.metered.elapsed() >= METER_INTERVAL {
            self.metered = Instant::now();
            self.core.record_metrics();
            self.core.tasks.sweep();
            self.core.calls.pool.sweep();
            self.core.sessions.pool.sweep();
        }
        let (stall_timeout, sessions) = (self.core.config.stall_timeout, &self.core.sessions);
        for session in sessions.directory.all() {
            for stream in session.close_stalled(stall_timeout) {
                crate::log!(info, session = ?session.id(), %stream, "closed a stalled stream");
            }
            session.report_losses(&self.core.events);
            session.trim_streams(sessions);
            session.mark_seen_if_attached();
            if session.is_idle(sessions.config.idle_timeout) {
                session.end(sessions, EndReason::IdleTimeout);
            } else if let Some(idle) = sessions.config.passivate_after {
                session.passivate(sessions, idle);
            }
        }
        // Of calls without a session.
        let losses = self.core.calls.stateless_counters.losses();
        let before = std::mem::replace(&mut self.reported, losses);
        report_losses(before, losses, None, &self.core.events);
        self.end_unused();
    }

    /// Ends sessions that were opened but are not used, down to the number that may be kept.
    /// Includes sessions whose client left unnoticed.
    fn end_unused(&self) {
        let sessions = &self.core.sessions;
        let left = |session: Arc<SessionEntry>| Some((session.unused_since()?, session));
        let mut unused: Vec<_> = sessions.directory.all().into_iter().filter_map(left).collect();
        let Some(too_many) = unused.len().checked_sub(sessions.config.max_unused_sessions) else {
            return;
        };
        unused.sort_unstable_by_key(|(since, _)| *since);
        for (since, session) in unused.into_iter().take(too_many) {
            // A session that has just been opened is about to be used.
            if since.elapsed() >= TO_BE_USED {
                session.end(sessions, EndReason::Unused);
            }
        }
    }

    fn on_observe(&mut self, reply: RpcReplyPort<SupervisorView>) {
        let sessions = self.core.sessions.directory.len();
        let view = SupervisorView { recent_restarts: self.restarts.recent(), sessions };
        let _ = reply.send(view);
    }
}

impl Drop for SupervisorState {
    fn drop(&mut self) {
        self.core.lifecycle.begin_end();
        // The author's code may keep the engine, which keeps the core: everything is dropped here.
        self.core.lifecycle.drain();
        self.core.calls.end();
        for session in self.core.sessions.directory.all() {
            session.end(&self.core.sessions, EndReason::Shutdown);
        }
        self.core.sessions.pool.close();
        self.core.calls.pool.close();
        self.core.watches.close();
        self.core.remote.join_peers(None);
        self.core.registry.close();
        self.core.hub.close();
        self.core.events.close();
        self.core.lifecycle.finish_end();
    }
}

/// Shuts an engine down: accepts no new calls, answers open listens, gives running calls this long,
/// ends the rest, and stops the supervisor with all actors. Returns when the engine has stopped.
pub(crate) async fn shutdown(
    core: &Arc<Core>,
    supervisor: &ActorRef<EngineMsg>,
    drain_timeout: Duration,
) {
    let (calls, sessions, until) = (&core.calls, &core.sessions, Instant::now() + drain_timeout);
    core.lifecycle.ask();
    core.lifecycle.drain();
    sessions.drain();
    calls.tracker.close();
    if timeout(drain_timeout, calls.tracker.wait()).await.is_err() {
        let left = calls.tracker.len();
        crate::log!(warn, left, "calls are still running at the end of the drain time");
        calls.end();
        // A call that blocks its thread cannot be cancelled, and must not delay the rest.
        let _ = timeout(CANCEL_GRACE, calls.tracker.wait()).await;
    }
    let ending = sessions.directory.all();
    // Awaited, because the end of the supervisor kills the actors before they can answer everything.
    let handled = ending.iter().map(|session| timeout(CANCEL_GRACE, session.turn()));
    futures::future::join_all(handled).await;
    for session in &ending {
        session.end(sessions, EndReason::Shutdown);
    }
    for session in &ending {
        // A call that cannot be cancelled may still keep its session's streams open.
        session.notices().finish();
    }
    core.watches.close();
    let left = until.saturating_duration_since(Instant::now()).max(CANCEL_GRACE);
    if timeout(left, core.watches.closed()).await.is_err() {
        crate::log!(warn, "hooks of resources are still running at the end of the drain time");
    }
    supervisor.stop(None);
    let _ = supervisor.wait(None).await;
}
