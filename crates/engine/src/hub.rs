//! **Owns** the subscribers of notices: one entry for each legacy session and each modern listen.
//! **Receives** joins and leaves of sessions, and notices of the registry and the application.
//! **Sends** nothing: it writes notices, encoded once, into the streams of its subscribers, and
//! from there directly to clients that keep up. It reports which resources have watchers.
//! **Dies when** the supervisor stops, or a bug panics.
//! **Restarts as** an empty hub that every session joins again.

mod fanout;
pub(crate) mod filter;
mod pending;
mod publish;
mod rights;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use stentor_delivery::StreamSender;
use stentor_delivery::policy::Class;
use stentor_wire::{EncodedNotice, KeyKind, ListKind, Notice, SubscriptionId, Topic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::{Delta, Rule, Viewer, ViewerClass, ViewerClasses};
use crate::audience::{Audience, Listener};
use crate::ids::SessionId;
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
    /// The class of the listener's rights, once it has joined.
    pub(crate) class: ViewerClass,
}

#[derive(Debug)]
pub(crate) enum Refilter {
    Watch(Arc<str>),
    Unwatch(Arc<str>),
}

/// Learns which resources clients of this node watch. The `watches` of the engine implement it, above
/// this module.
pub(crate) trait Watchers: fmt::Debug + Send + Sync {
    /// A URI, in its normal form, has its first watcher, or has lost its last one.
    fn changed(&self, uri: &Arc<str>, watched: bool);

    /// All URIs that have watchers, because their hooks may have changed, or the hub is a new one.
    fn recount(&self, uris: &mut dyn Iterator<Item = &Arc<str>>);

    /// Who sees what is read under a URI now.
    fn rule_of(&self, uri: &str) -> Rule;

    /// The rules of all items.
    fn rules(&self) -> Vec<Rule>;
}

/// A view of the hub.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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
    /// A subscriber sees other items from now on, and the epoch that this begins.
    Reclass(SubscriberKey, Viewer, Epoch),
    Leave(SubscriberKey),
    /// Somebody follows a session from now on.
    Follow(SessionId),
    /// The hooks of resources have changed.
    Recount,
    /// All subscribers of the last hub have joined this one.
    Rejoined,
    /// There are pending broadcasts.
    Flush,
    /// The state of a topic that an extension owns has changed.
    Publish(Notice),
    /// The state of a topic, for a subscriber that has just joined.
    SendState(SubscriberKey, Box<EncodedNotice>),
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
    /// How many changes of the catalog were announced, by list.
    announced: [AtomicU64; ListKind::ALL.len()],
    /// The member of a listen that asks for a notification of an extension, by its method.
    members: HashMap<Arc<str>, Arc<str>>,
}

impl Hub {
    pub(crate) fn new(members: HashMap<Arc<str>, Arc<str>>) -> Self {
        Self {
            actor: ArcSwapOption::empty(),
            pending: PendingBroadcasts::default(),
            notifications: Arc::new(Semaphore::new(NOTIFICATIONS_IN_FLIGHT)),
            announced: Default::default(),
            members,
        }
    }

