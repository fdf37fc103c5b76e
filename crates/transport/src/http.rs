//! Streamable HTTP: both protocol eras on one endpoint (2026-07-28 and 2025-11-25,
//! basic/transports).
//!
//! [`router`] is an [`axum::Router`] to mount where one likes; [`serve`] is the one line for
//! everybody else.
//!
//! | request | legacy, to 2025-11-25 | modern, 2026-07-28 |
//! |---|---|---|
//! | POST | a message of a session, or `initialize` | any request, with its routing headers |
//! | GET | the session's notices | – |
//! | DELETE | ends the session | – |

mod body;
mod connections;
mod events;
mod flow;
mod get;
mod guard;
mod legacy;
mod modern;
mod names;
mod post;
mod reply;
mod serve;
mod stream;
mod unfinished;
mod upload;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::any;
use body::Content;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body;
use stentor_engine::Engine;
use unfinished::Unfinished;
use upload::Upload;

pub use guard::OriginPolicy;
use guard::Refusal;
pub use serve::{ServeError, serve, serve_on};

/// How the endpoint behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where the endpoint is: the whole path, to the letter. Default `/mcp`.
    pub path: String,
    /// Which hosts and origins may call. Default: this machine.
    pub origins: OriginPolicy,
    /// The largest body, in bytes; more is answered with 413. Default 4 MiB.
    pub max_body: usize,
    /// The largest headers, names and values together, in bytes; more is answered with 431.
    /// Default 16 KiB.
    ///
    /// [`serve_on`] also holds little more than this for each connection whose client does not
    /// read; a head that is larger by 4 KiB is refused before it is read to its end.
    pub max_headers: usize,
    /// How often a quiet stream says that it is alive. Default 15 s.
    pub keep_alive: Duration,
    /// How long a legacy client is to wait before it comes back to a stream that was closed: each is
    /// told something between half of this and half as much again, so that not all come at once.
    /// Default 500 ms.
    pub retry: Duration,
    /// A call that is answered within this time without saying anything else is answered with
    /// plain JSON; any other with an event stream. Default 100 ms.
    ///
    /// A client that leaves meanwhile without a word, as one does that closes its connection, is
    /// noticed when this time is over: until then nothing is written to it, and it could still read.
    pub json_grace: Duration,
    /// How long [`serve_on`] waits for the head of a request, from when the connection was opened or
    /// the last answer was sent, and then for each piece of its body; so also how long an idle
    /// connection is kept. Default 75 s.
    pub read_timeout: Duration,
    /// How long a body may take to arrive before [`min_body_rate`](Self::min_body_rate) is asked of
    /// it. Default 10 s.
    pub body_grace: Duration,
    /// How many bytes of a body must arrive each second once [`body_grace`](Self::body_grace) is
    /// over, on average since it began; a slower one is answered with 408. Default 8 KiB; 0 is no limit.
    pub min_body_rate: usize,
    /// How many bytes may be held of requests that have not come to their end, of all connections
    /// together; each such request counts 8 KiB more than was read of it. Beyond this the one that has
    /// held the most for the longest gives way: a body is answered with 503, and the connection of
    /// an unfinished head, which only [`serve_on`] counts, is closed. Default 128 MiB.
    pub max_unfinished: usize,
    /// Connections that [`serve_on`] holds open at once, at most some less than the process may
    /// have files open (on Unix `ulimit -n`, less one in 16, and between 16 and 256 in any case).
    /// For one more the connection is closed that is idle for the longest: no request of it is
    /// answered, no stream is open. While none is idle it waits. Default 100,000.
    pub max_connections: usize,
    /// How many connections may wait for [`serve_on`] to accept them; of more the clients have to ask
    /// again, which takes a second or longer. The kernel caps it (Linux: `net.core.somaxconn`, by
    /// default 4,096). Default 16,384.
    pub backlog: u32,
    /// After a shutdown, how long connections that [`serve_on`] holds get at least to send what is
    /// left of their answers. Default 1 s.
    ///
    /// All of a shutdown takes no longer than
    /// [`Config::drain_timeout`](stentor_engine::Config::drain_timeout), one second and this: by default
    /// less than the 10 s that Docker waits before it kills.
    pub close_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            path: "/mcp".to_owned(),
            origins: OriginPolicy::default(),
            max_body: 4 * 1024 * 1024,
            max_headers: 16 * 1024,
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_millis(500),
            json_grace: Duration::from_millis(100),
            read_timeout: Duration::from_secs(75),
            body_grace: Duration::from_secs(10),
            min_body_rate: 8 * 1024,
            max_unfinished: 128 * 1024 * 1024,
            max_connections: 100_000,
            backlog: 16_384,
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// Who sends a request, as authenticated by middleware in front of the endpoint.
///
/// Put it into the request's extensions. Sessions, and what a client is given to send back,
/// are then good for the same principal only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(pub Arc<str>);

