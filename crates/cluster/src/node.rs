//! An engine as a node: connects the engine to the mesh, the replication logs and the peer
//! requests.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use stentor_engine::remote::{
    Fact, PeerEvent, PeerFacts, PeerRequest, PeerStream, Peers, Reach, Unreachable,
};
use stentor_engine::transport_api::Refused;
use stentor_engine::{Engine, ListKind, NodeId, SessionId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::announce_barrier::{AnnounceBarrier, Lists, Settled};
use crate::config::ClusterConfig;
use crate::mesh::{Mesh, MeshHandler, PeerInfo, Receipt, SendError, random_u64};
use crate::message_sender::MessageSender;
use crate::node_message::{NodeMessage, UnknownMessage};
use crate::peer_requests::{IncomingRequests, OutgoingRequests};
use crate::replica::{Effect, Replica};
use crate::successors::Successors;

/// How many successors to follow from the node that a session's id names.
const MAX_SUCCESSOR_HOPS: usize = 16;

/// Above this number of known nodes, dead ones are forgotten: each run may have a new name.
const MAX_KNOWN_NODES: usize = 1024;

/// How long a peer request may wait for space in the window of its link.
const SPACE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) successors: Successors,
    sender: MessageSender,
    replica: Mutex<Replica>,
    barrier: Mutex<AnnounceBarrier>,
    /// Set when the engine's catalog must be read again; contains the lists that changed.
    catalog_changed: Mutex<Option<Lists>>,
    /// Wakes [`publish`]: there is something to send or to announce.
    publish_wake: Notify,
    outgoing: Arc<OutgoingRequests>,
    incoming: Arc<IncomingRequests>,
    /// The nodes that gossip has shown; `false` for dead ones.
    known: Mutex<HashMap<NodeId, bool>>,
    /// Notifies [`ready`](Self::ready) that something changed about other nodes.
    peers_changed: Notify,
    has_seeds: bool,
    /// Set when the node has left, or its mesh has stopped.
    has_left: AtomicBool,
    started: Instant,
    /// How long this node may take to discover all others.
    discovery_time: Duration,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node", self.engine.node()).finish_non_exhaustive()
    }
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
    /// A node without a mesh; [`set_mesh`](Self::set_mesh) adds it.
    pub(crate) fn new(engine: Engine, config: &ClusterConfig) -> Self {
        let node = Self {
            engine,
            successors: Successors::default(),
            sender: MessageSender::default(),
            replica: Mutex::new(Replica::new(random_u64())),
            barrier: Mutex::default(),
            catalog_changed: Mutex::new(Some(Lists::new())),
            publish_wake: Notify::new(),
            outgoing: Arc::default(),
            incoming: Arc::new(IncomingRequests::new(config.max_peer_requests)),
            known: Mutex::default(),
            peers_changed: Notify::new(),
            has_seeds: !config.seeds.is_empty(),
            has_left: AtomicBool::new(false),
            started: Instant::now(),
            discovery_time: 2 * config.give_up_after,
        };
        node.sync_catalog();
        node
    }

    pub(crate) fn set_mesh(&self, mesh: Mesh) {
        self.sender.set_mesh(mesh);
        for peer in self.connected() {
            // These nodes connected before the mesh was set, so this message could not be sent to
            // them.
            let have = self.replica.lock().have_effect(&peer);
            self.perform(&peer, [have]);
        }
    }

    pub(crate) fn mesh(&self) -> Option<&Mesh> {
        self.sender.mesh()
    }

    /// The number of requests that run here for other nodes, and on other nodes for this one.
    pub(crate) fn peer_requests(&self) -> (usize, usize) {
        (self.incoming.len(), self.outgoing.len())
    }

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

    /// Leaves the mesh, and makes the engine a single node again.
    pub(crate) async fn leave_mesh(&self, mesh: &Mesh) {
        self.has_left.store(true, Ordering::Release);
        mesh.leave().await;
        self.forget_peers();
    }

    /// Writes the engine's current catalog into the replication log.
    fn sync_catalog(&self) {
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
    fn announce_settled(&self) {
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

    fn announce(&self, lists: Lists) {
        if !lists.is_empty() {
            self.engine.announce_lists(lists.into_iter().collect());
        }
    }

    fn connected(&self) -> Vec<NodeId> {
        self.mesh().map(Mesh::connected).unwrap_or_default()
    }

    /// Whether this node shows the items of all other live nodes.
    fn is_ready(&self) -> bool {
        let known = self.known.lock();
        let mut alive = known.iter().filter(|(_, alive)| **alive).map(|(node, _)| node).peekable();
        let is_alone = alive.peek().is_none();
        let replica = self.replica.lock();
        if is_alone { !self.has_seeds } else { alive.all(|node| replica.shows(node)) }
    }

    /// Ends the membership without leaving in order, as when the mesh has stopped: removes what
    /// other nodes offer. Does nothing if the node has left.
    pub(crate) fn detach(&self) {
        if self.has_left.swap(true, Ordering::AcqRel) {
            return;
        }
        let known: Vec<_> = self.known.lock().keys().cloned().collect();
        for node in &known {
            self.down(node);
        }
        self.forget_peers();
        for node in known {
            self.engine.peer_offers(node, 0, None);
        }
    }

    /// Makes the engine a single node again, and announces the changes that still waited.
    fn forget_peers(&self) {
        self.engine.join_peers(None);
        let waiting = self.barrier.lock().all();
        self.announce(waiting);
    }

    /// Sends a node its new facts, as long as the window has space.
    fn send_updates(&self, peer: &NodeId) {
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

    /// Waits until the requests that run now, for other nodes or on them, have ended. Does not wait
    /// for requests that begin later.
    pub(crate) async fn wait_for_requests(&self, until: Instant) {
        let (outgoing, incoming) = (self.outgoing.requests(), self.incoming.requests());
        while Instant::now() < until
            && !(outgoing.is_disjoint(&self.outgoing.requests())
                && incoming.is_disjoint(&self.incoming.requests()))
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a peer request as soon as the window has space, within [`SPACE_TIMEOUT`].
    pub(crate) async fn ask_when_space(
        &self,
        node: &NodeId,
        peer_request: PeerRequest,
    ) -> Result<PeerStream, SendError> {
        let asking = self.outgoing.ask_when_space(&self.sender, node, peer_request);
        timeout(SPACE_TIMEOUT, asking).await.unwrap_or(Err(SendError::WindowFull))
    }

    /// Announces by gossip that this node is the successor of `node`, whose session comes here.
    fn become_successor_of(&self, node: &NodeId) {
        if let (Some((key, value)), Some(mesh)) =
            (self.successors.become_successor_of(node), self.mesh().cloned())
        {
            tokio::spawn(async move { mesh.set_gossip(key, &value).await });
        }
    }

    /// Answers a message of a newer release, if the other node waits for an answer.
    fn on_unknown_message(&self, from: &NodeId, frame: &[u8]) {
        match UnknownMessage::decode(frame) {
            Some(UnknownMessage::Request(number)) => {
                self.sender.send_soon(
                    from,
                    NodeMessage::Event(number, PeerEvent::Refused(Refused::Unreachable)),
                );
            }
            Some(UnknownMessage::Event(number)) => self.outgoing.on_unknown_event(from, number),
            None => {}
        }
    }

    fn perform(&self, peer: &NodeId, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Offers(seq, definitions) => {
                    self.engine.peer_offers(peer.clone(), seq, definitions);
                }
                Effect::Unchanged(seq) => self.sender.send_soon(peer, NodeMessage::Shown(seq)),
                Effect::Notices(facts) => self.engine.receive_facts(facts),
                Effect::Missed => self.engine.facts_were_lost(),
                Effect::Have(position) => {
                    self.sender.send_soon(peer, NodeMessage::Position(position))
                }
            }
        }
    }
}

impl MeshHandler for Node {
    fn alive(&self, node: &NodeId, values: &BTreeMap<String, String>) {
        self.successors.on_gossip(node, values);
        self.known.lock().insert(node.clone(), true);
        self.peers_changed.notify_waiters();
    }

    fn up(&self, node: &NodeId, info: &PeerInfo) {
        stentor_engine::log!(info, %node, address = %info.addr, "a node is connected");
        self.barrier.lock().up(node);
        let effects = self.replica.lock().up(node);
        self.perform(node, effects);
    }

    fn down(&self, node: &NodeId) {
        stentor_engine::log!(info, %node, "the link to a node is gone");
        self.replica.lock().down(node);
        self.barrier.lock().down(node);
        // The barrier waits for this node no longer, so a change may be ready to announce.
        self.publish_wake.notify_one();
        self.outgoing.on_link_lost(node);
        self.incoming.on_link_lost(node);
    }

    fn space_available(&self, node: &NodeId) {
        self.send_updates(node);
    }

    fn dead(&self, node: &NodeId) {
        stentor_engine::log!(info, %node, "a node is gone");
        let mut known = self.known.lock();
        known.insert(node.clone(), false);
        if known.len() > MAX_KNOWN_NODES {
            // An unknown node counts as dead too.
            known.retain(|_, alive| *alive);
        }
        drop(known);
        self.peers_changed.notify_waiters();
        let effect = self.replica.lock().dead(node);
        self.perform(node, effect);
    }

    fn frame(&self, from: &NodeId, frame: Bytes, receipt: Receipt) {
        let bytes = frame.len();
        let frame = match NodeMessage::decode(&frame) {
            Ok(frame) => frame,
            Err(error) => {
                stentor_engine::log!(warn, %from, %error, "a node says what is not understood");
                return self.on_unknown_message(from, &frame);
            }
        };
        match frame {
            NodeMessage::Position(position) => {
                let known = self.replica.lock().on_position(from, position);
                if let Some(seq) = known {
                    self.barrier.lock().confirmed(from, seq);
                }
                self.send_updates(from);
            }
            NodeMessage::Update(update) => {
                let effects = self.replica.lock().on_update(from, update);
                self.perform(from, effects);
            }
            NodeMessage::Shown(seq) => {
                self.barrier.lock().confirmed(from, seq);
                self.announce_settled();
            }
            NodeMessage::Announce(seq) => {
                let mut barrier = self.barrier.lock();
                self.announce(barrier.settled_remotely(from, seq));
            }
            NodeMessage::Request(number, peer_request) => {
                if matches!(peer_request, PeerRequest::Migrate(_)) {
                    self.become_successor_of(from);
                }
                let peer_request = (peer_request, receipt);
                self.incoming.begin(&self.engine, &self.sender, from, number, peer_request);
            }
            NodeMessage::Event(number, event) => self.outgoing.on_event(from, number, event, bytes),
            NodeMessage::Acknowledge(number, count) => self.incoming.on_took(from, number, count),
            NodeMessage::Answer(number, message) => self.incoming.on_answer(from, number, &message),
            NodeMessage::Cancel(number) => self.incoming.cancel(from, number),
        }
    }
}

impl Peers for Node {
    fn reach(&self, node: &NodeId) -> Reach {
        let mut node = node.clone();
        for _ in 0..MAX_SUCCESSOR_HOPS {
            if node == *self.engine.node() {
                return Reach::Local;
            }
            if self.mesh().is_some_and(|mesh| mesh.is_connected(&node)) {
                return Reach::Remote(node);
            }
            if self.successors.is_successor_of(&node) {
                return Reach::Local;
            }
            match self.successors.successor(&node) {
                Some(successor) => node = successor,
                None => break,
            }
        }
        let node = &node;
        match self.known.lock().get(node) {
            Some(true) => Reach::Unreachable,
            Some(false) => Reach::Dead,
            // Shortly after its start, a node does not know all others yet.
            None if self.started.elapsed() < self.discovery_time => Reach::Unreachable,
            None => Reach::Dead,
        }
    }

    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable> {
        if node == self.engine.node() {
            // The target of the request has migrated to this node meanwhile.
            return Ok(self.engine.ask_itself(peer_request));
        }
        self.outgoing.ask(&self.sender, node, peer_request)
    }

    fn moved(&self, session: &SessionId) -> Option<NodeId> {
        self.successors.moved(session).or_else(|| {
            // An unknown session may belong to an earlier run of this node, which left: then the
            // successor of this node has it. That does not hold for a session whose id names
            // another node that still lives.
            let named = NodeId::of(session.as_str());
            match named.map_or(Reach::Local, |node| self.reach(&node)) {
                Reach::Local | Reach::Dead => self.successors.successor(self.engine.node()),
                Reach::Remote(_) | Reach::Unreachable => None,
            }
        })
    }
}

impl PeerFacts for Node {
    fn catalog_changed(&self, lists: &[ListKind]) {
        self.catalog_changed.lock().get_or_insert_default().extend(lists);
        self.publish_wake.notify_one();
    }

    fn registry_restarted(&self) {
        // A change of this engine's own catalog may have been lost too.
        self.catalog_changed(&[]);
        let shown = self.replica.lock().shown_offers();
        for (node, offers) in shown {
            self.perform(&node, [offers]);
        }
        self.engine.facts_were_lost();
    }

    fn offer_shown(&self, node: &NodeId, seq: u64, lists: &[ListKind]) {
        self.peers_changed.notify_waiters();
        let lists = lists.iter().copied().collect();
        self.barrier.lock().shown(node, seq, lists, Instant::now());
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
