//! Deliveries to the endpoints of clients (SEP-3415, "Webhooks").
//!
//! Pure parts, which are told the time: `address.rs`, `callback_url.rs`, `key.rs`, `secret.rs`,
//! `schedule.rs`, `window.rs`, `health.rs`. Around them: `client.rs` sends requests; `subscription.rs`
//! is what outlives a `deliverer.rs`, the actor of a webhook that has something to deliver;
//! `requests.rs` are the methods; `table.rs` has all webhooks.

mod address;
mod callback_url;
mod client;
mod deliverer;
mod health;
pub(crate) mod key;
mod reports;
mod requests;
mod schedule;
mod secret;
mod settings;
mod standby;
mod subscription;
mod table;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use foldhash::HashMap;
use parking_lot::Mutex;
use stentor_engine::Requester;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use callback_url::CallbackUrl;
pub use callback_url::OriginError;
use client::{CallbackClient, Category, ClientSettings};
pub(crate) use deliverer::{Deliverer, DelivererArgs};
pub(crate) use key::SubscriptionKey;
pub(crate) use requests::{id_of, subscribe, subscribe_as, unsubscribe};
pub use settings::WebhookConfig;
pub(crate) use subscription::Subscription;
pub use subscription::WebhookView;
use subscription::{Life, Reading, deadline, secrets_of};
use table::{Group, Table};

use crate::error::EventError;
use crate::event_type::Definition;
use crate::keeper::KeeperMsg;
use crate::log::{Entry, Position};
use crate::peers::PeerMessage;
use crate::report::WebhookEnd;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::start::position_of;
use crate::store::{EventsStore, StoreError, StoredWebhook};
use crate::subscriber::{Mode, Subscriber};

/// Attempts at once, of all webhooks; and of those whose endpoints fail.
const MAX_IN_FLIGHT: usize = 1_024;
const MAX_FAILING: usize = 256;

