//! **Owns** the subscribers of notices: one entry for each legacy session and each modern listen.
//! **Receives** joins and leaves of sessions, and notices of the registry and the application.
//! **Sends** nothing: it writes notices, encoded once, into the streams of its subscribers, and
//! from there directly to clients that keep up.
//! **Dies when** the supervisor stops, or a bug panics.
//! **Restarts as** an empty hub that every session joins again.

mod fanout;
pub(crate) mod filter;
mod pending;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::{IndexMap, IndexSet};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use stentor_delivery::StreamSender;
use stentor_delivery::policy::Class;
use stentor_wire::{EncodedNotice, Notice, SubscriptionId, uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audience::{Audience, Listener};
use crate::ids::SessionId;
use crate::items::Topic;
use crate::reasons::Stopped;
use fanout::Recipient;
use filter::Filter;
pub(crate) use pending::Epoch;
use pending::PendingBroadcasts;

/// The key of a subscriber: a legacy session itself, or one listen of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SubscriberKey {
    pub(crate) session: SessionId,
    pub(crate) subscription: Option<SubscriptionId>,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) sender: StreamSender,
    pub(crate) filter: Filter,
    pub(crate) listener: Listener,
}

#[derive(Debug)]
pub(crate) enum Refilter {
    Watch(Arc<str>),
    Unwatch(Arc<str>),
}

/// A view of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubView {
    /// Legacy sessions and modern listens that receive notices.
    pub subscribers: usize,
    /// Notices published since the hub was started.
    pub published: u64,
}

#[derive(Debug)]
pub(crate) enum HubMsg {
    /// A subscriber, and the epoch that it begins.
    Join(SubscriberKey, Box<Subscriber>, Epoch),
    /// A change of what a subscriber receives, and the epoch that it begins.
    Refilter(SubscriberKey, Refilter, Epoch),
    Leave(SubscriberKey),
    /// There are pending broadcasts.
    Flush,
    Publish(Notice),
    /// The status of a task, for a subscriber that has just joined.
    SendTaskStatus(SubscriberKey, Box<EncodedNotice>),
    /// A notification of the application's own. An application can send them without end, so a
    /// sender that has to wait for the hub adds a permit.
    Notify(Audience, Notice, Option<OwnedSemaphorePermit>),
    /// Replies once the notices before it were sent.
    Barrier(RpcReplyPort<()>),
    Observe(RpcReplyPort<HubView>),
}

crate::message!(HubMsg);

/// Notifications of the application that may wait for the hub. Above that, the application waits.
const NOTIFICATIONS_IN_FLIGHT: usize = 1_024;

/// The hub, for all code that sends it something. It outlives an actor that crashes.
#[derive(Debug)]
pub(crate) struct Hub {
    actor: ArcSwapOption<ActorRef<HubMsg>>,
    pending: PendingBroadcasts,
    notifications: Arc<Semaphore>,
    /// The member of a listen that asks for a notification of an extension, by its method.
    members: HashMap<Arc<str>, Arc<str>>,
}

impl Hub {
    pub(crate) fn new(members: HashMap<Arc<str>, Arc<str>>) -> Self {
        Self {
            actor: ArcSwapOption::empty(),
            pending: PendingBroadcasts::default(),
            notifications: Arc::new(Semaphore::new(NOTIFICATIONS_IN_FLIGHT)),
            members,
        }
    }

    /// Spawns the actor, also in place of one that crashed. The new one has no subscribers.
    pub(crate) async fn spawn(
        self: &Arc<Self>,
        supervisor: ActorCell,
    ) -> Result<ActorId, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, HubActor, self.clone(), supervisor).await?;
        let id = actor.get_id();
        self.actor.store(Some(Arc::new(actor)));
        // A flush that was sent meanwhile was lost.
        self.send(HubMsg::Flush);
        Ok(id)
    }

    /// Forgets the actor, because the engine has stopped.
    pub(crate) fn close(&self) {
        self.notifications.close();
        self.actor.store(None);
    }

    pub(crate) fn actor(&self) -> Option<Arc<ActorRef<HubMsg>>> {
        self.actor.load_full()
    }

    pub(crate) fn send(&self, message: HubMsg) {
        // Without an actor the message is not needed: the hub restarts, and every session will join
        // it again and be notified of all lists; or the engine stops.
        if let Some(actor) = &*self.actor.load() {
            let _ = actor.cast(message);
        }
    }

    /// Sends what somebody subscribes to. A change after this reaches the subscriber.
    pub(crate) fn subscribe(&self, message: impl FnOnce(Epoch) -> HubMsg) {
        self.pending.join(|epoch| self.send(message(epoch)));
    }

    /// Announces a topic: once, however often it changes before the hub looks at it.
    pub(crate) fn announce(&self, topic: &Topic) {
        if self.pending.mark(topic.clone()) {
            self.send(HubMsg::Flush);
        }
    }

    /// The members of a listen that extensions bring.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.values()
    }

    /// Waits for the right to send a notification of the application's own.
    pub(crate) async fn notification_permit(&self) -> Result<OwnedSemaphorePermit, Stopped> {
        self.notifications.clone().acquire_owned().await.map_err(|_| Stopped)
    }
}

