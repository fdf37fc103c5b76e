//! The running calls of one session, and how each is cancelled.

use std::sync::Arc;

use parking_lot::Mutex;
use stentor_delivery::Notified;
use stentor_wire::{ErrorObject, Id, code};

use super::state_token::StateError;
use crate::handler::Cancel;
use crate::reasons::CancelReason;

impl CancelReason {
    /// The error for the client; `None` where the client wants no response or cannot get one.
    pub(crate) fn error(&self) -> Option<ErrorObject> {
        match self {
            Self::Client(_) | Self::Disconnected => None,
            // For a retry that arrives just when the time is over.
            Self::Abandoned => Some(ErrorObject::invalid_params(StateError::Expired.to_string())),
            Self::TimedOut => Some(ErrorObject::new(code::CANCELLED, "the call took too long")),
            Self::GaveWay => Some(gave_way()),
            Self::Application => Some(ErrorObject::new(code::CANCELLED, "the call was cancelled")),
            // As if the call had been dropped.
            Self::SessionCrashed => Some(ErrorObject::internal("the call ended without an answer")),
            Self::SessionEnded => Some(ErrorObject::unavailable("the session ended")),
            Self::Shutdown => Some(ErrorObject::unavailable("the server is shutting down")),
        }
    }
}

/// The error for a client whose call gave way.
pub(crate) fn gave_way() -> ErrorObject {
    let why = "the call gave way to other callers: no caller has more of what all share; \
               ask for less at once, and again later";
    ErrorObject::unavailable(why)
}

/// Cancels a modern HTTP call when its client disconnects.
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

/// One call's entry among the open calls. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct OpenCall {
    calls: OpenCalls,
    id: Id,
}

impl OpenCalls {
    /// Adds a call. `None` if a call with that id is open: a client must not use an id again while
    /// its call runs.
    pub(crate) fn open(&self, id: &Id, cancel: &Cancel) -> Option<OpenCall> {
        let mut calls = self.0.lock();
        if calls.contains_key(id) {
            return None;
        }
        calls.insert(id.clone(), cancel.clone());
        Some(OpenCall { calls: self.clone(), id: id.clone() })
    }

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

    pub(crate) fn ids(&self) -> Vec<Id> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.0.lock().remove(&self.id);
    }
}
