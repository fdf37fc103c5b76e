//! An event type in an engine that runs: what outlives its actor.

mod emitter;
mod view;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use crate::branches::{Branch, Branches, Role};
use crate::check::Batch;
use crate::checker::CheckerMsg;
use crate::cursor::Origin;
use crate::error::EventError;
use crate::event_type::{Definition, EmitError, Modes};
use crate::log::{Bounds, Log};
use crate::metrics::publish_type;
use crate::occurrence::Occurrence;
use crate::peers::Peers;
use crate::shared::{Shared, epoch};
use crate::store::{EventsStore, StoreError, StoredOccurrence};
use crate::type_actor::TypeMsg;
use crate::watches::Watches;
pub use view::TypeView;

/// A store that is written to in turn.
type SharedStore = Arc<AsyncMutex<Arc<dyn EventsStore>>>;

/// An event type in an engine that runs.
pub(crate) struct RunningType {
    /// That of a branch is that of its type.
    definition: Arc<ArcSwap<Definition>>,
    role: Role,
    pub(crate) modes: Modes,
    pub(crate) log: Mutex<Log>,
    pub(crate) watches: Watches,
    own: Arc<Origin>,
    peers: Arc<Peers>,
    /// The store of a durable type, one occurrence after the other; and how many it keeps.
    store: Option<(SharedStore, usize)>,
    /// Begins the ids that are made here.
    id_prefix: String,
    max_bytes: usize,
    max_branch_bytes: usize,
    /// Occurrences that may wait for the actor.
    max_lag: u64,
    actor: ArcSwapOption<ActorRef<TypeMsg>>,
    /// Above the actors of the type.
    keeper: Arc<ArcSwapOption<ActorCell>>,
    /// The actor that emits what it is sent, once somebody has asked for it.
    emitter: Mutex<Option<ActorCell>>,
    /// Streams and webhooks.
    listeners: AtomicUsize,
    /// Whether the actor has been told that there is something new.
    told: AtomicBool,
    /// The index up to which the actor has read the log.
    read: AtomicU64,
    /// The index up to which the actor has woken the webhooks.
    offered: AtomicU64,
    progress: Notify,
    closed: AtomicBool,
}

impl std::fmt::Debug for RunningType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningType").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What a type without replay keeps, for streams that are a little behind.
const WITHOUT_REPLAY: Bounds =
    Bounds { count: 1_024, age: Duration::from_secs(60), bytes: usize::MAX };

/// What a branch keeps: an endpoint that fails is tried for as long.
const IN_BRANCH: Bounds =
    Bounds { count: 1_000, age: Duration::from_secs(15 * 60), bytes: usize::MAX };

/// A branch keeps what so many calls may bring, whatever the bounds are.
const CALLS: usize = 4;

impl RunningType {
    pub(crate) fn new(
        definition: Definition,
        modes: Modes,
        own: Arc<Origin>,
        shared: &Shared,
    ) -> Self {
        let config = &shared.config;
        let role = match &definition.check {
            Some(_) => Role::Checked(Branches::new(shared.webhooks.shared(), config)),
            None => Role::Emitted,
        };
        let is_durable = definition.is_durable && matches!(role, Role::Emitted);
        let store = shared.webhooks.store.clone();
        let store = store.filter(|_| is_durable && definition.replay.is_some());
        let bounds = definition.replay.unwrap_or(WITHOUT_REPLAY);
        let bounds = Bounds { bytes: bounds.bytes.min(config.max_log_bytes), ..bounds };
        let (peers, keeper) = (shared.peers.clone(), shared.keeper.clone());
        let watches = Watches::new(&definition, peers.clone());
        let definition = Arc::new(ArcSwap::from_pointee(definition));
        let mut running = Self::empty(role, definition, modes, own, bounds, watches, peers);
        running.keeper = keeper;
        running.store = store.map(|store| (Arc::new(AsyncMutex::new(store)), bounds.count));
        running.max_bytes = config.max_payload;
        running.max_branch_bytes =
            config.max_poll_bytes.saturating_mul(CALLS).min(config.max_log_bytes);
        running
    }

