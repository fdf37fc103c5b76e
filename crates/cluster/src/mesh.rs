//! How the nodes of a cluster find each other, detect dead and frozen nodes, and exchange bytes.
//!
//! Nodes gossip (`mesh/gossip.rs`) which nodes exist, their addresses, and which are silent for too
//! long. Two live nodes have one link (`mesh/link.rs`). The node with the smaller name makes it,
//! and both ends prove that they belong to the cluster (`mesh/hello.rs`). Any client can connect to
//! try, within bounds (`mesh/listener.rs`, `mesh/strangers.rs`). A `ractor_cluster` node server
//! (`mesh/node_server.rs`) runs the links. The mesh actors (`mesh/manager.rs`) send frames to each
//! other, limited by a window (`mesh/window.rs`). `mesh/peer.rs` is what a mesh actor knows of
//! another node.
//!
//! A node keeps a link only while gossip shows the other node alive; then it cuts the link. That
//! detects a frozen node whose connections still look healthy. A link that receives nothing
//! although gossip arrives is cut too, and made again.
//!
//! The files in layers. Each file imports only files of the layers before its own:
//!
//! 1. `window.rs`, `strangers.rs`, `link_message.rs`, `member.rs`, `shared.rs`
//! 2. `hello.rs`
//! 3. `seal.rs`, `mesh_message.rs`
//! 4. `link.rs`, `listener.rs`, `node_server.rs`, `gossip.rs`
//! 5. `handler.rs`, `peer.rs`
//! 6. `manager.rs`
//! 7. `mesh.rs`

mod gossip;
mod handler;
mod hello;
mod link;
mod link_message;
mod listener;
mod manager;
mod member;
mod mesh_message;
mod node_server;
mod peer;
mod seal;
mod shared;
mod strangers;
mod window;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor::{Actor, ActorRef};
use stentor_engine::NodeId;
use stentor_engine::remote::NodeView;
use tokio::net::TcpListener;

use crate::config::{ClusterConfig, ClusterError};
use gossip::Gossip;
pub(crate) use handler::{MeshHandler, PeerInfo};
use link::{Link, Links};
pub(crate) use link::{Receipt, SendError};
use listener::Listener;
use manager::{MeshActor, MeshArgs};
use mesh_message::MeshMsg;
use seal::SealedSocket;
use shared::Shared;
pub(crate) use shared::random_u64;

/// This node in its cluster.
///
/// A process has at most one node, because `ractor` knows all actors of a process, whoever started
/// them.
#[derive(Clone)]
pub(crate) struct Mesh(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    links: Arc<Links>,
    mesh_actor: ActorRef<MeshMsg>,
    gossip: Gossip,
    addresses: (SocketAddr, SocketAddr),
}

impl Mesh {
    /// Starts a node of a cluster. Other nodes need not exist yet.
    pub(crate) async fn start(
        node: NodeId,
        config: ClusterConfig,
        handler: Arc<dyn MeshHandler>,
    ) -> Result<Self, ClusterError> {
        config.check()?;
        if manager::exists() {
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
        let links = Arc::<Links>::default();
        let args = MeshArgs { shared: shared.clone(), links: links.clone(), handler };
        let spawned = Actor::spawn(None, MeshActor, args).await;
        let (mesh_actor, _) = spawned.map_err(|error| ClusterError::Start(error.to_string()))?;
        let gossip =
            match Gossip::start(shared.clone(), socket, advertised, mesh_actor.clone()).await {
                Ok(gossip) => gossip,
                Err(error) => {
                    mesh_actor.stop(None);
                    return Err(error);
                }
            };
        let addresses = (listening, gossip.address());
        tokio::spawn(
            Listener { shared: shared.clone(), mesh_actor: mesh_actor.clone() }.run(listener),
        );
        Ok(Self(Arc::new(Inner { shared, links, mesh_actor, gossip, addresses })))
    }

    /// Sends a frame, if the window has space for it now.
    pub(crate) fn try_send(&self, to: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.link(to)?.try_send(frame)
    }

    /// Sends a frame when the window has space for it. Fails when the link ends. Cancel safe: when
    /// dropped early, the frame was not sent.
    pub(crate) async fn send(&self, to: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.link(to)?.send(frame).await
    }

    fn link(&self, to: &NodeId) -> Result<Arc<Link>, SendError> {
        self.0.links.read().get(to).cloned().ok_or(SendError::NotConnected)
    }

    pub(crate) fn is_connected(&self, node: &NodeId) -> bool {
        self.0.links.read().contains_key(node)
    }

    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.0.links.read().keys().cloned().collect()
    }

    pub(crate) fn node(&self) -> &NodeId {
        &self.0.shared.node
    }

    /// Gossips a value to all nodes, in place of an earlier one under this key. Gossip repeats it,
    /// so keep it short: a few keys, and about 100 bytes each.
    pub(crate) async fn set_gossip(&self, key: &str, value: &str) {
        self.0.gossip.set(key, value).await;
    }

    /// The addresses for links and for gossip.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.0.addresses
    }

    pub(crate) fn view(&self) -> Vec<NodeView> {
        let links = self.0.links.read().clone();
        let nodes = self.0.shared.nodes.lock();
        let seen = nodes.iter().map(|(node, (addr, state))| {
            let link = links.get(node);
            let mut view = NodeView::new(node.clone(), *addr, *state);
            view.connected = link.is_some();
            view.in_flight = link.map_or(0, |link| link.in_flight());
            view
        });
        seen.collect()
    }

    /// Cuts the link to this node, as a broken network does. The nodes make a new link.
    pub(crate) fn cut(&self, node: &NodeId) {
        let _ = self.0.mesh_actor.cast(MeshMsg::Cut(node.clone()));
    }

    /// Waits until this node has stopped, because it [left](Self::leave) or because a part of it
    /// failed.
    pub(crate) async fn stopped(&self) {
        self.0.shared.stop.cancelled().await;
    }

    /// Stops everything without sending the other nodes a message.
    pub(crate) fn abandon(&self) {
        self.0.shared.stop.cancel();
        self.0.mesh_actor.stop(None);
    }

    /// Tells the other nodes that this one leaves, and stops everything.
    pub(crate) async fn leave(&self) {
        self.0.gossip.leave().await;
        let _ = self.0.mesh_actor.cast(MeshMsg::Leave);
        // The mesh actor ends its links in order, which takes very little time.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stopped()).await;
        self.0.shared.stop.cancel();
        let _ = self.0.mesh_actor.stop_and_wait(None, Some(Duration::from_secs(1))).await;
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
        self.mesh_actor.stop(None);
    }
}

#[cfg(test)]
mod tests;
