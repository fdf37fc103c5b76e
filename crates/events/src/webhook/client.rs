//! Sends messages to callbacks. Clients choose where these are, so this is the one place from which
//! connections to them are made.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use self::connector::Connector;
use self::resolver::{Resolver, SystemLookup};
use self::slots::{Permit, Slots};
use super::address::is_global;
use super::callback_url::{AllowedOrigins, CallbackUrl, Guard};
use super::secret::Secrets;

mod connector;
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

/// How long a connection that nobody uses is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const SUBSCRIPTION_ID: HeaderName = HeaderName::from_static("x-mcp-subscription-id");

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
    guarded: Client<Connector, Full<Bytes>>,
    /// Connects anywhere, for origins that are allowed.
    open: Client<Connector, Full<Bytes>>,
    timeout: Duration,
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
pub(crate) struct ClientError(#[from] rustls::Error);

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
        // With other crates in a program there is more than one provider, and none is the default.
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .try_with_platform_verifier()?
            .with_no_client_auth();
        Ok(Self::build(settings, allowed, lookup, is_global, &tls))
    }

    fn build(
        settings: &ClientSettings,
        allowed: AllowedOrigins,
        lookup: Arc<dyn Lookup>,
        accepts: fn(IpAddr) -> bool,
        tls: &ClientConfig,
    ) -> Self {
        let client = |accepts, https_only| {
            let resolver = Resolver { lookup: lookup.clone(), accepts };
            let mut http = HttpConnector::new_with_resolver(resolver);
            http.set_nodelay(true);
            http.enforce_http(false);
            let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
            let https = if https_only { https.https_only() } else { https.https_or_http() };
            let https = https.enable_http1().wrap_connector(http);
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(settings.max_in_flight_per_host)
                .build(Connector::new(https, settings.timeout))
        };
        Self {
            guarded: client(accepts, true),
            open: client(|_| true, false),
            timeout: settings.timeout,
            allowed,
            slots: Slots::new(settings.max_in_flight_per_host, settings.max_in_flight),
        }
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
        let (status, answer) = slot.in_time(slot.send_and_read(message, MAX_ANSWER)).await?;
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
        self.in_time(self.send(message)).await.map(drop)
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, AttemptError>>,
    ) -> Result<T, AttemptError> {
        let too_late = |_| AttemptError::new(Category::Timeout);
        timeout(self.client.timeout, attempt).await.map_err(too_late)?
    }

    async fn send(&self, message: Signed<'_>) -> Result<Response<Incoming>, AttemptError> {
        // The client asks no resolver for hosts that are addresses, so they are checked here.
        let client = match self.url.check(&self.client.allowed) {
            Ok(Guard::On) => &self.client.guarded,
            Ok(Guard::Lifted) => &self.client.open,
            Err(_) => return Err(AttemptError::forbidden()),
        };
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.uri().clone();
        // Ids were checked before, and are values of headers.
        *request.headers_mut() =
            headers(message).map_err(|_| AttemptError::new(Category::ConnectionRefused))?;
        let response = client.request(request).await.map_err(|error| AttemptError::of(&error))?;
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
        let response = self.send(message).await?;
        let status = response.status().as_u16();
        let read = Limited::new(response.into_body(), max).collect().await;
        // It is too long, or breaks off.
        let read = read.map_err(|_| AttemptError::challenge(status))?;
        Ok((status, read.to_bytes()))
    }
}

fn headers(message: Signed<'_>) -> Result<HeaderMap, InvalidHeaderValue> {
    // With those that the client adds.
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(USER_AGENT, HeaderValue::from_static("stentor"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(WEBHOOK_ID, HeaderValue::from_str(message.id)?);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(message.timestamp));
    headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(message.signatures)?);
    headers.insert(SUBSCRIPTION_ID, HeaderValue::from_str(message.subscription)?);
    Ok(headers)
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
