//! What all actors of one engine share: no globals, no names.

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
use crate::hub::HubMsg;
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::offload::{LARGE, Offload};
use crate::outlet::Tally;
use crate::peers::{Fact, Moving, Peers};
use crate::registry::{Catalog, Coalesce, Doorbell, RegistryMsg, Topic};
use crate::request_budget::{Callers, Meter};
use crate::session::{EndReason, Saver, SessionEntry, SessionKind};
use crate::shares::Share;
use crate::task::{Binding, CancelReason, RunningCalls, Sealed, Sealer, StatelessCalls, Suspended};
use crate::tasks::Tasks;
use crate::welcome::Welcome;

/// Custom notices that may wait for the hub before the application waits too.
const CUSTOM_NOTICES_IN_FLIGHT: usize = 1_024;

/// How long an answer waits at most for the news of what its call changed.
const NEWS_FIRST: Duration = Duration::from_millis(100);

/// One engine's shared state. Everything in it is either immutable, published whole, or made
/// for concurrent use; decisions are the actors'.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) identity: ServerIdentity,
    pub(crate) welcome: Welcome,
    catalog: ArcSwap<Catalog>,
    pub(crate) directory: Directory,
    pub(crate) doorbell: Doorbell,
    /// What the hub is to tell. It outlives a hub that crashes.
    pub(crate) to_tell: Doorbell,
    /// What the registry announces together; it outlives a registry that crashes.
    pub(crate) coalesce: Mutex<Coalesce>,
    pub(crate) refs: Refs,
    /// Sessions that are on their way to another node.
    pub(crate) moving: Moving,
    /// Saves sessions for the case that this node dies, where there is a store for them.
    pub(crate) saver: Option<Arc<Saver>>,
    /// The other nodes of a cluster.
    pub(crate) peers: ArcSwapOption<Arc<dyn Peers>>,
    /// Counts running calls, for a shutdown to wait.
    pub(crate) calls: TaskTracker,
    /// The parent of calls that belong to no session.
    pub(crate) stateless: ArcSwapOption<SessionEntry>,
    pub(crate) stateless_calls: Arc<StatelessCalls>,
    /// All calls that run, by their names.
    pub(crate) running: RunningCalls,
    /// Calls whose result is fetched later.
    pub(crate) tasks: Tasks,
    /// Modern calls that wait for their client to answer a question.
    pub(crate) suspended: Suspended,
    pub(crate) sealer: Sealer,
    pub(crate) custom_notices: Arc<Semaphore>,
    /// Set once no new work is taken.
    pub(crate) draining: CancellationToken,
    /// Set once running calls get no more time.
    pub(crate) ending: CancellationToken,
    pub(crate) end: End,
    /// How many changes were to be told so far, and of how many of them it is known that they were.
    changes: AtomicU64,
    changes_told: AtomicU64,
    pub(crate) tally: Arc<Tally>,
    /// What is kept of what clients sent.
    pub(crate) requests: Callers,
    /// Reads what is large.
    pub(crate) offload: Offload,
    /// Of calls that belong to no session.
    pub(crate) stateless_tally: Arc<Tally>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
}

/// Where the current actors are: a restarted one has a new reference.
#[derive(Default)]
pub(crate) struct Refs {
    pub(crate) root: ArcSwapOption<ActorRef<EngineMsg>>,
    pub(crate) registry: ArcSwapOption<ActorRef<RegistryMsg>>,
    pub(crate) hub: ArcSwapOption<ActorRef<HubMsg>>,
}

impl Refs {
    pub(crate) fn clear(&self) {
        self.root.store(None);
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
        welcome: Welcome,
        catalog: Catalog,
    ) -> Self {
        let stateless_calls = Arc::new(StatelessCalls::new(config.max_stateless_calls));
        let tally = Arc::new(Tally::total(config.budget.total));
        // Many clients share it, so that only the budget of all is theirs.
        let stateless_tally = Arc::new(Tally::within(tally.clone(), usize::MAX));
        let sealer = Sealer::new(config.state_keys.clone(), config.ask_timeout);
        Self {
            suspended: Suspended::new(config.max_suspended, config.max_suspended_bytes),
            sealer,
            directory: Directory::new(config.max_sessions),
            tally,
            stateless_tally,
            requests: Callers::new(config.requests),
            offload: Offload::default(),
            saver: Saver::new(&config).map(Arc::new),
            config,
            identity,
            welcome,
            catalog: ArcSwap::from_pointee(catalog),
            doorbell: Doorbell::default(),
            to_tell: Doorbell::default(),
            coalesce: Mutex::default(),
            refs: Refs::default(),
            moving: Moving::default(),
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
            changes_told: AtomicU64::new(0),
            events: Events::default(),
            metrics: Metrics::default(),
        }
    }

