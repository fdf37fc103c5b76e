//! The facts of a node: sends its own to the other nodes, handles those of others, and announces
//! the changes that all nodes show.

use std::sync::Arc;

use stentor_engine::remote::{Fact, PeerFacts};
use stentor_engine::{ListChanges, NodeId};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Node, NodeMessage};
use crate::announce_barrier::Settled;
use crate::mesh::{Mesh, SendError};
use crate::replica::Effect;

/// Why a node is not ready before it shows what the others show.
pub(crate) const JOINING: &str = "joining";

/// Tells load balancers to send requests here once the node is [ready](Node::ready).
pub(crate) async fn become_ready(node: Arc<Node>) {
    node.ready().await;
    node.engine.clear_not_ready(JOINING);
}

/// Sends new facts to the other nodes, and announces changes that all nodes show.
pub(crate) async fn publish(node: Arc<Node>, mesh: Mesh) {
    loop {
        let next = node.barrier.lock().next();
        tokio::select! {
            () = mesh.stopped() => return node.detach(),
            () = node.publish_wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        node.sync_catalog();
        for peer in node.connected() {
            node.send_updates(&peer);
        }
        node.announce_settled();
    }
}

impl Node {
    /// What [`Cluster::unsettled`](crate::Cluster::unsettled) counts.
    pub(crate) fn unsettled(&self) -> usize {
        // `sync_catalog` holds the lock of the replica while it moves a change from
        // `catalog_changed` into the barrier, so each change is counted here.
        let replica = self.replica.lock();
        let unseen = self.catalog_changed.lock().is_some();
        let barrier = self.barrier.lock();
        barrier.len() + barrier.behind(replica.last_seq()) + usize::from(unseen)
    }

    /// Waits until [`is_ready`](Self::is_ready), or until the time to discover other nodes is over.
    pub(crate) async fn ready(&self) {
        let until = self.started + self.discovery_time;
        while !self.is_ready() {
            let changed = self.peers_changed.notified();
            if self.is_ready() || timeout_at(until, changed).await.is_err() {
                return;
            }
        }
    }

    /// Whether this node shows the items of all other live nodes, and they show its own.
    fn is_ready(&self) -> bool {
        let known = self.known.lock();
        let mut alive = known.iter().filter(|(_, alive)| **alive).map(|(node, _)| node).peekable();
        let is_alone = alive.peek().is_none();
        let replica = self.replica.lock();
        match is_alone {
            true => !self.has_seeds,
            false => {
                alive.all(|node| replica.shows(node))
                    && self.barrier.lock().behind(replica.last_seq()) == 0
            }
        }
    }

    /// Writes the engine's current catalog into the replication log.
    pub(super) fn sync_catalog(&self) {
        // Locked first, so that an older catalog cannot be written after a newer one, and so that a
        // caller that finds nothing to do returns only after another caller has finished.
        let mut replica = self.replica.lock();
        let changed = self.catalog_changed.lock().take();
        if let Some(lists) = changed {
            let seq = replica.offer(self.engine.catalog().snapshot().definitions());
            self.barrier.lock().changed(seq, lists, Instant::now());
        }
    }

    /// Announces the changes that all nodes show, on this node and on the others.
    pub(super) fn announce_settled(&self) {
        // Locked until the engine has the lists: a caller that finds no unsettled change finds them
        // there.
        let mut barrier = self.barrier.lock();
        let Settled { own, lists } = barrier.settled(Instant::now());
        self.announce(lists);
        drop(barrier);
        if let Some(seq) = own {
            for peer in self.connected() {
                self.sender.send_soon(&peer, NodeMessage::Announce(seq));
            }
        }
    }

    pub(super) fn announce(&self, lists: ListChanges) {
        if !lists.is_empty() {
            self.engine.announce_lists(lists);
        }
    }

    /// Makes the engine a single node again, and announces the changes that still waited.
    pub(super) fn forget_peers(&self) {
        self.engine.join_peers(None);
        // A change that is not in the barrier yet came before all that follows.
        let mut waiting = self.barrier.lock().all();
        waiting.join(self.catalog_changed.lock().take().unwrap_or_default());
        self.announce(waiting);
    }

    /// Sends a node its new facts, as long as the window has space.
    pub(super) fn send_updates(&self, peer: &NodeId) {
        // Locked while sending, so that no other task sends the same update.
        let mut replica = self.replica.lock();
        while let Some(update) = replica.update_for(peer) {
            let to = update.to;
            match self.sender.try_send(peer, &NodeMessage::Update(update)) {
                Ok(()) => replica.mark_sent(peer, to),
                // Sending continues when the window has space again, or with the next link.
                Err(SendError::WindowFull | SendError::NotConnected) => return,
                Err(SendError::TooLarge) => {
                    stentor_engine::log!(error, %peer, "what is offered here is too large for another node");
                    return;
                }
            }
        }
    }

    pub(super) fn perform(&self, peer: &NodeId, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Offers(seq, definitions) => {
                    self.engine.peer_offers(peer.clone(), seq, definitions);
                }
                Effect::Unchanged(seq) => self.sender.send_soon(peer, NodeMessage::Shown(seq)),
                Effect::Watches(reported) => self.engine.peer_watches(peer, reported),
                Effect::Notices(facts) => self.engine.receive_facts(facts),
                Effect::Missed => self.engine.facts_were_lost(),
                Effect::Have(position) => {
                    self.sender.send_soon(peer, NodeMessage::Position(position))
                }
            }
        }
    }
}

impl PeerFacts for Node {
    fn catalog_changed(&self, changes: ListChanges) {
        self.catalog_changed.lock().get_or_insert_default().join(changes);
        self.publish_wake.notify_one();
    }

    fn registry_restarted(&self) {
        // A change of this engine's own catalog may have been lost too.
        self.catalog_changed(ListChanges::default());
        // Locked while performing, so that no newer offer of a node overtakes this one.
        let replica = self.replica.lock();
        for (node, offers) in replica.shown_offers() {
            self.perform(&node, [offers]);
        }
        drop(replica);
        self.engine.facts_were_lost();
    }

    fn offer_shown(&self, node: &NodeId, seq: u64, changes: ListChanges) {
        self.peers_changed.notify_waiters();
        self.barrier.lock().shown(node, seq, changes, Instant::now());
        self.sender.send_soon(node, NodeMessage::Shown(seq));
        // The next deadline of the barrier may be earlier now.
        self.publish_wake.notify_one();
    }

    fn tell(&self, fact: Fact) {
        // Changes of the catalog that came before this fact are written first.
        self.sync_catalog();
        self.replica.lock().add_fact(fact);
        self.publish_wake.notify_one();
    }
}
