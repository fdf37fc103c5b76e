//! What nodes say to each other about the requests of clients: plain data that can be serialized,
//! and the traits by which a cluster carries it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_delivery::{SerializedFrame, leave_out_largest};
use stentor_wire::{ProtocolVersion, Response, raw_json};
use tokio::sync::mpsc;

use crate::caller::RemoteCaller;
use crate::ids::{NodeId, SessionId};
use crate::node_view::{NodeView, PeerRequestCounts};
use crate::nodes::Reach;
use crate::reasons::{EndReason, Refused};
use crate::registry::PeerFacts;
use crate::request_sender::RequestSender;
use crate::session::SessionRecord;

/// The other nodes, as an engine sees them. No method may block.
pub trait Peers: PeerFacts {
    /// Where to ask for something that a node gave out.
    fn reach(&self, node: &NodeId) -> Reach;

    /// Sends a peer request to a node.
    ///
    /// # Errors
    ///
    /// [`Unreachable`], if the request has certainly not begun.
    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable>;

    /// The nodes that can be reached now.
    fn nodes(&self) -> Vec<NodeId> {
        Vec::new()
    }

    /// The nodes that are known, also those that cannot be reached.
    fn views(&self) -> Vec<NodeView> {
        Vec::new()
    }

    /// How many peer requests run here for other nodes, and on them for this one.
    fn request_counts(&self) -> PeerRequestCounts {
        PeerRequestCounts::default()
    }

    /// The node to which a session has moved from this one.
    fn moved(&self, _session: &SessionId) -> Option<NodeId> {
        None
    }
}

/// A node could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} cannot be reached")]
pub struct Unreachable(pub NodeId);

/// What one node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRequest {
    /// Answer a request with what the asked node itself has.
    Request {
        /// The sender of the request.
        sender: Box<RemoteCaller>,
        /// The request, as JSON.
        #[serde(with = "raw_json")]
        request: Bytes,
    },
    /// Do something with a legacy session on the asked node.
    Session {
        /// The session.
        session: SessionId,
        /// Who does it, as the node that received the request knows. Nodes trust each other.
        sender: RequestSender,
        /// What to do.
        #[serde(rename = "act")]
        op: SessionOp,
    },
    /// Continue a session that was on the asking node.
    Migrate(Box<SessionRecord>),
    /// A message of an extension on the asking node to the same one on the asked node.
    Extension {
        /// The identifier of the extension.
        identifier: Arc<str>,
        /// The message, as JSON.
        #[serde(with = "raw_json")]
        message: Bytes,
    },
}

/// What to do with a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionOp {
    /// Deliver a message of the client.
    Message(#[serde(with = "raw_json")] Bytes),
    /// Add the notices that the asking node has received for the session since it moved.
    Missed(Vec<SerializedFrame>),
    /// Read the session's notices.
    Attach,
    /// Resume a stream at a frame, for a client that comes back.
    Resume(u64, u64),
    /// Resume a stream at a frame, for a node: the stream's own node was lost.
    ReadAgain(u64, u64),
    /// End the session.
    End(EndReason),
}

/// One event of the answer to a peer request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerEvent {
    /// The request is refused. Nothing follows.
    Refused(Refused),
    /// The request has begun. The fields describe its session.
    Started {
        /// The id of the stream that is read.
        stream: u64,
        /// The negotiated version.
        version: Option<ProtocolVersion>,
        /// The number of the next frame. Older nodes do not send it.
        next: Option<u64>,
    },
    /// Frames of the stream.
    Frames {
        /// The frames, in order.
        frames: Vec<SerializedFrame>,
        /// Whether nothing follows.
        last: bool,
        /// What somebody has to have who reads them, as far as it was found out where the call runs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        needs: Vec<Arc<str>>,
    },
    /// The session is on this other node now. Nothing follows.
    Moved(NodeId),
    /// The client must come back for the rest.
    Detached,
    /// Nothing follows.
    Ended,
}

impl PeerEvent {
    /// Makes an event smaller that is too large to be sent. Its largest frame becomes an error if
    /// it is a reply, and is removed otherwise. `false` if no frame is left.
    pub fn leave_out_largest(&mut self) -> bool {
        match self {
            Self::Frames { frames, .. } => {
                let left_out = leave_out_largest(frames);
                left_out.inspect(|bytes| crate::log::left_out(*bytes)).is_some()
            }
            _ => false,
        }
    }
}

/// The way back to the node that serves a peer request. Dropping it cancels the request.
pub trait ResponseControl: fmt::Debug + Send + Sync {
    /// Reports that `count` events were read, so that as many more may be sent.
    fn took(&self, count: usize);

    /// Sends the client's answer to a question.
    fn answer(&self, response: Response);
}

/// The answer of another node to a peer request. Dropping it cancels the request.
#[derive(Debug)]
pub struct PeerStream {
    // Dropped first: an event that arrives in between must not look like the end of the request.
    control: Box<dyn ResponseControl>,
    events: mpsc::Receiver<PeerEvent>,
}

impl PeerStream {
    /// Makes a stream of these events. They end when nothing follows, or when the node is lost.
    #[must_use]
    pub fn new(events: mpsc::Receiver<PeerEvent>, control: Box<dyn ResponseControl>) -> Self {
        Self { control, events }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent>> {
        let event = self.events.poll_recv(cx);
        if let Poll::Ready(Some(_)) = &event {
            self.control.took(1);
        }
        event
    }

    /// The next event. `None` when the node is lost. Cancel safe.
    pub async fn next(&mut self) -> Option<PeerEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn answer(&self, response: Response) {
        self.control.answer(response);
    }
}

#[cfg(test)]
mod tests {
    use stentor_delivery::FrameBody;
    use stentor_delivery::policy::Class;

    use super::*;

    fn event_of(frames: impl IntoIterator<Item = FrameBody>) -> PeerEvent {
        let frame = |body| SerializedFrame { seq: 0, class: Class::Reply, body };
        let frames = frames.into_iter().map(frame).collect();
        PeerEvent::Frames { frames, last: true, needs: Vec::new() }
    }

    fn texts(event: &PeerEvent) -> Vec<String> {
        let PeerEvent::Frames { frames, .. } = event else { panic!("{event:?}") };
        let text = |frame: &SerializedFrame| match &frame.body {
            FrameBody::Reply(json, _) | FrameBody::Message(json) | FrameBody::Log(_, json) => {
                String::from_utf8(json.to_vec()).unwrap()
            }
            FrameBody::Progress(_, _, message) => message.clone(),
        };
        frames.iter().map(text).collect()
    }

    #[test]
    fn a_large_reply_becomes_an_error_and_a_large_message_is_left_out() {
        let large = "x".repeat(10_000);
        let mut batch = event_of([
            FrameBody::Message(Bytes::from_static(b"1")),
            FrameBody::Reply(format!(r#"{{"id":"a","result":"{large}"}}"#).into(), None),
            FrameBody::Message(Bytes::from("y".repeat(9_000))),
        ]);
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        let left = texts(&batch);
        assert_eq!((left.len(), &*left[0]), (2, "1"));
        assert!(left[1].contains(r#""id":"a""#) && left[1].contains("-32603"), "{}", left[1]);
        // A frame that cannot become smaller is removed in the end.
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        assert!(!batch.leave_out_largest());
        assert!(!PeerEvent::Ended.leave_out_largest());
    }
}
