//! How frames leave this node.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stentor_engine::NodeId;

use crate::frame::Frame;
use crate::mesh::{Mesh, SendError};

/// The way of frames to other nodes. There is none before the mesh has started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Post(Arc<OnceLock<Mesh>>);

impl Post {
    pub(crate) fn opens(&self, mesh: Mesh) {
        // Once, by the one who starts it.
        let _ = self.0.set(mesh);
    }

    pub(crate) fn mesh(&self) -> Option<&Mesh> {
        self.0.get()
    }

    fn prepare(&self, frame: &Frame) -> Result<(&Mesh, Bytes), SendError> {
        let mesh = self.0.get().ok_or(SendError::NotConnected)?;
        Ok((mesh, frame.encode().ok_or(SendError::TooLarge)?))
    }

    /// Sends a frame if there is room for it now.
    pub(crate) fn now(&self, node: &NodeId, frame: &Frame) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(frame)?;
        mesh.try_send(node, &bytes)
    }

    /// Sends a frame when there is room. Cancel safe: it is sent or not.
    pub(crate) async fn wait(&self, node: &NodeId, frame: &Frame) -> Result<(), SendError> {
        let (mesh, bytes) = self.prepare(frame)?;
        mesh.send(node, &bytes).await
    }

    /// As [`wait`](Self::wait), of a frame that is written already.
    pub(crate) async fn wait_encoded(&self, node: &NodeId, frame: &Bytes) -> Result<(), SendError> {
        self.0.get().ok_or(SendError::NotConnected)?.send(node, frame).await
    }

    /// Has a small frame sent as soon as there is room. It is lost only with the link.
    pub(crate) fn soon(&self, node: &NodeId, frame: Frame) {
        if let Err(SendError::NoRoom) = self.now(node, &frame) {
            let (post, node) = (self.clone(), node.clone());
            // There are as many of these as there are errands, at most a few for each.
            tokio::spawn(async move {
                let _ = post.wait(&node, &frame).await;
            });
        }
    }
}
