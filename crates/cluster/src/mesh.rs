//! How the nodes of a cluster find each other, notice the dead and the frozen, and exchange
//! bytes.
//!
//! Nodes gossip (`mesh/gossip.rs`): who is there, where, and who is silent for too long. Between
//! two nodes that see each other is one link (`mesh/link.rs`), which the node with the smaller
//! name makes and on which both prove that they are of this cluster (`mesh/hello.rs`). Whoever
//! connects is let in to do so, within bounds (`mesh/listener.rs`, `mesh/strangers.rs`). Links
//! are in the care of a `ractor_cluster` node server (`mesh/node_server.rs`), and what is sent
//! goes from one relay actor to the other (`mesh/relay.rs`), no more at once than a window
//! (`mesh/window.rs`). What a relay knows of another node is in `mesh/peer.rs`.
//!
//! A link is only to a node that gossip sees alive: when it does not, the link is cut. That is
//! how a node is noticed that froze and whose connections all look well. A link over which
//! nothing comes, although gossip does, is cut too, and made anew.

mod gossip;
mod hello;
mod link;
mod listener;
mod node_server;
mod peer;
mod relay;
mod seal;
mod strangers;
mod window;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ractor::{Actor, ActorRef};
use stentor_engine::NodeId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{ClusterConfig, ClusterError};
use gossip::Gossip;
use link::Link;
pub(crate) use link::Receipt;
use listener::Listener;
use relay::{RelayActor, RelayArgs, RelayMsg};
use seal::SealedSocket;

/// What a mesh tells. Each is told what happens in its order, never two things at once, and
/// must not block: it runs in the relay actor.
///
/// Of one node: `alive`, then any number of `up` to `down`, then `dead`.
pub(crate) trait MeshHandler: Send + Sync + 'static {
    /// Gossip sees this node: for the first time, again, or what it [says](Mesh::say) changed.
    fn alive(&self, node: &NodeId, said: &BTreeMap<String, String>);
    /// There is a link to this node: frames can be sent.
    fn up(&self, node: &NodeId, info: &PeerInfo);
    /// The link is gone. What was in flight may be lost.
    fn down(&self, node: &NodeId);
    /// There is room again, after [`SendError::NoRoom`].
    fn room(&self, node: &NodeId);
    /// The failure detector has given this node up, or it said that it leaves.
    fn dead(&self, node: &NodeId);
    /// A frame, in the order sent. It counts as handled, and makes room at the other node, when
    /// the receipt is dropped: who hands the frame on to a queue hands that on with it, and so
    /// the window bounds that queue, too.
    fn frame(&self, from: &NodeId, frame: Bytes, receipt: Receipt);
}

/// The node at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerInfo {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Which run of the node it is: a node that was started again has a larger one.
    pub(crate) generation: u64,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// As much is in flight as may be. [`MeshHandler::room`] tells when there is room.
    #[error("too much is on the way to this node")]
    NoRoom,
    /// There is no link to this node.
    #[error("there is no link to this node")]
    NotConnected,
    /// One of the two nodes takes no such large frames.
    #[error("the frame is too large")]
    TooLarge,
}

/// How a node sees another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeView {
    /// Its name.
    pub node: NodeId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// What gossip says.
    pub state: NodeState,
    /// Whether there is a link to it.
    pub connected: bool,
    /// Bytes that were sent to it and that it has not handled, with what they are wrapped in.
    pub in_flight: u64,
}

/// What gossip says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It is heard of.
    Alive,
    /// It was not heard of for too long.
    Dead,
    /// It said that it leaves.
    Left,
}

/// A node among those of its cluster.
///
/// A process is one node: `ractor` knows all actors of a process, whoever started them.
#[derive(Clone)]
pub(crate) struct Mesh(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    relay: ActorRef<RelayMsg>,
    gossip: Gossip,
    addresses: (SocketAddr, SocketAddr),
}

/// What the parts of a mesh share.
pub(crate) struct Shared {
    node: NodeId,
    /// Set when it starts: a node that was started again is told from what it was before.
    generation: u64,
    config: ClusterConfig,
    /// Links that are up.
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    /// What is known of other nodes.
    nodes: Mutex<BTreeMap<NodeId, (SocketAddr, NodeState)>>,
    /// Ends everything that runs for the mesh.
    stop: CancellationToken,
}

