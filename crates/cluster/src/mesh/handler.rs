//! The interface through which a mesh reports its events.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use stentor_engine::NodeId;

use super::link::Receipt;

/// Receives the events of a mesh. The calls come in order, one at a time. They must not block: they
/// run in the mesh actor.
///
/// For one node: `alive`, then any number of `up` to `down`, then `dead`.
pub(crate) trait MeshHandler: Send + Sync + 'static {
    /// Gossip shows this node: for the first time, again, or with values (`Mesh::set_gossip`) that
    /// changed.
    fn alive(&self, node: &NodeId, values: &BTreeMap<String, String>);
    /// There is a link to this node: frames can be sent.
    fn up(&self, node: &NodeId, info: &PeerInfo);
    /// The link has ended. Frames in flight may be lost.
    fn down(&self, node: &NodeId);
    /// The window has space again, after `SendError::WindowFull`.
    fn space_available(&self, node: &NodeId);
    /// The failure detector has given this node up, or the node has left.
    fn dead(&self, node: &NodeId);
    /// A frame, in the order of sending. When the receipt is dropped, the frame counts as handled,
    /// and the other node's window has space again. A handler that queues the frame queues the
    /// receipt with it, so the window also bounds that queue.
    fn frame(&self, from: &NodeId, frame: Bytes, receipt: Receipt);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerInfo {
    /// The address on which it accepts links.
    pub(crate) addr: SocketAddr,
    /// The run of the node: a larger number after a restart.
    pub(crate) generation: u64,
}
