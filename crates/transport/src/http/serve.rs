//! A whole server in one line.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use socket2::SockRef;
use stentor_engine::Engine;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::connections::Connections;
use super::{Endpoint, HttpConfig, OriginPolicy};
use crate::signal;

/// After the engine has stopped, how long connections get to send what they hold.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Before a connection is accepted again when that failed, as with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How often what is left of connections that ended is cleared away.
const SWEEP: Duration = Duration::from_secs(1);

/// How many bytes the kernel takes that it cannot send yet, for a client that does not read.
///
/// By itself it takes megabytes, and then no more until a third of them is gone: a client that
/// reads slowly would look like one that does not read. What is on its way to the client does not
/// count, so this takes nothing from a fast one.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_UNSENT: u32 = 16 * 1024;

/// Why a server could not be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be bound.
    #[error("cannot listen: {0}")]
    Bind(io::Error),
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
/// drains as [`serve`] does. Dropping the future closes all connections.
///
/// A client that takes nothing of what is written for it for
/// [`Config::stall_timeout`](stentor_engine::Config::stall_timeout) loses its connection: a legacy
/// one can come back to its streams, a modern call is cancelled.
///
/// It speaks HTTP/1.1, in which the memory of a connection has a bound, and a client that has
/// stopped reading can be told from one with nothing to read; a proxy in front speaks HTTP/2.
///
/// # Errors
///
/// None so far: a connection that cannot be accepted is logged, and the next one may be.
pub async fn serve_on(
    engine: Engine,
    listener: TcpListener,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let gone_after = engine.stall_timeout();
    if let Err(error) = tune(&SockRef::from(&listener), gone_after) {
        tracing::debug!(%error, "the listener keeps its defaults");
    }
    let mut connections = Connections::new(Endpoint::new(engine.clone(), config));
    let stopped = async move {
        tokio::select! {
            () = shutdown => {}
            () = engine.draining() => {}
        }
        engine.shutdown().await;
    };
    let serving = async move {
        tokio::select! {
            never = accept_all(&listener, &mut connections, gone_after) => match never {},
            () = stopped => {}
        }
        drop(listener);
        connections.close(LAST_BYTES).await;
    };
    // Not in the task of the caller: that may be one that no thread of the runtime runs, which
    // would have to be woken for each connection.
    let serving = AbortOnDropHandle::new(tokio::spawn(serving));
    if let Err(error) = serving.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
    Ok(())
}

async fn accept_all(
    listener: &TcpListener,
    connections: &mut Connections,
    gone_after: Duration,
) -> Infallible {
    // Those that end are not waited for: each would wake who accepts.
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut inherited = false;
    let mut accepting = pin!(accept(listener));
    loop {
        tokio::select! {
            stream = &mut accepting, if connections.has_room() => {
                inherited = inherited || inherits(&stream, gone_after);
                connections.open(stream);
                accepting.set(accept(listener));
            }
            Some(()) = connections.ended(), if !connections.has_room() => {}
            _ = sweep.tick() => connections.sweep(),
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the client was gone before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Whether a connection has its options from the listener, and so all have that are accepted after
/// it. One that was there before the listener had them, or on a system that does not hand them on,
/// gets its own.
fn inherits(stream: &TcpStream, gone_after: Duration) -> bool {
    if stream.nodelay().unwrap_or(false) {
        return true;
    }
    if let Err(error) = tune(&SockRef::from(stream), gone_after) {
        tracing::debug!(%error, "a connection keeps its defaults");
    }
    false
}

/// Sets the options of a connection; or of a listener, whose connections have them from their
/// beginning where the system hands them on, as Linux does.
fn tune(socket: &SockRef<'_>, gone_after: Duration) -> io::Result<()> {
    // What is written is whole messages: nothing is gained by waiting for more.
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
        // A machine that vanished says nothing; by itself the kernel asks for a quarter of an hour.
        socket.set_tcp_user_timeout(Some(gone_after))?;
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = gone_after;
    Ok(())
}

#[cfg(test)]
mod tests;
