//! The other nodes of a cluster at one moment, as this node sees them.

use std::net::SocketAddr;

use serde::Serialize;

use crate::ids::NodeId;

/// The state of a node, from gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeState {
    /// Its gossip arrives.
    Alive,
    /// Its gossip has not arrived for too long.
    Dead,
    /// It has left the cluster.
    Left,
}

/// The state of another node, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeView {
    /// Its name.
    pub node: NodeId,
    /// The address on which it accepts links.
    pub addr: SocketAddr,
    /// The state that gossip shows.
    pub state: NodeState,
    /// Whether there is a link to it.
    pub connected: bool,
    /// Bytes that were sent to the node and that it has not handled, with 256 for each frame.
    pub in_flight: u64,
}

impl NodeView {
    /// A node to which there is no link.
    #[must_use]
    pub fn new(node: NodeId, addr: SocketAddr, state: NodeState) -> Self {
        Self { node, addr, state, connected: false, in_flight: 0 }
    }
}

/// How many requests run for other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeerRequestCounts {
    /// Those that run here for other nodes.
    pub incoming: usize,
    /// Those that run on other nodes for this one.
    pub outgoing: usize,
}

impl PeerRequestCounts {
    /// So many of each.
    #[must_use]
    pub fn new(incoming: usize, outgoing: usize) -> Self {
        Self { incoming, outgoing }
    }
}
