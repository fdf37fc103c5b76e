//! What the engines of several nodes send to each other.
//!
//! The engine knows only that there may be other nodes. How they are found and reached is up to the
//! code that calls [`join_peers`](Engine::join_peers), as `stentor-cluster` does. This module
//! contains plain data that can be serialized, and one trait.
//!
//! A node *sends* all others [`Fact`]s: what it offers, and what changed. It *asks* another node by
//! a [`PeerRequest`]: a call goes to the node that has its tool, and a message of a client goes to
//! the node that has its session. The answer is a stream of [`PeerEvent`]s.

mod call;
mod listen;
mod migrate;
mod serve;
mod session;
mod stream;
mod take_over;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_delivery::SerializedFrame;
use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::raw_json;
use stentor_wire::{ListKind, LogLevel, ProtocolVersion, Response};
use tokio::sync::mpsc;

pub use crate::catalog::Definition;
use crate::core::Core;
use crate::engine::Engine;
use crate::ids::{NodeId, SessionId};
use crate::reasons::EndReason;
use crate::registry::RegistryMsg;
pub use crate::registry::{Fact, PeerFacts};
pub use crate::session::SessionRecord;
use crate::session::rejoin_all;
use crate::shares::Connection;
use crate::transport_api::Refused;
pub(crate) use call::RemoteCall;
pub(crate) use listen::{Granted, Watching, watch};
pub(crate) use migrate::Migrations;
pub use migrate::OutgoingMigration;
pub use serve::PeerResponse;
pub(crate) use serve::log_left_out;
pub(crate) use session::RemoteSession;
pub(crate) use stream::RemoteStream;
pub(crate) use take_over::Found;

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

/// Where to ask for something that a node gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On this node, which gave it out, or has taken the place of the node that did.
    Local,
    /// On this other node.
    Remote(NodeId),
    /// The node exists, but cannot be reached now.
    Unreachable,
    /// The node does not exist any more.
    Dead,
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

/// The sender of a request, as far as its own node knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct RemoteCaller {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
    pub(crate) session: Option<SessionId>,
    pub(crate) principal: Option<Arc<str>>,
    /// Older nodes do not send it.
    #[serde(default)]
    pub(crate) connection: Option<Connection>,
    pub(crate) resumes: bool,
    pub(crate) level: LogLevel,
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

/// Answers to the questions of one peer request that may wait for delivery.
const MAX_WAITING_ANSWERS: usize = 16;

/// The way back to this engine itself.
#[derive(Debug)]
struct LocalControl(mpsc::Sender<Response>);

impl ResponseControl for LocalControl {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        // More at once than fit cannot be answers to questions, so the rest is dropped.
        let _ = self.0.try_send(response);
    }
}

impl Engine {
    /// How long calls may run on during a shutdown: [`Config::drain_timeout`](crate::Config).
    #[must_use]
    pub fn drain_timeout(&self) -> std::time::Duration {
        self.core().config.drain_timeout
    }

    /// The name of this engine in a cluster.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.core().config.node
    }

    /// Connects this engine to the other nodes. `None` disconnects it.
    pub fn join_peers(&self, peers: Option<Arc<dyn Peers>>) {
        self.core().registry.join_peers(peers.clone().map(|peers| peers as Arc<dyn PeerFacts>));
        self.core().peers.store(peers.map(Arc::new));
    }

    /// Serves a peer request that was meant for another node, after its target has come to this
    /// one.
    #[must_use]
    pub fn ask_itself(&self, peer_request: PeerRequest) -> PeerStream {
        let (sender, receiver) = mpsc::channel(1);
        let (answer_sender, mut answer_receiver) = mpsc::channel(MAX_WAITING_ANSWERS);
        let engine = self.clone();
        tokio::spawn(async move {
            let serve = async {
                let mut serving = engine.serve_peer(peer_request).await;
                loop {
                    tokio::select! {
                        next = serving.next() => match next {
                            // Nobody reads: the request was cancelled.
                            Some(next) => if sender.send(next).await.is_err() { return },
                            None => return,
                        },
                        Some(response) = answer_receiver.recv() => serving.client_answers(response),
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = sender.closed() => {}
            }
        });
        PeerStream::new(receiver, Box::new(LocalControl(answer_sender)))
    }

    /// Shows what another node offers; `None` if it offers nothing any more. [`Peers::offer_shown`]
    /// receives `seq` once readers see the change.
    pub fn peer_offers(&self, node: NodeId, seq: u64, definitions: Option<Vec<Definition>>) {
        self.core().registry.send(RegistryMsg::RemoteOffer(node, seq, definitions));
    }

    /// Notifies clients that lists have changed, after all nodes show the change.
    pub fn announce_lists(&self, lists: Vec<ListKind>) {
        self.core().registry.send(RegistryMsg::AnnounceLists(lists));
    }

    /// Handles facts of another node. Their notices go to their subscribers, after those of earlier
    /// facts.
    pub fn receive_facts(&self, facts: Vec<Fact>) {
        self.core().registry.send(RegistryMsg::Facts(facts));
    }

    /// Handles a loss of facts of another node: everything that clients subscribe to may have
    /// changed.
    pub fn facts_were_lost(&self) {
        rejoin_all(self.core());
    }
}

impl Core {
    pub(crate) fn peers(&self) -> Option<Arc<Arc<dyn Peers>>> {
        self.peers.load_full()
    }

    /// Where to ask for something whose id names its node.
    pub(crate) fn reach(&self, signed: &str) -> Reach {
        NodeId::of(signed).map_or(Reach::Local, |node| self.reach_node(&node))
    }

    /// Where to ask for something that `node` gave out.
    fn reach_node(&self, node: &NodeId) -> Reach {
        match self.peers() {
            Some(peers) if *node != self.config.node => peers.reach(node),
            _ => Reach::Local,
        }
    }
}