pub(crate) struct HubState {
    hub: Arc<Hub>,
    /// Roughly in the order of joining: their memory was allocated in that order, so iterating is
    /// faster.
    subscribers: IndexMap<SubscriberKey, Subscriber, RandomState>,
    /// The subscribers of each resource, by the normal form of its URI, so that an update does not
    /// visit other subscribers.
    watchers: HashMap<Arc<str>, IndexSet<SubscriberKey, RandomState>>,
    /// The subscribers of each task, and the last version that each has received.
    tasks: HashMap<Arc<str>, HashMap<SubscriberKey, u64>>,
    /// The listens of each session that ask for notifications of an extension.
    listens: HashMap<SessionId, Vec<SubscriberKey>>,
    published: u64,
    /// The epoch of the last join. What changed later waits for its own join.
    epoch: Epoch,
}

pub(crate) struct HubActor;

impl Actor for HubActor {
    type Msg = HubMsg;
    type State = HubState;
    type Arguments = Arc<Hub>;

    async fn pre_start(
        &self,
        _myself: ActorRef<HubMsg>,
        hub: Arc<Hub>,
    ) -> Result<HubState, ActorProcessingErr> {
        Ok(HubState {
            epoch: hub.pending.epoch(),
            hub,
            subscribers: IndexMap::default(),
            watchers: HashMap::default(),
            tasks: HashMap::default(),
            listens: HashMap::default(),
            published: 0,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<HubMsg>,
        message: HubMsg,
        state: &mut HubState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HubMsg::Join(key, subscriber, epoch) => {
                state.on_join(key, *subscriber);
                state.on_epoch(epoch).await;
            }
            HubMsg::Refilter(key, refilter, epoch) => {
                state.on_refilter(&key, refilter);
                state.on_epoch(epoch).await;
            }
            HubMsg::Leave(key) => state.on_leave(&key),
            HubMsg::Flush => state.on_flush().await,
            HubMsg::Publish(notice) => state.on_publish(notice).await,
            HubMsg::SendTaskStatus(key, notice) => state.on_tell_task(&key, *notice),
            HubMsg::Notify(audience, notice, _permit) => state.on_notify(&audience, notice).await,
            HubMsg::Barrier(reply) => {
                // The requester may have ended.
                let _ = reply.send(());
            }
            HubMsg::Observe(reply) => state.on_observe(reply),
        }
        Ok(())
    }
}

impl HubState {
    fn on_join(&mut self, key: SubscriberKey, subscriber: Subscriber) {
        for task in subscriber.filter.tasks() {
            self.tasks.entry(task.clone()).or_default().entry(key.clone()).or_default();
        }
        for uri in subscriber.filter.resources() {
            self.watch(uri, &key);
        }
        if subscriber.filter.has_members() {
            let listens = self.listens.entry(key.session.clone()).or_default();
            if !listens.contains(&key) {
                listens.push(key.clone());
            }
        }
        // A session that joins again may watch less than before.
        if let Some(before) = self.subscribers.insert(key.clone(), subscriber) {
            let now = self.subscribers.get(&key).map(|now| &now.filter);
            let stays = |uri: &Arc<str>| now.is_some_and(|now| now.watched_as(uri).is_some());
            let gone: Vec<_> =
                before.filter.resources().filter(|uri| !stays(uri)).cloned().collect();
            gone.iter().for_each(|uri| self.unwatch(uri, &key));
        }
    }

    fn watch(&mut self, uri: &Arc<str>, key: &SubscriberKey) {
        self.watchers.entry(uri.clone()).or_default().insert(key.clone());
    }

    fn unwatch(&mut self, uri: &str, key: &SubscriberKey) {
        if let Some(watchers) = self.watchers.get_mut(uri) {
            watchers.swap_remove(key);
            if watchers.is_empty() {
                self.watchers.remove(uri);
            }
        }
    }

    fn on_refilter(&mut self, key: &SubscriberKey, refilter: Refilter) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        match refilter {
            Refilter::Watch(uri) => {
                let (normal, _) = filter::watched(uri.clone());
                subscriber.filter.watch(uri);
                self.watch(&normal, key);
            }
            Refilter::Unwatch(uri) => {
                subscriber.filter.unwatch(&uri);
                self.unwatch(&uri::normal(&uri), key);
            }
        }
    }

