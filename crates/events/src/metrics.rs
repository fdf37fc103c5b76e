//! What is counted.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::subscriber::Mode;

/// Says what the metrics are.
pub(crate) fn describe() {
    let count = Unit::Count;
    describe_counter!("stentor.events.emitted", count, "Occurrences emitted on this node");
    describe_gauge!("stentor.events.lag", count, "Occurrences that streams were not offered yet");
    describe_counter!("stentor.events.gaps", count, "Subscriptions told that something is missing");
    describe_counter!("stentor.events.webhook.attempts", count, "Attempts to deliver to endpoints");
    describe_counter!("stentor.events.webhook.abandoned", count, "Deliveries given up");
}

/// So many subscriptions are told that something may be missing.
pub(crate) fn count_gaps(mode: Mode, count: usize) {
    counter!("stentor.events.gaps", "mode" => mode.as_str()).increment(count as u64);
}

/// Publishes how many occurrences of a type were emitted here, and how many of its log the streams and
/// webhooks were not offered yet.
pub(crate) fn publish_type(name: &str, emitted: u64, lag: u64) {
    counter!("stentor.events.emitted", "type" => name.to_owned()).absolute(emitted);
    let lag = u32::try_from(lag).unwrap_or(u32::MAX);
    gauge!("stentor.events.lag", "type" => name.to_owned()).set(lag);
}

/// A check has found so many occurrences of a type.
pub(crate) fn count_checked(name: &str, count: usize) {
    counter!("stentor.events.emitted", "type" => name.to_owned()).increment(count as u64);
}

/// Counts an attempt to deliver.
pub(crate) fn count_attempt<E>(result: &Result<(), E>) {
    let result = if result.is_ok() { "delivered" } else { "failed" };
    counter!("stentor.events.webhook.attempts", "result" => result).increment(1);
}

/// Counts a delivery that was given up.
pub(crate) fn count_abandoned() {
    counter!("stentor.events.webhook.abandoned").increment(1);
}