/// All webhooks of an engine.
#[derive(Debug)]
pub(crate) struct Webhooks {
    is_on: bool,
    pub(crate) config: WebhookConfig,
    /// `None` if nothing is kept.
    pub(crate) store: Option<Arc<dyn EventsStore>>,
    client: CallbackClient,
    /// Sends challenges, with few places of its own: nobody may stall deliveries with them.
    challenger: CallbackClient,
    table: Mutex<Table>,
    failing: Semaphore,
    /// What was given up since it was last reported, and why: by the id of the webhook.
    abandoned: Mutex<HashMap<Arc<str>, (u64, &'static str)>>,
    standby: standby::Standby,
    /// Set when the engine has stopped: nothing is sent any more.
    closed: AtomicBool,
    /// One saves at a time, so that what is removed stays removed.
    saving: tokio::sync::Mutex<()>,
    /// Webhooks that have to be removed from the store.
    gone: Mutex<Vec<String>>,
    /// Tells the keeper; set when it runs.
    shared: Mutex<Weak<Shared>>,
}

impl Webhooks {
    /// `None` for a server without webhooks.
    pub(crate) fn new(config: Option<WebhookConfig>, store: Option<Arc<dyn EventsStore>>) -> Self {
        let is_on = config.is_some();
        let config = config.unwrap_or_default();
        let settings = ClientSettings {
            timeout: config.attempt_timeout,
            max_in_flight: MAX_IN_FLIGHT,
            ..ClientSettings::default()
        };
        let few =
            ClientSettings { max_in_flight_per_host: 2, max_in_flight: 64, ..settings.clone() };
        // Only a program whose TLS cannot be set up has no client, and then nothing can be delivered.
        let client = |settings: &ClientSettings| {
            CallbackClient::new(settings, config.origins.clone())
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let (client, challenger) = (client(&settings), client(&few));
        Self {
            is_on,
            store,
            table: Mutex::new(Table::new(&config)),
            client,
            challenger,
            failing: Semaphore::new(MAX_FAILING),
            abandoned: Mutex::default(),
            standby: standby::Standby::default(),
            closed: AtomicBool::new(false),
            saving: tokio::sync::Mutex::default(),
            gone: Mutex::default(),
            shared: Mutex::default(),
            config,
        }
    }

    pub(crate) fn shared(&self) -> Weak<Shared> {
        self.shared.lock().clone()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    pub(crate) fn belong_to(&self, shared: &Arc<Shared>) {
        *self.shared.lock() = Arc::downgrade(shared);
    }

    /// Who would own a webhook of this sender.
    pub(crate) fn principal_of(&self, requester: &Requester) -> Option<Arc<str>> {
        requester.principal().or(self.config.everybody.as_ref()).filter(|_| self.is_on).cloned()
    }

    /// Sends nothing any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether webhooks outlive a crash of the process.
    fn is_durable(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_durable())
    }

    fn deliver(&self, subscription: &Arc<Subscription>) {
        let shared = self.shared.lock().upgrade();
        if let Some(shared) = shared {
            shared.tell_keeper(KeeperMsg::Deliver(subscription.clone()));
        }
    }

    /// Starts what waits for a deliverer, because there is a new keeper.
    pub(crate) fn deliver_all(&self, shared: &Shared) {
        let all = self.table.lock().all();
        for subscription in all {
            subscription.has_no_deliverer();
            if subscription.needs_deliverer() {
                shared.tell_keeper(KeeperMsg::Deliver(subscription));
            }
        }
    }

    /// Wakes the webhooks that an occurrence concerns.
    pub(crate) fn occurred(
        &self,
        running: &Arc<RunningType>,
        definition: &Definition,
        entry: &Entry,
        before: &Position,
        after: u64,
    ) {
        let groups = self.groups_of(running);
        for group in groups {
            let is_concerned = match &entry.occurrence.only_for {
                Some(only) => group.has(only),
                None => definition.may_match(group.watched(), &entry.occurrence),
            };
            if is_concerned {
                group.each(|subscription| {
                    if subscription.offer(running, before, after) {
                        self.deliver(subscription);
                    }
                });
            }
        }
    }

    /// Something was dropped from the log before its actor has looked: each webhook that rests looks for
    /// itself, and is told of the gap.
    pub(crate) fn skipped(&self, running: &Arc<RunningType>, before: &Position, after: u64) {
        let groups = self.groups_of(running);
        for group in groups {
            group.each(|subscription| {
                if subscription.offer(running, before, after) {
                    self.deliver(subscription);
                }
            });
        }
    }

    /// A webhook ends, and its endpoint is told why.
    fn terminate(&self, subscription: &Arc<Subscription>, error: &EventError) {
        if subscription.end(Life::Ending(Arc::new(error.clone()))) {
            self.forget(subscription);
            self.report_end(subscription, || WebhookEnd::Terminated(error.clone()));
            if !subscription.wake() {
                self.deliver(subscription);
            }
        }
    }

    /// A webhook ends, and its endpoint is not told.
    fn end(&self, subscription: &Arc<Subscription>, reason: WebhookEnd) {
        if subscription.end(Life::Over) {
            self.forget(subscription);
            self.report_end(subscription, || reason);
        }
    }

    fn forget(&self, subscription: &Arc<Subscription>) {
        self.table.lock().remove(subscription);
        self.gone.lock().push(subscription.id.to_string());
    }

    /// All webhooks of a type end.
    pub(crate) fn end_type(&self, name: &str, error: &EventError) {
        let of_type = self.table.lock().of_type(name);
        for subscription in of_type {
            self.terminate(&subscription, error);
        }
    }

    /// Ends the webhooks of those who may not have them any longer.
    pub(crate) async fn recheck(&self) {
        let all = self.table.lock().all();
        for (index, subscription) in all.into_iter().enumerate() {
            if index % 64 == 63 {
                tokio::task::yield_now().await;
            }
            let subscriber = subscription.state().subscriber.clone();
            let definition = subscription.running.definition();
            let permitted = definition.permits(&subscriber, &subscription.watched);
            let Err(error) = permitted else { continue };
            self.refuse(&subscription, error);
        }
    }

    /// A webhook ends, because its principal may not have it any longer.
    fn refuse(&self, subscription: &Arc<Subscription>, error: EventError) {
        let error = match error {
            // It has known the type before that was hidden.
            EventError::UnknownType(_) => {
                EventError::Forbidden("these events are not for you any longer".to_owned())
            }
            error => error,
        };
        self.terminate(subscription, &error);
    }

    /// An attempt has failed: a webhook without expiry does not live on forever.
    fn failed(&self, subscription: &Arc<Subscription>, category: Category, now: Instant) {
        let is_over = {
            let state = subscription.state();
            let since = state.status.failed_since.map(|(since, _)| since);
            state.expires.is_none() && since.is_some_and(|it| now - it >= self.config.drop_after)
        };
        if is_over {
            self.terminate(subscription, &EventError::Callback(category.as_str().to_owned()));
        }
    }

    /// Ends what is over.
    pub(crate) fn expire(&self, now: Instant) {
        let (expired, failing) = {
            let mut table = self.table.lock();
            table.forget_old(now);
            (table.expired(now), table.all())
        };
        expired.iter().for_each(|subscription| self.end(subscription, WebhookEnd::Expired));
        for subscription in failing {
            let error = subscription.state().status.last_error;
            if let Some(category) = error {
                self.failed(&subscription, category, now);
            }
        }
    }

    /// Stores what has changed, and tells the other nodes. When dropped early, it goes on.
    pub(crate) async fn save(self: &Arc<Self>) -> Result<(), StoreError> {
        let this = self.clone();
        let saved = tokio::spawn(async move { this.save_now().await }).await;
        saved.unwrap_or_else(|_| Err(StoreError("saving has panicked".to_owned())))
    }

    async fn save_now(&self) -> Result<(), StoreError> {
        let _turn = self.saving.lock().await;
        let dirty: Vec<_> = {
            let all = self.table.lock().all().into_iter();
            all.filter(|it| std::mem::take(&mut it.state().is_dirty)).collect()
        };
        let gone = std::mem::take(&mut *self.gone.lock());
        // Without those that have begun anew.
        let gone: Vec<_> =
            gone.into_iter().filter(|id| self.table.lock().find(id).is_none()).collect();
        self.tell_others(&dirty, &gone).await;
        let Some(store) = &self.store else { return Ok(()) };
        if !gone.is_empty()
            && let Err(error) = store.remove(gone.clone()).await
        {
            self.gone.lock().extend(gone);
            dirty.iter().for_each(|it| it.state().is_dirty = true);
            return Err(error);
        }
        if !dirty.is_empty() {
            let stored = dirty.iter().map(|it| it.stored()).collect();
            if let Err(error) = store.put(stored).await {
                dirty.iter().for_each(|it| it.state().is_dirty = true);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stores one webhook, unless it has ended. When dropped early, it goes on.
    async fn keep(self: &Arc<Self>, subscription: &Arc<Subscription>) -> Result<(), StoreError> {
        let (this, subscription) = (self.clone(), subscription.clone());
        let kept = tokio::spawn(async move {
            let _turn = this.saving.lock().await;
            if !matches!(subscription.state().life, Life::Live | Life::Paused) {
                return Ok(());
            }
            subscription.state().is_dirty = false;
            this.tell_others(std::slice::from_ref(&subscription), &[]).await;
            let Some(store) = &this.store else { return Ok(()) };
            let kept = store.put(vec![subscription.stored()]).await;
            kept.inspect_err(|_| subscription.state().is_dirty = true)
        });
        kept.await.unwrap_or_else(|_| Err(StoreError("saving has panicked".to_owned())))
    }

    /// Tells the other nodes of webhooks, which they continue if this node is gone.
    async fn tell_others(&self, dirty: &[Arc<Subscription>], ended: &[String]) {
        let shared = self.shared.lock().upgrade();
        let Some(shared) = shared.filter(|it| it.peers.are_some()) else { return };
        let Some(engine) = shared.engine.load_full() else { return };
        if dirty.is_empty() && ended.is_empty() {
            return;
        }
        let put = dirty.iter().map(|it| it.stored()).collect();
        let (node, ended) = (engine.node().clone(), ended.to_vec());
        shared.peers.tell_all(&engine, &PeerMessage::Webhooks { node, put, ended }).await;
    }

    /// Continues the webhooks of the store.
    pub(crate) async fn load(&self, shared: &Shared) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        for stored in store.load().await? {
            let id = stored.id();
            if !self.restore(shared, stored) {
                self.gone.lock().push(id);
            }
        }
        Ok(())
    }

    /// Continues a webhook. `false` if it is over, or its type is gone.
    fn restore(&self, shared: &Shared, stored: StoredWebhook) -> bool {
        if stored.expires.is_some_and(|at| at <= SystemTime::now()) {
            return false;
        }
        let Some(engine) = shared.engine.load_full() else { return false };
        let Some(running) = shared.find(&stored.key.name) else { return false };
        let Some(secrets) = secrets_of(&stored) else { return false };
        let Ok(arguments) = serde_json::from_str(&stored.key.arguments) else { return false };
        let Ok(arguments) = running.definition().arguments(Some(arguments)) else { return false };
        let arguments = self.table.lock().share(&stored.key.name, arguments);
        let id: Arc<str> = stored.id().into();
        let mut subscriber =
            Subscriber::new(engine.requester(stored.identity), Mode::Webhook, Some(id.clone()));
        subscriber.principal = Some(stored.key.principal.clone());
        let who = (&subscriber, &*arguments);
        let Some((listening, position, lost)) = position_of(&running, who, &stored.watermark)
        else {
            return false;
        };
        let reading = match position {
            Some(position) => Reading::From(position),
            None => Reading::Idle { upto: listening.log.lock().end_index() },
        };
        let subscription = Subscription::new(
            id,
            stored.key,
            (listening, reading),
            arguments,
            (Arc::new(subscriber), stored.numbers),
            secrets,
            stored.expires.map(deadline),
        );
        {
            let mut state = subscription.state();
            // What happened meanwhile may be lost.
            (state.truncated, state.owes_gap) = (lost && running.replays(), lost);
            if stored.paused {
                state.life = Life::Paused;
            }
        }
        self.table.lock().insert(&Arc::new(subscription), Instant::now());
        true
    }

    /// The webhooks of a branch.
    pub(crate) fn of_branch(&self, running: &Arc<RunningType>) -> Vec<Arc<Subscription>> {
        let mut of_branch = Vec::new();
        let groups = self.groups_of(running);
        for group in groups {
            group.each(|subscription| {
                if Arc::ptr_eq(&subscription.running, running) {
                    of_branch.push(subscription.clone());
                }
            });
        }
        of_branch
    }

    /// The webhooks of a branch are told that the upstream has lost something.
    pub(crate) fn branch_gap(&self, running: &Arc<RunningType>) {
        for subscription in self.of_branch(running) {
            {
                let mut state = subscription.state();
                (state.gap_asked, state.truncated) = (true, true);
            }
            if !subscription.wake() {
                self.deliver(&subscription);
            }
        }
    }

    /// The groups that read the log of this running type, and maybe others of their type.
    fn groups_of(&self, running: &RunningType) -> Vec<Arc<Group>> {
        let table = self.table.lock();
        match running.branch() {
            Some(branch) => table.group(&running.name(), &branch.watched.canonical),
            None => table.groups(&running.name()),
        }
    }

    /// Whether the owner of this URL has agreed beforehand.
    fn has_agreed(&self, url: &CallbackUrl) -> bool {
        self.config.agreed.iter().any(|agreed| callback_url::is_under(url, agreed))
    }

    /// One webhook by its id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Subscription>> {
        self.table.lock().find(id)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.table.lock().all()
    }

    /// Reports a gap to one webhook. `false` if there is no such webhook.
    pub(crate) fn report_gap(&self, id: &str) -> bool {
        let Some(subscription) = self.find(id) else { return false };
        subscription.state().gap_asked = true;
        if !subscription.wake() {
            self.deliver(&subscription);
        }
        true
    }

    /// Ends one webhook. `false` if there is no such webhook.
    pub(crate) fn terminate_by_id(&self, id: &str, error: &EventError) -> bool {
        let Some(subscription) = self.find(id) else { return false };
        self.terminate(&subscription, error);
        true
    }
}
