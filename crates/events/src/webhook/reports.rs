//! What the observers of the engine are told of webhooks.

use std::sync::Arc;

use super::{Subscription, Webhooks};
use crate::report::{EventsReport, WebhookEnd};

impl Webhooks {
    /// Tells the observers of the engine. Not to be called under a lock.
    pub(crate) fn report(&self, make: impl FnOnce() -> EventsReport) {
        let shared = self.shared.lock().upgrade();
        if let Some(shared) = shared {
            shared.report(make);
        }
    }

    pub(super) fn report_end(
        &self,
        subscription: &Subscription,
        reason: impl FnOnce() -> WebhookEnd,
    ) {
        self.report(|| EventsReport::WebhookEnded {
            id: subscription.id.clone(),
            reason: reason(),
        });
    }

    /// A delivery was given up. That is reported at the next tick, with others.
    pub(super) fn note_abandoned(&self, id: &Arc<str>, reason: &'static str) {
        let mut abandoned = self.abandoned.lock();
        let (count, last) = abandoned.entry(id.clone()).or_insert((0, reason));
        (*count, *last) = (*count + 1, reason);
    }

    /// Reports what was given up.
    pub(crate) fn report_abandoned(&self) {
        let abandoned = std::mem::take(&mut *self.abandoned.lock());
        for (id, (count, reason)) in abandoned {
            self.report(|| EventsReport::DeliveriesAbandoned { id, count, reason });
        }
    }
}
