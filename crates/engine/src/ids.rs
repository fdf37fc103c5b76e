//! Identifiers, each a type of its own.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use stentor_delivery::loggable;
pub use stentor_delivery::{Seq, SessionId, StreamId};

/// The name of a node in a cluster: short, of letters, digits, `-` and `_`.
///
/// Ids of sessions and tasks, and the state that a node gives to clients, begin with the node's
/// name. So every other node knows which node to ask.
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
    pub(crate) fn prefixed(&self, rest: &str) -> String {
        format!("{}.{rest}", self.0)
    }

    /// The id without the name of its node in front.
    pub(crate) fn without_prefix(id: &str) -> &str {
        id.split_once('.').map_or(id, |(_, rest)| rest)
    }

    /// The node that gave out this id, if the id begins with a name.
    #[must_use]
    pub fn of(id: &str) -> Option<Self> {
        Self::new(id.split_once('.')?.0).ok()
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

/// This many random bytes as visible ASCII.
pub(crate) fn random_text<const BYTES: usize>() -> String {
    let mut bits = [0_u8; BYTES];
    // Without randomness of the operating system no session can be served.
    getrandom::fill(&mut bits).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bits)
}

/// The id of a new session on a node.
pub(crate) fn new_session_id(node: &NodeId) -> SessionId {
    SessionId::new(node.prefixed(&random_text::<16>()))
}

/// The number of the catalog's last change. It only grows, even when the registry restarts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
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
        Self(node.prefixed(&random_text::<16>()).into())
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
