//! What all streams of an engine have in common: what bounds them, what counts their frames, and
//! where frames are kept that were read.

use std::sync::Arc;

use stentor_delivery::policy::{Budget, Limits, Retention};
use stentor_delivery::{Counters, EventStore, Terms};

#[derive(Debug)]
pub(crate) struct Streams {
    limits: Limits,
    pub(crate) retention: Retention,
    /// Bytes of frames that one session may have.
    session_budget: usize,
    pub(crate) event_store: Arc<dyn EventStore>,
    /// Counts the frames of all streams.
    pub(crate) counters: Arc<Counters>,
}

impl Streams {
    pub(crate) fn new(
        limits: Limits,
        retention: Retention,
        budget: Budget,
        event_store: Arc<dyn EventStore>,
    ) -> Self {
        let counters = Arc::new(Counters::total(budget.total));
        Self { limits, retention, session_budget: budget.session, event_store, counters }
    }

    /// The terms of a new stream; `one_reply` if it ends with its reply.
    pub(crate) fn terms(&self, one_reply: bool) -> Terms {
        Terms { limits: self.limits, one_reply, heartbeats: false }
    }

    /// Counts the frames of a new session.
    pub(crate) fn session_counters(&self) -> Arc<Counters> {
        Arc::new(Counters::within(self.counters.clone(), self.session_budget))
    }
}
