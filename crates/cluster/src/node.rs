//! An engine as a node: the messages between nodes, and what handles each of them: the replication
//! logs (`node/facts.rs`), the peer requests (`node/peer_requests.rs`), and the engine.

mod facts;
mod peer_requests;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stentor_engine::remote::{
    NodeView, PeerEvent, PeerRequest, PeerRequestCounts, PeerStream, Peers, Reach, Unreachable,
};
use stentor_engine::transport_api::Refused;
use stentor_engine::{Engine, NodeId, PeerChange, SessionId};
use stentor_wire::raw_json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::announce_barrier::AnnounceBarrier;
use crate::config::ClusterConfig;
use crate::mesh::{Mesh, MeshHandler, PeerInfo, Receipt, SendError, random_u64};
use crate::replica::Replica;
use crate::replication_log::{Position, Update};
use crate::successors::Successors;
pub(crate) use facts::{JOINING, become_ready, publish};
use peer_requests::{IncomingRequests, OutgoingRequests};
use stentor_engine::ListChanges;

/// How many successors to follow from the node that a session's id names.
const MAX_SUCCESSOR_HOPS: usize = 16;

/// Above this number of known nodes, dead ones are forgotten: each run may have a new name.
const MAX_KNOWN_NODES: usize = 1024;

/// How long a peer request may wait for space in the window of its link.
const SPACE_TIMEOUT: Duration = Duration::from_secs(5);

/// The messages between nodes, as JSON. A newer release may add to them, and the protocol's own
/// JSON is embedded as it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NodeMessage {
    /// How far the sender has read the receiver's replication log.
    Position(Option<Position>),
    /// New facts of the sender's replication log.
    Update(Update),
    /// The sender shows what the receiver offers, up to this number.
    Shown(u64),
    /// All nodes show what the sender offers, up to this number.
    Announce(u64),
    /// A peer request of the sender, with the sender's number for it.
    Request(u64, PeerRequest),
    /// An event of a peer request of the receiver, with the receiver's number for it.
    Event(u64, PeerEvent),
    /// The sender has read this many events of the peer request with this number.
    Acknowledge(u64, usize),
    /// A client's answer to a question of the peer request with this number: the message.
    Answer(u64, #[serde(with = "raw_json")] Bytes),
    /// The sender cancels the peer request with this number.
    Cancel(u64),
}

impl NodeMessage {
    /// `None` if the message cannot be encoded.
    fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }

    /// # Errors
    ///
    /// The bytes are of a newer release, or not a message.
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// A message of a newer release for which another node waits.
#[derive(Debug, PartialEq, Eq)]
enum UnknownMessage {
    /// A peer request with this number.
    Request(u64),
    /// An event of this node's peer request with this number.
    Event(u64),
}

impl UnknownMessage {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let frame: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let number = |kind: &str| frame.get(kind)?.get(0)?.as_u64();
        number("request").map(Self::Request).or_else(|| number("event").map(Self::Event))
    }
}

/// Sends node messages to other nodes. It has no mesh before the mesh has started.
#[derive(Clone, Debug, Default)]
struct MessageSender(Arc<OnceLock<Mesh>>);

impl MessageSender {
    fn set_mesh(&self, mesh: Mesh) {
        // Ignored: `set_mesh` is called once, when the mesh starts.
        let _ = self.0.set(mesh);
    }

    fn mesh(&self) -> Option<&Mesh> {
        self.0.get()
    }

    fn prepare(&self, message: &NodeMessage) -> Result<(&Mesh, Bytes), SendError> {
        let mesh = self.0.get().ok_or(SendError::NotConnected)?;
        Ok((mesh, message.encode().ok_or(SendError::TooLarge)?))
    }

    fn try_send(&self, node: &NodeId, message: &NodeMessage) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(message)?;
        mesh.try_send(node, &bytes)
    }

    /// Sends a message when the window has space. Cancel safe: the message is sent or not.
    async fn send(&self, node: &NodeId, message: &NodeMessage) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(message)?;
        mesh.send(node, &bytes).await
    }

    /// As [`send`](Self::send), for a message that is encoded already.
    async fn send_encoded(&self, node: &NodeId, bytes: &Bytes) -> Result<(), SendError> {
        self.0.get().ok_or(SendError::NotConnected)?.send(node, bytes).await
    }

    /// Sends a small message as soon as the window has space. It is lost only with the link.
    fn send_soon(&self, node: &NodeId, message: NodeMessage) {
        if let Err(SendError::WindowFull) = self.try_send(node, &message) {
            let (sender, node) = (self.clone(), node.clone());
            // Bounded: there are a few of these tasks at most for each peer request.
            tokio::spawn(async move {
                let _ = sender.send(&node, &message).await;
            });
        }
    }
}

