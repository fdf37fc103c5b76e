//! Takes connections of other nodes, and of whoever else comes.
//!
//! What somebody costs who has not proven anything is bounded in number, time and bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ractor::ActorRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Shared;
use super::hello::{End, HelloError, PATIENCE};
use super::link::{Proven, proven};
use super::relay::RelayMsg;
use super::strangers::Strangers;

/// Bytes that are read of somebody who has proven nothing: room for certificates.
const MOST_BYTES: usize = 128 * 1024;

/// Connections that were refused are told of together, once in so long.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted, as with too many open files, which does not
/// pass at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections of other nodes.
pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    pub(super) relay: ActorRef<RelayMsg>,
}

impl Listener {
    pub(super) async fn run(self, listener: TcpListener) {
        let stop = self.shared.stop.clone();
        stop.run_until_cancelled(self.accept(listener)).await;
    }

    async fn accept(self, listener: TcpListener) {
        let Self { shared, relay } = self;
        let mut strangers = Strangers::new(shared.config.max_strangers);
        let (mut tasks, mut refused) = (JoinSet::new(), Refused::default());
        for number in 0.. {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let is_known = shared.is_known(from.ip());
                        let spoke = Arc::new(AtomicBool::new(false));
                        let stream = Bounded::new(stream, spoke.clone());
                        let task = tasks.spawn(prove_itself(shared.clone(), stream, number, from));
                        let task = ((task, from), spoke);
                        let gives_way = strangers.admit(number, from.ip(), is_known, task);
                        refused.gave_way(gives_way.map(|stranger| stranger.task));
                    }
                    Err(error) => {
                        // One more can be opened when one is closed.
                        refused.gave_way(strangers.give_way().map(|stranger| stranger.task));
                        refused.add(None, &error);
                        sleep(PAUSE).await;
                    }
                },
                Some(done) = tasks.join_next() => {
                    // Who gave way is not there any more.
                    let Ok((number, from, result)) = done else { continue };
                    strangers.forget(number);
                    match result {
                        Ok(proven) => drop(relay.cast(RelayMsg::Proven(Box::new(proven)))),
                        Err(error) => refused.add(Some(from), &error),
                    }
                }
                () = sleep_until(refused.tell_at), if refused.count > 0 => refused.tell(),
            }
        }
    }
}

type Outcome = (u64, SocketAddr, Result<Proven, HelloError>);

async fn prove_itself(
    shared: Arc<Shared>,
    stream: Bounded,
    number: u64,
    from: SocketAddr,
) -> Outcome {
    // All of it together: each step could be drawn out by itself.
    let result = timeout(PATIENCE, accepted(&shared, stream)).await;
    (number, from, result.unwrap_or_else(|late| Err(late.into())))
}

async fn accepted(shared: &Shared, stream: Bounded) -> Result<Proven, HelloError> {
    stream.stream.set_nodelay(true)?;
    match &shared.config.tls {
        Some(tls) => {
            let stream = tls.acceptor.accept(stream).await?;
            proven(shared, End::Accepted, stream, |stream| stream.get_mut().0.lift()).await
        }
        None => proven(shared, End::Accepted, stream, Bounded::lift).await,
    }
}

impl Shared {
    /// Whether a node of the cluster is at this address.
    fn is_known(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.nodes.lock().values().any(|(addr, _)| addr.ip().to_canonical() == ip)
    }
}

/// A connection of which only so much is read, and the last of it, until the other end has proven
/// itself.
struct Bounded {
    stream: TcpStream,
    left: usize,
    /// Whether the other end has said something.
    spoke: Arc<AtomicBool>,
}

impl Bounded {
    const fn new(stream: TcpStream, spoke: Arc<AtomicBool>) -> Self {
        Self { stream, left: MOST_BYTES, spoke }
    }

    /// It is bounded no more.
    const fn lift(&mut self) {
        self.left = usize::MAX;
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("it says too much")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.left < usize::MAX {
            let read = buf.filled().len() - before;
            self.left = self.left.saturating_sub(read);
            if read > 0 {
                self.spoke.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections that were refused and not told of yet.
struct Refused {
    count: u64,
    gave_way: u64,
    last: String,
    tell_at: Instant,
}

impl Default for Refused {
    fn default() -> Self {
        // The first one is told at once.
        Self { count: 0, gave_way: 0, last: String::new(), tell_at: Instant::now() }
    }
}

impl Refused {
    fn add(&mut self, from: Option<SocketAddr>, error: &dyn std::fmt::Display) {
        self.count += 1;
        if self.count == 1 || self.tell_at <= Instant::now() {
            self.last = from.map_or_else(|| error.to_string(), |from| format!("{from}: {error}"));
        }
    }

    /// Who has to go is cut off.
    fn gave_way(&mut self, stranger: Option<(AbortHandle, SocketAddr)>) {
        if let Some((task, from)) = stranger {
            task.abort();
            self.gave_way += 1;
            self.add(Some(from), &"it gave way to others");
        }
    }

    fn tell(&mut self) {
        let Self { count, gave_way, last, .. } = self;
        stentor_engine::log!(
            info,
            count,
            gave_way,
            one = last,
            "refused connections to the link port"
        );
        (self.count, self.gave_way) = (0, 0);
        self.tell_at = Instant::now() + TELL_EVERY;
    }
}

#[cfg(test)]
mod tests;
