//! The state that all actors of one engine share: no globals, no names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use parking_lot::Mutex;
use ractor::ActorRef;
use serde_json::Value;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::{DecodeError, ListKind, Message, Notice};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::directory::Directory;
use crate::embed::{Audience, EngineMsg};
use crate::end::End;
use crate::engine::Stopped;
use crate::events::Events;
use crate::hub::{Epoch, HubMsg, PendingBroadcasts};
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::offload::{LARGE, Offload};
use crate::registry::{Catalog, Coalesce, DirtySet, RegistryMsg, Topic};
use crate::remote::{Fact, Migrations, Peers};
use crate::request_budget::{Callers, Meter};
use crate::server_hello::ServerHello;
use crate::session::{EndReason, Saver, SessionEntry, SessionKind};
use crate::shares::Share;
use crate::task::{
    AwaitingInput, Binding, CancelReason, RunningCalls, StateSealer, StateToken, StatelessCalls,
};
use crate::tasks::Tasks;
use stentor_delivery::Counters;

/// Custom notices that may wait for the hub. Above that, the application waits.
const CUSTOM_NOTICES_IN_FLIGHT: usize = 1_024;

/// How long an answer waits at most until the changes of its call are announced.
const MAX_ANNOUNCE_WAIT: Duration = Duration::from_millis(100);

/// The shared state of one engine. Everything in it is immutable, published whole, or made for
/// concurrent use. Decisions belong to the actors.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) identity: ServerIdentity,
    pub(crate) server_hello: ServerHello,
    catalog: ArcSwap<Catalog>,
    pub(crate) directory: Directory,
    pub(crate) dirty: DirtySet,
    /// Topics that the hub must announce. They outlive a hub that crashes.
    pub(crate) pending_broadcasts: PendingBroadcasts,
    /// What the registry announces together. It outlives a registry that crashes.
    pub(crate) coalesce: Mutex<Coalesce>,
    pub(crate) refs: Refs,
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
    pub(crate) custom_notices: Arc<Semaphore>,
    /// Set when the engine accepts no new work any more.
    pub(crate) draining: CancellationToken,
    /// Set when running calls get no more time.
    pub(crate) ending: CancellationToken,
    pub(crate) end: End,
    /// How many changes there were to announce, and how many of them are known to be announced.
    changes: AtomicU64,
    changes_announced: AtomicU64,
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

/// References to the current actors. A restarted actor has a new one.
#[derive(Default)]
pub(crate) struct Refs {
    pub(crate) supervisor: ArcSwapOption<ActorRef<EngineMsg>>,
    pub(crate) registry: ArcSwapOption<ActorRef<RegistryMsg>>,
    pub(crate) hub: ArcSwapOption<ActorRef<HubMsg>>,
}

