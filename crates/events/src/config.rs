//! The settings of the extension.

use std::time::Duration;

use stentor_macros::Setters;

use crate::error::Numbering;

/// Limits and times of the extension.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct EventsConfig {
    /// Types on one page of `events/list`. Default 100.
    pub page_size: usize,
    /// The most occurrences in one answer to a poll. Default 100.
    pub max_events: usize,
    /// Bytes of payloads after which an answer to a poll has no more occurrences. Default 1 MiB.
    pub max_poll_bytes: usize,
    /// How long clients are asked to wait between polls. Default 5 s.
    pub poll_interval: Duration,
    /// How long a poll counts as a watcher, for the hooks of a type. Default 5 minutes.
    pub poll_lease: Duration,
    /// The interval of heartbeats on streams. Clients give up after twice of that. Default 15 s.
    pub heartbeat: Duration,
    /// The largest payload, in bytes of JSON. One that is larger than
    /// [`WebhookConfig::max_body`](crate::WebhookConfig::max_body) is a gap for webhooks. Default 1 MiB.
    pub max_payload: usize,
    /// Bytes of memory that the log of one type takes. Default 16 MiB.
    pub max_log_bytes: usize,
    /// Loops of one type with [`check`](crate::EventType::check), each with a log of its own. Who needs
    /// one more is refused. Default 10,000.
    pub max_branches: usize,
    /// The numbers of errors. Default: those that a client knows.
    pub numbering: Numbering,
    /// Also declares the capability `events` beside `extensions`, and serves lists and webhooks on
    /// legacy sessions: ChatGPT and the AI SDK look there. Default `true`.
    pub early_clients: bool,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            page_size: 100,
            max_events: 100,
            max_poll_bytes: 1 << 20,
            poll_interval: Duration::from_secs(5),
            poll_lease: Duration::from_secs(5 * 60),
            heartbeat: Duration::from_secs(15),
            max_payload: 1 << 20,
            max_log_bytes: 16 << 20,
            max_branches: 10_000,
            numbering: Numbering::default(),
            early_clients: true,
        }
    }
}
