//! Names of things, each a type of its own.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The name of a node among those of a cluster: short, of letters, digits, `-` and `_`.
///
/// What a node gives out names it: the ids of its sessions and tasks, and the state it hands to
/// clients, so that every other node knows where to ask.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// A name that a node must not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no name of a node: 1 to {max} of a-z, A-Z, 0-9, '-' and '_'", max = NodeId::MAX)]
pub struct InvalidNodeId(String);

impl NodeId {
    /// The most characters of a name.
    pub const MAX: usize = 32;

    /// A name that was given.
    ///
    /// # Errors
    ///
    /// [`InvalidNodeId`].
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidNodeId> {
        let name = name.into();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match (1..=Self::MAX).contains(&name.len()) && name.bytes().all(fits) {
            true => Ok(Self(name.into())),
            false => Err(InvalidNodeId(name)),
        }
    }

    /// A name that no other node has.
    #[must_use]
    pub fn random() -> Self {
        Self(random_text::<6>().into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What this node gives out under a name of its own.
    pub(crate) fn sign(&self, rest: &str) -> String {
        format!("{}.{rest}", self.0)
    }

    /// What was signed.
    pub(crate) fn unsigned(signed: &str) -> &str {
        signed.split_once('.').map_or(signed, |(_, rest)| rest)
    }

    /// The node that gave this out, if it names one.
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

/// What may be known of an id: its node, and enough to tell it from others.
fn known(id: &str) -> &str {
    let secret = id.find('.').map_or(0, |dot| dot + 1);
    id.get(..secret + 6).unwrap_or_default()
}

/// So many random bytes as visible ASCII.
pub(crate) fn random_text<const BYTES: usize>() -> String {
    let mut bits = [0_u8; BYTES];
    // An operating system without randomness cannot serve sessions at all.
    getrandom::fill(&mut bits).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bits)
}

/// The name of a session: that of its node and 128 random bits as visible ASCII, so that it can
/// stand in the `Mcp-Session-Id` header and cannot be guessed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SessionId(Arc<str>);

impl SessionId {
    pub(crate) fn random(node: &NodeId) -> Self {
        Self(node.sign(&random_text::<16>()).into())
    }

    /// The name that a client gave.
    pub(crate) fn named(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as it stands on the wire.
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
        // Who knows the whole id owns the session, and debug output ends in logs.
        write!(f, "SessionId({}…)", known(&self.0))
    }
}

/// One ordered channel to a client, within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The stream of a legacy session that carries what belongs to no request.
    pub const STANDALONE: Self = Self(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a frame in its stream, from 0. Those of frames that were dropped are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

impl Seq {
    /// After the last frame that any stream can have: who reads on from here has read everything. It
    /// is small enough for whoever keeps numbers as floating point.
    pub(crate) const END: Self = Self((1 << 53) - 1);
}

/// The number of the catalog's last change. It only grows, also over a restart of the
/// registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a task: that of its node and 128 random bits as visible ASCII, which nobody can
/// guess.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TaskId(Arc<str>);

impl TaskId {
    pub(crate) fn random(node: &NodeId) -> Self {
        Self(SessionId::random(node).0)
    }

    /// A name that a client, or a store, gave.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as it stands on the wire.
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
        // Who knows the whole id may see the task, and debug output ends in logs.
        write!(f, "TaskId({}…)", known(&self.0))
    }
}

/// The name of a call within its engine: no other call ever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
