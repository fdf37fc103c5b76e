//! The open connections of a server, and the limits of each.

use std::convert::Infallible;
use std::future::{self, Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use foldhash::HashMap;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::Caller;
use super::body::{Content, Outer, Written};
use super::flow::Flow;
use super::layered::{self, Layers};
use super::stream::{self, Takeover};
use super::upload::Upload;
use super::watched::{Limits, Watched};
use super::{CLOSE, Endpoint, at_other_path, handle};

/// The size of a request's head beyond the names and values of its headers: the first line, and
/// four bytes for each header.
const HEAD_ROOM: usize = 4 * 1024;

/// hyper accepts no smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// How long a refused client, whose request was not read to its end, may read the refusal.
const LINGER: Duration = Duration::from_secs(2);

/// How many idle connections one search collects, when a connection has to be closed for another. A
/// search looks at every connection.
const IDLE_BATCH: usize = 64;

/// The open connections. Dropping this closes them.
#[derive(Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    max: usize,
    tasks: JoinSet<()>,
    pub(super) open: HashMap<Id, (Flow, AbortHandle)>,
    /// The connections that were idle the longest, the longest last, with what [`Flow::idle`]
    /// returned.
    idle: Vec<(Id, (bool, u64))>,
    /// How many connections were closed for others and have not ended yet.
    pub(super) cut: usize,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    http: http1::Builder,
    endpoint: Endpoint,
    /// The layers around the endpoint, if there are any.
    layers: Option<Box<dyn Layers>>,
    limits: Arc<Limits>,
    born: Instant,
    /// Cancelled once no further request is served.
    closing: CancellationToken,
    /// The same as a flag, checked on each request: the token has one lock for all connections.
    is_closing: AtomicBool,
    /// How many connections were taken from hyper.
    #[cfg(test)]
    taken: std::sync::atomic::AtomicUsize,
}

impl Connections {
    pub(super) fn new(endpoint: Endpoint, layers: Option<Box<dyn Layers>>, max: usize) -> Self {
        let config = &endpoint.config;
        let mut http = http1::Builder::new();
        // `Watched` does both at a lower cost: hyper sets a timer for each request, and uses
        // another buffer to notice that the client has disconnected while its request is answered.
        http.header_read_timeout(None).half_close(true).max_buf_size(buffer(config.max_headers));
        let limits = Arc::new(Limits {
            write: endpoint.engine.stall_timeout(),
            read: config.read_timeout,
            unfinished: endpoint.unfinished.clone(),
        });
        let closing = CancellationToken::new();
        let is_closing = AtomicBool::new(false);
        let born = Instant::now();
        let shared = Arc::new(Shared {
            http,
            endpoint,
            layers,
            limits,
            born,
            closing,
            is_closing,
            #[cfg(test)]
            taken: Default::default(),
        });
        let (tasks, open, idle) = (JoinSet::new(), HashMap::default(), Vec::new());
        Self { shared, max: max.max(1), tasks, open, idle, cut: 0 }
    }

    /// Whether another connection may be opened, as far as ended connections are known.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() - self.cut < self.max
    }

    #[cfg(test)]
    pub(super) fn open(&mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.open_from(None, io);
    }

    /// How many connections streams have taken from hyper.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// As `open`, for a connection from this address.
    pub(super) fn open_from(
        &mut self,
        other_end: Option<SocketAddr>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        self.sweep();
        let flow = Flow::new(self.shared.born);
        let io = Watched::new(io, self.shared.limits.clone(), flow.clone());
        let task = self.tasks.spawn(serve(io, self.shared.clone(), other_end));
        self.open.insert(task.id(), (flow, task));
    }

    /// Closes the connection that has been idle the longest, if any is idle: one without a request
    /// or with an unfinished head, else one whose body has stopped arriving. No other connection is
    /// ever closed for this reason.
    pub(super) fn cut_idle(&mut self) -> bool {
        for search in [false, true] {
            if search {
                self.find_idle();
            }
            while let Some((id, idle)) = self.idle.pop() {
                let Some((flow, task)) = self.open.get(&id) else { continue };
                if flow.cut(idle) {
                    task.abort();
                    self.cut += 1;
                    return true;
                }
            }
        }
        false
    }

    fn find_idle(&mut self) {
        let open = self.open.iter();
        let idle = open.filter_map(|(id, (flow, _))| Some((*id, flow.idle()?)));
        let mut idle: Vec<_> = idle.collect();
        if idle.iter().any(|(_, (head, _))| *head) {
            idle.retain(|(_, (head, _))| *head);
        }
        let since = |(_, (_, since)): &(Id, (bool, u64))| *since;
        if idle.len() > IDLE_BATCH {
            idle.select_nth_unstable_by_key(IDLE_BATCH, since);
            idle.truncate(IDLE_BATCH);
        }
        idle.sort_unstable_by_key(|one| std::cmp::Reverse(since(one)));
        self.idle = idle;
    }

    /// Removes the connections that have ended.
    pub(super) fn sweep(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    /// Waits until a connection has ended; `None` if there is none. Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let ended = self.tasks.join_next_with_id().await?;
        self.forget(ended);
        Some(())
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if self.open.remove(&id).is_some_and(|(flow, _)| flow.is_cut()) {
            self.cut -= 1;
        }
    }

    /// Closes idle connections, and those with an unfinished request, at once; the others when they
    /// have sent their responses, and all of them after `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.shared.closing.cancel();
        let _ = timeout(limit, async { while self.ended().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

/// Serves a connection: requests, and a stream whenever a response is a stream.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` stores its arguments twice, for as long as the connection is open"
)]
fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut io: Watched<S>,
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
) -> impl Future<Output = ()> + Send {
    async move {
        // hyper starts only when the client has sent something, because hyper allocates its buffers
        // first.
        while let Some(Ok(())) = shared.closing.run_until_cancelled(io.begun()).await {
            // Boxed: this future is dropped before a stream is written, and its memory is freed
            // with it.
            let stream = Box::pin(requests(io, &shared, peer)).await;
            let Some(stream) = stream else { return };
            let Some(given_back) = stream.await else { return };
            given_back.flow().answered();
            io = given_back;
        }
    }
}

