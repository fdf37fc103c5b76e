//! A cluster, as whoever embeds an engine sees it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use stentor_engine::peers::Peers as _;
use stentor_engine::{Engine, NodeId};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ClusterConfig, ClusterError};
use crate::mesh::{Mesh, NodeView};
use crate::node::{self, Node};

/// An engine as a node of a cluster: what it offers is offered by all, what changes on any node
/// is told everywhere, and its clients may turn to any of them.
///
/// Clones are handles to the same node. It [leaves](Self::leave) in order, or is given up by the
/// others when it is dropped.
#[derive(Clone)]
pub struct Cluster(Arc<Joined>);

struct Joined {
    node: Arc<Node>,
    _publisher: AbortOnDropHandle<()>,
}

impl Cluster {
    /// Makes an engine a node of a cluster, under the name that its
    /// [`Config::node`](stentor_engine::Config) says. Whether there are other nodes yet makes no
    /// difference.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, or with the addresses that it names.
    pub async fn join(engine: &Engine, config: ClusterConfig) -> Result<Self, ClusterError> {
        let node = Arc::new(Node::new(engine.clone(), &config));
        let mesh = Mesh::start(engine.node().clone(), config, node.clone()).await?;
        node.opens(mesh.clone());
        engine.join_peers(Some(node.clone()));
        // What changed before the engine knew whom to tell.
        node.catalog_changed(&[]);
        let publisher = AbortOnDropHandle::new(tokio::spawn(node::publish(node.clone(), mesh)));
        Ok(Self(Arc::new(Joined { node, _publisher: publisher })))
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        self.0.node.engine.node()
    }

    /// Where other nodes reach this one.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.0.node.mesh().map(|mesh| mesh.addresses().0)
    }

    /// Where this node gossips: the seed of others.
    #[must_use]
    pub fn gossip_address(&self) -> Option<SocketAddr> {
        self.0.node.mesh().map(|mesh| mesh.addresses().1)
    }

    /// The other nodes, as far as they are known.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.0.node.mesh().map(Mesh::view).unwrap_or_default()
    }

    /// Cuts the link to another node, as a network does that breaks; a new one is made. For tests.
    pub fn cut_link(&self, node: &NodeId) {
        if let Some(mesh) = self.0.node.mesh() {
            mesh.cut(node);
        }
    }

    /// Requests of clients that are being done for other nodes, and by them for this one.
    #[must_use]
    pub fn errands(&self) -> (usize, usize) {
        self.0.node.errands()
    }

    /// Changes of lists that this node's clients are not told of yet, as not all nodes are known to
    /// show them, and the nodes that are not known to have heard all that this one has told.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.0.node.unsettled()
    }

    /// Completes when this node shows what all others offer that it knows of, so that a load balancer
    /// may send it requests; without any other node after some seconds, if there are to be seeds.
    pub async fn ready(&self) {
        self.0.node.ready().await;
    }

    /// Leaves the cluster in order: legacy sessions go on on another node, under the same name;
    /// requests that are done for others, or by them, may end within the engine's
    /// [`drain_timeout`](stentor_engine::Config); then the others are told that this node is
    /// gone. To be followed by the engine's own shutdown, as where it is the `shutdown` of
    /// `serve_on`.
    ///
    /// When dropped early, the others find out by themselves.
    pub async fn leave(&self) {
        self.0.node.leave().await;
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(mesh) = self.node.mesh() {
            mesh.abandon();
        }
        self.node.is_alone();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", self.node()).finish_non_exhaustive()
    }
}