    fn empty(
        role: Role,
        definition: Arc<ArcSwap<Definition>>,
        modes: Modes,
        own: Arc<Origin>,
        bounds: Bounds,
        watches: Watches,
        peers: Arc<Peers>,
    ) -> Self {
        Self {
            definition,
            role,
            modes,
            log: Mutex::new(Log::new(bounds, own.clone(), 0)),
            watches,
            id_prefix: format!("evt_{:x}_", own.epoch),
            own,
            peers,
            store: None,
            max_bytes: 0,
            max_branch_bytes: 0,
            max_lag: (bounds.count as u64 / 2).max(1),
            actor: ArcSwapOption::empty(),
            keeper: Arc::default(),
            emitter: Mutex::default(),
            listeners: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            read: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            progress: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// A branch of the type.
    pub(crate) fn branch_off(&self, branch: Branch) -> Self {
        let own = Arc::new(Origin { node: self.own.node.clone(), epoch: epoch() });
        let definition = self.definition.clone();
        let bounds = definition.load().replay.unwrap_or(IN_BRANCH);
        let bounds = Bounds { bytes: self.max_branch_bytes, ..bounds };
        let (role, watches) = (Role::Branch(Box::new(branch)), self.watches.clone());
        Self::empty(role, definition, self.modes, own, bounds, watches, self.peers.clone())
    }

    /// The branches of a type with `check`.
    pub(crate) fn branches(&self) -> Option<&Branches> {
        match &self.role {
            Role::Checked(branches) => Some(branches),
            _ => None,
        }
    }

    /// What a branch has, if it is one.
    pub(crate) fn branch(&self) -> Option<&Branch> {
        match &self.role {
            Role::Branch(branch) => Some(branch),
            _ => None,
        }
    }

    fn each_branch(&self, run: impl FnMut(&Arc<Self>)) {
        self.branches().map(Branches::all).unwrap_or_default().iter().for_each(run);
    }

    pub(crate) fn definition(&self) -> Arc<Definition> {
        self.definition.load_full()
    }

    pub(crate) fn redefine(&self, definition: Definition) {
        self.watches.redefine(&definition);
        self.definition.store(Arc::new(definition));
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.definition.load().name.clone()
    }

    /// Whether clients get cursors.
    pub(crate) fn replays(&self) -> bool {
        self.definition.load().has_cursors()
    }

    /// Emits an occurrence, and returns its id.
    pub(crate) async fn emit(
        self: &Arc<Self>,
        id: Option<Arc<str>>,
        at: SystemTime,
        data: Bytes,
        typed: Option<Arc<dyn Any + Send + Sync>>,
        only_for: Option<Arc<str>>,
    ) -> Result<Arc<str>, EmitError> {
        let name = self.name();
        if data.len() > self.max_bytes {
            return Err(EmitError::TooLarge { bytes: data.len(), max: self.max_bytes });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(EmitError::NotRunning(name));
        }
        self.keep_pace().await;
        let this = self.clone();
        let make = move |seq: u64| {
            let id = id.unwrap_or_else(|| format!("{}{seq}", this.id_prefix).into());
            let mut occurrence = Occurrence::new(id, this.name(), at, data);
            occurrence.only_for = only_for;
            if let Some(typed) = typed {
                // It is empty until here.
                let _ = occurrence.typed.set(Some(typed));
            }
            occurrence
        };
        let Some((store, keep)) = &self.store else {
            let (id, seq) = self.append(make);
            self.tell();
            self.peers.have(&name, seq).await;
            return Ok(id);
        };
        let (this, store, keep) = (self.clone(), store.clone(), *keep);
        // It goes on when the caller is dropped: a number that is stored has to be in the log.
        let emitted = tokio::spawn(async move {
            // Stored in the order of their numbers, and before anybody hears of them.
            let store = store.lock().await;
            let seq = this.log.lock().last(&this.own) + 1;
            let occurrence = make(seq);
            if let Some(stored) = StoredOccurrence::of(&this.own, seq, &occurrence) {
                let kept = store.append(stored, keep).await;
                kept.map_err(|error| EmitError::Store(error.0))?;
            }
            let (id, seq) = this.append(|_| occurrence);
            drop(store);
            this.tell();
            this.peers.have(&name, seq).await;
            Ok(id)
        });
        emitted.await.unwrap_or_else(|error| Err(EmitError::Store(error.to_string())))
    }

    /// Adds what a check has found to a branch.
    pub(crate) async fn take(&self, batch: Batch) {
        for (occurrence, after) in batch.occurrences {
            self.keep_pace().await;
            self.log.lock().append_checked(Instant::now(), occurrence, after);
            self.tell();
        }
        self.log.lock().reach(batch.cursor);
        // Also of the position alone.
        self.tell();
    }

    /// Who numbers what is emitted here.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.own
    }

    /// Adds an occurrence that another node has sent, unless it is there. `false` if others have to
    /// come before it: two nodes may send those of a third one at once. `is_first` says that the sender
    /// has no earlier ones.
    pub(crate) fn receive(
        &self,
        origin: &Arc<Origin>,
        seq: u64,
        is_first: bool,
        occurrence: Occurrence,
    ) -> bool {
        let now = Instant::now();
        let is_new = {
            let mut log = self.log.lock();
            log.expire(now);
            if seq > log.last(origin) + 1 && !is_first {
                return false;
            }
            log.append(origin, seq, now, Arc::new(occurrence))
        };
        if is_new {
            self.tell();
        }
        true
    }

    /// Adds an occurrence with the next number.
    fn append(&self, make: impl FnOnce(u64) -> Occurrence) -> (Arc<str>, u64) {
        let now = Instant::now();
        let mut log = self.log.lock();
        log.expire(now);
        let seq = log.last(&self.own) + 1;
        let occurrence = make(seq);
        let id = occurrence.id.clone();
        log.append(&self.own, seq, now, Arc::new(occurrence));
        (id, seq)
    }

    /// Reads what the store has of a durable type.
    pub(crate) async fn restore(&self) -> Result<(), StoreError> {
        let Some((store, _)) = &self.store else { return Ok(()) };
        let stored = store.lock().await.read(&self.name()).await?;
        let (now, clock) = (Instant::now(), SystemTime::now());
        let mut log = self.log.lock();
        for stored in stored {
            let (origin, seq, occurrence) = stored.into_parts();
            let age = clock.duration_since(occurrence.at).unwrap_or_default();
            let at = now.checked_sub(age).unwrap_or(now);
            log.append(&origin, seq, at, Arc::new(occurrence));
        }
        log.expire(now);
        self.has_read(log.end_index());
        self.has_offered(log.end_index());
        Ok(())
    }

    /// Waits while the actor is far behind: otherwise a burst pushes out of the log what it has not
    /// sent.
    async fn keep_pace(&self) {
        loop {
            let progress = self.progress.notified();
            let end = self.log.lock().end_index();
            let lag = end.saturating_sub(self.read.load(Ordering::Acquire));
            if self.listeners.load(Ordering::Acquire) == 0
                || lag < self.max_lag
                || self.closed.load(Ordering::Acquire)
            {
                return;
            }
            progress.await;
        }
    }

    /// Tells the actor that there is something new, once until it looks.
    pub(crate) fn tell(&self) {
        if self.listeners.load(Ordering::Acquire) > 0 && !self.told.swap(true, Ordering::AcqRel) {
            self.send(TypeMsg::Flush);
        }
    }

    /// Publishes what is counted. What a check finds is counted then.
    pub(crate) fn publish_counts(&self) {
        if !matches!(self.role, Role::Emitted) {
            return;
        }
        let (emitted, end) = {
            let log = self.log.lock();
            (log.last(&self.own), log.end_index())
        };
        // Without listeners the actor is not told.
        let lag = if self.has_listeners() { end.saturating_sub(self.read_up_to()) } else { 0 };
        publish_type(&self.name(), emitted, lag);
    }

    /// The actor is about to look.
    pub(crate) fn looks(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// The actor has read the log up to this index.
    pub(crate) fn has_read(&self, index: u64) {
        self.read.store(index, Ordering::Release);
        self.progress.notify_waiters();
    }

    /// The index up to which the actor has read the log.
    pub(crate) fn read_up_to(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// The actor has woken all webhooks that what is before this index concerns.
    pub(crate) fn has_offered(&self, index: u64) {
        self.offered.store(index, Ordering::Release);
    }

    /// The index up to which the actor has woken the webhooks.
    pub(crate) fn offered_up_to(&self) -> u64 {
        self.offered.load(Ordering::Acquire)
    }

    pub(crate) fn send(&self, message: TypeMsg) {
        // Without an actor the message is not needed: the next one begins without streams, and looks
        // at the log at once.
        if let Some(actor) = &*self.actor.load() {
            let _ = actor.cast(message);
        }
    }

    pub(crate) fn set_actor(&self, actor: Option<ActorRef<TypeMsg>>) {
        self.actor.store(actor.map(Arc::new));
        self.told.store(false, Ordering::Release);
        self.send(TypeMsg::Flush);
    }

    /// Counts a stream or webhook. The actor has read everything of before.
    pub(crate) fn add_listener(&self) {
        self.listeners.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove_listener(self: &Arc<Self>) {
        match self.branch() {
            Some(branch) => branch.leave(self),
            None => {
                self.uncount_listener();
            }
        }
    }

    /// Returns whether others are left.
    pub(crate) fn uncount_listener(&self) -> bool {
        let before = self.listeners.fetch_sub(1, Ordering::AcqRel);
        self.progress.notify_waiters();
        before > 1
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.listeners.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes no occurrences any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let emitter = self.emitter.lock().take();
        if let Some(emitter) = emitter {
            emitter.stop(None);
        }
        match self.branch() {
            Some(branch) => branch.close(&self.name()),
            None => self.watches.close(),
        }
        self.each_branch(|branch| branch.close());
        self.progress.notify_waiters();
    }

    /// Ends its actors, after what was sent to them before.
    pub(crate) fn stop(&self) {
        self.send(TypeMsg::Stop);
        if let Some(branch) = self.branch() {
            branch.send(CheckerMsg::Stop);
        }
    }

    /// Asks at once who still may have what it is subscribed to.
    pub(crate) fn recheck(&self) {
        self.send(TypeMsg::Recheck);
        self.each_branch(|branch| branch.recheck());
    }

    pub(crate) fn end_subscriptions(&self, error: &EventError) {
        self.send(TypeMsg::End(error.clone()));
        self.each_branch(|branch| branch.end_subscriptions(error));
    }

    pub(crate) fn report_failure(&self, error: &EventError) {
        self.send(TypeMsg::Failed(error.clone()));
        self.each_branch(|branch| branch.report_failure(error));
    }

    pub(crate) fn report_gap(&self) {
        self.send(TypeMsg::Gap);
        self.each_branch(|branch| branch.report_gap());
    }
}
