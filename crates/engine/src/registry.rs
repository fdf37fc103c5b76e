//! **Owns** the tools, resources, resource templates and prompts; it is their only writer.
//! **Receives** changes of the catalog, and topics to announce.
//! **Sends** notices to the hub: a change at once, changes that follow it closely together.
//! **Dies when** the supervisor stops, or a bug panics.
//! **Restarts as** a registry of the last published catalog, which announces all lists.

mod coalesce;
mod facts;
mod handle;
mod shared;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::Value;
use stentor_macros::Setters;
use stentor_wire::{ListKind, Notice, Topic};
use tokio::time::Instant;

use crate::access::{Delta, ListChanges};
use crate::audience::Audience;
use crate::catalog::{Catalog, CatalogError, Change, Checked, Definition};
use crate::events::EngineEvent;
use crate::hub::HubMsg;
use crate::ids::{NodeId, Revision};
use crate::items::Conflict;
use coalesce::Touch;
pub use facts::{Fact, PeerFacts, Revocation, WatchState};
pub use handle::CatalogHandle;
pub(crate) use shared::{Announced, Registry};

/// How changes are announced.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// How long changes of one list or resource that follow each other within 250 µs wait, to be
    /// announced together. The first of them is announced at once. Default 10 ms.
    pub coalesce_window: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { coalesce_window: Duration::from_millis(10) }
    }
}

/// A view of the registry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RegistryView {
    /// The latest revision.
    pub revision: Revision,
    /// Lists and resources with an open window: their changes are announced together at its end.
    pub open_windows: usize,
}

pub(crate) type ApplyReply = RpcReplyPort<Result<Change, CatalogError>>;

#[derive(Debug)]
pub(crate) enum RegistryMsg {
    /// Apply mutations. If they are refused and there is no reply port, the error is logged.
    Apply(Vec<Checked>, Option<ApplyReply>),
    /// Announce a change of a topic, after the changes that were sent before.
    Announce(Topic),
    /// Send a notification of the application's own, after the changes that were sent before.
    Notify(Audience, Arc<str>, Option<Value>),
    Flush,
    /// The items that another node offers as of this number; `None` if it offers nothing any more.
    RemoteOffer(NodeId, u64, Option<Vec<Definition>>),
    /// Announce lists that changed: all nodes show them now.
    AnnounceLists(ListChanges),
    Facts(Vec<Fact>),
    WindowOver(Topic),
    /// Replies once all earlier announcements were sent.
    Barrier(RpcReplyPort<()>),
    Observe(RpcReplyPort<RegistryView>),
}

crate::message!(RegistryMsg);

pub(crate) struct RegistryArgs {
    pub(crate) registry: Arc<Registry>,
    /// Whether it replaces a registry that crashed.
    pub(crate) restarted: bool,
}

pub(crate) struct RegistryState {
    registry: Arc<Registry>,
}

pub(crate) struct RegistryActor;

impl Actor for RegistryActor {
    type Msg = RegistryMsg;
    type State = RegistryState;
    type Arguments = RegistryArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<RegistryMsg>,
        args: RegistryArgs,
    ) -> Result<RegistryState, ActorProcessingErr> {
        let state = RegistryState { registry: args.registry };
        if args.restarted {
            // Topics that the crashed registry held back, or had not announced yet.
            let held = state.registry.coalesce().lock().reset();
            for topic in held {
                state.announce(&myself, &topic, Delta::ALL);
            }
            state.announce_lists(&myself, ListChanges::all(ListKind::ALL));
            state.on_flush(&myself);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<RegistryMsg>,
        message: RegistryMsg,
        state: &mut RegistryState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RegistryMsg::Apply(mutations, reply) => state.on_apply(&myself, mutations, reply),
            RegistryMsg::Announce(topic) => state.on_announce(&myself, &topic),
            RegistryMsg::Notify(audience, method, params) => {
                state.registry.send_notification(audience, method, params, None);
            }
            RegistryMsg::Flush => state.on_flush(&myself),
            RegistryMsg::RemoteOffer(node, seq, definitions) => {
                state.on_remote_offer(&myself, &node, seq, definitions);
            }
            RegistryMsg::AnnounceLists(changes) => state.announce_lists(&myself, changes),
            RegistryMsg::Facts(facts) => state.on_facts(&myself, facts),
            RegistryMsg::WindowOver(topic) => state.on_window_over(&myself, &topic),
            RegistryMsg::Barrier(reply) => {
                state.on_flush(&myself);
                state.registry.hub().send(HubMsg::Barrier(reply));
            }
            RegistryMsg::Observe(reply) => state.on_observe(reply),
        }
        Ok(())
    }
}

