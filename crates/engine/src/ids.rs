//! Identifiers, each a type of its own.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The name of a node in a cluster: short, of letters, digits, `-` and `_`.
///
/// Ids of sessions and tasks, and the state that a node gives to clients, contain the node's name.
/// So every other node knows which node to ask.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// An error: a name that a node must not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no name of a node: 1 to {max} of a-z, A-Z, 0-9, '-' and '_'", max = NodeId::MAX)]
pub struct InvalidNodeId(String);

impl NodeId {
    /// The maximum length of a name, in characters.
    pub const MAX: usize = 32;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`InvalidNodeId`] if the name is empty, too long or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidNodeId> {
        let name = name.into();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match (1..=Self::MAX).contains(&name.len()) && name.bytes().all(fits) {
            true => Ok(Self(name.into())),
            false => Err(InvalidNodeId(name)),
        }
    }

    /// A random name, which no other node has.
    #[must_use]
    pub fn random() -> Self {
        Self(random_text::<6>().into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id that this node gives out: its name, a dot and `rest`.
    pub(crate) fn sign(&self, rest: &str) -> String {
        format!("{}.{rest}", self.0)
    }

    /// The id without the name of its node.
    pub(crate) fn without_node(signed: &str) -> &str {
        signed.split_once('.').map_or(signed, |(_, rest)| rest)
    }

    /// The node that gave out this id, if the id contains a name.
    #[must_use]
    pub fn of(signed: &str) -> Option<Self> {
        Self::new(signed.split_once('.')?.0).ok()
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(name: String) -> Result<Self, InvalidNodeId> {
        Self::new(name)
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

/// The part of an id that may be logged: its node, and enough to tell it from other ids.
fn loggable(id: &str) -> &str {
    let secret = id.find('.').map_or(0, |dot| dot + 1);
    id.get(..secret + 6).unwrap_or_default()
}

/// This many random bytes as visible ASCII.
pub(crate) fn random_text<const BYTES: usize>() -> String {
    let mut bits = [0_u8; BYTES];
    // Without randomness of the operating system no session can be served.
    getrandom::fill(&mut bits).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bits)
}

/// The id of a session: the name of its node and 128 random bits, as visible ASCII. It fits into
/// the `Mcp-Session-Id` header, and nobody can guess it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SessionId(Arc<str>);

impl SessionId {
    pub(crate) fn random(node: &NodeId) -> Self {
        Self(node.sign(&random_text::<16>()).into())
    }

    /// The id that a client sent.
    pub(crate) fn named(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as clients send and receive it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the whole id owns the session, and debug output ends up in logs.
        write!(f, "SessionId({}…)", loggable(&self.0))
    }
}

/// The id of a stream within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The stream of a legacy session for messages that belong to no request.
    pub const STANDALONE: Self = Self(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a frame in its stream, from 0. The numbers of dropped frames are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

impl Seq {
    /// After the last frame that any stream can have: a reader that continues from here has read
    /// everything. Small enough for software that stores numbers as floating point.
    pub(crate) const END: Self = Self((1 << 53) - 1);
}

/// The number of the catalog's last change. It only grows, even when the registry restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a task: the name of its node and 128 random bits, as visible ASCII. Nobody can guess
/// it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TaskId(Arc<str>);

impl TaskId {
    pub(crate) fn random(node: &NodeId) -> Self {
        Self(SessionId::random(node).0)
    }

    /// An id that a client or a store gave.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as clients send and receive it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the whole id may see the task, and debug output ends up in logs.
        write!(f, "TaskId({}…)", loggable(&self.0))
    }
}

/// The id of a call within its engine. No other call ever has the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
