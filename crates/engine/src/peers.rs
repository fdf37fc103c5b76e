//! What the engines of several nodes tell and ask each other.
//!
//! The engine knows that there may be other nodes, and no more: how they are found and reached is
//! up to who [joins](Engine::join_peers) them, as `stentor-cluster` does. Here is plain data that
//! can be written down, and one trait.
//!
//! Nodes *tell* all others [`Fact`]s: what they offer, and what changed. They *ask* one another by
//! [`Errand`]s: a call goes where its tool is, a message of a client where its session is. What
//! comes back is a stream of what was [`Said`].

mod claim;
mod distant;
mod moving;
mod relay;
mod relayed;
mod serving;
mod watching;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::{ListKind, LogLevel, ProtocolVersion, Response};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::embed::Audience;
use crate::engine::Engine;
use crate::ids::{NodeId, SessionId};
use crate::outlet::policy::Class;
use crate::port::Refused;
use crate::registry::{RegistryMsg, Shelf, Topic};
pub use crate::session::SessionRecord;
use crate::session::{EndReason, rejoin_all};
use crate::shares::Connection;
pub(crate) use claim::Found;
pub(crate) use distant::Distant;
pub use moving::Leaving;
pub(crate) use moving::Moving;
pub(crate) use relay::Elsewhere;
pub(crate) use relayed::{Next, Relayed, written};
pub use serving::Serving;
pub(crate) use serving::leave_out_largest;
pub(crate) use watching::{Granted, Watching, watch};

/// What clients see of one item of a node's catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Where it is.
    pub shelf: Shelf,
    /// Its name or URI.
    pub key: Arc<str>,
    /// Its place in the list of its node: it grows with each addition.
    pub ordinal: u64,
    /// Its descriptor, as the JSON that clients read.
    #[serde(with = "raw_json")]
    pub json: Bytes,
}

/// One thing that a node tells all others. What it tells later of the same subject takes the
/// place of what it told before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// It offers this.
    Put(Definition),
    /// It does not offer this any more.
    Remove(Shelf, Arc<str>),
    /// Its application announced a change of this, to all who listen for it.
    Changed(Topic),
    /// Its application sent a notification of its own.
    Notify {
        /// To whom.
        audience: Audience,
        /// The method.
        method: Arc<str>,
        /// The parameters, an object, if there are any.
        params: Option<Value>,
    },
}

/// The other nodes, as an engine knows them. Nothing here may block.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Where to ask for what a node gave out.
    fn reach(&self, node: &NodeId) -> Reach;

    /// Sends a node on an errand.
    ///
    /// # Errors
    ///
    /// [`Unreachable`], where it surely did not begin.
    fn ask(&self, node: &NodeId, errand: Errand) -> Result<Conversation, Unreachable>;

    /// Where a session is that was here.
    fn moved(&self, _session: &SessionId) -> Option<NodeId> {
        None
    }

    /// This engine's own catalog has changed, and clients of these lists are to be
    /// [told](Engine::announce_lists) when all nodes show it.
    fn catalog_changed(&self, lists: &[ListKind]);

    /// This engine shows what another node [offers](Engine::peer_offers), as of `seq`, which changes
    /// these lists: clients are to be told when all nodes show it.
    fn offer_shown(&self, node: &NodeId, seq: u64, lists: &[ListKind]);

    /// A registry crashed and another took its place: what other nodes offered or told meanwhile may
    /// be lost, and is to be told anew.
    fn registry_restarted(&self);

    /// Tells all nodes a [`Fact::Changed`] or [`Fact::Notify`].
    fn tell(&self, fact: Fact);
}

/// Where to ask for what a node gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Here: it is this node, or this node has taken its place.
    Here,
    /// On this node.
    There(NodeId),
    /// The node is there, but cannot be reached just now.
    Away,
    /// There is no such node any more.
    Gone,
}

/// A node could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} cannot be reached")]
pub struct Unreachable(pub NodeId);

