//! Streamable HTTP: both protocol eras on one endpoint (2026-07-28 and 2025-11-25,
//! basic/transports).
//!
//! [`router`] is an [`axum::Router`] to mount in your own server; [`serve`] is a whole server in
//! one line.
//!
//! | request | legacy, to 2025-11-25 | modern, 2026-07-28 |
//! |---|---|---|
//! | POST | a message of a session, or `initialize` | any request, with its routing headers |
//! | GET | the session's notices | – |
//! | DELETE | ends the session | – |

mod auth;
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
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::RequestSender;
use stentor_engine::{Connection, Engine};
use stentor_macros::Setters;
use unfinished::Unfinished;
use upload::Upload;

pub use auth::{Authenticator, Challenge, Rejection, ResourceMetadata, Verdict};
use guard::Refusal;
pub use origins::OriginPolicy;
pub use serve::{ServeError, serve, serve_on};

/// The configuration of the HTTP endpoint.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct HttpConfig {
    /// The path of the endpoint: the whole path, compared exactly. Default `/mcp`. A request for
    /// the same path with a slash more or less at its end is answered with 404, which names the
    /// right path.
    pub path: String,
    /// The hosts and origins that may call, and so the web pages that may read the responses.
    /// Default: the policy that fits the address on which the server listens, see
    /// [`OriginPolicy::default`].
    pub origins: OriginPolicy,
    /// Whether a request without a [`Principal`] is answered with 401. Then an authentication layer
    /// that is missing or bypassed lets nobody in. Default `false`: a client without a principal is
    /// anonymous.
    ///
    /// [`serve_on`] has no layers: with `true` it serves nobody.
    pub require_identity: bool,
    /// The largest body, in bytes. A larger body is answered with 413. Default 4 MiB.
    pub max_body: usize,
    /// The largest headers, names and values together, in bytes. Larger headers are answered with
    /// 431. Default 16 KiB.
    ///
    /// [`serve_on`] also keeps little more than this for each connection whose client does not
    /// read. A head that is larger by 4 KiB is refused before it is read to its end.
    pub max_headers: usize,
    /// The interval of keep-alive comments on a quiet stream. Default 15 s.
    pub keep_alive: Duration,
    /// How long a legacy client waits before it reconnects to a closed stream. Each client gets
    /// another value between half of this and one and a half times this, so that not all clients
    /// reconnect at once. Default 500 ms.
    pub retry: Duration,
    /// How long a call has to finish for a plain JSON response. A call that sends anything else
    /// first, or takes longer, is answered with an event stream. Default 100 ms.
    ///
    /// When a client closes its connection within this time, the server notices it only when this
    /// time is over: until then the server writes nothing, and a client that has only closed its
    /// sending half can still read.
    pub json_grace: Duration,
    /// How long [`serve_on`] waits for the head of a request, from when the connection was opened
    /// or the last response was sent, and then for each piece of its body. An idle connection is
    /// closed after this time, too. Default 75 s.
    pub read_timeout: Duration,
    /// How long a body may take to arrive before [`min_body_rate`](Self::min_body_rate) applies to
    /// it. Default 10 s.
    pub body_grace: Duration,
    /// How many bytes of a body must arrive each second once [`body_grace`](Self::body_grace) is
    /// over, on average since the body began. A slower body is answered with 408. Default 8 KiB; 0
    /// is no limit.
    pub min_body_rate: usize,
    /// How many bytes unfinished requests of all connections may keep together. Each of them counts
    /// 8 KiB more than was read of it. Beyond this limit the request that has kept the most for the
    /// longest gives way: a body is answered with 503, and the connection of an unfinished head,
    /// which only [`serve_on`] counts, is closed. Default 128 MiB.
    pub max_unfinished: usize,
    /// How many connections [`serve_on`] keeps open at once. This is capped below the process's
    /// limit of open files (on Unix `ulimit -n`, less one in 16, and between 16 and 256 in any
    /// case). For one more connection, the connection that has been idle the longest is closed: it
    /// has no request in progress and no open stream. While no connection is idle, the new
    /// connection waits. Default 100,000.
    pub max_connections: usize,
    /// How many connections may wait for [`serve_on`] to accept them. Clients beyond this have to
    /// retry, which takes a second or longer. The kernel caps it (Linux: `net.core.somaxconn`, by
    /// default 4,096). Default 16,384.
    pub backlog: u32,
    /// After a shutdown, how long the connections of [`serve_on`] get at least to send the rest of
    /// their responses. Default 1 s.
    ///
    /// A whole shutdown takes no longer than
    /// [`Config::drain_timeout`](stentor_engine::Config::drain_timeout), one second and this: by
    /// default less than the 10 s after which Docker kills the process.
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

/// Who sends a request, as middleware in front of the endpoint has found out.
///
/// Put it into the request's extensions. Sessions, and all tokens that a client receives to send
/// back, are then valid for this principal only. A request with a blank principal is answered with
/// 401. For a request without any, see [`HttpConfig::require_identity`].
pub use stentor_engine::Principal;

