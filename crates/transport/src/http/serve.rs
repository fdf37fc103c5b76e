//! A whole server in one line.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use stentor_engine::{EndedUnasked, Engine};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connections::Connections;
use super::{Endpoint, HttpConfig};
use crate::signal;

/// Before a connection is accepted again when that failed and none could be closed for it, or one that
/// waits is served when none was idle.
const PAUSE: Duration = Duration::from_millis(100);

/// How often what is left of connections that ended is cleared away.
const SWEEP: Duration = Duration::from_secs(1);

/// That connections cannot be accepted is said this often at most.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// How many bytes the kernel takes that it cannot send yet, for a client that does not read.
///
/// By itself it takes megabytes, and then no more until a third of them is gone: a client that
/// reads slowly would look like one that does not read. What is on its way to the client does not
/// count, so this takes nothing from a fast one.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_UNSENT: u32 = 16 * 1024;

/// Why a server could not be, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be bound.
    #[error("cannot listen: {0}")]
    Bind(io::Error),
    /// The engine ended, and nobody had asked it to: its root was killed, or failed. The listener is
    /// closed and all connections are by now, so that another engine may be served there.
    #[error(transparent)]
    Ended(#[from] EndedUnasked),
}

/// Serves `http://ADDRESS/mcp` until Ctrl-C or SIGTERM, then shuts the engine down: open
/// listens are answered, running calls get their time. A second signal ends the process at
/// once.
///
/// On a loopback address only requests for this machine by its own name are accepted, which
/// keeps web pages of other machines out; on any other address, requests of all clients but the
/// pages of other hosts ([`OriginPolicy::default`](super::OriginPolicy::default)). Take
/// [`serve_on`] to say it precisely.
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve(engine: Engine, address: impl ToSocketAddrs) -> Result<(), ServeError> {
    let config = HttpConfig::default();
    let listener = listen(address, config.backlog).await.map_err(ServeError::Bind)?;
    let shutdown = async {
        signal::terminated().await;
        signal::exit_on_next();
    };
    serve_on(engine, listener, config, shutdown).await
}

/// Listens, with room for `backlog` connections that were not accepted yet, from the beginning on.
async fn listen(address: impl ToSocketAddrs, backlog: u32) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host(address).await? {
        let listen = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // Connections of a server before this one may linger. On Windows this means more.
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

/// Serves a listener of one's own until `shutdown` completes or the engine ends, then
/// drains as [`serve`] does. Dropping the future closes all connections.
///
/// A client that takes nothing of what is written for it for
/// [`Config::stall_timeout`](stentor_engine::Config::stall_timeout) loses its connection: a legacy
/// one can come back to its streams, a modern call is cancelled.
///
/// It speaks HTTP/1.1, in which the memory of a connection has a bound, and a client that has
/// stopped reading can be told from one with nothing to read; a proxy in front speaks HTTP/2.
///
/// Where an engine is to follow another one on the same address, keep the listener and hand out a
/// copy of it (`std::net::TcpListener::try_clone`): clients that come between the two wait, and
/// nothing is bound anew. Or bind anew once this has returned: the listener is closed then.
///
/// # Errors
///
/// [`ServeError::Ended`]. A connection that cannot be accepted is logged, and the next one may be.
pub async fn serve_on(
    engine: Engine,
    listener: TcpListener,
    mut config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let gone_after = engine.stall_timeout();
    let tuned = tune(&SockRef::from(&listener), gone_after);
    // Of one that listens already this changes the backlog.
    let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
    if let Err(error) = tuned.and_then(|()| SockRef::from(&listener).listen(backlog)) {
        stentor_engine::log!(debug, %error, "the listener keeps its defaults");
    }
    if let Ok(address) = listener.local_addr() {
        settle(&mut config, address);
    }
    let max = config.max_connections.min(most_by_files());
    let close_timeout = config.close_timeout;
    let mut connections = Connections::new(Endpoint::new(engine.clone(), config), max);
    let stopped = async move {
        tokio::select! {
            () = shutdown => {}
            () = engine.draining() => {}
        }
        let begun = Instant::now();
        engine.shutdown().await;
        // What calls did not use of their time is left for what they said.
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
    // Not in the task of the caller: that may be one that no thread of the runtime runs, which
    // would have to be woken for each connection.
    let serving = AbortOnDropHandle::new(tokio::spawn(serving));
    match serving.await {
        Ok(ended) => Ok(ended?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_cancelled) => Ok(()),
        },
    }
}

/// How many connections the process may have, by how many files it may have open: some are left for
/// everything else.
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

/// Makes what was not said fit the address, and says what does not fit it.
fn settle(config: &mut HttpConfig, address: SocketAddr) {
    config.origins = std::mem::take(&mut config.origins).bound_to(address.ip());
    if config.origins.is_loopback() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "only requests for localhost are accepted, and this address is not: others get 403; \
             name the hosts that are served in HttpConfig::origins"
        );
    }
    if config.require_identity {
        tracing::warn!(
            %address,
            "every request is refused: nothing in front of this listener says who sends it, and \
             HttpConfig::require_identity wants to know"
        );
    }
}

async fn accept_all(
    listener: &TcpListener,
    connections: &mut Connections,
    gone_after: Duration,
) -> Infallible {
    // Those that end are not waited for: each would wake who accepts.
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut inherited, mut said) = (false, None);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_client(&error) => continue,
                Err(error) => {
                    // As a rule no file or memory is left, which one less connection gives back.
                    make_room(connections).await;
                    if said.is_none_or(|said: Instant| said.elapsed() >= SAID_AGAIN) {
                        stentor_engine::log!(error, %error, "cannot accept a connection");
                        said = Some(Instant::now());
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
        connections.open_from(stream.peer_addr().ok(), stream);
    }
}

/// Waits until a connection has ended, of the idle ones the oldest if there are any; but not for long.
async fn make_room(connections: &mut Connections) {
    connections.cut_idle();
    if let Ok(None) = timeout(PAUSE, connections.ended()).await {
        tokio::time::sleep(PAUSE).await;
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
        stentor_engine::log!(debug, %error, "a connection keeps its defaults");
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
