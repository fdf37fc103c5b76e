//! The registry's state outside of its actor: what others read, and what outlives a crash.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorId, ActorRef, SpawnErr};
use serde_json::Value;
use stentor_wire::{ListKind, Notice, Topic};
use tokio::sync::OwnedSemaphorePermit;

use super::coalesce::Coalesce;
use super::{Fact, PeerFacts, RegistryActor, RegistryArgs, RegistryConfig, RegistryMsg};
use crate::access::Viewer;
use crate::audience::Audience;
use crate::catalog::{Catalog, CatalogError, Change, Mutation};
use crate::events::Events;
use crate::hub::{Hub, HubMsg};
use crate::identity::Who;
use crate::lifecycle::Lifecycle;
use crate::reasons::Stopped;
use crate::states::States;
use crate::viewers::Viewers;

/// How long an answer waits at most until the changes of its call are announced.
const MAX_ANNOUNCE_WAIT: Duration = Duration::from_millis(100);

/// Topics that the actor has to announce: each topic once, however often it is marked, and one
/// message in the actor's mailbox until the actor takes the topics.
#[derive(Debug, Default)]
struct DirtySet(Mutex<HashSet<Topic>>);

impl DirtySet {
    /// Marks a topic. `true` if the actor has to be sent a flush.
    fn mark(&self, topic: Topic) -> bool {
        let mut waiting = self.0.lock();
        let first = waiting.is_empty();
        waiting.insert(topic);
        first
    }

    fn take(&self) -> HashSet<Topic> {
        std::mem::take(&mut self.0.lock())
    }
}

/// How many changes of each list were announced at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Announced([u64; ListKind::ALL.len()]);

/// The registry, for all code that reads the catalog or announces a change.
#[derive(Debug)]
pub(crate) struct Registry {
    actor: ArcSwapOption<ActorRef<RegistryMsg>>,
    catalog: ArcSwap<Catalog>,
    dirty: DirtySet,
    /// What is announced together.
    coalesce: Mutex<Coalesce>,
    config: RegistryConfig,
    /// How many changes there were to announce, and how many of them are known to be announced.
    changes: AtomicU64,
    changes_announced: AtomicU64,
    /// How many changes of each list were published.
    published: [AtomicU64; ListKind::ALL.len()],
    hub: Arc<Hub>,
    peers: ArcSwapOption<Arc<dyn PeerFacts>>,
    /// What the author keeps for all handlers.
    pub(crate) states: Arc<States>,
    pub(crate) viewers: Arc<Viewers>,
    pub(crate) events: Events,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

impl Registry {
    pub(crate) fn new(
        catalog: Catalog,
        config: RegistryConfig,
        hub: Arc<Hub>,
        states: Arc<States>,
        viewers: Arc<Viewers>,
        events: Events,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self {
            actor: ArcSwapOption::empty(),
            catalog: ArcSwap::from_pointee(catalog),
            dirty: DirtySet::default(),
            coalesce: Mutex::default(),
            config,
            changes: AtomicU64::new(0),
            changes_announced: AtomicU64::new(0),
            published: Default::default(),
            hub,
            peers: ArcSwapOption::empty(),
            states,
            viewers,
            events,
            lifecycle,
        }
    }

    // The actor

    /// Spawns the actor; `restarted` if in place of one that crashed.
    pub(crate) async fn spawn(
        self: &Arc<Self>,
        supervisor: ActorCell,
        restarted: bool,
    ) -> Result<ActorId, SpawnErr> {
        let args = RegistryArgs { registry: self.clone(), restarted };
        let (actor, _) = Actor::spawn_linked(None, RegistryActor, args, supervisor).await?;
        let id = actor.get_id();
        self.actor.store(Some(Arc::new(actor)));
        // A flush that was sent to the last actor meanwhile was lost.
        self.send(RegistryMsg::Flush);
        if let Some(peers) = self.peers().filter(|_| restarted) {
            peers.registry_restarted();
        }
        Ok(id)
    }

    /// Forgets the actor, the peers and the author's code, which may own the engine itself.
    pub(crate) fn close(&self) {
        self.actor.store(None);
        self.peers.store(None);
        self.catalog.store(Arc::default());
    }

    pub(crate) fn actor(&self) -> Option<Arc<ActorRef<RegistryMsg>>> {
        self.actor.load_full()
    }

    /// Sends the actor a message. One that has crashed loses it: then peers send it again, see
    /// [`PeerFacts::registry_restarted`].
    pub(crate) fn send(&self, message: RegistryMsg) {
        if let Some(actor) = &*self.actor.load() {
            let _ = actor.cast(message);
        }
    }

    // The catalog

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Publishes a catalog, whose lists of these kinds changed. Only the actor does this.
    pub(super) fn publish(&self, catalog: Catalog, changed: &[ListKind]) {
        // Counted first: who sees the new catalog also sees that it may not be announced yet.
        for kind in changed {
            self.published[*kind as usize].fetch_add(1, Ordering::AcqRel);
        }
        self.catalog.store(Arc::new(catalog));
    }

