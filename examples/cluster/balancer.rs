//! A small load balancer: each HTTP request goes to the next backend in turn, whatever its client.
//!
//! It knows no sessions and has no sticky routing; the example shows that the nodes cope with that.
//! Bodies are forwarded chunk by chunk in both directions, so streams are not delayed. When a
//! client disconnects during a request, the balancer disconnects from the backend.
//!
//! A backend that does not answer probes gets no more requests as long as another backend answers.
//! It needs nothing but tokio, so tests can include it.

#[path = "balancer/forward.rs"]
mod forward;
#[path = "balancer/message.rs"]
mod message;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forward::{Client, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Concurrent client connections; further ones wait to be accepted.
const MAX_CLIENTS: usize = 16_384;

const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// The response header that names the backend.
pub(crate) const SERVED_BY: &str = "x-served-by";

/// A running balancer. It stops when dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Aborts its tasks when dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    backends: Mutex<Vec<Arc<Backend>>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    answers: AtomicBool,
    requests: AtomicUsize,
}

#[allow(dead_code, reason = "not every program that takes this file needs all of it")]
impl Balancer {
    /// Listens on an address. Port 0 means any free port.
    pub(crate) async fn start(
        listen: SocketAddr,
        backends: impl IntoIterator<Item = SocketAddr>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        tasks.spawn(probe_all(shared.clone()));
        let balancer = Self { address, shared, _tasks: tasks };
        backends.into_iter().for_each(|backend| balancer.add(backend));
        Ok(balancer)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn add(&self, address: SocketAddr) {
        let mut backends = self.shared.backends();
        if backends.iter().all(|backend| backend.address != address) {
            backends.push(Arc::new(Backend {
                address,
                answers: AtomicBool::new(true),
                requests: AtomicUsize::new(0),
            }));
        }
    }

    /// Removes a backend. Its open requests continue.
    pub(crate) fn remove(&self, address: SocketAddr) {
        self.shared.backends().retain(|backend| backend.address != address);
    }

    /// All backends, and whether each answered its last probe or connection.
    pub(crate) fn backends(&self) -> Vec<(SocketAddr, bool)> {
        let backends = self.shared.backends();
        let answers = |backend: &Backend| backend.answers.load(Ordering::Relaxed);
        backends.iter().map(|backend| (backend.address, answers(backend))).collect()
    }

    /// Whether a backend answered its last probe or connection.
    pub(crate) fn answers(&self, address: SocketAddr) -> bool {
        let backends = self.shared.backends();
        let mut found = backends.iter().filter(|backend| backend.address == address);
        found.any(|backend| backend.answers.load(Ordering::Relaxed))
    }

    pub(crate) fn requests(&self, address: SocketAddr) -> usize {
        let backends = self.shared.backends();
        let found = backends.iter().find(|backend| backend.address == address);
        found.map_or(0, |backend| backend.requests.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn backends(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All backends in turn. Silent backends come last: they are tried only if no other accepts.
    fn in_turn(&self) -> Vec<Arc<Backend>> {
        let (mut in_turn, silent): (Vec<_>, Vec<_>) = {
            let backends = self.backends();
            backends.iter().cloned().partition(|backend| backend.answers.load(Ordering::Relaxed))
        };
        if !in_turn.is_empty() {
            let first = self.next.fetch_add(1, Ordering::Relaxed) % in_turn.len();
            in_turn.rotate_left(first);
        }
        in_turn.extend(silent);
        in_turn
    }

    /// Connects to the first backend that accepts. Nothing was sent before, so the next backend may
    /// be tried.
    async fn connect(&self) -> Option<(Arc<Backend>, TcpStream)> {
        for backend in self.in_turn() {
            if let Ok(Ok(stream)) =
                timeout(CONNECT_WITHIN, TcpStream::connect(backend.address)).await
            {
                let _ = stream.set_nodelay(true);
                backend.requests.fetch_add(1, Ordering::Relaxed);
                return Some((backend, stream));
            }
            backend.answers.store(false, Ordering::Relaxed);
        }
        None
    }
}

/// Probes all backends periodically.
async fn probe_all(shared: Arc<Shared>) {
    loop {
        let mut probes = JoinSet::new();
        for backend in shared.backends().iter().cloned() {
            probes.spawn(async move {
                let answer = timeout(PROBE_WITHIN, probe(backend.address)).await;
                backend.answers.store(matches!(answer, Ok(Ok(()))), Ordering::Relaxed);
            });
        }
        while probes.join_next().await.is_some() {}
        sleep(PROBE_EVERY).await;
    }
}

/// Any response counts. A connection alone proves nothing: the kernel accepts connections for a
/// stopped process, too.
async fn probe(backend: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(backend).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    stream.read_u8().await.map(drop)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    clients.spawn(serve(Client::new(stream), shared.clone()));
                }
                // Most likely there are too many open files.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}
