//! The open connections of a server, and what each may cost.

use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::HttpConfig;
use super::stall::{Stalled, Watched};

/// What the head of a request has beyond its headers' names and values: the first line, and
/// four bytes for each header.
const HEAD_ROOM: usize = 4 * 1024;

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// The connections that are open. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Connections {
    http: http1::Builder,
    app: TowerToHyperService<Router>,
    stall_timeout: Duration,
    max: usize,
    tasks: JoinSet<()>,
    graceful: GracefulShutdown,
}

impl Connections {
    pub(super) fn new(app: Router, config: &HttpConfig, stall_timeout: Duration) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.header_read_timeout)
            .max_buf_size(buffer(config.max_headers));
        Self {
            http,
            app: TowerToHyperService::new(app),
            stall_timeout,
            max: config.max_connections.max(1),
            tasks: JoinSet::new(),
            graceful: GracefulShutdown::new(),
        }
    }

    /// After which time without a sign of its client one is given up.
    pub(super) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// Whether another one may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.max
    }

    /// Serves a connection until it ends.
    pub(super) fn open(&mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let stalled = Stalled::default();
        let io = Watched::new(io, self.stall_timeout, stalled.clone());
        let app = self.app.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(stalled.clone());
            app.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(io), service);
        let served = self.graceful.watch(connection);
        self.tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }

    /// Waits until one has ended; `None` if there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(drop)
    }

    /// Closes those that are idle at once, others when they have sent what they hold, and all
    /// after `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        let _ = timeout(limit, self.graceful.shutdown()).await;
        self.tasks.shutdown().await;
    }
}

/// The size of hyper's buffers for one connection: a head that is too large must fit, so that
/// it is this crate that refuses it.
///
/// What a connection holds when its client does not read, by hyper 1.12's `proto/h1/io.rs`:
/// - 8 KiB for the heads of responses, for as long as it is open;
/// - 8 KiB to read into, up to this size after a large request;
/// - bytes of the body until there are as many as this or 16 pieces, and the piece that crosses
///   the line. A piece of an [`EventStream`](super::body::EventStream) is one batch of the
///   outlet, of 16 KiB unless a single message is larger.
///
/// By default that is 20 KiB and one batch unsent, 52 KiB in all, or 64 KiB after a large
/// request. With hyper's own buffer of 408 KiB it would be 16 batches unsent, 256 KiB.
fn buffer(max_headers: usize) -> usize {
    max_headers.saturating_add(HEAD_ROOM).max(MIN_BUFFER)
}
