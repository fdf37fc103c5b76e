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
mod get;
mod guard;
mod legacy;
mod modern;
mod names;
mod post;
mod reply;
mod serve;
mod stream;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::any;
use body::Content;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use http_body::Body;
use stentor_engine::Engine;

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
    /// How long a legacy client is to wait before it comes back to a stream that was closed.
    /// Default 500 ms.
    pub retry: Duration,
    /// A call that is answered within this time without saying anything else is answered with
    /// plain JSON; any other with an event stream. Default 100 ms.
    pub json_grace: Duration,
    /// How long [`serve_on`] waits for the head of a request, from when the connection was opened or
    /// the last answer was sent, and then for each piece of its body; so also how long an idle
    /// connection is kept. Default 75 s.
    pub read_timeout: Duration,
    /// Connections that [`serve_on`] holds open at once; one more waits to be accepted until
    /// another is closed. To be kept below the process's limit of open files. Default 100,000.
    pub max_connections: usize,
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
            max_connections: 100_000,
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
}

impl Endpoint {
    fn new(engine: Engine, config: HttpConfig) -> Self {
        Self { engine, config: Arc::new(config) }
    }
}

/// What answers a request.
type Response = http::Response<Content>;

/// Why the body of a request could not be read.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The endpoint as a router, for one's own listener, shutdown and middleware.
///
/// When the engine shuts down, streams end by themselves; stop the listener afterwards. How
/// much is held for a client that does not read, and for how long, is up to the listener, too.
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
    let response = handle(&endpoint, &head, body).await;
    response.map(|content| axum::body::Body::new(content.into_body(keep_alive, None)))
}

async fn handle<B>(endpoint: &Endpoint, head: &Parts, body: B) -> Response
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BodyError>,
{
    let outcome = match check(endpoint, head) {
        Ok(()) => match head.method {
            // Most requests are of this kind: only the others are boxed.
            Method::POST => post::handle(endpoint, head, body).await,
            Method::GET => Box::pin(get::handle(endpoint, head)).await,
            Method::DELETE => Box::pin(legacy::end(endpoint, head)).await,
            _ => Err(Refusal::MethodNotAllowed),
        },
        Err(refusal) => Err(refusal),
    };
    outcome.unwrap_or_else(|refusal| reply::refused(&refusal, None))
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
