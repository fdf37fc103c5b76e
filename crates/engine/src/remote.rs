//! What the engines of several nodes send to each other.
//!
//! The engine knows only that there may be other nodes. How they are found and reached is up to the
//! code that calls [`join_peers`](crate::Engine::join_peers), as `stentor-cluster` does. This module
//! contains plain data that can be serialized, and one trait.
//!
//! A node *sends* all others [`Fact`]s: what it offers, and what changed. It *asks* another node by
//! a [`PeerRequest`]: a call goes to the node that has its tool, and a message of a client goes to
//! the node that has its session. The answer is a stream of [`PeerEvent`]s.

mod call;
mod http_session;
mod listen;
mod local;
mod locate;
mod migrate;
mod peers;
mod serve;
mod session;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_delivery::SerializedFrame;
use stentor_wire::{ProtocolVersion, Response, raw_json};
use tokio::sync::mpsc;

pub use crate::caller::RemoteCaller;
pub use crate::catalog::Definition;
use crate::dispatch::Dispatcher;
use crate::ids::{NodeId, SessionId};
pub use crate::nodes::Reach;
use crate::reasons::{EndReason, Refused};
pub use crate::registry::{Fact, PeerFacts};
pub use crate::session::SessionRecord;
use crate::session::Sessions;
pub use http_session::HttpSession;
use migrate::Migrations;
pub use migrate::OutgoingMigration;
pub(crate) use peers::PeerNodes;
pub use serve::PeerResponse;

/// The sessions of this node, seen together with the other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Remote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    nodes: Arc<PeerNodes>,
    sessions: Arc<Sessions>,
    dispatcher: Arc<Dispatcher>,
    migrations: Migrations,
    reconnect_timeout: Duration,
}

impl Remote {
    pub(crate) fn new(
        nodes: Arc<PeerNodes>,
        sessions: Arc<Sessions>,
        dispatcher: Arc<Dispatcher>,
        reconnect_timeout: Duration,
    ) -> Self {
        let migrations = Migrations::default();
        Self(Arc::new(Shared { nodes, sessions, dispatcher, migrations, reconnect_timeout }))
    }

    /// Connects this node to the other ones. `None` disconnects it.
    pub(crate) fn join_peers(&self, peers: Option<Arc<dyn Peers>>) {
        let facts = peers.clone().map(|peers| peers as Arc<dyn PeerFacts>);
        self.0.sessions.registry.join_peers(facts);
        self.0.nodes.join(peers);
    }
}

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
        /// The principal that does it.
        principal: Option<Arc<str>>,
        /// What to do.
        act: SessionOp,
    },
    /// Continue a session that was on the asking node.
    Migrate(Box<SessionRecord>),
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
    },
    /// The session is on this other node now. Nothing follows.
    Moved(NodeId),
    /// The client must come back for the rest.
    Detached,
    /// Nothing follows.
    Ended,
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

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent>> {
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

    pub(crate) fn answer(&self, response: Response) {
        self.control.answer(response);
    }
}