/// What one node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// To answer a request with what it has itself.
    Request {
        /// Who sends it.
        sender: Box<Sender>,
        /// The request, as JSON.
        #[serde(with = "raw_json")]
        request: Bytes,
    },
    /// To do something to a legacy session that lives there.
    Session {
        /// Which one.
        session: SessionId,
        /// Who does it.
        principal: Option<Arc<str>>,
        /// What is to be done.
        act: Act,
    },
    /// To carry on a session that was at the node that asks.
    Adopt(Box<SessionRecord>),
}

/// What is done to a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Its client sends a message.
    Message(#[serde(with = "raw_json")] Bytes),
    /// It was at the node that asks, which has heard these notices for it since.
    Heard(Vec<Spoken>),
    /// Its client comes to read its notices.
    Attach,
    /// Its client comes back to a stream, to read on from a frame.
    Resume(u64, u64),
    /// A node reads on from a frame of a stream whose own node was lost.
    ReadAgain(u64, u64),
    /// It ends.
    End(EndReason),
}

/// Who sends a request, as far as its own node knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Sender {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
    pub(crate) session: Option<SessionId>,
    pub(crate) principal: Option<Arc<str>>,
    /// Older nodes do not tell.
    #[serde(default)]
    pub(crate) connection: Option<Connection>,
    pub(crate) resumes: bool,
    pub(crate) level: LogLevel,
}

/// What a node says on an errand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It does not go. Nothing follows.
    Refused(Refused),
    /// It goes, and tells about the session it is about.
    Began {
        /// The stream that is read.
        stream: u64,
        /// The version that was negotiated.
        version: Option<ProtocolVersion>,
        /// The number of its next frame. Older nodes do not tell.
        next: Option<u64>,
    },
    /// Frames of the stream.
    Frames {
        /// In their order.
        frames: Vec<Spoken>,
        /// Nothing follows.
        last: bool,
    },
    /// The session is on this node now. Nothing follows.
    Moved(NodeId),
    /// The client is to come back for the rest.
    Detached,
    /// Nothing follows.
    Over,
}

/// A frame of a stream on its way to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Spoken {
    pub(crate) seq: u64,
    pub(crate) class: Class,
    pub(crate) what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A response, and the code of its error.
    Reply(#[serde(with = "raw_json")] Bytes, Option<i32>),
    Message(#[serde(with = "raw_json")] Bytes),
    Log(LogLevel, #[serde(with = "raw_json")] Bytes),
    Progress(f64, Option<f64>, String),
}

/// What goes back to the node that is on an errand. Dropping it calls the errand off.
pub trait Talkback: fmt::Debug + Send + Sync {
    /// So many things that were said have been taken in, and there is room for as many more.
    fn took(&self, count: usize);

    /// The client answers a question.
    fn answer(&self, response: Response);
}

/// An errand that another node is on. Dropping it calls the errand off.
#[derive(Debug)]
pub struct Conversation {
    // Dropped first: what is said in between must not look like the end of the errand.
    back: Box<dyn Talkback>,
    said: mpsc::Receiver<Said>,
}

impl Conversation {
    /// `said` ends when nothing follows or the node has gone.
    #[must_use]
    pub fn new(said: mpsc::Receiver<Said>, back: Box<dyn Talkback>) -> Self {
        Self { back, said }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        let said = self.said.poll_recv(cx);
        if let Poll::Ready(Some(_)) = &said {
            self.back.took(1);
        }
        said
    }

    /// What is said next; `None` when the node has gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Said> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn answer(&self, response: Response) {
        self.back.answer(response);
    }
}

/// Answers to questions of one errand that may wait to be handed in.
const ANSWERS: usize = 16;

/// What goes back to this engine itself.
#[derive(Debug)]
struct Own(mpsc::Sender<Response>);

impl Talkback for Own {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        // More than that at once are no answers to questions.
        let _ = self.0.try_send(response);
    }
}