impl Shared {
    fn new(node: NodeId, config: ClusterConfig) -> Self {
        Self {
            node,
            generation: generation(),
            config,
            links: RwLock::default(),
            nodes: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }
}

impl Mesh {
    /// Becomes a node of a cluster. Whether there are others yet makes no difference.
    pub(crate) async fn start(
        node: NodeId,
        config: ClusterConfig,
        handler: Arc<dyn MeshHandler>,
    ) -> Result<Self, ClusterError> {
        config.check()?;
        if relay::exists() {
            return Err(ClusterError::SecondNode);
        }
        let bind = |source| ClusterError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let listening = listener.local_addr().map_err(bind)?;
        let advertised = config.advertise.map_or(listening, |ip| (ip, listening.port()).into());
        let shared = Arc::new(Shared::new(node, config));

        let bind = |error: anyhow::Error| ClusterError::Bind {
            address: shared.config.gossip,
            source: std::io::Error::other(format!("{error:#}")),
        };
        let socket = SealedSocket::bind(shared.clone()).await.map_err(bind)?;
        let args = RelayArgs { shared: shared.clone(), handler };
        let spawned = Actor::spawn(None, RelayActor, args).await;
        let (relay, _) = spawned.map_err(|error| ClusterError::Start(error.to_string()))?;
        let gossip = match Gossip::start(shared.clone(), socket, advertised, relay.clone()).await {
            Ok(gossip) => gossip,
            Err(error) => {
                relay.stop(None);
                return Err(error);
            }
        };
        let addresses = (listening, gossip.address());
        tokio::spawn(Listener { shared: shared.clone(), relay: relay.clone() }.run(listener));
        Ok(Self(Arc::new(Inner { shared, relay, gossip, addresses })))
    }

    /// Sends a frame, if there is room for it now.
    pub(crate) fn try_send(&self, to: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.link(to)?.try_send(frame)
    }

    /// Sends a frame when there is room for it. It ends when the link does, and may be dropped
    /// at any time: then the frame was not sent.
    pub(crate) async fn send(&self, to: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.link(to)?.send(frame).await
    }

    fn link(&self, to: &NodeId) -> Result<Arc<Link>, SendError> {
        self.0.shared.links.read().get(to).cloned().ok_or(SendError::NotConnected)
    }

    /// Whether there is a link to this node.
    pub(crate) fn is_connected(&self, node: &NodeId) -> bool {
        self.0.shared.links.read().contains_key(node)
    }

    /// All nodes to which there is a link.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.0.shared.links.read().keys().cloned().collect()
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &NodeId {
        &self.0.shared.node
    }

    /// Tells all nodes something about this one, in place of what it told under this key before.
    /// It travels with gossip, so it is to be short: a few keys, and some 100 bytes each.
    pub(crate) async fn say(&self, key: &str, value: &str) {
        self.0.gossip.say(key, value).await;
    }

    /// Where this node listens for links, and where it gossips.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.0.addresses
    }

    /// What is known of the other nodes.
    pub(crate) fn view(&self) -> Vec<NodeView> {
        let links = self.0.shared.links.read().clone();
        let nodes = self.0.shared.nodes.lock();
        let seen = nodes.iter().map(|(node, (addr, state))| {
            let link = links.get(node);
            NodeView {
                node: node.clone(),
                addr: *addr,
                state: *state,
                connected: link.is_some(),
                in_flight: link.map_or(0, |link| link.in_flight()),
            }
        });
        seen.collect()
    }

    /// Cuts the link to this node, as a network does that breaks. A new one is made.
    pub(crate) fn cut(&self, node: &NodeId) {
        let _ = self.0.relay.cast(RelayMsg::Cut(node.clone()));
    }

    /// Waits until this node is none any more: because it [leaves](Self::leave), or something in
    /// it failed.
    pub(crate) async fn stopped(&self) {
        self.0.shared.stop.cancelled().await;
    }

    /// Ends everything and tells nobody.
    pub(crate) fn abandon(&self) {
        self.0.shared.stop.cancel();
        self.0.relay.stop(None);
    }

    /// Tells the other nodes that this one leaves, and ends everything.
    pub(crate) async fn leave(&self) {
        self.0.gossip.leave().await;
        let _ = self.0.relay.cast(RelayMsg::Leave);
        // It ends its links in order, for which it needs no time to speak of.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stopped()).await;
        self.0.shared.stop.cancel();
        let _ = self.0.relay.stop_and_wait(None, Some(Duration::from_secs(1))).await;
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("node", self.node()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.relay.stop(None);
    }
}

/// Larger with each start of a node, as far as its clock goes forward.
fn generation() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number that nobody guesses.
pub(crate) fn unguessable() -> u64 {
    // An operating system without randomness has no secrets to keep.
    getrandom::u64().expect("the operating system gives random bytes")
}

#[cfg(test)]
mod tests;
