//! **Owns** the tools, resources, resource templates and prompts; it is their only writer.
//! **Receives** changes, and word that something is to be announced.
//! **Sends** notices to the hub: a change at once, those that follow it closely together.
//! **Dies when** the root stops, or a bug panics.
//! **Restarts as** a registry of the last published catalog, which announces all lists.

mod abroad;
mod catalog;
mod coalesce;
mod list;
mod mutation;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use stentor_wire::{ListKind, Notice};
use tokio::time::Instant;

use crate::core::Core;
use crate::events::EngineEvent;
use crate::hub::HubMsg;
use crate::ids::{NodeId, Revision};
use crate::peers::{Definition, Fact};
pub use abroad::Conflict;
pub use catalog::Catalog;
pub(crate) use catalog::{Offer, Readable};
pub(crate) use coalesce::Coalesce;
pub use coalesce::Topic;
use coalesce::Touch;
pub(crate) use mutation::Checked;
pub use mutation::{CatalogError, Change, Item, Mutation, Shelf};

/// What waits to be announced by an actor: each topic once, however often it is asked for, and
/// one message in the mailbox until the actor has looked.
#[derive(Debug, Default)]
pub(crate) struct Doorbell(Mutex<HashSet<Topic>>);

impl Doorbell {
    /// `true` if the actor is to be told.
    pub(crate) fn ring(&self, topic: Topic) -> bool {
        let mut waiting = self.0.lock();
        let first = waiting.is_empty();
        waiting.insert(topic);
        first
    }

    pub(crate) fn take(&self) -> HashSet<Topic> {
        std::mem::take(&mut self.0.lock())
    }
}

/// What a registry knows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryView {
    /// The latest revision.
    pub revision: Revision,
    /// Lists and resources whose changes are being held together now.
    pub open_windows: usize,
}

pub(crate) type ApplyReply = RpcReplyPort<Result<Change, CatalogError>>;

#[derive(Debug)]
pub(crate) enum RegistryMsg {
    /// What is refused without a port to say so is logged.
    Apply(Vec<Checked>, Option<ApplyReply>),
    /// Announce something, after the changes that came before.
    Announce(Topic),
    /// Pass something on to the hub, after the changes that came before.
    PassOn(HubMsg),
    Rung,
    /// What another node offers, or nothing any more, as of some number.
    Abroad(NodeId, u64, Option<Vec<Definition>>),
    /// All nodes show lists that changed.
    Settled(Vec<ListKind>),
    /// What another node told.
    Heard(Vec<Fact>),
    CoalesceOver(Topic),
    /// Says when all that was announced so far was told.
    Flush(RpcReplyPort<()>),
    Observe(RpcReplyPort<RegistryView>),
}

crate::message!(RegistryMsg);

pub(crate) struct RegistryArgs {
    pub(crate) core: Arc<Core>,
    /// Whether it takes the place of one that crashed.
    pub(crate) restarted: bool,
}

pub(crate) struct RegistryState {
    core: Arc<Core>,
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
        let state = RegistryState { core: args.core };
        if args.restarted {
            // What the one before held back, or had not got round to tell.
            let held = state.core.coalesce.lock().reset();
            for topic in held {
                state.announce(&myself, &topic);
            }
            for kind in ListKind::ALL {
                state.announce(&myself, &Topic::List(kind));
            }
            state.on_rung(&myself);
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
            RegistryMsg::PassOn(message) => state.core.tell_hub(message),
            RegistryMsg::Rung => state.on_rung(&myself),
            RegistryMsg::Abroad(node, seq, definitions) => {
                state.on_abroad(&myself, &node, seq, definitions);
            }
            RegistryMsg::Settled(lists) => state.announce_lists(&myself, lists),
            RegistryMsg::Heard(facts) => state.on_heard(&myself, facts),
            RegistryMsg::CoalesceOver(topic) => state.on_coalesce_over(&myself, &topic),
            RegistryMsg::Flush(reply) => state.core.tell_hub(HubMsg::Flush(reply)),
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
        let applied = self.core.catalog().apply(mutations);
        let result = applied.map(|(catalog, lists)| self.publish(catalog, lists));
        let lists = result.as_ref().map(|change| change.lists.clone()).unwrap_or_default();
        if !lists.is_empty() {
            // Before the reply: an answer that follows it is to follow the news, too.
            self.core.will_tell();
        }
        match (reply, result) {
            (Some(reply), result) => {
                // Whoever asked may have gone; the change stands.
                let _ = reply.send(result);
            }
            (None, Err(error)) => crate::log!(warn, %error, "a change of the catalog is refused"),
            (None, Ok(_)) => {}
        }
        match self.core.peers() {
            // Who hears of it may look on any node: they say when all show it.
            Some(peers) => peers.catalog_changed(&lists),
            None => self.announce_lists(myself, lists),
        }
    }