impl Engine {
    /// How long calls may go on when it shuts down: [`Config::drain_timeout`](crate::Config).
    #[must_use]
    pub fn drain_timeout(&self) -> std::time::Duration {
        self.core().config.drain_timeout
    }

    /// The name of this engine among those of a cluster.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.core().config.node
    }

    /// Makes the other nodes known to this engine; without any again with `None`.
    pub fn join_peers(&self, peers: Option<Arc<dyn Peers>>) {
        self.core().peers.store(peers.map(Arc::new));
    }

    /// Does an errand that another node was to be asked for, had it not come here.
    #[must_use]
    pub fn ask_itself(&self, errand: Errand) -> Conversation {
        let (say, said) = mpsc::channel(1);
        let (answers, mut answered) = mpsc::channel(ANSWERS);
        let engine = self.clone();
        tokio::spawn(async move {
            let speak = async {
                let mut serving = engine.serve_peer(errand).await;
                loop {
                    tokio::select! {
                        next = serving.next() => match next {
                            // Nobody hears it: it was called off.
                            Some(next) => if say.send(next).await.is_err() { return },
                            None => return,
                        },
                        Some(response) = answered.recv() => serving.client_answers(response),
                    }
                }
            };
            tokio::select! {
                () = speak => {}
                () = say.closed() => {}
            }
        });
        Conversation::new(said, Box::new(Own(answers)))
    }

    /// Another node offers this, or nothing any more, as of the number that
    /// [`Peers::offer_shown`] is told once readers see it.
    pub fn peer_offers(&self, node: NodeId, seq: u64, definitions: Option<Vec<Definition>>) {
        self.core().tell_registry(RegistryMsg::Abroad(node, seq, definitions));
    }

    /// All nodes show lists that changed: clients are told.
    pub fn announce_lists(&self, lists: Vec<ListKind>) {
        self.core().tell_registry(RegistryMsg::Settled(lists));
    }

    /// Another node told this: its notices go to whom they concern, after what it told before.
    pub fn peer_told(&self, facts: Vec<Fact>) {
        self.core().tell_registry(RegistryMsg::Heard(facts));
    }

    /// What another node told is lost: everything that clients hear of may have changed.
    pub fn peer_was_missed(&self) {
        rejoin_all(self.core());
    }
}

impl Core {
    /// The other nodes, if there are any.
    pub(crate) fn peers(&self) -> Option<Arc<Arc<dyn Peers>>> {
        self.peers.load_full()
    }

    /// Where to ask for something that names its node.
    pub(crate) fn reach(&self, signed: &str) -> Reach {
        NodeId::of(signed).map_or(Reach::Here, |node| self.reach_node(&node))
    }

    /// Where to ask for what this node gave out.
    fn reach_node(&self, node: &NodeId) -> Reach {
        match self.peers() {
            Some(peers) if *node != self.config.node => peers.reach(node),
            _ => Reach::Here,
        }
    }

    /// Tells all other nodes.
    pub(crate) fn tell_peers(&self, fact: impl FnOnce() -> Fact) {
        if let Some(peers) = &*self.peers.load() {
            peers.tell(fact());
        }
    }

    fn tell_registry(&self, message: RegistryMsg) {
        if let Some(registry) = &*self.refs.registry.load() {
            // One that has crashed loses it: then it is told [anew](Peers::registry_restarted).
            let _ = registry.cast(message);
        }
    }
}

/// JSON that stands in other JSON as it is: for `#[serde(with)]` on [`Bytes`].
pub mod raw_json {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    /// Writes JSON.
    ///
    /// # Errors
    ///
    /// What is no JSON, and what the serializer says.
    pub fn serialize<S: Serializer>(json: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(json).map_err(ser::Error::custom)?;
        raw.serialize(to)
    }

    /// Reads JSON, to the letter.
    ///
    /// # Errors
    ///
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(from).map_err(de::Error::custom)?;
        Ok(Bytes::from(Box::<str>::from(raw).into_string()))
    }
}