    /// How many changes of each list are announced.
    pub(crate) fn announced(&self) -> Announced {
        Announced(ListKind::ALL.map(|kind| self.hub.announced(kind)))
    }

    /// The lists with changes that are published now and may not have been announced then.
    pub(crate) fn unannounced(&self, then: &Announced) -> impl Iterator<Item = ListKind> {
        ListKind::ALL.into_iter().filter(|kind| {
            let published = self.published[*kind as usize].load(Ordering::Acquire);
            then.0[*kind as usize] < published
        })
    }

    /// What a sender sees now; `None` if nothing is hidden from anybody.
    pub(crate) fn viewer(&self, catalog: &Catalog, who: &Who) -> Option<Viewer> {
        catalog.is_restricted().then(|| self.viewers.viewer(who))
    }

    /// Applies mutations, all or none. Returns when readers see the new lists.
    pub(super) async fn apply(
        &self,
        mutations: impl IntoIterator<Item = Mutation>,
    ) -> Result<Change, CatalogError> {
        let checked = mutations.into_iter().map(|mutation| mutation.check(&self.states));
        let checked = checked.collect::<Result<Vec<_>, _>>()?;
        let actor = self.actor().ok_or(CatalogError::Stopped)?;
        match actor.call(|reply| RegistryMsg::Apply(checked, Some(reply)), None).await {
            Ok(CallResult::Success(result)) => result,
            _ if self.lifecycle.is_draining() => Err(CatalogError::Stopped),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
                Err(CatalogError::Interrupted)
            }
        }
    }

    // Announcements

    /// Announces a topic, within the coalescing window.
    pub(crate) fn announce(&self, topic: Topic) {
        // Marked before it is counted: a call that sees the count waits for a barrier, and the actor
        // must find the mark when it handles that barrier.
        let first = self.dirty.mark(topic);
        self.mark_change();
        if first {
            // A registry that restarts looks at the dirty set by itself.
            self.send(RegistryMsg::Flush);
        }
    }

    pub(crate) fn announce_list(&self, kind: ListKind) {
        self.announce(Topic::List(kind));
    }

    pub(super) fn take_dirty(&self) -> HashSet<Topic> {
        self.dirty.take()
    }

    /// Counts a change that is about to be announced.
    pub(super) fn mark_change(&self) {
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
        let Some(actor) = self.actor() else { return };
        // Goes through both mailboxes. If an actor crashes, the next one announces everything
        // again.
        let _ = actor.call(RegistryMsg::Barrier, Some(MAX_ANNOUNCE_WAIT)).await;
        self.changes_announced.fetch_max(changes, Ordering::AcqRel);
    }

    /// Sends a notification of the application's own to these sessions, on all nodes.
    pub(crate) async fn notify(
        &self,
        audience: &Audience,
        method: &str,
        params: Option<Value>,
    ) -> Result<(), Stopped> {
        let permit = self.hub.notification_permit().await?;
        self.send_notification(audience.clone(), method.into(), params, Some(permit));
        Ok(())
    }

    /// Sends a notification to the hub and to the other nodes.
    pub(crate) fn send_notification(
        &self,
        audience: Audience,
        method: Arc<str>,
        params: Option<Value>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        self.tell_peers(|| Fact::Notify {
            audience: audience.clone(),
            method: method.clone(),
            params: params.clone(),
        });
        let notice = Notice::Custom { method, params };
        self.hub.send(HubMsg::Notify(audience, notice, permit));
    }

    pub(super) fn coalesce(&self) -> &Mutex<Coalesce> {
        &self.coalesce
    }

    pub(super) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    // The other nodes

    /// Connects the registry to the other nodes. `None` disconnects it.
    pub(crate) fn join_peers(&self, peers: Option<Arc<dyn PeerFacts>>) {
        self.peers.store(peers.map(Arc::new));
    }

    pub(super) fn peers(&self) -> Option<Arc<Arc<dyn PeerFacts>>> {
        self.peers.load_full()
    }

    pub(crate) fn tell_peers(&self, fact: impl FnOnce() -> Fact) {
        if let Some(peers) = &*self.peers.load() {
            peers.tell(fact());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_again_before_it_was_looked_at_is_told_once() {
        let dirty = DirtySet::default();
        let [tools, prompts] = [ListKind::Tools, ListKind::Prompts].map(Topic::List);
        let first = [&tools, &tools, &prompts].map(|topic| dirty.mark(topic.clone()));
        assert_eq!(first, [true, false, false], "one word is enough");
        assert_eq!(dirty.take(), HashSet::from([tools.clone(), prompts]));
        assert!(dirty.mark(tools), "it changed after the look");
    }
}
