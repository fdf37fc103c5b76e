//! Sends messages to callbacks. Clients choose where these are, so this is the one place from which
//! connections to them are made.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Response};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use self::resolver::{Resolver, SystemLookup};
use self::slots::{Permit, Slots};
use super::address::is_global;
use super::callback_url::{AllowedOrigins, CallbackUrl, Guard};
use super::secret::Secrets;

mod error;
mod resolver;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use self::error::{AttemptError, Category};
pub(crate) use self::resolver::Lookup;

/// The longest answer to a challenge, in bytes.
const MAX_ANSWER: usize = 4 << 10;

/// Names that are looked up at once: each holds a thread of the runtime's own, even after its time is
/// over.
const MAX_LOOKUPS: usize = 64;

/// How long a connection that nobody uses is kept, and how many for each host.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_IDLE_PER_HOST: usize = 2;

/// How messages are sent.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    /// How long an attempt may take, from looking up the name to the end of the answer. Default 5
    /// seconds.
    pub timeout: Duration,
    /// How many attempts at once may be made to one host. Default 8.
    pub max_in_flight_per_host: usize,
    /// How many attempts at once may be made in all. Default 256.
    pub max_in_flight: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), max_in_flight_per_host: 8, max_in_flight: 256 }
    }
}

/// A message that is ready to be sent.
#[derive(Clone)]
pub(crate) struct Signed<'a> {
    /// The id of the message, the same in each attempt.
    pub id: &'a str,
    /// The second of this attempt.
    pub timestamp: i64,
    /// The signatures of this attempt.
    pub signatures: String,
    /// The id of the subscription.
    pub subscription: &'a str,
    /// The body, the same in each attempt.
    pub body: Bytes,
}

/// The client that sends all messages.
pub(crate) struct CallbackClient {
    /// Connects only to addresses on the open internet, and only with https.
    guarded: reqwest::Client,
    /// Connects anywhere, for origins that are allowed.
    open: reqwest::Client,
    allowed: AllowedOrigins,
    slots: Slots,
}

