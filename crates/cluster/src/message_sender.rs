//! How node messages leave this node.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stentor_engine::NodeId;

use crate::mesh::{Mesh, SendError};
use crate::node_message::NodeMessage;

/// Sends node messages to other nodes. It has no mesh before the mesh has started.
#[derive(Clone, Debug, Default)]
pub(crate) struct MessageSender(Arc<OnceLock<Mesh>>);

impl MessageSender {
    pub(crate) fn set_mesh(&self, mesh: Mesh) {
        // Ignored: `set_mesh` is called once, when the mesh starts.
        let _ = self.0.set(mesh);
    }

    pub(crate) fn mesh(&self) -> Option<&Mesh> {
        self.0.get()
    }

    fn prepare(&self, frame: &NodeMessage) -> Result<(&Mesh, Bytes), SendError> {
        let mesh = self.0.get().ok_or(SendError::NotConnected)?;
        Ok((mesh, frame.encode().ok_or(SendError::TooLarge)?))
    }

    pub(crate) fn try_send(&self, node: &NodeId, frame: &NodeMessage) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(frame)?;
        mesh.try_send(node, &bytes)
    }

    /// Sends a message when the window has space. Cancel safe: the message is sent or not.
    pub(crate) async fn send(&self, node: &NodeId, frame: &NodeMessage) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(frame)?;
        mesh.send(node, &bytes).await
    }

    /// As [`send`](Self::send), for a message that is encoded already.
    pub(crate) async fn send_encoded(&self, node: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.0.get().ok_or(SendError::NotConnected)?.send(node, frame).await
    }

    /// Sends a small message as soon as the window has space. It is lost only with the link.
    pub(crate) fn send_soon(&self, node: &NodeId, frame: NodeMessage) {
        if let Err(SendError::WindowFull) = self.try_send(node, &frame) {
            let (sender, node) = (self.clone(), node.clone());
            // Bounded: there are a few of these tasks at most for each peer request.
            tokio::spawn(async move {
                let _ = sender.send(&node, &frame).await;
            });
        }
    }
}
