//! **Owns** who hears which notices: one entry for each legacy session and each modern listen.
//! **Receives** joins and leaves of sessions, and notices of the registry and the application.
//! **Sends** nothing: it writes notices, encoded once, into the outlets that sessions gave it, and
//! from there to clients that keep up.
//! **Dies when** the root stops, or a bug panics.
//! **Restarts as** an empty hub that every session joins again.

mod fanout;
pub(crate) mod filter;

use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::{IndexMap, IndexSet};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use stentor_wire::{EncodedNotice, Notice, SubscriptionId, uri};
use tokio::sync::OwnedSemaphorePermit;

use crate::core::Core;
use crate::ids::SessionId;
use crate::outlet::Outlet;
use crate::outlet::policy::Class;
use fanout::Told;
use filter::Filter;

/// Who subscribes: a legacy session itself, or one listen of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SubscriberKey {
    pub(crate) session: SessionId,
    pub(crate) subscription: Option<SubscriptionId>,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) outlet: Outlet,
    pub(crate) filter: Filter,
}

/// A change of what a subscriber hears.
#[derive(Debug)]
pub(crate) enum Refilter {
    Watch(Arc<str>),
    Unwatch(Arc<str>),
}

/// What a hub knows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubView {
    /// Legacy sessions and modern listens that hear notices.
    pub subscribers: usize,
    /// Notices published since the hub was started.
    pub published: u64,
}

#[derive(Debug)]
pub(crate) enum HubMsg {
    Join(SubscriberKey, Box<Subscriber>),
    Refilter(SubscriberKey, Refilter),
    Leave(SubscriberKey),
    /// Something changed: look what.
    Rung,
    Publish(Notice),
    /// How a task is, for a listener that joined just now.
    TellTask(SubscriberKey, Box<EncodedNotice>),
    /// A notice of the application's own, to these sessions or to all. An application can send
    /// them without end: whoever is to wait for that gave a permit.
    Notify(Option<Vec<SessionId>>, Notice, Option<OwnedSemaphorePermit>),
    /// Says that what came before was told.
    Flush(RpcReplyPort<()>),
    Observe(RpcReplyPort<HubView>),
}

crate::message!(HubMsg);

pub(crate) struct HubState {
    core: Arc<Core>,
    /// In the order in which they joined, more or less: their memory was got in that order, too,
    /// and is faster to walk through so.
    subscribers: IndexMap<SubscriberKey, Subscriber, RandomState>,
    /// Who hears of which resource, by the normal form of its URI: an update is told without a look at those who do not.
    watchers: HashMap<Arc<str>, IndexSet<SubscriberKey, RandomState>>,
    /// Who hears of which task, and the version that each was told last.
    tasks: HashMap<Arc<str>, HashMap<SubscriberKey, u64>>,
    published: u64,
}

pub(crate) struct HubActor;

impl Actor for HubActor {
    type Msg = HubMsg;
    type State = HubState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _myself: ActorRef<HubMsg>,
        core: Arc<Core>,
    ) -> Result<HubState, ActorProcessingErr> {
        Ok(HubState {
            core,
            subscribers: IndexMap::default(),
            watchers: HashMap::default(),
            tasks: HashMap::default(),
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
            HubMsg::Join(key, subscriber) => state.on_join(key, *subscriber),
            HubMsg::Refilter(key, refilter) => state.on_refilter(&key, refilter),
            HubMsg::Leave(key) => state.on_leave(&key),
            HubMsg::Rung => state.on_rung().await,
            HubMsg::Publish(notice) => state.on_publish(notice).await,
            HubMsg::TellTask(key, notice) => state.on_tell_task(&key, *notice),
            HubMsg::Notify(None, notice, _permit) => state.on_publish(notice).await,
            HubMsg::Notify(Some(sessions), notice, _permit) => {
                state.on_notify(sessions, notice).await;
            }
            HubMsg::Flush(reply) => {
                // Whoever asked may have gone.
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

    async fn on_rung(&mut self) {
        for topic in self.core.to_tell.take() {
            self.on_publish(topic.notice()).await;
        }
    }

    async fn on_publish(&mut self, notice: Notice) {
        let told = match &notice {
            Notice::Task { id, version, .. } => {
                let Some(listeners) = self.tasks.get_mut(id) else { return };
                let behind = listeners.iter_mut().filter(|(_, told)| **told < *version);
                let subscribers = &self.subscribers;
                let told = behind.filter_map(|(key, told)| {
                    *told = *version;
                    Some(Told::new(key, subscribers.get(key)?))
                });
                told.collect()
            }
            Notice::ResourceUpdated(uri) => return self.on_updated(&uri::normal(uri)).await,
            _ => {
                let all = self.subscribers.iter();
                let hear = all.filter(|(_, subscriber)| subscriber.filter.hears(&notice));
                hear.map(|(key, subscriber)| Told::new(key, subscriber)).collect()
            }
        };
        self.tell(told, notice).await;
    }

    /// A resource changed, whose URI each client is told as it wrote it.
    async fn on_updated(&mut self, normal: &str) {
        self.published += 1;
        let mut told: IndexMap<Arc<str>, Vec<Told>, RandomState> = IndexMap::default();
        for key in self.watchers.get(normal).into_iter().flatten() {
            let Some(subscriber) = self.subscribers.get(key) else { continue };
            let Some(uri) = subscriber.filter.watched_as(normal) else { continue };
            let told_so = match told.get_mut(uri) {
                Some(told_so) => told_so,
                None => told.entry(uri.clone()).or_default(),
            };
            told_so.push(Told::new(key, subscriber));
        }
        for (uri, told) in told {
            let notice = Notice::ResourceUpdated(uri);
            fanout::tell(told, Class::of(&notice), Arc::new(EncodedNotice::new(notice))).await;
        }
    }

    async fn tell(&mut self, told: Vec<Told>, notice: Notice) {
        self.published += 1;
        if told.is_empty() {
            return;
        }
        let class = Class::of(&notice);
        let notice = Arc::new(EncodedNotice::new(notice));
        fanout::tell(told, class, notice).await;
    }

    fn on_tell_task(&mut self, key: &SubscriberKey, notice: EncodedNotice) {
        let Notice::Task { id, version, .. } = notice.notice() else { return };
        let told = self.tasks.get_mut(id).and_then(|listeners| listeners.get_mut(key));
        if let (Some(told), Some(subscriber)) = (told, self.subscribers.get(key))
            && *told < *version
        {
            *told = *version;
            subscriber.outlet.notice(Class::Task, Arc::new(notice), key.subscription.clone());
        }
    }

    async fn on_notify(&mut self, sessions: Vec<SessionId>, notice: Notice) {
        let told = sessions.into_iter().filter_map(|session| {
            // Only legacy sessions hear them, which have one place each.
            let key = SubscriberKey { session, subscription: None };
            Some(Told::new(&key, self.subscribers.get(&key)?))
        });
        let told = told.collect();
        self.tell(told, notice).await;
    }

    fn on_observe(&self, reply: RpcReplyPort<HubView>) {
        let view = HubView { subscribers: self.subscribers.len(), published: self.published };
        // Whoever asked may have gone.
        let _ = reply.send(view);
    }
}
