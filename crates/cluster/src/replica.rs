//! What this node tells all others, and what it knows of what they tell.
//!
//! Pure: what is to be done comes back as values.

use std::collections::HashMap;

use stentor_engine::NodeId;
use stentor_engine::peers::{Definition, Fact};

use crate::feed::{Feed, FeedLimits, Mirror, Position, Update};

/// Bytes of one update, about.
const UPDATE_BYTES: usize = 256 * 1024;

/// Nodes that are gone and remembered, so that those that come back are told only what is new.
const MAX_ABSENT: usize = 256;

/// This node's feed, and one mirror for each other node.
#[derive(Debug)]
pub(crate) struct Replica {
    feed: Feed,
    peers: HashMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    mirror: Mirror,
    /// Whether clients see what it offers.
    shown: bool,
    /// Whether its definitions changed in a part of an update that has more.
    changed: bool,
    /// Whether it told something over the link that there is: its numbers are of this run of it.
    is_of_this_run: bool,
    /// How far it is with this node's feed, once it has said so.
    at: Option<Option<Position>>,
}

/// What is to be done at this node.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// The node offers this as of that number, or nothing any more.
    Offers(u64, Option<Vec<Definition>>),
    /// It offers what it did, as of that number.
    Unchanged(u64),
    /// It told this.
    Told(Vec<Fact>),
    /// What it told is lost.
    Missed,
    /// It is to be told how far this node is with its feed.
    Have(Option<Position>),
}

impl Replica {
    /// `life` is a number of this run of the node that no other has.
    pub(crate) fn new(life: u64) -> Self {
        Self { feed: Feed::new(life, FeedLimits::default()), peers: HashMap::new() }
    }

    /// This node offers these, and nothing else: as of the number that is returned.
    pub(crate) fn offer(&mut self, definitions: Vec<Definition>) -> u64 {
        self.feed.offer(definitions);
        self.feed.head().seq
    }

    /// This node tells something.
    pub(crate) fn tell(&mut self, fact: Fact) {
        self.feed.tell(fact);
    }

    /// The number of the last fact that this node has told.
    pub(crate) fn told(&self) -> u64 {
        self.feed.head().seq
    }

    /// There is a link to a node.
    pub(crate) fn up(&mut self, node: &NodeId) -> Vec<Effect> {
        let peer = self.peers.entry(node.clone()).or_default();
        (peer.at, peer.is_of_this_run) = (None, false);
        let mut effects = vec![Effect::Have(peer.mirror.position())];
        // As it was, perhaps in a run before this one: that is no number to confirm.
        effects.extend(peer.show(0));
        effects
    }

    /// How far this node is with the feed of another.
    pub(crate) fn have(&self, node: &NodeId) -> Effect {
        Effect::Have(self.peers.get(node).and_then(|peer| peer.mirror.position()))
    }

    /// There is none any more.
    pub(crate) fn down(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.at = None;
        }
    }

    /// A node is given up.
    pub(crate) fn dead(&mut self, node: &NodeId) -> Option<Effect> {
        let absent = self.peers.values().filter(|peer| !peer.shown).count();
        let peer = self.peers.get_mut(node)?;
        let was_shown = std::mem::take(&mut peer.shown);
        peer.at = None;
        if absent >= MAX_ABSENT {
            self.peers.remove(node);
        }
        was_shown.then_some(Effect::Offers(0, None))
    }

    /// What each other node offers that clients see.
    pub(crate) fn shown(&self) -> Vec<(NodeId, Effect)> {
        let shown = self.peers.iter().filter(|(_, peer)| peer.shown);
        let offers = |(node, peer): (&NodeId, &Peer)| {
            let definitions = peer.mirror.definitions().cloned().collect();
            let position = peer.mirror.position().filter(|_| peer.is_of_this_run);
            let seq = position.map_or(0, |position| position.seq);
            (node.clone(), Effect::Offers(seq, Some(definitions)))
        };
        shown.map(offers).collect()
    }

    /// Whether clients see what a node offers.
    pub(crate) fn shows(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.shown)
    }

    /// A node says how far it is with this node's feed; returns that, unless it is the feed of a run
    /// before this one.
    pub(crate) fn has(&mut self, node: &NodeId, position: Option<Position>) -> Option<u64> {
        self.peers.entry(node.clone()).or_default().at = Some(position);
        let of_this_run = |position: &Position| position.life == self.feed.head().life;
        position.filter(of_this_run).map(|position| position.seq)
    }

    /// What a node is to be told next, if anything; it counts as told with
    /// [`sent`](Self::sent).
    pub(crate) fn news_for(&self, node: &NodeId) -> Option<Update> {
        let at = self.peers.get(node)?.at?;
        if at == Some(self.feed.head()) {
            return None;
        }
        Some(self.feed.since(at, UPDATE_BYTES))
    }

    /// A node was sent what is new.
    pub(crate) fn sent(&mut self, node: &NodeId, to: Position) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.at.is_some()) {
            peer.at = Some(Some(to));
        }
    }

    /// A node tells what is new.
    pub(crate) fn news(&mut self, node: &NodeId, update: Update) -> Vec<Effect> {
        let peer = self.peers.entry(node.clone()).or_default();
        let Ok(applied) = peer.mirror.apply(update) else {
            return vec![Effect::Have(peer.mirror.position())];
        };
        let mut effects = Vec::new();
        peer.is_of_this_run = true;
        peer.changed |= applied.catalog;
        if peer.changed && !applied.more {
            peer.changed = false;
            peer.shown = false;
        }
        let seq = peer.mirror.position().map_or(0, |at| at.seq);
        let shows = if applied.more { None } else { peer.show(seq) };
        let unchanged = (!applied.more && shows.is_none()).then_some(Effect::Unchanged(seq));
        // First: who hears of a change and looks finds it.
        effects.extend(shows);
        if applied.missed {
            effects.push(Effect::Missed);
        }
        if !applied.notices.is_empty() {
            effects.push(Effect::Told(applied.notices));
        }
        // Last: who is told so may take it for done.
        effects.extend(unchanged);
        effects
    }
}

impl Peer {
    fn show(&mut self, seq: u64) -> Option<Effect> {
        if self.shown || self.mirror.position().is_none() {
            return None;
        }
        self.shown = true;
        Some(Effect::Offers(seq, Some(self.mirror.definitions().cloned().collect())))
    }
}

#[cfg(test)]
mod tests;
