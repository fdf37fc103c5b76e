//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;

/// What became of attempts.
#[derive(Debug, Default)]
pub(crate) struct WebhookCounts {
    delivered: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

impl WebhookCounts {
    pub(crate) fn attempted<E>(&self, result: &Result<(), E>) {
        let (count, name) = match result {
            Ok(()) => (&self.delivered, "delivered"),
            Err(_) => (&self.failed, "failed"),
        };
        count.fetch_add(1, Ordering::Relaxed);
        counter!("stentor.events.webhook.attempts", "result" => name).increment(1);
    }

    pub(crate) fn abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        counter!("stentor.events.webhook.abandoned").increment(1);
    }
}
