//! How a running call is told to end.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use stentor_wire::{ErrorObject, Id, code};
use tokio_util::sync::CancellationToken;

use super::seal::StateError;
use crate::outlet::Notified;

/// Why a call is to end before its code returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// The client sent `notifications/cancelled`, with a reason or without.
    Client(Option<String>),
    /// The client closed the stream of its modern HTTP request.
    Disconnected,
    /// The call took longer than [`Config::call_timeout`](crate::Config::call_timeout).
    TimedOut,
    /// The client did not answer a question in time.
    Abandoned,
    /// It gave way to other callers, who had less of what all share.
    GaveWay,
    /// The application cancelled it.
    Application,
    /// The session ended.
    SessionEnded,
    /// The engine shuts down and the call took longer than it may.
    Shutdown,
}

impl CancelReason {
    /// What the client is told; nothing where it does not want or cannot get an answer.
    pub(crate) fn error(&self) -> Option<ErrorObject> {
        match self {
            Self::Client(_) | Self::Disconnected => None,
            // A retry that comes in the moment in which it is too late.
            Self::Abandoned => Some(ErrorObject::invalid_params(StateError::Expired.to_string())),
            Self::TimedOut => Some(ErrorObject::new(code::CANCELLED, "the call took too long")),
            Self::GaveWay => Some(gave_way()),
            Self::Application => Some(ErrorObject::new(code::CANCELLED, "the call was cancelled")),
            Self::SessionEnded => Some(ErrorObject::unavailable("the session ended")),
            Self::Shutdown => Some(ErrorObject::unavailable("the server is shutting down")),
        }
    }
}

/// What the client is told whose call gave way.
pub(crate) fn gave_way() -> ErrorObject {
    let why = "the call gave way to other callers: no caller has more of what all share; \
               ask for less at once, and again later";
    ErrorObject::unavailable(why)
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
            Self::Shutdown => f.write_str("the server is shutting down"),
        }
    }
}

/// Ends one call, once; the first reason counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<Mutex<Cancelled>>);

#[derive(Debug, Default)]
struct Cancelled {
    reason: Option<CancelReason>,
    /// Made for who waits: most calls end before anybody does.
    token: Option<CancellationToken>,
}

impl Cancel {
    pub(crate) fn cancel(&self, reason: CancelReason) {
        let token = {
            let mut cancelled = self.0.lock();
            // A later reason changes nothing.
            cancelled.reason.get_or_insert(reason);
            cancelled.token.clone()
        };
        if let Some(token) = token {
            token.cancel();
        }
    }

    /// What is cancelled with it.
    pub(crate) fn token(&self) -> CancellationToken {
        let (token, is_over) = {
            let mut cancelled = self.0.lock();
            let is_over = cancelled.reason.is_some();
            (cancelled.token.get_or_insert_default().clone(), is_over)
        };
        if is_over {
            token.cancel();
        }
        token
    }

    /// Why it is to end; asked once it is.
    pub(crate) fn reason(&self) -> CancelReason {
        self.0.lock().reason.clone().unwrap_or(CancelReason::Shutdown)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.lock().reason.is_some()
    }
}

/// Ends a modern HTTP call whose client went away.
#[derive(Debug)]
pub(crate) struct CancelWhenGone(pub(crate) Cancel);

impl Notified for CancelWhenGone {
    fn notify(self: Box<Self>) {
        self.0.cancel(CancelReason::Disconnected);
    }
}

/// The running calls of one session, by the id of their request.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenCalls(Arc<Mutex<foldhash::HashMap<Id, Cancel>>>);

/// One call's place among the open ones; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct OpenCall {
    calls: OpenCalls,
    id: Id,
}

impl OpenCalls {
    /// `None` if a call of that id is open: ids must not be used again while it runs.
    pub(crate) fn open(&self, id: &Id, cancel: &Cancel) -> Option<OpenCall> {
        let mut calls = self.0.lock();
        if calls.contains_key(id) {
            return None;
        }
        calls.insert(id.clone(), cancel.clone());
        Some(OpenCall { calls: self.clone(), id: id.clone() })
    }

    /// Whether a call of that id runs.
    pub(crate) fn is_open(&self, id: &Id) -> bool {
        self.0.lock().contains_key(id)
    }

    /// Cancels one call; `false` if it does not run.
    pub(crate) fn cancel(&self, id: &Id, reason: CancelReason) -> bool {
        let cancel = self.0.lock().get(id).cloned();
        if let Some(cancel) = &cancel {
            cancel.cancel(reason);
        }
        cancel.is_some()
    }

    pub(crate) fn cancel_all(&self, reason: &CancelReason) {
        let calls: Vec<_> = self.0.lock().values().cloned().collect();
        for cancel in calls {
            cancel.cancel(reason.clone());
        }
    }

    /// The requests whose calls run now.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.0.lock().remove(&self.id);
    }
}
