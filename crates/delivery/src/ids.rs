//! The ids of sessions, streams and frames.

use std::fmt;
use std::sync::Arc;

/// The part of an id that may be logged: what comes before its first point, and enough of the rest to
/// tell it from other ids.
#[must_use]
pub fn loggable(id: &str) -> &str {
    let secret = id.find('.').map_or(0, |dot| dot + 1);
    id.get(..secret + 6).unwrap_or_default()
}

/// The id of a session: the name of its node and 128 random bits, as visible ASCII. It fits into
/// the `Mcp-Session-Id` header, and nobody can guess it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// An id that a client or a store gave. New ones come from the engine.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
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
    pub const END: Self = Self((1 << 53) - 1);
}
