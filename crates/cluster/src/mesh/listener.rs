//! Accepts connections from other nodes, and from any other client.
//!
//! A connection that has not proven itself is bounded in number, time and bytes.

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

use super::hello::{End, HELLO_TIMEOUT, HelloError, Proven, proven};
use super::mesh_message::MeshMsg;
use super::shared::Shared;
use super::strangers::Strangers;

/// Bytes that are read before the other end has proven itself: enough for certificates.
const MAX_UNPROVEN_BYTES: usize = 128 * 1024;

/// Refused connections are logged together, at most once in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The pause after a failed accept, for example with too many open files: that condition does not
/// end at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    pub(super) mesh_actor: ActorRef<MeshMsg>,
}

impl Listener {
    pub(super) async fn run(self, listener: TcpListener) {
        let stop = self.shared.stop.clone();
        stop.run_until_cancelled(self.accept(listener)).await;
    }

    async fn accept(self, listener: TcpListener) {
        let Self { shared, mesh_actor } = self;
        let mut strangers = Strangers::new(shared.config.max_strangers);
        let (mut tasks, mut refused) = (JoinSet::new(), Refused::default());
        for number in 0.. {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let is_known = shared.is_known(from.ip());
                        let has_sent = Arc::new(AtomicBool::new(false));
                        let stream = Bounded::new(stream, has_sent.clone());
                        let task = tasks.spawn(accept_within_limit(shared.clone(), stream, number, from));
                        let task = ((task, from), has_sent);
                        let gives_way = strangers.admit(number, from.ip(), is_known, task);
                        refused.gave_way(gives_way.map(|stranger| stranger.task));
                    }
                    Err(error) => {
                        // Closing a connection allows to open another.
                        refused.gave_way(strangers.give_way().map(|stranger| stranger.task));
                        refused.add(None, &error);
                        sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(done) = tasks.join_next() => {
                    // A task that was aborted to give way is no longer among the strangers.
                    let Ok((number, from, result)) = done else { continue };
                    strangers.forget(number);
                    match result {
                        Ok(proven) => drop(mesh_actor.cast(MeshMsg::Proven(Box::new(proven)))),
                        Err(error) => refused.add(Some(from), &error),
                    }
                }
                () = sleep_until(refused.log_at), if refused.count > 0 => refused.log(),
            }
        }
    }
}

type Outcome = (u64, SocketAddr, Result<Proven, HelloError>);

async fn accept_within_limit(
    shared: Arc<Shared>,
    stream: Bounded,
    number: u64,
    from: SocketAddr,
) -> Outcome {
    // One timeout for all steps: a stranger could stretch each single step.
    let result = timeout(HELLO_TIMEOUT, accepted(&shared, stream)).await;
    (number, from, result.unwrap_or_else(|late| Err(late.into())))
}

async fn accepted(shared: &Shared, stream: Bounded) -> Result<Proven, HelloError> {
    stream.stream.set_nodelay(true)?;
    match &shared.config.tls {
        Some(tls) => {
            let stream = tls.acceptor.accept(stream).await?;
            proven(shared, End::Accepted, stream, |stream| stream.get_mut().0.remove_limit()).await
        }
        None => proven(shared, End::Accepted, stream, Bounded::remove_limit).await,
    }
}

impl Shared {
    /// Whether a node of the cluster has this address.
    fn is_known(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.nodes.lock().values().any(|(addr, _)| addr.ip().to_canonical() == ip)
    }
}

/// A connection from which only a limited number of bytes is read until the other end has proven
/// itself. The read that reaches the limit is still returned whole.
struct Bounded {
    stream: TcpStream,
    remaining: usize,
    has_sent: Arc<AtomicBool>,
}

impl Bounded {
    const fn new(stream: TcpStream, has_sent: Arc<AtomicBool>) -> Self {
        Self { stream, remaining: MAX_UNPROVEN_BYTES, has_sent }
    }

    const fn remove_limit(&mut self) {
        self.remaining = usize::MAX;
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.remaining == 0 {
            return Poll::Ready(Err(io::Error::other("it says too much")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.remaining < usize::MAX {
            let read = buf.filled().len() - before;
            self.remaining = self.remaining.saturating_sub(read);
            if read > 0 {
                self.has_sent.store(true, Ordering::Relaxed);
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

/// Refused connections that are not logged yet.
struct Refused {
    count: u64,
    gave_way: u64,
    last: String,
    log_at: Instant,
}

impl Default for Refused {
    fn default() -> Self {
        // The first one is logged at once.
        Self { count: 0, gave_way: 0, last: String::new(), log_at: Instant::now() }
    }
}

impl Refused {
    fn add(&mut self, from: Option<SocketAddr>, error: &dyn std::fmt::Display) {
        self.count += 1;
        if self.count == 1 || self.log_at <= Instant::now() {
            self.last = from.map_or_else(|| error.to_string(), |from| format!("{from}: {error}"));
        }
    }

    /// Aborts the task of a stranger that gives way.
    fn gave_way(&mut self, stranger: Option<(AbortHandle, SocketAddr)>) {
        if let Some((task, from)) = stranger {
            task.abort();
            self.gave_way += 1;
            self.add(Some(from), &"it gave way to others");
        }
    }

    fn log(&mut self) {
        let Self { count, gave_way, last, .. } = self;
        stentor_engine::log!(
            info,
            count,
            gave_way,
            one = last,
            "refused connections to the link port"
        );
        (self.count, self.gave_way) = (0, 0);
        self.log_at = Instant::now() + LOG_EVERY;
    }
}

#[cfg(test)]
mod tests;
