//! The handle of an application to its node in a cluster.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use stentor_engine::remote::{NodeView, PeerFacts as _, PeerRequestCounts, Peers as _};
use stentor_engine::{Engine, NodeId};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ClusterConfig, ClusterError};
use crate::mesh::Mesh;
use crate::node::{self, Node};

/// An engine as a node of a cluster. All nodes offer its items, all nodes announce its changes, and
/// its clients may send their requests to any node.
///
/// Clones are handles to the same node. The node leaves in order with [`leave`](Self::leave). When
/// the last handle is dropped without it, the other nodes give the node up.
#[derive(Clone)]
pub struct Cluster(Arc<Joined>);

struct Joined {
    node: Arc<Node>,
    _publisher: AbortOnDropHandle<()>,
}

impl Cluster {
    /// Makes an engine a node of a cluster, under the name in its
    /// [`Config::node`](stentor_engine::Config). Other nodes need not exist yet.
    ///
    /// # Errors
    ///
    /// The configuration is not valid, or one of its addresses cannot be used.
    pub async fn join(engine: &Engine, config: ClusterConfig) -> Result<Self, ClusterError> {
        let node = Arc::new(Node::new(engine.clone(), &config));
        let mesh = Mesh::start(engine.node().clone(), config, node.clone()).await?;
        node.set_mesh(mesh.clone());
        engine.join_peers(Some(node.clone()));
        // Before this point the engine had no peers to report its changes to.
        node.catalog_changed(stentor_engine::ListChanges::default());
        engine.set_not_ready(node::JOINING);
        tokio::spawn(node::become_ready(node.clone()));
        let publisher = AbortOnDropHandle::new(tokio::spawn(node::publish(node.clone(), mesh)));
        Ok(Self(Arc::new(Joined { node, _publisher: publisher })))
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        self.0.node.engine.node()
    }

    /// The address on which this node accepts links of other nodes.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.0.node.mesh().map(|mesh| mesh.addresses().0)
    }

    /// The gossip address of this node: a seed for other nodes.
    #[must_use]
    pub fn gossip_address(&self) -> Option<SocketAddr> {
        self.0.node.mesh().map(|mesh| mesh.addresses().1)
    }

    /// The other nodes that this node knows.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.0.node.views()
    }

    /// Cuts the link to another node, as a broken network does. The nodes make a new link. For
    /// tests.
    pub fn cut_link(&self, node: &NodeId) {
        if let Some(mesh) = self.0.node.mesh() {
            mesh.cut(node);
        }
    }

    /// How many requests run for other nodes.
    #[must_use]
    pub fn peer_requests(&self) -> PeerRequestCounts {
        self.0.node.request_counts()
    }

    /// The number of list changes that this node has not announced yet because some node may not
    /// show them, plus the number of connected nodes that have not confirmed everything that this
    /// node sent.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.0.node.unsettled()
    }

    /// Completes when this node shows the items of all other nodes that it knows, and they show its
    /// own, so that a load balancer may send requests to any of them. Without seeds and without other nodes it completes at once.
    /// It waits at most until the node has run for twice
    /// [`give_up_after`](ClusterConfig::give_up_after).
    pub async fn ready(&self) {
        self.0.node.ready().await;
    }

    /// Leaves the cluster in order. Legacy sessions continue on another node, under the same id.
    /// Requests that run for other nodes, or on them for this one, may end within the engine's
    /// [`drain_timeout`](stentor_engine::Config). Then this node announces to the others that it has
    /// left. The application shuts the engine down afterwards, as it does where this is the
    /// `shutdown` of `serve_on`.
    ///
    /// When dropped early, the other nodes receive no announcement, and detect by themselves that
    /// this node has gone.
    pub async fn leave(&self) {
        self.0.node.leave().await;
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(mesh) = self.node.mesh() {
            mesh.abandon();
        }
        self.node.detach();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", self.node()).finish_non_exhaustive()
    }
}