impl RegistryState {
    fn on_apply(
        &self,
        myself: &ActorRef<RegistryMsg>,
        mutations: Vec<Checked>,
        reply: Option<ApplyReply>,
    ) {
        let applied = self.registry.catalog().apply(mutations);
        let mut changes = ListChanges::default();
        let result = applied.map(|(catalog, changed)| {
            changes = changed;
            self.publish(catalog, &changes)
        });
        if !changes.is_empty() {
            // Before the reply: a response that is sent after the reply has to follow the notice,
            // too.
            self.registry.mark_change();
        }
        match (reply, result) {
            (Some(reply), result) => {
                // The requester may have ended; the change stays.
                let _ = reply.send(result);
            }
            (None, Err(error)) => crate::log!(warn, %error, "a change of the catalog is refused"),
            (None, Ok(_)) => {}
        }
        match self.registry.peers() {
            // A client may read the list on any node, so the peers report when all nodes show it.
            Some(peers) => peers.catalog_changed(changes),
            None => self.announce_lists(myself, changes),
        }
    }

    fn announce_lists(&self, myself: &ActorRef<RegistryMsg>, changes: ListChanges) {
        for (kind, delta) in changes.into_deltas() {
            self.announce(myself, &Topic::List(kind), delta);
        }
    }

    fn publish(&self, catalog: Catalog, changes: &ListChanges) -> Change {
        let change = Change { revision: catalog.revision(), lists: changes.kinds().collect() };
        let before = self.registry.catalog();
        let known: HashSet<_> = before.conflicts().iter().collect();
        let new = |conflict: &&Conflict| !known.contains(conflict);
        for conflict in catalog.conflicts().iter().filter(new) {
            let Conflict { kind, key, hidden, local_is_hidden } = conflict;
            crate::log!(warn, ?kind, %key, ?hidden, local_is_hidden, "nodes define this differently");
            self.registry
                .events
                .emit(|| EngineEvent::CatalogConflict { conflict: conflict.clone() });
        }
        let hooks_differ = catalog.hooks_differ(&before);
        self.registry.publish(catalog, &change.lists);
        if hooks_differ {
            self.registry.hub().send(HubMsg::Recount);
        }
        if !change.lists.is_empty() {
            let Change { revision, lists } = change.clone();
            self.registry.events.emit(|| EngineEvent::CatalogChanged { revision, lists });
        }
        change
    }

    fn on_remote_offer(
        &self,
        myself: &ActorRef<RegistryMsg>,
        node: &NodeId,
        seq: u64,
        definitions: Option<Vec<Definition>>,
    ) {
        let (catalog, changes) = self.registry.catalog().with_remote(node, definitions);
        self.publish(catalog, &changes);
        match self.registry.peers() {
            Some(peers) => peers.offer_shown(node, seq, changes),
            None => self.announce_lists(myself, changes),
        }
    }

    fn on_facts(&self, myself: &ActorRef<RegistryMsg>, facts: Vec<Fact>) {
        for fact in facts {
            match fact {
                Fact::Changed(topic) => self.announce(myself, &topic, Delta::ALL),
                Fact::Notify { audience, method, params } => {
                    let notice = Notice::Custom { method, params };
                    self.registry.hub().send(HubMsg::Notify(audience, notice, None));
                }
                // These arrive as a `RemoteOffer`, and by `Engine::peer_watches`.
                Fact::Put(_) | Fact::PutRestricted(_) | Fact::Remove(..) | Fact::Watch(..) => {}
                // `Engine::receive_facts` handles these.
                Fact::Refresh(_) | Fact::Revoked(..) => {}
            }
        }
    }

    /// The application reports a change, which holds for all nodes.
    fn on_announce(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        self.registry.tell_peers(|| Fact::Changed(topic.clone()));
        self.announce(myself, topic, Delta::ALL);
    }

    fn on_flush(&self, myself: &ActorRef<RegistryMsg>) {
        for topic in self.registry.take_dirty() {
            self.on_announce(myself, &topic);
        }
    }

    fn on_window_over(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        let held = self.registry.coalesce().lock().over(topic);
        if let Some(delta) = held {
            self.registry.hub().announce(topic, delta);
            self.open_window(myself, topic);
        }
    }

    fn on_observe(&self, reply: RpcReplyPort<RegistryView>) {
        let revision = self.registry.catalog().revision();
        // The requester may have ended.
        let _ = reply
            .send(RegistryView { revision, open_windows: self.registry.coalesce().lock().open() });
    }

    fn announce(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic, delta: Delta) {
        let touch = self.registry.coalesce().lock().touch(topic, delta, Instant::now());
        match touch {
            Touch::Announce(delta) => self.registry.hub().announce(topic, delta),
            Touch::Open => self.open_window(myself, topic),
            Touch::Hold => {}
        }
    }

    fn open_window(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        let topic = topic.clone();
        myself.send_after(self.registry.config().coalesce_window, move || {
            RegistryMsg::WindowOver(topic)
        });
    }
}
