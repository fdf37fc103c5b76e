//! Streamable HTTP: both protocol eras on one endpoint (2026-07-28 and 2025-11-25,
//! basic/transports).
//!
//! [`serve`] is a whole server in one line, and [`serve_layered`] one with `tower` layers around it.
//! [`router`] is an [`axum::Router`] to mount in your own server.
//!
//! | request | legacy, to 2025-11-25 | modern, 2026-07-28 |
//! |---|---|---|
//! | POST | a message of a session, or `initialize` | any request, with its routing headers |
//! | GET | the session's notices | – |
//! | DELETE | ends the session | – |
//!
//! With [`HttpConfig::health`] there are also `/livez` and `/readyz`.

mod auth;
mod body;
mod client;
mod config;
mod connections;
mod cors;
mod events;
mod flow;
mod get;
mod guard;
mod health;
mod layered;
mod legacy;
mod modern;
mod names;
mod networks;
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

use auth::{Caller, Gate};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::routing::any;
use body::Content;
use bytes::Bytes;
use cors::Page;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body;
use stentor_engine::Engine;
use unfinished::Unfinished;
use upload::Upload;

pub use auth::{
    Authenticator, Challenge, ProxyHeaders, Rejection, ResourceMetadata, StaticTokenError,
    StaticTokens, Verdict, bearer,
};
pub use body::ResponseBody;
pub use config::HttpConfig;
use guard::Refusal;
pub use layered::{EndpointService, RequestBody};
pub use networks::{NetworkError, Networks};
pub use origins::OriginPolicy;
pub use serve::{ServeError, serve, serve_layered, serve_on, serve_on_layered, serve_with};

/// Who sends a request, as middleware in front of the endpoint has found out.
///
/// Put it into the request's extensions, where no [`Authenticator`](HttpConfig::auth()) is
/// configured. Sessions, and all tokens that a client receives to send back, are then valid for this
/// principal only. A request with a blank principal is answered with 401. For a request without any,
/// see [`HttpConfig::require_identity`].
///
/// It is the short form of an [`Identity`](stentor_engine::identity::Identity), which middleware may
/// also put there, and which then counts.
pub use stentor_engine::Principal;

#[derive(Clone, Debug)]
struct Endpoint {
    engine: Engine,
    config: Arc<HttpConfig>,
    /// What finds out who sends a request, if the configuration names it.
    gate: Option<Arc<Gate>>,
    unfinished: Arc<Unfinished>,
    spread: Arc<Spread>,
}

