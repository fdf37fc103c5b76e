//! Streams of extensions that another node serves, and messages between the same extensions of two
//! nodes.

use bytes::Bytes;
use serde_json::Value;
use stentor_delivery::{FrameBody, SerializedFrame};
use stentor_wire::ErrorObject;
use tokio_util::task::AbortOnDropHandle;

use super::{PeerEvent, PeerRequest, PeerStream, Remote, Unreachable};
use crate::ids::NodeId;
use crate::notice_stream::{Begin, NoticeStream};

pub(super) fn unreachable() -> ErrorObject {
    ErrorObject::unavailable("no node that serves this can be reached")
}

/// Waits until the other node has opened the stream, or has refused it.
pub(super) async fn open(mut peer_stream: PeerStream) -> Result<Begin, ErrorObject> {
    loop {
        match peer_stream.next().await {
            Some(PeerEvent::Frames { frames, .. }) => {
                if let [SerializedFrame { body: FrameBody::Reply(reply, Some(_)), .. }] =
                    &frames[..]
                {
                    return Err(error_of(reply));
                }
                return Ok(Box::new(move |stream| {
                    let forwarding = tokio::spawn(forward(frames, peer_stream, stream));
                    Box::new(AbortOnDropHandle::new(forwarding))
                }));
            }
            Some(PeerEvent::Started { .. }) => {}
            Some(PeerEvent::Refused(refused)) => {
                return Err(ErrorObject::unavailable(refused.to_string()));
            }
            _ => return Err(unreachable()),
        }
    }
}

fn error_of(reply: &Bytes) -> ErrorObject {
    let error = serde_json::from_slice::<Value>(reply).ok();
    let error = error.and_then(|mut reply| serde_json::from_value(reply["error"].take()).ok());
    error.unwrap_or_else(|| ErrorObject::internal("the answer of another node cannot be read"))
}

/// Forwards the notices of the other node at the pace of the client. Its end is the end of the
/// stream, and so is the loss of the node: the client comes back with its cursor.
async fn forward(first: Vec<SerializedFrame>, mut peer_stream: PeerStream, stream: NoticeStream) {
    let mut frames = first;
    loop {
        for frame in frames {
            match frame.body {
                FrameBody::Message(message) => stream.forward(message),
                FrameBody::Reply(..) => return stream.end(),
                FrameBody::Progress(..) | FrameBody::Log(..) => {}
            }
        }
        stream.wait_for_room().await;
        match peer_stream.next().await {
            Some(PeerEvent::Frames { frames: next, .. }) => frames = next,
            _ => return stream.end(),
        }
    }
}

impl Remote {
    /// The nodes that can be reached.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.0.nodes.peers().map(|peers| peers.nodes()).unwrap_or_default()
    }

    /// Sends a message to the same extension on another node, and returns its answer.
    pub(crate) async fn ask_peer(
        &self,
        node: &NodeId,
        identifier: &str,
        message: Bytes,
    ) -> Result<Bytes, Unreachable> {
        let unreachable = || Unreachable(node.clone());
        let peers = self.0.nodes.peers().ok_or_else(unreachable)?;
        let peer_request = PeerRequest::Extension { identifier: identifier.into(), message };
        let mut answer = peers.ask(node, peer_request)?;
        match answer.next().await {
            Some(PeerEvent::Frames { frames, .. }) => {
                let reply = frames.into_iter().find_map(|frame| match frame.body {
                    FrameBody::Reply(reply, _) => Some(reply),
                    _ => None,
                });
                reply.ok_or_else(unreachable)
            }
            _ => Err(unreachable()),
        }
    }
}