    /// The latest catalog.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Publishes a catalog; only the registry does.
    pub(crate) fn publish(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// Lets go of the author's code, which may hold the engine itself.
    pub(crate) fn clear_catalog(&self) {
        self.catalog.store(Arc::default());
    }

    /// Decodes a message within the bounds of this engine, a large one on another thread.
    pub(crate) async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        let most = self.config.max_argument_values;
        if input.len() <= LARGE {
            return Message::decode_within(&input, most);
        }
        // Boxed, as few messages are large and all make room for it.
        Box::pin(self.offload.run(move || Message::decode_within(&input, most))).await
    }

    /// Counters of a new session.
    pub(crate) fn session_tally(&self) -> Arc<Tally> {
        Arc::new(Tally::within(self.tally.clone(), self.config.budget.session))
    }

    /// Counts what is kept of what the client of a new session sends.
    pub(crate) fn session_meter(&self, share: &Share) -> Arc<Meter> {
        Meter::session(self.requests.of(share), self.config.requests.session)
    }

    pub(crate) fn tell_hub(&self, message: HubMsg) {
        // Without a hub there is nobody to tell: it is restarting, and every session will
        // join again and hear of all lists, or the engine stops.
        if let Some(hub) = &*self.refs.hub.load() {
            let _ = hub.cast(message);
        }
    }

    /// Sends a notice of the application's own to these sessions, wherever they are.
    pub(crate) async fn notify(
        &self,
        audience: &Audience,
        method: &str,
        params: Option<Value>,
    ) -> Result<(), Stopped> {
        let method: Arc<str> = method.into();
        let permit = self.custom_notices.clone().acquire_owned().await.map_err(|_| Stopped)?;
        self.tell_peers(|| Fact::Notify {
            audience: audience.clone(),
            method: method.clone(),
            params: params.clone(),
        });
        let notice = Notice::Custom { method, params };
        self.tell_hub(self.notification(audience, notice, Some(permit)));
        Ok(())
    }

    /// What tells the hub of a notice of the application's own, for those who are there now.
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

    /// `false` if there is no such session.
    pub(crate) fn end_session(&self, id: &SessionId) -> bool {
        let session = self.client_session(id);
        if let Some(session) = &session {
            session.end(self, EndReason::Ended);
        }
        session.is_some()
    }

    /// `false` if there is no such session.
    pub(crate) fn restart_session(&self, id: &SessionId) -> bool {
        let session = self.client_session(id);
        // One that has no actor yet has nothing to lose.
        if let Some(actor) = session.as_ref().and_then(|session| session.actor()) {
            actor.kill();
        }
        session.is_some()
    }

    fn client_session(&self, id: &SessionId) -> Option<Arc<SessionEntry>> {
        let session = self.directory.get(id.as_str());
        session.filter(|session| session.kind() != SessionKind::Stateless)
    }

    /// Has the hub tell of something: once, however often it changes before the hub gets to it.
    pub(crate) fn publish_topic(&self, topic: &Topic) {
        if self.to_tell.ring(topic.clone()) {
            self.tell_hub(HubMsg::Rung);
        }
    }

    /// Something is about to be told.
    pub(crate) fn will_tell(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether something changed that may not have been told yet.
    pub(crate) fn has_news(&self) -> bool {
        self.changes_told.load(Ordering::Acquire) < self.changes.load(Ordering::Acquire)
    }

    /// Waits until what has changed so far was written into the streams of those who hear of it, but for
    /// what its window holds back. For a client that may leave as soon as it has its answer.
    pub(crate) async fn news_told(&self) {
        let changes = self.changes.load(Ordering::Acquire);
        let Some(registry) = self.refs.registry.load_full() else { return };
        // Through both mailboxes. If one of them crashes, all is told anew by the next one.
        let _ = registry.call(RegistryMsg::Flush, Some(NEWS_FIRST)).await;
        self.changes_told.fetch_max(changes, Ordering::AcqRel);
    }

    /// Has something announced, within the coalescing window.
    pub(crate) fn announce(&self, topic: Topic) {
        self.will_tell();
        if self.doorbell.ring(topic)
            && let Some(registry) = &*self.refs.registry.load()
        {
            // A registry that restarts looks at the doorbell by itself.
            let _ = registry.cast(RegistryMsg::Rung);
        }
    }

    pub(crate) fn announce_list(&self, kind: ListKind) {
        self.announce(Topic::List(kind));
    }

    /// Has a session saved, where it is to survive this node.
    pub(crate) fn session_changed(&self, entry: &Arc<SessionEntry>) {
        if let Some(saver) = &self.saver {
            saver.changed(entry);
        }
    }

    /// What a client is given to send back: to this node.
    pub(crate) fn seal(&self, sealed: &Sealed, binding: &Binding) -> String {
        self.config.node.sign(&self.sealer.seal(sealed, binding, SystemTime::now()))
    }

    /// Ends all calls that run, and those that begin after it.
    pub(crate) fn end_calls(&self) {
        self.ending.cancel();
        self.running.cancel_all(&CancelReason::Shutdown);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}