impl fmt::Debug for CallbackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackClient").finish_non_exhaustive()
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("no client for callbacks can be made")]
pub(crate) struct ClientError(#[from] reqwest::Error);

impl CallbackClient {
    /// A client that looks up names as the operating system does.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if TLS cannot be set up.
    pub(crate) fn new(
        settings: &ClientSettings,
        allowed: AllowedOrigins,
    ) -> Result<Self, ClientError> {
        let lookup = SystemLookup::new(settings.max_in_flight.clamp(1, MAX_LOOKUPS));
        Self::with_lookup(settings, allowed, Arc::new(lookup))
    }

    /// A client that looks up names in another way.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if TLS cannot be set up.
    pub(crate) fn with_lookup(
        settings: &ClientSettings,
        allowed: AllowedOrigins,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, ClientError> {
        Self::build(settings, allowed, lookup, is_global, &|builder| builder)
    }

    fn build(
        settings: &ClientSettings,
        allowed: AllowedOrigins,
        lookup: Arc<dyn Lookup>,
        accepts: fn(IpAddr) -> bool,
        adjusted: &dyn Fn(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, ClientError> {
        let client = |accepts, https_only| {
            let builder = reqwest::Client::builder()
                .user_agent("stentor")
                .redirect(Policy::none())
                .referer(false)
                // A proxy would look up the name by itself.
                .no_proxy()
                .https_only(https_only)
                .timeout(settings.timeout)
                .connect_timeout(settings.timeout)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .dns_resolver(Resolver { lookup: lookup.clone(), accepts });
            adjusted(builder).build()
        };
        Ok(Self {
            guarded: client(accepts, true)?,
            open: client(|_| true, false)?,
            allowed,
            slots: Slots::new(settings.max_in_flight_per_host, settings.max_in_flight),
        })
    }

    /// The origins whose callbacks may be anywhere.
    pub(crate) fn allowed(&self) -> &AllowedOrigins {
        &self.allowed
    }

    /// Waits until one more attempt may be made. A message is signed only then: one that waits too
    /// long with its timestamp is refused by its receiver.
    pub(crate) async fn slot<'a>(&'a self, url: &'a CallbackUrl) -> Slot<'a> {
        Slot { client: self, url, _permit: self.slots.take(url.host()).await }
    }

    #[cfg(test)]
    /// Sends a message as soon as one more attempt may be made. The body of the answer is not read.
    ///
    /// # Errors
    ///
    /// [`AttemptError`] unless the answer is a success.
    pub(crate) async fn post(
        &self,
        url: &CallbackUrl,
        message: Signed<'_>,
    ) -> Result<(), AttemptError> {
        self.slot(url).await.post(message).await
    }

    /// Asks an endpoint whether it wants to receive events: it has to send back what only it was
    /// told. This is done before anything else is sent there.
    ///
    /// # Errors
    ///
    /// [`AttemptError`] if it does not.
    pub(crate) async fn verify(
        &self,
        url: &CallbackUrl,
        secrets: &Secrets,
        subscription: &str,
    ) -> Result<(), AttemptError> {
        let slot = self.slot(url).await;
        let nonce = random_text::<32>();
        let id = format!("msg_verification_{}", random_text::<16>());
        let body = json!({"type": "verification", "challenge": nonce}).to_string();
        let now = SystemTime::now();
        let timestamp = unix_seconds(now);
        let signatures = secrets.signatures(now, &id, timestamp, body.as_bytes());
        let message = Signed { id: &id, timestamp, signatures, subscription, body: body.into() };
        let (status, answer) = slot.send_and_read(message, MAX_ANSWER).await?;
        if is_answer(&answer, &nonce) { Ok(()) } else { Err(AttemptError::challenge(status)) }
    }
}

/// Leave to make one attempt at a callback.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    client: &'a CallbackClient,
    url: &'a CallbackUrl,
    _permit: Permit<'a>,
}

impl Slot<'_> {
    /// Sends a message. The body of the answer is not read.
    ///
    /// # Errors
    ///
    /// [`AttemptError`] unless the answer is a success.
    pub(crate) async fn post(self, message: Signed<'_>) -> Result<(), AttemptError> {
        self.send(message).await.map(drop)
    }

    async fn send(&self, message: Signed<'_>) -> Result<Response, AttemptError> {
        // The client asks no resolver for hosts that are addresses, so they are checked here.
        let client = match self.url.check(&self.client.allowed) {
            Ok(Guard::On) => &self.client.guarded,
            Ok(Guard::Lifted) => &self.client.open,
            Err(_) => return Err(AttemptError::forbidden()),
        };
        let request = client
            .post(self.url.url().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", message.signatures)
            .header("x-mcp-subscription-id", message.subscription)
            .body(message.body);
        let response = request.send().await.map_err(|error| AttemptError::of(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(AttemptError::status(status.as_u16(), response.headers()));
        }
        Ok(response)
    }

    /// The status and the body of the answer.
    async fn send_and_read(
        &self,
        message: Signed<'_>,
        max: usize,
    ) -> Result<(u16, Bytes), AttemptError> {
        let mut response = self.send(message).await?;
        let status = response.status().as_u16();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| AttemptError::of(&error))? {
            if body.len() + chunk.len() > max {
                return Err(AttemptError::challenge(status));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body.freeze()))
    }
}

/// The answer to a challenge.
#[derive(Deserialize)]
struct Answer {
    challenge: String,
}

fn is_answer(body: &[u8], nonce: &str) -> bool {
    let answer = serde_json::from_slice::<Answer>(body);
    answer.is_ok_and(|it| it.challenge.as_bytes().ct_eq(nonce.as_bytes()).into())
}

/// Random bytes that can stand in a header.
///
/// # Panics
///
/// If the operating system gives no random bytes.
fn random_text<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A time as it stands in a header.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