#[derive(Clone, Debug)]
struct Endpoint {
    engine: Engine,
    config: Arc<HttpConfig>,
    unfinished: Arc<Unfinished>,
    spread: Arc<Spread>,
}

impl Endpoint {
    fn new(engine: Engine, config: HttpConfig) -> Self {
        let unfinished = Unfinished::new(config.max_unfinished);
        Self { engine, config: Arc::new(config), unfinished, spread: Arc::default() }
    }
}

/// Spreads over time what clients are told to do later.
#[derive(Debug, Default)]
struct Spread(AtomicU32);

impl Spread {
    /// From 0 to below 1: the next one is as far away from those before it as can be.
    fn next(&self) -> f64 {
        // The golden ratio.
        let next = self.0.fetch_add(0x9E37_79B9, Ordering::Relaxed);
        f64::from(next) / (f64::from(u32::MAX) + 1.0)
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How long a client is to wait that is refused for now: so many seconds, or some more.
const RETRY_AFTER: std::ops::RangeInclusive<u32> = 1..=4;

/// What answers a request.
type Response = http::Response<Content>;

/// Why the body of a request could not be read.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The endpoint as a router, for one's own listener, shutdown and middleware.
///
/// What a request may hold, and how long its body may take, is bounded here as in [`serve_on`]. What
/// belongs to connections is up to the server around it:
///
/// - that a head comes to its end in time, and how many connections are open: `axum::serve` waits
///   without end, `hyper` has `header_read_timeout`;
/// - how much is held for a client that does not read, and for how long;
/// - how many connections wait to be accepted: `tokio::net::TcpSocket::listen` takes the backlog;
/// - its end: shut the engine down first, which ends streams, then stop the listener, and wait for
///   connections for a bounded time only. `axum::serve` waits for each, also for half a head.
///
/// The example `metrics` does all of it. A request that is refused before its body was read is
/// answered with `connection: close`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stentor_engine::Engine;
/// use stentor_transport::http::{HttpConfig, router};
///
/// let engine = Engine::builder("s", "1").start().await?;
/// let app = axum::Router::new().merge(router(engine, HttpConfig::default()));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
pub fn router(engine: Engine, config: HttpConfig) -> Router {
    let path = config.path.clone();
    let endpoint = Endpoint::new(engine, config);
    Router::new().route(&path, any(routed)).with_state(endpoint)
}

async fn routed(
    State(endpoint): State<Endpoint>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let keep_alive = endpoint.config.keep_alive;
    let (head, body) = request.into_parts();
    let response = handle(&endpoint, &head, Upload::new(body, None)).await;
    response.map(|content| axum::body::Body::new(content.into_body(keep_alive, None)))
}

async fn handle<B>(endpoint: &Endpoint, head: &Parts, mut body: Upload<B>) -> Response
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BodyError>,
{
    let outcome = match check(endpoint, head) {
        Ok(()) => match head.method {
            // Most requests are of this kind: only the others are boxed.
            Method::POST => post::handle(endpoint, head, &mut body).await,
            Method::GET => Box::pin(get::handle(endpoint, head)).await,
            Method::DELETE => Box::pin(legacy::end(endpoint, head)).await,
            _ => Err(Refusal::MethodNotAllowed),
        },
        Err(refusal) => Err(refusal),
    };
    let mut response = outcome.unwrap_or_else(|refusal| reply::refused(&refusal, None));
    let (status, headers) = (response.status(), response.headers_mut());
    let is_for_now =
        matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    if is_for_now {
        let (soonest, latest) = (*RETRY_AFTER.start(), *RETRY_AFTER.end());
        let more = endpoint.spread.next() * f64::from(latest - soonest + 1);
        headers.insert(header::RETRY_AFTER, (soonest + more as u32).into());
    }
    // What is left of a body would be read before the next request, however much. And whoever is
    // refused because of a shutdown finds another server only by another connection.
    let is_last = !body.is_over() || is_for_now && endpoint.engine.is_draining();
    if is_last && head.version <= Version::HTTP_11 {
        headers.insert(header::CONNECTION, CLOSE);
    }
    response
}

fn principal(extensions: &http::Extensions) -> Option<Arc<str>> {
    extensions.get::<Principal>().map(|principal| principal.0.clone())
}

fn check(endpoint: &Endpoint, head: &Parts) -> Result<(), Refusal> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    guard::check_header_size(&head.headers, endpoint.config.max_headers)?;
    endpoint.config.origins.check(&head.headers, authority)?;
    guard::check_repeated(&head.headers)
}