/// An engine as a node of a cluster.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) successors: Successors,
    sender: MessageSender,
    replica: Mutex<Replica>,
    barrier: Mutex<AnnounceBarrier>,
    /// Set when the engine's catalog must be read again; contains the lists that changed.
    catalog_changed: Mutex<Option<ListChanges>>,
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

impl Node {
    /// A node without a mesh; [`set_mesh`](Self::set_mesh) adds it.
    pub(crate) fn new(engine: Engine, config: &ClusterConfig) -> Self {
        let sender = MessageSender::default();
        let max = config.max_peer_requests;
        let node = Self {
            outgoing: Arc::new(OutgoingRequests::new(sender.clone())),
            incoming: Arc::new(IncomingRequests::new(engine.clone(), sender.clone(), max)),
            engine,
            successors: Successors::default(),
            sender,
            replica: Mutex::new(Replica::new(random_u64())),
            barrier: Mutex::default(),
            catalog_changed: Mutex::new(Some(ListChanges::default())),
            publish_wake: Notify::new(),
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

    /// Leaves the mesh, and makes the engine a single node again.
    pub(crate) async fn leave_mesh(&self, mesh: &Mesh) {
        self.has_left.store(true, Ordering::Release);
        mesh.leave().await;
        self.forget_peers();
    }

    fn connected(&self) -> Vec<NodeId> {
        self.mesh().map(Mesh::connected).unwrap_or_default()
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
        let asking = self.outgoing.ask_when_space(node, peer_request);
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
        self.engine.peer_changed(node, PeerChange::Connected);
    }

    fn down(&self, node: &NodeId) {
        stentor_engine::log!(info, %node, "the link to a node is gone");
        self.replica.lock().down(node);
        self.barrier.lock().down(node);
        // The barrier waits for this node no longer, so a change may be ready to announce.
        self.publish_wake.notify_one();
        self.outgoing.on_link_lost(node);
        self.incoming.on_link_lost(node);
        self.engine.peer_changed(node, PeerChange::Disconnected);
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
        self.engine.peer_changed(node, PeerChange::Gone);
    }

    fn frame(&self, from: &NodeId, frame: Bytes, receipt: Receipt) {
        let bytes = frame.len();
        let message = match NodeMessage::decode(&frame) {
            Ok(message) => message,
            Err(error) => {
                stentor_engine::log!(warn, %from, %error, "a node says what is not understood");
                return self.on_unknown_message(from, &frame);
            }
        };
        match message {
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
                self.peers_changed.notify_waiters();
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
                self.incoming.begin(from, number, peer_request, receipt);
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
        self.outgoing.ask(node, peer_request)
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.connected()
    }

    fn views(&self) -> Vec<NodeView> {
        self.mesh().map(Mesh::view).unwrap_or_default()
    }

    fn request_counts(&self) -> PeerRequestCounts {
        PeerRequestCounts::new(self.incoming.len(), self.outgoing.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_messages_that_need_an_answer_are_recognized() {
        let asked = br#"{"request":[7,{"dance":{"how":"fast"}}]}"#;
        assert!(NodeMessage::decode(asked).is_err());
        assert_eq!(UnknownMessage::decode(asked), Some(UnknownMessage::Request(7)));
        assert_eq!(
            UnknownMessage::decode(br#"{"event":[8,"hm"]}"#),
            Some(UnknownMessage::Event(8))
        );
        assert_eq!(UnknownMessage::decode(br#"{"sung":[9]}"#), None);
        // A new member in a known message changes nothing.
        let known = NodeMessage::decode(
            br#"{"event":[8,{"started":{"stream":1,"version":null,"key":"c"}}]}"#,
        );
        assert!(matches!(
            known,
            Ok(NodeMessage::Event(8, PeerEvent::Started { stream: 1, version: None, .. }))
        ));
    }
}