    /// Spawns the actor; `restarted` if in place of one that crashed. It has no subscribers.
    pub(crate) async fn spawn(
        self: &Arc<Self>,
        supervisor: ActorCell,
        watchers: Arc<dyn Watchers>,
        restarted: bool,
    ) -> Result<ActorId, SpawnErr> {
        let args = HubArgs { hub: self.clone(), watchers, restarted };
        let (actor, _) = Actor::spawn_linked(None, HubActor, args, supervisor).await?;
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
    pub(crate) fn announce(&self, topic: &Topic, delta: Delta) {
        if self.pending.mark(topic.clone(), delta) {
            self.send(HubMsg::Flush);
        }
    }

    /// How many changes of a list were announced.
    pub(crate) fn announced(&self, kind: ListKind) -> u64 {
        self.announced[kind as usize].load(Ordering::Acquire)
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

pub(crate) struct HubArgs {
    hub: Arc<Hub>,
    watchers: Arc<dyn Watchers>,
    restarted: bool,
}

pub(crate) struct HubState {
    hub: Arc<Hub>,
    watchers: Arc<dyn Watchers>,
    /// Whether some subscribers of the last hub may not have joined this one yet. Until then it does
    /// not know which resources nobody watches.
    is_rejoined: bool,
    /// Roughly in the order of joining: their memory was allocated in that order, so iterating is
    /// faster.
    subscribers: IndexMap<SubscriberKey, Subscriber, RandomState>,
    classes: ViewerClasses,
    /// The subscribers of each topic with a key, by its normal form, so that a notice does not visit
    /// other subscribers. If the topic has a state: the last version that each has received.
    topics: HashMap<Topic, IndexMap<SubscriberKey, u64, RandomState>>,
    /// The listens of each session that ask for notifications of an extension.
    listens: HashMap<SessionId, Vec<SubscriberKey>>,
    /// The subscribers of sessions that somebody follows, or did.
    followed: HashSet<SubscriberKey>,
    published: u64,
    /// The epoch of the last join. What changed later waits for its own join.
    epoch: Epoch,
}

pub(crate) struct HubActor;

impl Actor for HubActor {
    type Msg = HubMsg;
    type State = HubState;
    type Arguments = HubArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<HubMsg>,
        HubArgs { hub, watchers, restarted }: HubArgs,
    ) -> Result<HubState, ActorProcessingErr> {
        let mut classes = ViewerClasses::default();
        classes.learn(&watchers.rules());
        Ok(HubState {
            epoch: hub.pending.epoch(),
            hub,
            watchers,
            is_rejoined: !restarted,
            subscribers: IndexMap::default(),
            classes,
            topics: HashMap::default(),
            listens: HashMap::default(),
            followed: HashSet::default(),
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
            HubMsg::Reclass(key, viewer, epoch) => {
                state.on_reclass(&key, viewer);
                state.on_epoch(epoch).await;
            }
            HubMsg::Leave(key) => state.on_leave(&key),
            HubMsg::Follow(session) => state.on_follow(&session),
            HubMsg::Recount => state.on_recount(),
            HubMsg::Rejoined => {
                state.is_rejoined = true;
                state.on_recount();
            }
            HubMsg::Flush => state.on_flush().await,
            HubMsg::Publish(notice) => state.on_state(notice).await,
            HubMsg::SendState(key, notice) => state.on_send_state(&key, *notice),
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
    fn on_join(&mut self, key: SubscriberKey, mut subscriber: Subscriber) {
        subscriber.class = self.classes.join(&subscriber.listener.viewer);
        for topic in subscriber.filter.topics() {
            self.watch(topic, &key);
        }
        if subscriber.filter.has_members() {
            let listens = self.listens.entry(key.session.clone()).or_default();
            if !listens.contains(&key) {
                listens.push(key.clone());
            }
        }
        if subscriber.sender.counters().is_followed() {
            self.followed.insert(key.clone());
        }
        // A session that joins again may watch less than before.
        if let Some(before) = self.subscribers.insert(key.clone(), subscriber) {
            self.classes.leave(before.class);
            let now = self.subscribers.get(&key).map(|now| &now.filter);
            let stays = |topic: &Topic| now.is_some_and(|now| now.written(topic).is_some());
            let gone: Vec<_> =
                before.filter.topics().filter(|topic| !stays(topic)).cloned().collect();
            gone.iter().for_each(|topic| self.unwatch(topic, &key));
        }
    }

    fn watch(&mut self, topic: &Topic, key: &SubscriberKey) {
        let subscribers = self.topics.entry(topic.clone()).or_default();
        let is_first = subscribers.is_empty();
        subscribers.entry(key.clone()).or_default();
        if let (true, Topic::Resource(uri)) = (is_first, topic) {
            self.watchers.changed(uri, true);
        }
    }

    fn unwatch(&mut self, topic: &Topic, key: &SubscriberKey) {
        if let Some(subscribers) = self.topics.get_mut(topic) {
            subscribers.swap_remove(key);
            if subscribers.is_empty() {
                self.topics.remove(topic);
                if let (true, Topic::Resource(uri)) = (self.is_rejoined, topic) {
                    self.watchers.changed(uri, false);
                }
            }
        }
    }

    fn on_recount(&self) {
        if self.is_rejoined {
            fn resource(topic: &Topic) -> Option<&Arc<str>> {
                match topic {
                    Topic::Resource(uri) => Some(uri),
                    _ => None,
                }
            }
            self.watchers.recount(&mut self.topics.keys().filter_map(resource));
        }
    }

    fn on_refilter(&mut self, key: &SubscriberKey, refilter: Refilter) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        match refilter {
            Refilter::Watch(uri) => {
                let (topic, uri) = filter::watched(KeyKind::Resource, &uri);
                subscriber.filter.watch(topic.clone(), uri);
                self.watch(&topic, key);
            }
            Refilter::Unwatch(uri) => {
                let topic = Topic::Resource(uri).normal();
                subscriber.filter.unwatch(&topic);
                self.unwatch(&topic, key);
            }
        }
    }

    fn on_leave(&mut self, key: &SubscriberKey) {
        let Some(subscriber) = self.subscribers.swap_remove(key) else { return };
        self.classes.leave(subscriber.class);
        self.followed.remove(key);
        if let Some(listens) = self.listens.get_mut(&key.session) {
            listens.retain(|listen| listen != key);
            if listens.is_empty() {
                self.listens.remove(&key.session);
            }
        }
        for topic in subscriber.filter.topics() {
            self.unwatch(topic, key);
        }
    }

    async fn on_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.on_flush().await;
    }

    async fn on_flush(&mut self) {
        for (topic, delta) in self.hub.pending.take(self.epoch) {
            if let Topic::List(kind) = topic {
                self.hub.announced[kind as usize].fetch_add(delta.changes(), Ordering::AcqRel);
            }
            self.on_changed(topic, &delta).await;
        }
    }

    async fn on_changed(&mut self, topic: Topic, delta: &Delta) {
        match topic.keyed() {
            None => {
                self.learn(|classes| classes.learn_from(delta));
                let concerned = self.classes.concerned(delta);
                let notice = Notice::Changed(topic);
                let hears = |it: &Subscriber| it.filter.passes(&notice) && concerned.by(it.class);
                let all = self.subscribers.iter().filter(|(_, subscriber)| hears(subscriber));
                let recipients = all.map(|(key, it)| Recipient::new(key, it)).collect();
                self.note_filtered(&notice, |_, it| match it.filter.passes(&notice) {
                    false => Some("it did not ask for changes of this list"),
                    true if concerned.by(it.class) => None,
                    true => Some("its own list is the same: what changed is hidden from it"),
                });
                self.send(recipients, notice).await;
            }
            // Its notices contain its state, which only the extension knows.
            Some((kind, _)) if kind.is_owned() => {}
            Some((kind, _)) => self.on_key_changed(kind, &topic.normal()).await,
        }
    }

    fn on_follow(&mut self, session: &SessionId) {
        let is_followed = |it: &Subscriber| it.sender.counters().is_followed();
        self.followed.retain(|key| self.subscribers.get(key).is_some_and(is_followed));
        let own = self.subscribers.keys().filter(|key| key.session == *session);
        self.followed.extend(own.cloned());
    }

    /// Notes why a notice is not for subscribers that somebody follows.
    fn note_filtered(
        &self,
        notice: &Notice,
        why: impl Fn(&SubscriberKey, &Subscriber) -> Option<&'static str>,
    ) {
        for key in &self.followed {
            if let Some(subscriber) = self.subscribers.get(key)
                && let Some(why) = why(key, subscriber)
            {
                subscriber.sender.counters().filtered(Class::of(notice), notice, why);
            }
        }
    }

    fn on_observe(&self, reply: RpcReplyPort<HubView>) {
        let view = HubView { subscribers: self.subscribers.len(), published: self.published };
        let _ = reply.send(view);
    }
}