/// Lets a client read its response before the connection is closed, although its request was not
/// read to its end.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut io: Watched<S>, shared: &Shared) {
    io.flow().waits(Instant::now());
    let lingering = async {
        // hyper has usually done this already.
        let _ = io.shutdown().await;
        io.linger().await;
    };
    let lingering = timeout(LINGER, lingering);
    // Elapsed or not, the connection is closed now.
    let _ = shared.closing.run_until_cancelled(lingering).await;
}

/// Serves requests until a response is a stream, which is to be written then; or until the
/// connection ends.
///
/// Not an `async fn`: that would reserve space for the connection twice.
fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Watched<S>,
    shared: &Arc<Shared>,
    peer: Option<SocketAddr>,
) -> impl Future<Output = Option<impl Future<Output = Option<Watched<S>>> + use<S>>> + Send + use<'_, S>
{
    let (slot, flow) = (Slot::default(), io.flow().clone());
    let requests =
        Requests { shared: shared.clone(), flow: flow.clone(), slot: slot.clone(), peer };
    let mut connection = shared.http.serve_connection(TokioIo::new(io), requests);
    async move {
        let (mut closing, mut woken, mut told) = (pin!(shared.closing.cancelled()), None, false);
        let ended = poll_fn(|cx| {
            // The token is polled once for each new waker, which it then wakes, and once after it
            // is cancelled.
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
                // The previous response is still being written.
                Poll::Pending if flow.is_blocked() => Poll::Pending,
                Poll::Pending => {
                    let takeover = slot.lock().take();
                    match takeover {
                        Some(takeover) => Poll::Ready(Ok(takeover)),
                        // The rest of a request is not awaited: the request would be refused.
                        None if told && !flow.is_answering() => Poll::Ready(Err(Ok(()))),
                        // hyper would wait for as long as a layer keeps the body.
                        None if flow.is_left_unread() => Poll::Ready(Err(Ok(()))),
                        None => Poll::Pending,
                    }
                }
            }
        })
        .await;
        let ended = match ended {
            Ok(takeover) => {
                #[cfg(test)]
                shared.taken.fetch_add(1, Ordering::Relaxed);
                let parts = connection.into_parts();
                let mut io = parts.io.into_inner();
                // The buffer contains no part of the request itself, which has been read to its
                // end.
                io.unread(&parts.read_buf);
                return Some(stream::write(io, takeover, shared.endpoint.config.keep_alive));
            }
            Err(ended) => ended,
        };
        if let Err(error) = &ended {
            stentor_engine::log!(debug, %error, "a connection broke");
        }
        // hyper itself refuses a head that is too large or invalid.
        if flow.lingers() || ended.is_err_and(|error| error.is_parse()) {
            linger(connection.into_parts().io.into_inner(), shared).await;
        }
        None
    }
}

/// Where a response that is a stream is put.
type Slot = Arc<Mutex<Option<Takeover>>>;

