//! The settings of webhooks.

use std::sync::Arc;
use std::time::Duration;

use stentor_macros::Setters;

use super::callback_url::{AllowedOrigins, OriginError};

/// Limits and times of webhooks.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct WebhookConfig {
    /// How long a webhook lives that is not refreshed, if its client does not say. Default 1 hour.
    pub default_ttl: Duration,
    /// The shortest life that is granted. Default 1 minute.
    pub min_ttl: Duration,
    /// The longest life that is granted. Default 24 hours.
    pub max_ttl: Duration,
    /// Grants no expiry to clients that ask for it, if the store is durable. Default `true`.
    pub allow_no_expiry: bool,
    /// A webhook without expiry ends when its endpoint has failed for this time. Default 72 hours.
    pub drop_after: Duration,
    /// Webhooks of one principal. Default 1,000.
    pub max_of_principal: usize,
    /// Webhooks in all. Default 100,000.
    pub max: usize,
    /// How long an attempt may take. Default 5 s.
    pub attempt_timeout: Duration,
    /// Attempts at each delivery, the first included. Default 5.
    pub max_attempts: u32,
    /// Deliveries of one webhook that may be open at once: in flight, or waiting for their next
    /// attempt. What comes more waits in the log of its type. Default 16.
    pub max_open: usize,
    /// The largest body that is sent, in bytes. Default 256 KiB.
    pub max_body: usize,
    /// For how long an endpoint that has answered a challenge gets no other one. Default 24 hours.
    pub verified_for: Duration,
    /// For how long a secret that was replaced signs, too. Default 1 hour.
    pub rotation_grace: Duration,
    /// Challenges that one principal may cause to be sent in a minute. Default 600.
    pub max_challenges: usize,
    /// The principal of senders that have none, on a server where nobody has. Without this they can
    /// have no webhooks. Default `None`.
    pub everybody: Option<Arc<str>>,
    /// URLs that begin with one of these get no challenge: their owner has agreed. Default: none.
    pub agreed: Vec<Arc<str>>,
    /// Answers an unsubscribe of what is not there with a success. Default `false`: with an error,
    /// unless the client is of a kind that expects it and had the webhook.
    pub lenient_unsubscribe: bool,
    /// Origins to which requests may go by http and to any address.
    pub(crate) origins: AllowedOrigins,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(60 * 60),
            min_ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(24 * 60 * 60),
            allow_no_expiry: true,
            drop_after: Duration::from_secs(72 * 60 * 60),
            max_of_principal: 1_000,
            max: 100_000,
            attempt_timeout: Duration::from_secs(5),
            max_attempts: 5,
            max_open: 16,
            max_body: 256 << 10,
            verified_for: Duration::from_secs(24 * 60 * 60),
            rotation_grace: Duration::from_secs(60 * 60),
            max_challenges: 600,
            everybody: None,
            agreed: Vec::new(),
            lenient_unsubscribe: false,
            origins: AllowedOrigins::default(),
        }
    }
}

impl WebhookConfig {
    /// Lets requests go to this origin by http, and to any address behind it: for receivers in one's
    /// own network, and for tests.
    ///
    /// # Errors
    ///
    /// If it is no origin, such as `http://127.0.0.1:8080`.
    pub fn allow_origin(self, origin: &str) -> Result<Self, OriginError> {
        self.origins.allow(origin)?;
        Ok(self)
    }
}