impl Refs {
    pub(crate) fn clear(&self) {
        self.supervisor.store(None);
        self.registry.store(None);
        self.hub.store(None);
    }
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
            catalog: ArcSwap::from_pointee(catalog),
            dirty: DirtySet::default(),
            pending_broadcasts: PendingBroadcasts::default(),
            coalesce: Mutex::default(),
            refs: Refs::default(),
            migrations: Migrations::default(),
            peers: ArcSwapOption::empty(),
            calls: TaskTracker::new(),
            running: RunningCalls::default(),
            tasks: Tasks::default(),
            stateless: ArcSwapOption::empty(),
            stateless_calls,
            custom_notices: Arc::new(Semaphore::new(CUSTOM_NOTICES_IN_FLIGHT)),
            draining: CancellationToken::new(),
            ending: CancellationToken::new(),
            end: End::default(),
            changes: AtomicU64::new(0),
            changes_announced: AtomicU64::new(0),
            events: Events::default(),
            metrics: Metrics::default(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Publishes a catalog. Only the registry does this.
    pub(crate) fn publish(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// Drops the author's code, which may own the engine itself.
    pub(crate) fn clear_catalog(&self) {
        self.catalog.store(Arc::default());
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

    pub(crate) fn session_counters(&self) -> Arc<Counters> {
        Arc::new(Counters::within(self.counters.clone(), self.config.budget.session))
    }

    /// Counts the bytes that are kept of what the client of a new session sends.
    pub(crate) fn session_meter(&self, share: &Share) -> Arc<Meter> {
        Meter::session(self.requests.of(share), self.config.requests.session)
    }

    pub(crate) fn send_to_hub(&self, message: HubMsg) {
        // Without a hub the message is not needed: the hub restarts, and every session will join it
        // again and be notified of all lists; or the engine stops.
        if let Some(hub) = &*self.refs.hub.load() {
            let _ = hub.cast(message);
        }
    }

    /// Sends a notice of the application's own to these sessions, on all nodes.
    pub(crate) async fn notify(
        &self,
        audience: &Audience,
        method: &str,
        params: Option<Value>,
    ) -> Result<(), Stopped> {
        let method: Arc<str> = method.into();
        let permit = self.custom_notices.clone().acquire_owned().await.map_err(|_| Stopped)?;
        self.send_to_peers(|| Fact::Notify {
            audience: audience.clone(),
            method: method.clone(),
            params: params.clone(),
        });
        let notice = Notice::Custom { method, params };
        self.send_to_hub(self.notification(audience, notice, Some(permit)));
        Ok(())
    }

    /// The hub's message for a notice of the application's own, to the sessions that exist now.
    pub(crate) fn notification(
        &self,
        audience: &Audience,
        notice: Notice,
        permit: Option<OwnedSemaphorePermit>,
    ) -> HubMsg {
        let candidates = match audience.only() {
            _ if audience.is_everybody() => return HubMsg::Notify(None, notice, permit),
            Some(id) => self.directory.get(id.as_str()).into_iter().collect(),
            None => self.directory.all(),
        };
        let sessions = candidates.iter().filter(|entry| audience.has(entry));
        let sessions = sessions.map(|entry| entry.id().clone()).collect();
        HubMsg::Notify(Some(sessions), notice, permit)
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

    /// Sends the hub what somebody subscribes to. A change after this reaches the subscriber.
    pub(crate) fn subscribe(&self, message: impl FnOnce(Epoch) -> HubMsg) {
        self.pending_broadcasts.join(|epoch| self.send_to_hub(message(epoch)));
    }

    /// Makes the hub announce a topic: once, however often it changes before the hub looks at it.
    pub(crate) fn publish_topic(&self, topic: &Topic) {
        if self.pending_broadcasts.mark(topic.clone()) {
            self.send_to_hub(HubMsg::Flush);
        }
    }

    /// Counts a change that is about to be announced.
    pub(crate) fn mark_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether there was a change that may not be announced yet.
    pub(crate) fn has_unannounced(&self) -> bool {
        self.changes_announced.load(Ordering::Acquire) < self.changes.load(Ordering::Acquire)
    }

    /// Waits until all changes so far are written into the streams of their subscribers, except
    /// those that their window holds back. For a client that may disconnect as soon as it has its
    /// answer.
    pub(crate) async fn wait_announced(&self) {
        let changes = self.changes.load(Ordering::Acquire);
        let Some(registry) = self.refs.registry.load_full() else { return };
        // Goes through both mailboxes. If an actor crashes, the next one announces everything
        // again.
        let _ = registry.call(RegistryMsg::Barrier, Some(MAX_ANNOUNCE_WAIT)).await;
        self.changes_announced.fetch_max(changes, Ordering::AcqRel);
    }

    /// Announces a topic, within the coalescing window.
    pub(crate) fn announce(&self, topic: Topic) {
        self.mark_change();
        if self.dirty.mark(topic)
            && let Some(registry) = &*self.refs.registry.load()
        {
            // A registry that restarts looks at the dirty set by itself.
            let _ = registry.cast(RegistryMsg::Flush);
        }
    }

    pub(crate) fn announce_list(&self, kind: ListKind) {
        self.announce(Topic::List(kind));
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
        self.ending.cancel();
        self.running.cancel_all(&CancelReason::Shutdown);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}