/// Answers the requests of one connection.
#[derive(Debug)]
struct Requests {
    shared: Arc<Shared>,
    flow: Flow,
    slot: Slot,
    /// The other end of the connection.
    peer: Option<SocketAddr>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Written>;
    type Error = Infallible;
    // Boxed, because hyper reserves space for one such future as long as the connection is open.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Written>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some(layers) = &self.shared.layers {
            return self.within(&**layers, request);
        }
        let (shared, flow, slot) = (self.shared.clone(), self.flow.clone(), self.slot.clone());
        if request.uri().path() != shared.endpoint.config.path {
            let unread = !request.body().is_end_stream();
            let response = at_other_path(&shared.endpoint, &request.into_parts().0);
            let keep_alive = shared.endpoint.config.keep_alive;
            let mut response = response.map(|content| content.into_body(keep_alive, None));
            if unread {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
                flow.linger();
            }
            let response = response.map(|body| Written::new(Outer::Untouched(body), flow));
            return Box::pin(future::ready(Ok(response)));
        }
        let may_take_over = may_take_over(&request);
        let last = closes(request.headers());
        let (head, body) = request.into_parts();
        let peer = self.peer;
        // Only POST requests have their body read.
        let goes_on = match head.method {
            Method::POST => flow.goes_on(),
            _ => flow.asked(),
        };
        if !goes_on {
            // The connection was closed for another one before this request arrived.
            return Box::pin(pending());
        }
        let body = Upload::new(body, Some(flow.clone()));
        Box::pin(async move {
            let endpoint = &shared.endpoint;
            let (head, content) =
                handle(endpoint, &mut Caller::new(&head, peer), body).await.into_parts();
            if head.headers.contains_key(header::CONNECTION) {
                flow.linger();
            }
            match content {
                Content::Events(events) if may_take_over => {
                    let last = last || shared.closing.is_cancelled();
                    *slot.lock() = Some(Takeover { head, events, last });
                    // The connection is taken from hyper, which drops this future.
                    pending().await
                }
                content => {
                    let of_stream = matches!(content, Content::Events(_)).then(|| flow.clone());
                    let body = content.into_body(endpoint.config.keep_alive, of_stream);
                    Ok(Response::from_parts(head, Written::new(Outer::Untouched(body), flow)))
                }
            }
        })
    }
}

impl Requests {
    /// The answer of layers, which may do anything with the request: whether its body was read, and
    /// what becomes of the connection, is found out when they have answered.
    fn within(
        &self,
        layers: &dyn Layers,
        request: Request<Incoming>,
    ) -> <Self as Service<Request<Incoming>>>::Future {
        let (shared, flow, slot) = (self.shared.clone(), self.flow.clone(), self.slot.clone());
        if !flow.asked() {
            // The connection was closed for another one before this request arrived.
            return Box::pin(pending());
        }
        let may_be_stream =
            request.version() == Version::HTTP_11 && request.method() != Method::HEAD;
        let last = closes(request.headers());
        let answer = layers.answer(layered::request(request, flow.clone(), self.peer));
        Box::pin(async move {
            let (mut head, mut body) = answer.await.into_parts();
            let unread = flow.is_unread();
            if unread {
                head.headers.insert(header::CONNECTION, CLOSE);
            }
            let last = last || closes(&head.headers);
            if closes(&head.headers) {
                flow.linger();
            }
            let may_take_over = may_be_stream && !unread && layered::may_have_body(head.status);
            if let (true, Outer::Untouched(untouched)) = (may_take_over, &mut body)
                && let Some(events) = untouched.take_events()
            {
                layered::remove_framing(&mut head.headers);
                let last = last || shared.closing.is_cancelled();
                *slot.lock() = Some(Takeover { head, events, last });
                // As above.
                return pending().await;
            }
            Ok(Response::from_parts(head, Written::new(body, flow)))
        })
    }
}

/// Whether the stream that answers the request can be written without hyper. It needs chunks, and a
/// request that is read to its end, which is the case for a POST or for a request without a body.
fn may_take_over(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && (request.method() == Method::POST || request.body().is_end_stream())
}

/// Whether these headers close the connection after the response.
fn closes(headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter();
    let mut options = options.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// The size of hyper's buffers for one connection: a head that is too large must fit, so that this
/// crate refuses it and not hyper.
///
/// What a connection keeps while it serves requests, by hyper 1.12's `proto/h1/io.rs`:
/// - 8 KiB for the heads of responses;
/// - 8 KiB to read into, up to this size after a large request;
/// - the body of a response that its client does not read;
/// - 4 KiB that the client sends ahead while a request is answered.
///
/// While the connection is a stream it keeps none of this. If its client does not read, it keeps
/// one batch of the stream receiver: 16 KiB, unless a single message is larger.
fn buffer(max_headers: usize) -> usize {
    max_headers.saturating_add(HEAD_ROOM).max(MIN_BUFFER)
}
