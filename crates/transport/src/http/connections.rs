//! The open connections of a server, and what each may cost.

use std::convert::Infallible;
use std::future::{self, Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::{Content, ReplyBody};
use super::stream::{self, Takeover};
use super::watched::{Flow, Limits, Watched};
use super::{Endpoint, handle};

/// What the head of a request has beyond its headers' names and values: the first line, and
/// four bytes for each header.
const HEAD_ROOM: usize = 4 * 1024;

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// The connections that are open. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    max: usize,
    tasks: JoinSet<()>,
}

/// What all connections have in common.
#[derive(Debug)]
struct Shared {
    http: http1::Builder,
    endpoint: Endpoint,
    /// Set once no further request is served.
    closing: CancellationToken,
    /// The same, to look at with each request: the token has one lock for all connections.
    is_closing: AtomicBool,
}

impl Connections {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let config = &endpoint.config;
        let mut http = http1::Builder::new();
        // `Watched` does both for less: hyper sets a timer for each request, and takes another buffer
        // to see if the client goes away while it is answered.
        http.header_read_timeout(None).half_close(true).max_buf_size(buffer(config.max_headers));
        let max = config.max_connections.max(1);
        let closing = CancellationToken::new();
        let is_closing = AtomicBool::new(false);
        let shared = Arc::new(Shared { http, endpoint, closing, is_closing });
        Self { shared, max, tasks: JoinSet::new() }
    }

    /// Whether another one may be opened, as far as it is known which have ended.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.max
    }

    /// Serves a connection until it ends.
    pub(super) fn open(&mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.sweep();
        self.tasks.spawn(serve(io, self.shared.clone()));
    }

    /// Clears away those that have ended.
    pub(super) fn sweep(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits until one has ended; `None` if there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(drop)
    }

    /// Closes those that are idle at once, others when they have sent what they hold, and all
    /// after `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.shared.closing.cancel();
        let _ = timeout(limit, async { while self.ended().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

/// Serves a connection: requests, and a stream whenever the answer of one is a stream.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S, shared: Arc<Shared>) {
    let limits = Limits {
        write: shared.endpoint.engine.stall_timeout(),
        read: shared.endpoint.config.read_timeout,
    };
    let mut io = Watched::new(io, limits);
    // Until a client says something hyper is not there, which would take its buffers to hear that.
    while let Some(Ok(())) = shared.closing.run_until_cancelled(io.begun()).await {
        // Boxed, as what it takes to serve requests is gone while a stream is written.
        let Some((taken, takeover)) = Box::pin(requests(io, &shared)).await else { return };
        let written = stream::write(taken, takeover, shared.endpoint.config.keep_alive).await;
        let Some(given_back) = written else { return };
        io = given_back;
    }
}

/// Serves requests until one is answered by a stream; `None` when the connection has ended.
///
/// No `async fn`, which has room for the connection twice.
fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Watched<S>,
    shared: &Arc<Shared>,
) -> impl Future<Output = Option<(Watched<S>, Takeover)>> + Send + use<'_, S> {
    let slot = Slot::default();
    let requests = Requests { shared: shared.clone(), flow: io.flow().clone(), slot: slot.clone() };
    let flow = requests.flow.clone();
    let mut connection = shared.http.serve_connection(TokioIo::new(io), requests);
    async move {
        let (mut closing, mut woken, mut told) = (pin!(shared.closing.cancelled()), None, false);
        let ended = poll_fn(|cx| {
            // The token is asked once for each waker, which it then wakes, and once it is set.
            let will_wake = woken.as_ref().is_some_and(|waker: &Waker| waker.will_wake(cx.waker()));
            if !told && (!will_wake || shared.is_closing.load(Ordering::Acquire)) {
                told = closing.as_mut().poll(cx).is_ready();
                if told {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                woken = Some(cx.waker().clone());
            }
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Err(ended)),
                // Not while an answer before it is still on its way.
                Poll::Pending if flow.is_blocked() => Poll::Pending,
                Poll::Pending => {
                    let takeover = slot.lock().take();
                    takeover.map_or(Poll::Pending, |takeover| Poll::Ready(Ok(takeover)))
                }
            }
        });
        match ended.await {
            Ok(takeover) => {
                let parts = connection.into_parts();
                let mut io = parts.io.into_inner();
                // Nothing of the request itself, which has been read to its end.
                io.unread(&parts.read_buf);
                Some((io, takeover))
            }
            Err(ended) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                None
            }
        }
    }
}

/// Where a response is put that is a stream.
type Slot = Arc<Mutex<Option<Takeover>>>;

/// Answers the requests of one connection.
#[derive(Debug)]
struct Requests {
    shared: Arc<Shared>,
    flow: Flow,
    slot: Slot,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    // Boxed, as hyper keeps room for one of these for as long as the connection is open.
    type Future = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (shared, flow, slot) = (self.shared.clone(), self.flow.clone(), self.slot.clone());
        if request.uri().path() != shared.endpoint.config.path {
            let mut response = Response::new(ReplyBody::Full(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            flow.answered();
            return Box::pin(future::ready(Ok(response)));
        }
        let may_take_over = may_take_over(&request);
        let last = is_last(&request);
        let (head, body) = request.into_parts();
        // Only of a POST the body is read.
        match head.method {
            Method::POST => flow.goes_on(),
            _ => flow.asked(),
        }
        let body = Upload { body, flow: flow.clone() };
        Box::pin(async move {
            let endpoint = &shared.endpoint;
            let (head, content) = handle(endpoint, &head, body).await.into_parts();
            flow.answered();
            match content {
                Content::Events(events) if may_take_over => {
                    let last = last || shared.closing.is_cancelled();
                    *slot.lock() = Some(Takeover { head, events, last });
                    // The connection is taken away from hyper, and this with it.
                    pending().await
                }
                content => {
                    let body = content.into_body(endpoint.config.keep_alive, Some(flow));
                    Ok(Response::from_parts(head, body))
                }
            }
        })
    }
}

/// The body of a request, as its client sends it.
#[derive(Debug)]
struct Upload {
    body: Incoming,
    flow: Flow,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match frame {
            Some(Ok(_)) if !self.body.is_end_stream() => self.flow.goes_on(),
            _ => self.flow.asked(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a stream that answers the request can be written without hyper: in chunks, and with
/// nothing left of the request, whose body is read to its end only if it is a POST.
fn may_take_over(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && (request.method() == Method::POST || request.body().is_end_stream())
}

/// Whether the client wants the connection closed after the answer.
fn is_last(request: &Request<Incoming>) -> bool {
    let options = request.headers().get_all(header::CONNECTION).iter();
    let mut options = options.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// The size of hyper's buffers for one connection: a head that is too large must fit, so that
/// it is this crate that refuses it.
///
/// What a connection holds while it serves requests, by hyper 1.12's `proto/h1/io.rs`:
/// - 8 KiB for the heads of responses;
/// - 8 KiB to read into, up to this size after a large request;
/// - the body of a response that its client does not read;
/// - 4 KiB that the client sends ahead while a request is answered.
///
/// While it is a stream it holds nothing of that, and when its client does not read one batch of
/// the outlet, of 16 KiB unless a single message is larger.
fn buffer(max_headers: usize) -> usize {
    max_headers.saturating_add(HEAD_ROOM).max(MIN_BUFFER)
}