    fn on_leave(&mut self, key: &SubscriberKey) {
        let Some(subscriber) = self.subscribers.swap_remove(key) else { return };
        if let Some(listens) = self.listens.get_mut(&key.session) {
            listens.retain(|listen| listen != key);
            if listens.is_empty() {
                self.listens.remove(&key.session);
            }
        }
        for uri in subscriber.filter.resources() {
            self.unwatch(uri, key);
        }
        for task in subscriber.filter.tasks() {
            if let Some(listeners) = self.tasks.get_mut(task) {
                listeners.remove(key);
                if listeners.is_empty() {
                    self.tasks.remove(task);
                }
            }
        }
    }

    async fn on_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.on_flush().await;
    }

    async fn on_flush(&mut self) {
        for topic in self.hub.pending.take(self.epoch) {
            self.on_publish(topic.notice()).await;
        }
    }

    async fn on_publish(&mut self, notice: Notice) {
        let recipients = match &notice {
            Notice::Task { id, version, .. } => {
                let Some(listeners) = self.tasks.get_mut(id) else { return };
                let behind = listeners.iter_mut().filter(|(_, last)| **last < *version);
                let subscribers = &self.subscribers;
                let recipients = behind.filter_map(|(key, last)| {
                    *last = *version;
                    Some(Recipient::new(key, subscribers.get(key)?))
                });
                recipients.collect()
            }
            Notice::ResourceUpdated(uri) => return self.on_updated(&uri::normal(uri)).await,
            _ => {
                let all = self.subscribers.iter();
                let hear = all.filter(|(_, subscriber)| subscriber.filter.passes(&notice));
                hear.map(|(key, subscriber)| Recipient::new(key, subscriber)).collect()
            }
        };
        self.send(recipients, notice).await;
    }

    /// A resource changed. Each client receives its URI as the client wrote it.
    async fn on_updated(&mut self, normal: &str) {
        self.published += 1;
        let mut by_uri: IndexMap<Arc<str>, Vec<Recipient>, RandomState> = IndexMap::default();
        for key in self.watchers.get(normal).into_iter().flatten() {
            let Some(subscriber) = self.subscribers.get(key) else { continue };
            let Some(uri) = subscriber.filter.watched_as(normal) else { continue };
            let recipients = match by_uri.get_mut(uri) {
                Some(recipients) => recipients,
                None => by_uri.entry(uri.clone()).or_default(),
            };
            recipients.push(Recipient::new(key, subscriber));
        }
        for (uri, to) in by_uri {
            let notice = Notice::ResourceUpdated(uri);
            fanout::write_to_all(to, Class::of(&notice), Arc::new(EncodedNotice::new(notice)))
                .await;
        }
    }

    async fn send(&mut self, recipients: Vec<Recipient>, notice: Notice) {
        self.published += 1;
        if recipients.is_empty() {
            return;
        }
        let class = Class::of(&notice);
        let notice = Arc::new(EncodedNotice::new(notice));
        fanout::write_to_all(recipients, class, notice).await;
    }

    fn on_tell_task(&mut self, key: &SubscriberKey, notice: EncodedNotice) {
        let Notice::Task { id, version, .. } = notice.notice() else { return };
        let last = self.tasks.get_mut(id).and_then(|listeners| listeners.get_mut(key));
        if let (Some(last), Some(subscriber)) = (last, self.subscribers.get(key))
            && *last < *version
        {
            *last = *version;
            subscriber.sender.notice(Class::Task, Arc::new(notice), key.subscription.clone());
        }
    }

    async fn on_notify(&mut self, audience: &Audience, notice: Notice) {
        let member = match &notice {
            Notice::Custom { method, .. } => self.hub.members.get(method),
            _ => None,
        };
        let has = |key: &SubscriberKey, subscriber: &Subscriber| {
            // A legacy session receives all of them, a listen those of an extension that it asks
            // for.
            (key.subscription.is_none() || member.is_some_and(|it| subscriber.filter.has(it)))
                && audience.has(&key.session, &subscriber.listener)
        };
        let recipients = match audience.only() {
            // One session: all others are not visited.
            Some(session) => {
                let legacy = SubscriberKey { session: session.clone(), subscription: None };
                let listens = self.listens.get(session).into_iter().flatten();
                let keys = std::iter::once(&legacy).chain(listens);
                let found = keys.filter_map(|key| Some((key, self.subscribers.get(key)?)));
                let chosen = found.filter(|(key, it)| has(key, it));
                chosen.map(|(key, it)| Recipient::new(key, it)).collect()
            }
            None => {
                let chosen = self.subscribers.iter().filter(|(key, it)| has(key, it));
                chosen.map(|(key, it)| Recipient::new(key, it)).collect()
            }
        };
        self.send(recipients, notice).await;
    }

    fn on_observe(&self, reply: RpcReplyPort<HubView>) {
        let view = HubView { subscribers: self.subscribers.len(), published: self.published };
        let _ = reply.send(view);
    }
}