fn is_blank(principal: &Principal) -> bool {
    principal.0.chars().all(|char| char.is_whitespace() || char.is_control())
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

/// Spreads the retry times of clients, so that not all clients retry at once.
#[derive(Debug, Default)]
struct Spread(AtomicU32);

impl Spread {
    /// A value from 0 to below 1, as far away as possible from the values before it.
    fn next(&self) -> f64 {
        // The golden ratio.
        let next = self.0.fetch_add(0x9E37_79B9, Ordering::Relaxed);
        f64::from(next) / (f64::from(u32::MAX) + 1.0)
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The range of a `Retry-After` header, in seconds.
const RETRY_AFTER: std::ops::RangeInclusive<u32> = 1..=4;

type Response = http::Response<Content>;

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The endpoint as a router, for your own listener, shutdown and middleware.
///
/// The router limits the size of a request and the time for its body, as [`serve_on`] does. The
/// server around it is responsible for its connections:
///
/// - A deadline for the head of a request, and a limit of open connections: `axum::serve` waits
///   without end, `hyper` has `header_read_timeout`.
/// - How much is kept for a client that does not read, and for how long.
/// - How many connections wait to be accepted: `tokio::net::TcpSocket::listen` takes the backlog.
/// - The shutdown: shut the engine down first, which ends streams, then stop the listener, and wait
///   for connections for a bounded time only. `axum::serve` waits for every connection, even for
///   half a head.
///
/// The example `metrics` does all of this. A request that is refused before its body was read is
/// answered with `connection: close`.
///
/// The router does not know on which address it is served. So unless [`HttpConfig::origins`] names
/// other hosts, it accepts only requests for `localhost` or a loopback address, on whatever address
/// the server listens.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: then callers without a
/// [`Principal`] are distinguished by their addresses when one of them uses more than its share.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stentor::Engine;
/// use stentor::http::{HttpConfig, router};
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
    let router = match path_with_other_slash(&path) {
        Some(other) => router.route(&other, any(wrong_path)),
        None => router,
    };
    router.with_state(endpoint)
}

/// The same path with a slash more or less at its end. `None` if there is no such path, or if the
/// path is a pattern.
fn path_with_other_slash(path: &str) -> Option<String> {
    match path.strip_suffix('/') {
        _ if path.contains('{') => None,
        Some("") => None,
        Some(other) => Some(other.to_owned()),
        None => Some(format!("{path}/")),
    }
}

async fn wrong_path(
    State(endpoint): State<Endpoint>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let keep_alive = endpoint.config.keep_alive;
    let (head, body) = request.into_parts();
    let mut response = wrong_path_response(&endpoint, &head);
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
                    // Most requests are POST. Only the futures of the others are boxed.
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
    // The unread rest of a body, however large, would be read before the next request. And a client
    // that is refused because of a shutdown reaches another server only over a new connection.
    let is_last = !body.is_over() || is_for_now && endpoint.engine.is_draining();
    if is_last && head.version <= Version::HTTP_11 {
        headers.insert(header::CONNECTION, CLOSE);
    }
    response
}

/// The response at any other path.
fn wrong_path_response(endpoint: &Endpoint, head: &Parts) -> Response {
    let page = page(endpoint, head).unwrap_or_default();
    if let Some(page) = page.filter(|_| cors::is_preflight(head)) {
        return page.preflight(&head.headers);
    }
    let path = endpoint.config.path.clone();
    let mut response = reply::refused(&Refusal::WrongPath { path }, None);
    if let Some(page) = page {
        page.share(&mut response);
    }
    response
}

/// The web page that sends a request, if one does. Fails if the page may not call.
fn page<'a>(endpoint: &Endpoint, head: &'a Parts) -> Result<Option<Page<'a>>, Refusal> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    endpoint.config.origins.check(&head.headers, authority)
}

/// Who sends a request, as the endpoint or middleware in front of it has found out.
fn sender(extensions: &http::Extensions) -> RequestSender {
    let identity = extensions.get::<Identity>().cloned().or_else(|| {
        extensions.get::<Principal>().map(|principal| Identity::named(principal.0.clone()))
    });
    RequestSender::from(identity).on(connection(extensions))
}

/// The connection of the request, as [`serve_on`] or the router's listener sets it.
fn connection(extensions: &http::Extensions) -> Option<Connection> {
    extensions.get::<Connection>().copied().or_else(|| {
        let ConnectInfo(other_end) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some((*other_end).into())
    })
}

fn check(endpoint: &Endpoint, head: &Parts) -> Result<(), Refusal> {
    match head.extensions.get::<Principal>() {
        Some(principal) if is_blank(principal) => return Err(Refusal::BlankPrincipal),
        None if endpoint.config.require_identity => return Err(Refusal::NoIdentity),
        _ => {}
    }
    guard::check_repeated(&head.headers)
}
