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
mod cors;
mod events;
mod flow;
mod get;
mod guard;
mod legacy;
mod modern;
mod names;
mod origins;
mod post;
mod reply;
mod serve;
mod stream;
mod unfinished;
mod upload;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::routing::any;
use body::Content;
use bytes::Bytes;
use cors::Page;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body;
use stentor_engine::{Connection, Engine};
use unfinished::Unfinished;
use upload::Upload;

use guard::Refusal;
pub use origins::OriginPolicy;
pub use serve::{ServeError, serve, serve_on};

/// How the endpoint behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where the endpoint is: the whole path, to the letter. Default `/mcp`. Whoever asks for it with
    /// a slash more or less at its end is told so, with 404.
    pub path: String,
    /// Which hosts and origins may call, and so which web pages may read the answers. Default: what
    /// fits where the server listens, see [`OriginPolicy::default`].
    pub origins: OriginPolicy,
    /// Whether a request without a [`Principal`] is answered with 401, so that a layer that was
    /// forgotten, or passed by, lets nobody in. Default `false`: who comes without one is anonymous.
    ///
    /// [`serve_on`] has no layers: with this it serves nobody.
    pub require_identity: bool,
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
            require_identity: false,
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
/// are then good for the same principal only. One that is blank is nobody: the request is answered
/// with 401. For a request without any, see [`HttpConfig::require_identity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(pub Arc<str>);

impl Principal {
    fn is_blank(&self) -> bool {
        self.0.chars().all(|char| char.is_whitespace() || char.is_control())
    }
}

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
/// Where it is served it does not know. So unless [`HttpConfig::origins`] names others, it is only for
/// requests to this machine under its own name, on whatever address.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: then callers without a
/// [`Principal`] are told apart by their addresses, where one of them takes what all share.
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
    let router = Router::new().route(&path, any(routed));
    let router = match beside(&path) {
        Some(other) => router.route(&other, any(astray)),
        None => router,
    };
    router.with_state(endpoint)
}

/// The path that is taken for this one: with a slash more or less at its end. `None` where there is
/// none, or the path is a pattern.
fn beside(path: &str) -> Option<String> {
    match path.strip_suffix('/') {
        _ if path.contains('{') => None,
        Some("") => None,
        Some(other) => Some(other.to_owned()),
        None => Some(format!("{path}/")),
    }
}

async fn astray(
    State(endpoint): State<Endpoint>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let keep_alive = endpoint.config.keep_alive;
    let (head, body) = request.into_parts();
    let mut response = not_here(&endpoint, &head);
    if !body.is_end_stream() && head.version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    response.map(|content| axum::body::Body::new(content.into_body(keep_alive, None)))
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
    let sized = guard::check_header_size(&head.headers, endpoint.config.max_headers);
    let mut response = match (page(endpoint, head), sized) {
        (Err(_), Err(refusal)) | (Err(refusal), Ok(())) => reply::refused(&refusal, None),
        (Ok(Some(page)), Ok(())) if cors::is_preflight(head) => page.preflight(&head.headers),
        (Ok(page), sized) => {
            let outcome = match sized.and_then(|()| check(endpoint, head)) {
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
            if let Some(page) = page {
                page.share(&mut response);
            }
            response
        }
    };
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

/// What is answered at any other path.
fn not_here(endpoint: &Endpoint, head: &Parts) -> Response {
    let page = page(endpoint, head).unwrap_or_default();
    if let Some(page) = page.filter(|_| cors::is_preflight(head)) {
        return page.preflight(&head.headers);
    }
    let path = endpoint.config.path.clone();
    let mut response = reply::refused(&Refusal::NotHere { path }, None);
    if let Some(page) = page {
        page.share(&mut response);
    }
    response
}

/// The page that sends a request, if one does, which must be one that may.
fn page<'a>(endpoint: &Endpoint, head: &'a Parts) -> Result<Option<Page<'a>>, Refusal> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    endpoint.config.origins.check(&head.headers, authority)
}

fn principal(extensions: &http::Extensions) -> Option<Arc<str>> {
    extensions.get::<Principal>().map(|principal| principal.0.clone())
}

/// What the request came on, as [`serve_on`] or the listener of the router says.
fn connection(extensions: &http::Extensions) -> Option<Connection> {
    extensions.get::<Connection>().copied().or_else(|| {
        let ConnectInfo(other_end) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some((*other_end).into())
    })
}

fn check(endpoint: &Endpoint, head: &Parts) -> Result<(), Refusal> {
    match head.extensions.get::<Principal>() {
        Some(principal) if principal.is_blank() => return Err(Refusal::BlankPrincipal),
        None if endpoint.config.require_identity => return Err(Refusal::NoIdentity),
        _ => {}
    }
    guard::check_repeated(&head.headers)
}
