//! The kinds of clients that sessions serve.

/// The kind of client that a session serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionKind {
    /// One process at the other end of a pipe, in either era or both.
    Pipe,
    /// A legacy client over HTTP, known by its `Mcp-Session-Id`.
    Http,
    /// One modern `subscriptions/listen` over HTTP.
    Listen,
    /// All other modern requests over HTTP: the parent of their task actors.
    Stateless,
}

impl SessionKind {
    pub(crate) const fn serves_modern(self) -> bool {
        !matches!(self, Self::Http)
    }

    /// The kind as it appears in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Http => "http",
            Self::Listen => "listen",
            Self::Stateless => "stateless",
        }
    }
}
