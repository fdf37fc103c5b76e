//! A whole HTTP server in one line.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use http_body::Body;
use socket2::SockRef;
use stentor_engine::{EndedUnasked, Engine};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tower_layer::Layer;
use tower_service::Service;

use super::connections::Connections;
use super::layered::{Wrap, wrap};
use super::{BodyError, Endpoint, EndpointService, HttpConfig, RequestBody};
use crate::signal;

/// The wait before the next accept when accepting failed and no connection could be closed, and
/// before the next attempt to serve a waiting connection when no connection was idle.
const PAUSE: Duration = Duration::from_millis(100);

/// How often ended connections are removed from the list.
const SWEEP: Duration = Duration::from_secs(1);

/// The shortest interval between two log messages that connections cannot be accepted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How many unsent bytes the kernel buffers for a client that does not read.
///
/// By default the kernel takes megabytes, and then nothing more until a third of them is sent: a
/// client that reads slowly would look like one that does not read. Bytes on their way to the
/// client do not count, so a fast client loses nothing.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_UNSENT: u32 = 16 * 1024;

/// Why a server could not start, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be bound.
    #[error("cannot listen: {0}")]
    Bind(io::Error),
    /// The engine ended without a shutdown: its supervisor was killed, or failed. The listener and
    /// all connections are closed by now, so that another engine may be served on the same address.
    #[error(transparent)]
    Ended(#[from] EndedUnasked),
    /// The catalog has items that not everybody may see or use, and nothing finds out who sends a
    /// request.
    #[error(
        "the catalog has access rules, but nothing says who sends a request; set HttpConfig::auth, \
         or HttpConfig::require_identity where middleware does it"
    )]
    NoAuthenticator,
}

/// Serves `http://ADDRESS/mcp` until Ctrl-C or SIGTERM, then shuts the engine down.
///
/// On shutdown, open listens are answered and running calls may finish within their time. A second
/// signal ends the process at once.
///
/// On a loopback address, only requests for this machine by its own name are accepted, which keeps
/// web pages of other machines out. On any other address, requests of all clients but the pages of
/// other hosts are accepted ([`OriginPolicy::default`](super::OriginPolicy::default)). Use
/// [`serve_with`] to configure this.
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve(engine: Engine, address: impl ToSocketAddrs) -> Result<(), ServeError> {
    let addresses = lookup_host(address).await.map_err(ServeError::Bind)?.collect();
    serve_addresses(engine, addresses, HttpConfig::default(), None).await
}

/// As [`serve`], with a configuration: who may call, and which limits there are.
///
/// ```no_run
/// use stentor::http::{HttpConfig, StaticTokens, serve_with};
/// use stentor::identity::Identity;
///
/// # async fn main_of(engine: stentor::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let token = std::env::var("ANN_TOKEN")?;
/// let auth = StaticTokens::new([(token, Identity::named("ann").scopes(["read"]))])?;
/// serve_with(engine, "0.0.0.0:8000", HttpConfig::new().auth(auth)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve_with(
    engine: Engine,
    address: impl ToSocketAddrs,
    config: HttpConfig,
) -> Result<(), ServeError> {
    let addresses = lookup_host(address).await.map_err(ServeError::Bind)?.collect();
    serve_addresses(engine, addresses, config, None).await
}

/// As [`serve_with`], with `tower` layers around the endpoint: for logs and measurements, limits,
/// headers, or to find out who sends a request.
///
/// ```no_run
/// use http::{HeaderValue, Response};
/// use stentor::http::{HttpConfig, ResponseBody, serve_layered};
/// use tower::util::MapResponseLayer;
///
/// # async fn main_of(engine: stentor::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let named = MapResponseLayer::new(|mut response: Response<ResponseBody>| {
///     response.headers_mut().insert("x-served-by", HeaderValue::from_static("blue"));
///     response
/// });
/// serve_layered(engine, "127.0.0.1:8000", HttpConfig::new(), named).await?;
/// # Ok(())
/// # }
/// ```
///
/// Several layers are one: a tuple of them, or a `ServiceBuilder`. The service that they make is
/// cloned for each request.
///
/// [`router`](super::router) takes layers, too, and other routes beside the endpoint. But it is not a
/// server: what is in front of it has to limit connections, and it writes each stream by hyper.
///
/// # What layers see and do
///
/// They see every request of the listener: also those for other paths, such as the metadata
/// document, and those that the endpoint is about to refuse. In the extensions of a request is
/// `axum::extract::ConnectInfo<SocketAddr>`, the other end of the connection. A layer may replace it
/// by an address that it knows better, and may add
///
/// - an [`Identity`](stentor_engine::identity::Identity) or a [`Principal`](super::Principal), which
///   counts where no [authenticator](HttpConfig::auth()) is configured;
/// - a [`Connection`](stentor_engine::Connection), to tell callers without either apart.
///
/// A layer may answer by itself, and may wrap bodies. If some of a request's body is unread when the
/// response is written, the connection is closed then. If the service of a layer fails, the
/// request is answered with 500. If it panics, its connection is closed, and no other.
///
/// The limits for [bodies](HttpConfig::max_body) are those of the endpoint: a layer that reads a body
/// by itself has to have its own. Only [`HttpConfig::read_timeout`] applies there, to each piece.
/// While a layer keeps a request back no limit applies, and a client that leaves is noticed when the
/// layer goes on.
///
/// # Streams
///
/// A response whose body is untouched, so that it has the type [`ResponseBody`](super::ResponseBody),
/// is written as without layers: an event stream gives hyper's buffers back, and notices are written
/// without waking its task. Its status and headers may have changed, but the server sets `date` and
/// what frames the message. A layer that puts another type around the body, even if it changes
/// nothing, has hyper write it: nothing is lost, but each open stream costs some 16 KiB more.
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve_layered<L, B>(
    engine: Engine,
    address: impl ToSocketAddrs,
    config: HttpConfig,
    layer: L,
) -> Result<(), ServeError>
where
    L: Layer<EndpointService> + Send + 'static,
    L::Service: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BodyError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    let wrap = wrap(layer);
    let addresses = lookup_host(address).await.map_err(ServeError::Bind)?.collect();
    serve_addresses(engine, addresses, config, Some(wrap)).await
}

