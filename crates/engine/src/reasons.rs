//! Words for why something happened: a session ended, a call was cancelled or answered.

use std::fmt;
use std::sync::Arc;

use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Id};

use crate::ids::{CallId, SessionId};

/// The engine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// The kind of client that a session serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionKind {
    /// One process at the other end of a pipe, in either era or both.
    Pipe,
    /// A legacy client over HTTP, known by its `Mcp-Session-Id`.
    Http,
    /// One modern `subscriptions/listen` over HTTP.
    Listen,
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
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// The client ended it.
    Deleted,
    /// The client stayed away for too long.
    IdleTimeout,
    /// The client opened it and disconnected, and too many other clients did the same.
    Unused,
    /// The client's connection is closed, and the session does not outlive it.
    Disconnected,
    /// `initialize` was refused.
    Refused,
    /// The application ended it.
    Ended,
    /// The rights of its principal were revoked.
    Revoked,
    /// It continues on another node.
    Moved,
    /// It crashed again after several restarts.
    Crashed,
    /// The engine shuts down.
    Shutdown,
}

impl EndReason {
    /// The reason as it appears in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::IdleTimeout => "idle_timeout",
            Self::Unused => "unused",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
            Self::Moved => "moved",
            Self::Crashed => "crashed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why a call ends before its code returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// The client sent `notifications/cancelled`, with a reason or without.
    Client(Option<String>),
    /// The client closed the stream of its modern HTTP request.
    Disconnected,
    /// The call took longer than [`CallConfig::timeout`](crate::CallConfig::timeout).
    TimedOut,
    /// The client did not answer a question in time.
    Abandoned,
    /// The call gave way to callers with a smaller share.
    GaveWay,
    /// The application cancelled it.
    Application,
    /// The session ended.
    SessionEnded,
    /// The actor of the session failed.
    SessionCrashed,
    /// The engine shuts down, and the call took longer than the shutdown allows.
    Shutdown,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(Some(reason)) => write!(f, "cancelled by the client: {reason}"),
            Self::Client(None) => f.write_str("cancelled by the client"),
            Self::Disconnected => f.write_str("the client disconnected"),
            Self::TimedOut => f.write_str("the call took too long"),
            Self::Abandoned => f.write_str("the client did not answer in time"),
            Self::GaveWay => f.write_str("given up for other callers"),
            Self::Application => f.write_str("cancelled by the application"),
            Self::SessionEnded => f.write_str("the session ended"),
            Self::SessionCrashed => f.write_str("the session's actor failed"),
            Self::Shutdown => f.write_str("the server is shutting down"),
        }
    }
}

/// The call that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct CallRef {
    /// The call's id within the engine.
    pub id: CallId,
    /// The principal that called, if the transport knows it.
    pub principal: Option<Arc<str>>,
    /// The session of the call; modern requests over HTTP have none.
    pub session: Option<SessionId>,
    /// The id of the request, which the client chose.
    pub request: Id,
    /// The name of the called item, or the URI that is read.
    pub subject: Arc<str>,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The response has a result, or questions to the client.
    Ok,
    /// The response has a result that reports a failure: `isError`.
    Failed,
    /// The response is an error of the protocol, with this JSON-RPC code.
    Error(i32),
}

impl CallOutcome {
    pub(crate) fn of(answer: &Result<ResultBody, ErrorObject>) -> Self {
        match answer {
            Ok(result) if result.is_error() => Self::Failed,
            Ok(_) => Self::Ok,
            Err(error) => Self::Error(error.code),
        }
    }

    /// The value of `error.type` in metrics.
    pub(crate) fn error_type(self) -> Option<String> {
        match self {
            Self::Ok => None,
            Self::Failed => Some("tool_error".to_owned()),
            Self::Error(code) => Some(code.to_string()),
        }
    }
}

/// Why a request of a transport is refused before any actor receives it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refused {
    /// As many sessions are open as the limit allows.
    #[error("too many sessions are open")]
    TooManySessions,
    /// As many requests run as the limit allows.
    #[error("too many requests are running")]
    TooManyRequests,
    /// The engine shuts down or has stopped.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The principal is [locked out](crate::Engine::revoke).
    #[error("the principal is locked out")]
    Revoked,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The session is on a node that cannot be reached now.
    #[error("the node that has the session cannot be reached")]
    Unreachable,
}
