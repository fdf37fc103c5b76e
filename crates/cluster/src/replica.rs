//! This node's replication log, and what it has read of the logs of other nodes.
//!
//! Pure: the work for the caller is returned as [`Effect`]s.

use std::collections::HashMap;
use std::sync::Arc;

use stentor_engine::NodeId;
use stentor_engine::remote::{Definition, Fact, WatchState};

use crate::replication_log::{Follower, Position, ReplicationLimits, ReplicationLog, Update};

/// The approximate size of one update, in bytes.
const UPDATE_BYTES: usize = 256 * 1024;

/// How many dead nodes are remembered, so that a node that returns receives only new facts.
const MAX_ABSENT: usize = 256;

/// This node's replication log, and a follower for each other node.
#[derive(Debug)]
pub(crate) struct Replica {
    log: ReplicationLog,
    peers: HashMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    follower: Follower,
    /// Whether clients see what the node offers.
    shown: bool,
    /// Whether the engine knows what it reports of watched URIs.
    watches_shown: bool,
    /// Whether its definitions changed in a part of an update that is not complete yet.
    changed: bool,
    /// Whether it sent an update over the current link: then its numbers are of its current run.
    is_of_this_run: bool,
    /// How far it has read this node's log, once it has reported it.
    reported: Option<Option<Position>>,
}

/// Work for the caller, about one other node.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// The node offers these definitions as of this number, or nothing any more.
    Offers(u64, Option<Vec<Definition>>),
    /// The node offers the same as before, as of this number.
    Unchanged(u64),
    /// The node reports these URIs.
    Watches(Vec<(Arc<str>, WatchState)>),
    /// The node sent these notices.
    Notices(Vec<Fact>),
    /// Notices of the node were lost.
    Missed,
    /// Report to the node how far this one has read its log.
    Have(Option<Position>),
}

impl Replica {
    /// `life` is a number that no other run of this node has.
    pub(crate) fn new(life: u64) -> Self {
        Self { log: ReplicationLog::new(life, ReplicationLimits::default()), peers: HashMap::new() }
    }

    /// Sets everything that this node offers. Returns the log's number for it.
    pub(crate) fn offer(&mut self, definitions: Vec<Definition>) -> u64 {
        self.log.offer(definitions);
        self.log.head().seq
    }

    pub(crate) fn add_fact(&mut self, fact: Fact) {
        self.log.add_fact(fact);
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.log.head().seq
    }

    pub(crate) fn up(&mut self, node: &NodeId) -> Vec<Effect> {
        let peer = self.peers.entry(node.clone()).or_default();
        (peer.reported, peer.is_of_this_run) = (None, false);
        let mut effects = vec![Effect::Have(peer.follower.position())];
        // As it was shown before, perhaps by an earlier run: so there is no number to confirm.
        effects.extend(peer.show(0));
        effects.extend(peer.show_watches(Vec::new()));
        effects
    }

    /// The report of how far this node has read the log of another.
    pub(crate) fn have_effect(&self, node: &NodeId) -> Effect {
        Effect::Have(self.peers.get(node).and_then(|peer| peer.follower.position()))
    }

    pub(crate) fn down(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.reported = None;
        }
    }

    pub(crate) fn dead(&mut self, node: &NodeId) -> Option<Effect> {
        let absent = self.peers.values().filter(|peer| !peer.shown).count();
        let peer = self.peers.get_mut(node)?;
        let was_shown = std::mem::take(&mut peer.shown);
        peer.watches_shown = false;
        peer.reported = None;
        if absent >= MAX_ABSENT {
            self.peers.remove(node);
        }
        was_shown.then_some(Effect::Offers(0, None))
    }

    /// The offers of other nodes that clients see.
    pub(crate) fn shown_offers(&self) -> Vec<(NodeId, Effect)> {
        let shown = self.peers.iter().filter(|(_, peer)| peer.shown);
        let offers = |(node, peer): (&NodeId, &Peer)| {
            let definitions = peer.follower.definitions().cloned().collect();
            let position = peer.follower.position().filter(|_| peer.is_of_this_run);
            let seq = position.map_or(0, |position| position.seq);
            (node.clone(), Effect::Offers(seq, Some(definitions)))
        };
        shown.map(offers).collect()
    }

    pub(crate) fn shows(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.shown)
    }

    /// A node reports how far it has read this node's log. Returns the number, unless it belongs to
    /// an earlier run of this node.
    pub(crate) fn on_position(&mut self, node: &NodeId, position: Option<Position>) -> Option<u64> {
        self.peers.entry(node.clone()).or_default().reported = Some(position);
        let of_this_run = |position: &Position| position.life == self.log.head().life;
        position.filter(of_this_run).map(|position| position.seq)
    }

    /// The next update for a node, if there is any. Call [`mark_sent`](Self::mark_sent) once it is
    /// sent.
    pub(crate) fn update_for(&self, node: &NodeId) -> Option<Update> {
        let at = self.peers.get(node)?.reported?;
        if at == Some(self.log.head()) {
            return None;
        }
        Some(self.log.since(at, UPDATE_BYTES))
    }

    pub(crate) fn mark_sent(&mut self, node: &NodeId, to: Position) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.reported.is_some()) {
            peer.reported = Some(Some(to));
        }
    }

    pub(crate) fn on_update(&mut self, node: &NodeId, update: Update) -> Vec<Effect> {
        let peer = self.peers.entry(node.clone()).or_default();
        let Ok(applied) = peer.follower.apply(update) else {
            return vec![Effect::Have(peer.follower.position())];
        };
        let mut effects = Vec::new();
        peer.is_of_this_run = true;
        peer.changed |= applied.catalog;
        if peer.changed && !applied.more {
            peer.changed = false;
            peer.shown = false;
        }
        let seq = peer.follower.position().map_or(0, |at| at.seq);
        let shows = if applied.more { None } else { peer.show(seq) };
        let unchanged = (!applied.more && shows.is_none()).then_some(Effect::Unchanged(seq));
        // First, so that a client that is notified of a change finds it in the list.
        effects.extend(shows);
        effects.extend(peer.show_watches(applied.watches));
        if applied.missed {
            effects.push(Effect::Missed);
        }
        if !applied.notices.is_empty() {
            effects.push(Effect::Notices(applied.notices));
        }
        // Last, because it confirms that all of the above is done.
        effects.extend(unchanged);
        effects
    }
}

impl Peer {
    fn show(&mut self, seq: u64) -> Option<Effect> {
        if self.shown || self.follower.position().is_none() {
            return None;
        }
        self.shown = true;
        Some(Effect::Offers(seq, Some(self.follower.definitions().cloned().collect())))
    }

    /// Reports these changes, or all watched URIs if the engine does not know them. Before the node's
    /// definitions are shown, nothing of it is.
    fn show_watches(&mut self, changed: Vec<(Arc<str>, WatchState)>) -> Option<Effect> {
        if !self.shown {
            return None;
        }
        let shown = std::mem::replace(&mut self.watches_shown, true);
        let watches = if shown { changed } else { self.follower.watches() };
        (!watches.is_empty()).then_some(Effect::Watches(watches))
    }
}

#[cfg(test)]
mod tests;