/// What of [`serve`] does not depend on a type of its caller. Generic code would be compiled again in
/// the caller's crate, each time that a line there changes.
async fn serve_addresses(
    engine: Engine,
    addresses: Vec<SocketAddr>,
    config: HttpConfig,
    wrap: Option<Wrap>,
) -> Result<(), ServeError> {
    let listener = listen(addresses, config.backlog).map_err(ServeError::Bind)?;
    let shutdown = async {
        signal::terminated().await;
        signal::exit_on_next();
    };
    serve_until(engine, listener, config, wrap, shutdown.boxed()).await
}

/// Listens on the first address on which that is possible, with a backlog of `backlog` connections
/// from the start.
fn listen(addresses: Vec<SocketAddr>, backlog: u32) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in addresses {
        let listen = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // Connections of a previous server may linger. On Windows this option means more.
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(backlog)
        };
        match listen() {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Serves your own listener until `shutdown` completes or the engine ends, then drains as [`serve`]
/// does.
///
/// Dropping the future closes all connections.
///
/// A client that reads nothing for [`Config::stall_timeout`](stentor_engine::Config::stall_timeout)
/// while bytes are waiting loses its connection. A legacy client can reconnect to its streams; a
/// modern call is cancelled.
///
/// It speaks HTTP/1.1, in which the memory of a connection is bounded, and in which a client that
/// has stopped reading differs from a client with nothing to read. A proxy in front can speak
/// HTTP/2.
///
/// To serve another engine later on the same address, keep the listener and pass a copy of it
/// (`std::net::TcpListener::try_clone`): clients that connect in between wait, and nothing is bound
/// again. Or bind again after this function has returned: the listener is closed then.
///
/// # Errors
///
/// [`ServeError::Ended`], [`ServeError::NoAuthenticator`]. A connection that cannot be accepted is logged, and the server goes on.
pub async fn serve_on(
    engine: Engine,
    listener: TcpListener,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    serve_until(engine, listener, config, None, shutdown.boxed()).await
}

/// As [`serve_on`], with layers as in [`serve_layered`].
///
/// # Errors
///
/// As [`serve_on`].
pub async fn serve_on_layered<L, B>(
    engine: Engine,
    listener: TcpListener,
    config: HttpConfig,
    layer: L,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError>
where
    L: Layer<EndpointService> + Send + 'static,
    L::Service: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BodyError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    serve_until(engine, listener, config, Some(wrap(layer)), shutdown.boxed()).await
}

/// What of [`serve_on`] does not depend on a type of its caller.
async fn serve_until(
    engine: Engine,
    listener: TcpListener,
    mut config: HttpConfig,
    wrap: Option<Wrap>,
    shutdown: BoxFuture<'static, ()>,
) -> Result<(), ServeError> {
    if engine.has_access_rules() && !checks_senders(&config) {
        return Err(ServeError::NoAuthenticator);
    }
    let gone_after = engine.stall_timeout();
    let tuned = tune(&SockRef::from(&listener), gone_after);
    // On a listener that listens already, this changes its backlog.
    let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
    if let Err(error) = tuned.and_then(|()| SockRef::from(&listener).listen(backlog)) {
        stentor_engine::log!(debug, %error, "the listener keeps its defaults");
    }
    if let Ok(address) = listener.local_addr() {
        apply_address(&mut config, address, wrap.is_some());
    }
    let max = config.max_connections.min(most_by_files());
    let close_timeout = config.close_timeout;
    let endpoint = Endpoint::new(engine.clone(), config);
    let layers = wrap.map(|wrap| wrap(EndpointService::new(endpoint.clone())));
    let mut connections = Connections::new(endpoint, layers, max);
    let stopped = async move {
        tokio::select! {
            () = shutdown => {}
            () = engine.draining() => {}
        }
        let begun = Instant::now();
        engine.shutdown().await;
        // The time that calls did not use is left for their responses.
        let left = engine.drain_timeout().saturating_sub(begun.elapsed());
        (engine.stopped().await, left.max(close_timeout))
    };
    let serving = async move {
        let (ended, left) = tokio::select! {
            never = accept_all(&listener, &mut connections, gone_after) => match never {},
            stopped = stopped => stopped,
        };
        drop(listener);
        connections.close(left).await;
        ended.asked()
    };
    // Not in the task of the caller: that task may run outside the runtime's worker threads, and
    // would have to be woken for each connection.
    let serving = AbortOnDropHandle::new(tokio::spawn(serving));
    match serving.await {
        Ok(ended) => Ok(ended?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_cancelled) => Ok(()),
        },
    }
}