impl Endpoint {
    fn new(engine: Engine, config: HttpConfig) -> Self {
        let unfinished = Unfinished::new(config.max_unfinished);
        let gate = config.auth.clone().map(|auth| Arc::new(Gate::new(auth)));
        if let Some(gate) = &gate {
            engine.forget_rights_in(Arc::downgrade(gate) as _);
            engine.learn_scopes(gate.scopes());
        }
        Self { engine, config: Arc::new(config), gate, unfinished, spread: Arc::default() }
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

/// The endpoint as a router, for your own server: with other routes, TLS, or another version of HTTP.
///
/// For layers alone take [`serve_on_layered`], which keeps all that [`serve_on`] does for connections:
/// its limits, its shutdown, and streams that are written without hyper.
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
/// The metadata document of an [authenticator](HttpConfig::auth()) has routes of its own, at the root
/// of the host: merge this router, or nest it and serve the document yourself.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: then callers without a
/// [`Principal`] are distinguished by their addresses when one of them uses more than its share, and
/// [`ProxyHeaders`] and [`HttpConfig::trusted_proxies`] know from where a request comes.
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
///
/// # Panics
///
/// If the catalog of the engine has access rules, and the configuration names neither an
/// [authenticator](HttpConfig::auth()) nor [`HttpConfig::require_identity`]: then nothing would find
/// out who sends a request. And if the path of the endpoint is not one of a route.
pub fn router(engine: Engine, config: HttpConfig) -> Router {
    let is_open = engine.has_access_rules() && !serve::checks_senders(&config);
    assert!(!is_open, "{}", ServeError::NoAuthenticator);
    let path = config.path.clone();
    let endpoint = Endpoint::new(engine, config);
    let metadata = endpoint.gate.as_ref().and_then(|gate| gate.metadata());
    let metadata = metadata.into_iter().flat_map(|it| it.paths()).map(as_route);
    let health = endpoint.config.health.then_some([health::LIVE, health::READY]);
    let health = health.into_iter().flatten().map(str::to_owned);
    let others = path_with_other_slash(&path).into_iter().chain(metadata).chain(health);
    let mut others: Vec<_> = others.collect();
    others.retain(|other| *other != path);
    others.sort_unstable();
    others.dedup();
    let router = Router::new().route(&path, any(routed));
    let router =
        others.iter().fold(router, |router, path| router.route(path, any(other_path_routed)));
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

/// A path as a route that accepts exactly this path.
fn as_route(path: &str) -> String {
    path.replace('{', "{{").replace('}', "}}")
}

async fn other_path_routed(
    State(endpoint): State<Endpoint>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let keep_alive = endpoint.config.keep_alive;
    let (head, body) = request.into_parts();
    let mut response = at_other_path(&endpoint, &head);
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
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let response = handle(&endpoint, &mut Caller::new(&head, peer), Upload::new(body, None)).await;
    response.map(|content| axum::body::Body::new(content.into_body(keep_alive, None)))
}

/// The response at the path of the endpoint.
///
/// Whatever a request is, its size and its origin are checked first, and then who sends it; only the
/// preflight of a browser, which cannot authenticate, needs no identity.
async fn handle<B>(endpoint: &Endpoint, caller: &mut Caller<'_>, mut body: Upload<B>) -> Response
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BodyError>,
{
    let head = caller.head();
    let sized = guard::check_header_size(&head.headers, endpoint.config.max_headers);
    let mut response = match (page(endpoint, head), sized) {
        (Err(_), Err(refusal)) | (Err(refusal), Ok(())) => reply::refused(&refusal, None),
        (Ok(Some(page)), Ok(())) if cors::is_preflight(head) => page.preflight(&head.headers),
        (Ok(page), sized) => {
            let outcome = match sized {
                Ok(()) => admitted(endpoint, caller, &mut body).await,
                Err(refusal) => Err(refusal),
            };
            let mut response = outcome.unwrap_or_else(|refusal| auth::refused(endpoint, &refusal));
            if let Some(page) = page {
                page.share(&mut response);
            }
            response
        }
    };
    let (status, headers) = (response.status(), response.headers_mut());
    if status.is_client_error() || status.is_server_error() {
        endpoint.engine.count_refusal(status.as_u16());
    }
    let is_for_now =
        matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    if is_for_now && !headers.contains_key(header::RETRY_AFTER) {
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

/// The response to a request that may be sent from where it comes.
async fn admitted<B>(
    endpoint: &Endpoint,
    caller: &mut Caller<'_>,
    body: &mut Upload<B>,
) -> Result<Response, Refusal>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BodyError>,
{
    caller.admit(endpoint).await?;
    let head = caller.head();
    guard::check_repeated(&head.headers)?;
    match head.method {
        // Most requests are POST. Only the futures of the others are boxed.
        Method::POST => post::handle(endpoint, caller, body).await,
        Method::GET => Box::pin(get::handle(endpoint, caller)).await,
        Method::DELETE => Box::pin(legacy::end(endpoint, caller)).await,
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// The response at any other path: the metadata document is at some of them, and what is said of the
/// server's health.
fn at_other_path(endpoint: &Endpoint, head: &Parts) -> Response {
    if endpoint.config.health
        && let Some(response) = health::respond(&endpoint.engine, head)
    {
        return response;
    }
    let metadata = endpoint.gate.as_ref().and_then(|gate| gate.metadata());
    if let Some(metadata) = metadata.filter(|it| it.paths().any(|path| path == head.uri.path())) {
        let checked = guard::check_header_size(&head.headers, endpoint.config.max_headers)
            .and_then(|()| endpoint.config.origins.check_host(&head.headers, authority(head)));
        return match checked {
            Ok(()) => metadata.respond(head),
            Err(refusal) => reply::refused(&refusal, None),
        };
    }
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
    endpoint.config.origins.check(&head.headers, authority(head))
}

/// The authority of a request's URI, which HTTP/2 has in place of a `Host` header.
fn authority(head: &Parts) -> Option<&str> {
    head.uri.authority().map(http::uri::Authority::as_str)
}