    fn announce_lists(&self, myself: &ActorRef<RegistryMsg>, lists: Vec<ListKind>) {
        for kind in lists {
            self.announce(myself, &Topic::List(kind));
        }
    }

    /// Shows clients another catalog.
    fn publish(&self, catalog: Catalog, lists: Vec<ListKind>) -> Change {
        let change = Change { revision: catalog.revision(), lists };
        let before = self.core.catalog();
        let known: HashSet<_> = before.conflicts().iter().collect();
        let new = |conflict: &&Conflict| !known.contains(conflict);
        for conflict in catalog.conflicts().iter().filter(new) {
            let Conflict { shelf, key, hidden, own_is_hidden } = conflict;
            crate::log!(warn, ?shelf, %key, ?hidden, own_is_hidden, "nodes define this differently");
            self.core.events.emit(|| EngineEvent::CatalogConflict { conflict: conflict.clone() });
        }
        self.core.publish(catalog);
        if !change.lists.is_empty() {
            let Change { revision, lists } = change.clone();
            self.core.events.emit(|| EngineEvent::CatalogChanged { revision, lists });
        }
        change
    }

    fn on_abroad(
        &self,
        myself: &ActorRef<RegistryMsg>,
        node: &NodeId,
        seq: u64,
        definitions: Option<Vec<Definition>>,
    ) {
        let (catalog, lists) = self.core.catalog().with_abroad(node, definitions);
        let Change { lists, .. } = self.publish(catalog, lists);
        match self.core.peers() {
            Some(peers) => peers.offer_shown(node, seq, &lists),
            None => self.announce_lists(myself, lists),
        }
    }

    fn on_heard(&self, myself: &ActorRef<RegistryMsg>, facts: Vec<Fact>) {
        for fact in facts {
            match fact {
                Fact::Changed(topic) => self.announce(myself, &topic),
                Fact::Notify { audience, method, params } => {
                    let notice = Notice::Custom { method, params };
                    self.core.tell_hub(self.core.notification(&audience, notice, None));
                }
                // They come as the catalog that they make.
                Fact::Put(_) | Fact::Remove(..) => {}
            }
        }
    }

    /// The application says that something changed: so it did on all nodes.
    fn on_announce(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        self.core.tell_peers(|| Fact::Changed(topic.clone()));
        self.announce(myself, topic);
    }

    fn on_rung(&self, myself: &ActorRef<RegistryMsg>) {
        for topic in self.core.doorbell.take() {
            self.on_announce(myself, &topic);
        }
    }

    fn on_coalesce_over(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        let again = self.core.coalesce.lock().over(topic);
        if again {
            self.core.publish_topic(topic);
            self.open_window(myself, topic);
        }
    }

    fn on_observe(&self, reply: RpcReplyPort<RegistryView>) {
        let revision = self.core.catalog().revision();
        // Whoever asked may have gone.
        let _ =
            reply.send(RegistryView { revision, open_windows: self.core.coalesce.lock().open() });
    }

    fn announce(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        let touch = self.core.coalesce.lock().touch(topic, Instant::now());
        match touch {
            Touch::Announce => self.core.publish_topic(topic),
            Touch::Open => self.open_window(myself, topic),
            Touch::Hold => {}
        }
    }

    fn open_window(&self, myself: &ActorRef<RegistryMsg>, topic: &Topic) {
        let topic = topic.clone();
        myself
            .send_after(self.core.config.coalesce_window, move || RegistryMsg::CoalesceOver(topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_again_before_it_was_looked_at_is_told_once() {
        let bell = Doorbell::default();
        let [tools, prompts] = [ListKind::Tools, ListKind::Prompts].map(Topic::List);
        let rung = [&tools, &tools, &prompts].map(|topic| bell.ring(topic.clone()));
        assert_eq!(rung, [true, false, false], "one word is enough");
        assert_eq!(bell.take(), HashSet::from([tools.clone(), prompts]));
        assert!(bell.ring(tools), "it changed after the look");
    }
}
