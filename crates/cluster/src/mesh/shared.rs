//! What all parts of a mesh need: the node, its configuration, and which nodes gossip has shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use stentor_engine::NodeId;
use stentor_engine::remote::NodeState;
use tokio_util::sync::CancellationToken;

use crate::config::ClusterConfig;

pub(crate) struct Shared {
    pub(super) node: NodeId,
    /// Set at the start: distinguishes a restarted node from its earlier run.
    pub(super) generation: u64,
    pub(super) config: ClusterConfig,
    /// The nodes that gossip has shown, with their addresses.
    pub(super) nodes: Mutex<BTreeMap<NodeId, (SocketAddr, NodeState)>>,
    /// Stops all tasks of the mesh.
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(node: NodeId, config: ClusterConfig) -> Self {
        Self {
            node,
            generation: generation(),
            config,
            nodes: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// Grows with each start of a node, as long as its clock moves forward.
fn generation() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number that cannot be guessed.
pub(crate) fn random_u64() -> u64 {
    // Without randomness from the operating system, no secret is possible.
    getrandom::u64().expect("the operating system gives random bytes")
}