/// Whether requests of nobody knows whom are kept out, or known as such: by an authenticator, or by
/// middleware that must not be missing.
pub(super) fn checks_senders(config: &HttpConfig) -> bool {
    config.auth.is_some() || config.require_identity
}

/// How many connections the process may have, by its limit of open files. Some files are reserved
/// for everything else.
fn most_by_files() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(usize::MAX, |limit| less_reserve(usize::try_from(limit).unwrap_or(usize::MAX)))
    }
    #[cfg(not(unix))]
    usize::MAX
}

#[cfg_attr(not(unix), expect(dead_code, reason = "for a limit that only Unix has"))]
fn less_reserve(limit: usize) -> usize {
    limit.saturating_sub((limit / 16).clamp(16, 256)).max(1)
}

/// Adapts the default policy to the address, and logs a warning for settings that do not fit it.
fn apply_address(config: &mut HttpConfig, address: SocketAddr, has_layers: bool) {
    config.origins = std::mem::take(&mut config.origins).bound_to(address.ip());
    if config.origins.is_loopback() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "only requests for localhost are accepted, and this address is not: others get 403; \
             name the hosts that are served in HttpConfig::origins"
        );
    }
    if config.require_identity && config.auth.is_none() && !has_layers {
        tracing::warn!(
            %address,
            "every request is refused: nothing in front of this listener says who sends it, and \
             HttpConfig::require_identity wants to know; set HttpConfig::auth"
        );
    }
}

async fn accept_all(
    listener: &TcpListener,
    connections: &mut Connections,
    gone_after: Duration,
) -> Infallible {
    // Ended connections are removed periodically, not awaited: each would wake this task.
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut inherited, mut last_logged) = (false, None);
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_client(&error) => continue,
                Err(error) => {
                    // Usually no file descriptor or memory is left. Closing one connection frees
                    // some.
                    free_a_connection(connections).await;
                    if last_logged.is_none_or(|last: Instant| last.elapsed() >= LOG_INTERVAL) {
                        stentor_engine::log!(error, %error, "cannot accept a connection");
                        last_logged = Some(Instant::now());
                    }
                    continue;
                }
            },
            _ = sweep.tick() => {
                connections.sweep();
                continue;
            }
        };
        inherited = inherited || inherits(&stream, gone_after);
        while !connections.has_room() && !connections.cut_idle() {
            let _ = timeout(PAUSE, connections.ended()).await;
        }
        connections.open_from(Some(address), stream);
    }
}

/// Closes the connection that is idle the longest, if any is idle, and waits until one connection
/// has ended, but not for long.
async fn free_a_connection(connections: &mut Connections) {
    connections.cut_idle();
    if let Ok(None) = timeout(PAUSE, connections.ended()).await {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether accepting failed because the client had disconnected already.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Whether a connection has inherited its options from the listener; then all later connections
/// have, too. A connection that was older than the options, or on a system without inheritance,
/// gets its own options here.
fn inherits(stream: &TcpStream, gone_after: Duration) -> bool {
    if stream.nodelay().unwrap_or(false) {
        return true;
    }
    if let Err(error) = tune(&SockRef::from(stream), gone_after) {
        stentor_engine::log!(debug, %error, "a connection keeps its defaults");
    }
    false
}

/// Sets the options of a connection, or of a listener. The connections of a listener inherit them
/// on some systems, as on Linux.
fn tune(socket: &SockRef<'_>, gone_after: Duration) -> io::Result<()> {
    // Writes are whole messages: waiting for more bytes gains nothing.
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
        // A machine that vanished sends nothing. By default the kernel retries for a quarter of an
        // hour.
        socket.set_tcp_user_timeout(Some(gone_after))?;
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = gone_after;
    Ok(())
}

#[cfg(test)]
mod tests;
