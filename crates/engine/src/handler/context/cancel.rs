//! How a running call is cancelled.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::reasons::CancelReason;

/// Cancels one call, once; the first reason counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<Mutex<Cancelled>>);

#[derive(Debug, Default)]
struct Cancelled {
    reason: Option<CancelReason>,
    /// Made for the first code that waits for it: most calls end before that.
    token: Option<CancellationToken>,
}

impl Cancel {
    pub(crate) fn cancel(&self, reason: CancelReason) {
        let token = {
            let mut cancelled = self.0.lock();
            cancelled.reason.get_or_insert(reason);
            cancelled.token.clone()
        };
        if let Some(token) = token {
            token.cancel();
        }
    }

    pub(crate) fn token(&self) -> CancellationToken {
        let (token, is_cancelled_already) = {
            let mut cancelled = self.0.lock();
            let is_cancelled_already = cancelled.reason.is_some();
            (cancelled.token.get_or_insert_default().clone(), is_cancelled_already)
        };
        if is_cancelled_already {
            token.cancel();
        }
        token
    }

    /// Why the call was cancelled. To be read only once it was.
    pub(crate) fn reason(&self) -> CancelReason {
        self.0.lock().reason.clone().unwrap_or(CancelReason::Shutdown)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.lock().reason.is_some()
    }
}
