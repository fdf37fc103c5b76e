//! Who sends a request: what checks it, and what a client without a good credential is told.
//!
//! Specification: `basic/authorization` of 2026-07-28 and 2025-11-25; RFC 6750 (bearer tokens), RFC
//! 9728 (the metadata of a protected resource).

mod bearer;
mod gate;
mod metadata;
mod proxy_headers;
mod scope;
mod static_tokens;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::request::Parts;
use stentor_engine::identity::Identity;

pub use bearer::bearer;
pub(super) use gate::{Caller, Gate, refused};
pub use proxy_headers::ProxyHeaders;
pub(super) use scope::{LACKS_SCOPE, refused as lacks_scope};
pub use static_tokens::{StaticTokenError, StaticTokens};

/// Finds out who sends a request, from its head alone: the body is not read before.
///
/// `StaticTokens` and `ProxyHeaders` are ready ones, and so is `OAuth` of the feature `oauth`.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Checks the credential of a request. It is called for every request of the endpoint, so it must
    /// be quick, and must not block: an answer that takes time is [`Verdict::Later`].
    ///
    /// `peer` is the other end of the connection, where the server knows it. The endpoint itself has
    /// refused a request with several `Authorization` headers. A panic is
    /// [`Rejection::Unavailable`].
    fn check(&self, head: &Parts, peer: Option<SocketAddr>) -> Verdict;

    /// What clients without a good credential are told. It is read once, when the endpoint starts.
    fn challenge(&self) -> &Challenge;

    /// Drops what is cached about a principal, or about all, because rights have changed.
    fn forget(&self, principal: Option<&str>) {
        let _ = principal;
    }
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn check(&self, head: &Parts, peer: Option<SocketAddr>) -> Verdict {
        (**self).check(head, peer)
    }

    fn challenge(&self) -> &Challenge {
        (**self).challenge()
    }

    fn forget(&self, principal: Option<&str>) {
        (**self).forget(principal);
    }
}

/// What an [`Authenticator`] says of a request.
pub enum Verdict {
    /// It knows at once.
    Now(Result<Identity, Rejection>),
    /// It has to ask somebody. Dropped when the client breaks off.
    Later(BoxFuture<'static, Result<Identity, Rejection>>),
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(known) => f.debug_tuple("Now").field(known).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// Why an [`Authenticator`] does not know who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// There is no credential, or none of a kind that the authenticator knows.
    Missing,
    /// The credential is not good: wrong, expired, or for somebody else. Clients are not told which.
    Invalid,
    /// Whether the credential is good cannot be found out just now.
    Unavailable {
        /// When it may be possible again.
        retry_after: Duration,
    },
}

/// What clients without a good credential are told: where tokens come from, and for which scopes they
/// should ask at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Challenge {
    /// The metadata of the resource. Without it there is no OAuth: clients have to know a token.
    pub metadata: Option<ResourceMetadata>,
    /// The scopes that clients should ask for at first.
    pub scopes: Vec<String>,
    /// The scopes that every request needs. Without one of them it is answered with 403. Default: none;
    /// items have [scopes](stentor_engine::Tool::require_scope) of their own.
    pub required: Vec<String>,
}

/// The metadata document of a protected resource (RFC 9728).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceMetadata {
    /// The URL that clients connect to, byte for byte: `https://mcp.example.com/mcp`. It is the `aud`
    /// of tokens. The document itself is at `/.well-known/oauth-protected-resource` followed by the
    /// path of this URL, and without it.
    pub resource: String,
    /// The issuers whose tokens are good. Some clients use only the first.
    pub authorization_servers: Vec<String>,
    /// The name of the resource, for people.
    pub resource_name: Option<String>,
    /// The address of a page about the resource.
    pub resource_documentation: Option<String>,
}

impl ResourceMetadata {
    /// The metadata of a resource whose tokens these issuers give out.
    #[must_use]
    pub fn new<I>(resource: impl Into<String>, authorization_servers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            resource: resource.into(),
            authorization_servers: authorization_servers.into_iter().map(Into::into).collect(),
            resource_name: None,
            resource_documentation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authenticator that says the same of every request.
    #[derive(Debug)]
    pub(super) struct Fixed {
        pub(super) known: Result<Identity, Rejection>,
        pub(super) challenge: Challenge,
    }

    impl Fixed {
        pub(super) fn oauth() -> Self {
            let metadata = ResourceMetadata::new("https://h.example/mcp", ["https://as.example"]);
            let challenge = Challenge {
                metadata: Some(metadata),
                scopes: vec!["mcp:read".to_owned()],
                ..Challenge::default()
            };
            Self { known: Err(Rejection::Missing), challenge }
        }
    }

    impl Authenticator for Fixed {
        fn check(&self, _: &Parts, _: Option<SocketAddr>) -> Verdict {
            Verdict::Now(self.known.clone())
        }

        fn challenge(&self) -> &Challenge {
            &self.challenge
        }
    }
}
