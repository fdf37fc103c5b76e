//! A whole server in one line.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use stentor_engine::Engine;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio_util::sync::CancellationToken;

use super::{HttpConfig, OriginPolicy, router};
use crate::signal;

/// After the engine has stopped, how long connections get to send what they hold.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Why a server could not be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be bound.
    #[error("cannot listen: {0}")]
    Bind(io::Error),
    /// Accepting connections failed.
    #[error("cannot accept connections: {0}")]
    Accept(io::Error),
}

/// Serves `http://ADDRESS/mcp` until Ctrl-C or SIGTERM, then shuts the engine down: open
/// listens are answered, running calls get their time. A second signal ends the process at
/// once.
///
/// On a loopback address only requests for this machine by its own name are accepted, which
/// keeps web pages out; on any other address the `Host` header is not checked. Take
/// [`serve_on`] to say it precisely.
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve(engine: Engine, address: impl ToSocketAddrs) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address).await.map_err(ServeError::Bind)?;
    let mut config = HttpConfig::default();
    if !listener.local_addr().is_ok_and(|address: SocketAddr| address.ip().is_loopback()) {
        config.origins = OriginPolicy::any();
    }
    let shutdown = async {
        signal::terminated().await;
        signal::exit_on_next();
    };
    serve_on(engine, listener, config, shutdown).await
}

/// Serves a listener of one's own until `shutdown` completes or the engine shuts down, then
/// drains as [`serve`] does.
///
/// # Errors
///
/// [`ServeError::Accept`].
pub async fn serve_on(
    engine: Engine,
    listener: TcpListener,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let drained = CancellationToken::new();
    let app = router(engine.clone(), config);
    let server = axum::serve(listener, app)
        .with_graceful_shutdown(drained.clone().cancelled_owned())
        .into_future();
    let drain = async {
        tokio::select! {
            () = shutdown => {}
            () = engine.draining() => {}
        }
        engine.shutdown().await;
        drained.cancel();
        tokio::time::sleep(LAST_BYTES).await;
    };
    tokio::select! {
        served = server => served.map_err(ServeError::Accept),
        () = drain => Ok(()),
    }
}
