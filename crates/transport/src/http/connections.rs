//! The open connections of a server, and what each may cost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{self, Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use http::{Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use stentor_engine::Connection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::body::{Content, ReplyBody};
use super::flow::Flow;
use super::stream::{self, Takeover};
use super::upload::Upload;
use super::watched::{Limits, Watched};
use super::{CLOSE, Endpoint, handle, not_here};

/// What the head of a request has beyond its headers' names and values: the first line, and
/// four bytes for each header.
const HEAD_ROOM: usize = 4 * 1024;

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// How long a client that was refused before all of its request was read gets to read why.
const LINGER: Duration = Duration::from_secs(2);

/// How many idle connections are looked up at once, when one has to be closed for another. To find
/// them takes a look at each connection.
const LOOKED_UP: usize = 64;

/// The connections that are open. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    max: usize,
    tasks: JoinSet<()>,
    pub(super) open: HashMap<Id, (Flow, AbortHandle)>,
    /// Those that were idle for the longest, that one last.
    idle: Vec<(Id, (bool, u64))>,
    /// How many were closed for others, and are not away yet.
    pub(super) cut: usize,
}

/// What all connections have in common.
#[derive(Debug)]
struct Shared {
    http: http1::Builder,
    endpoint: Endpoint,
    limits: Arc<Limits>,
    born: Instant,
    /// Set once no further request is served.
    closing: CancellationToken,
    /// The same, to look at with each request: the token has one lock for all connections.
    is_closing: AtomicBool,
}

impl Connections {
    /// At most `max` of them.
    pub(super) fn new(endpoint: Endpoint, max: usize) -> Self {
        let config = &endpoint.config;
        let mut http = http1::Builder::new();
        // `Watched` does both for less: hyper sets a timer for each request, and takes another buffer
        // to see if the client goes away while it is answered.
        http.header_read_timeout(None).half_close(true).max_buf_size(buffer(config.max_headers));
        let limits = Arc::new(Limits {
            write: endpoint.engine.stall_timeout(),
            read: config.read_timeout,
            unfinished: endpoint.unfinished.clone(),
        });
        let closing = CancellationToken::new();
        let is_closing = AtomicBool::new(false);
        let born = Instant::now();
        let shared = Arc::new(Shared { http, endpoint, limits, born, closing, is_closing });
        let (tasks, open, idle) = (JoinSet::new(), HashMap::new(), Vec::new());
        Self { shared, max: max.max(1), tasks, open, idle, cut: 0 }
    }

    /// Whether another one may be opened, as far as it is known which have ended.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() - self.cut < self.max
    }

    /// Serves a connection until it ends.
    #[cfg(test)]
    pub(super) fn open(&mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.open_from(None, io);
    }

    /// As `open`, for one that comes from this address.
    pub(super) fn open_from(
        &mut self,
        other_end: Option<SocketAddr>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        self.sweep();
        let flow = Flow::new(self.shared.born);
        let io = Watched::new(io, self.shared.limits.clone(), flow.clone());
        let task =
            self.tasks.spawn(serve(io, self.shared.clone(), other_end.map(Connection::from)));
        self.open.insert(task.id(), (flow, task));
    }

    /// Closes the connection that is idle for the longest, if any is: one on which no request has come,
    /// or only a part of a head; else one whose body does not go on. No other is ever closed for this.
    pub(super) fn cut_idle(&mut self) -> bool {
        for looked in [false, true] {
            if looked {
                self.look_for_idle();
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

    fn look_for_idle(&mut self) {
        let open = self.open.iter();
        let idle = open.filter_map(|(id, (flow, _))| Some((*id, flow.idle()?)));
        let mut idle: Vec<_> = idle.collect();
        if idle.iter().any(|(_, (head, _))| *head) {
            idle.retain(|(_, (head, _))| *head);
        }
        let since = |(_, (_, since)): &(Id, (bool, u64))| *since;
        if idle.len() > LOOKED_UP {
            idle.select_nth_unstable_by_key(LOOKED_UP, since);
            idle.truncate(LOOKED_UP);
        }
        idle.sort_unstable_by_key(|one| std::cmp::Reverse(since(one)));
        self.idle = idle;
    }

    /// Clears away those that have ended.
    pub(super) fn sweep(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    /// Waits until one has ended; `None` if there is none. Cancel safe.
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

    /// Closes those that are idle at once, and with them those whose request was not read to its end;
    /// others when they have sent what they hold, and all after `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.shared.closing.cancel();
        let _ = timeout(limit, async { while self.ended().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

/// Serves a connection: requests, and a stream whenever the answer of one is a stream.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut io: Watched<S>,
    shared: Arc<Shared>,
    connection: Option<Connection>,
) {
    // Until a client says something hyper is not there, which would take its buffers to hear that.
    while let Some(Ok(())) = shared.closing.run_until_cancelled(io.begun()).await {
        // Boxed, as what it takes to serve requests is gone while a stream is written.
        let (taken, takeover) = match Box::pin(requests(io, &shared, connection)).await {
            After::Stream(taken, takeover) => (taken, takeover),
            After::Linger(io) => return linger(io, &shared).await,
            After::Nothing => return,
        };
        let written = stream::write(taken, takeover, shared.endpoint.config.keep_alive).await;
        let Some(given_back) = written else { return };
        given_back.flow().answered();
        io = given_back;
    }
}

/// Lets the client of a connection that is closed read its answer, although not all that it sent is
/// read.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut io: Watched<S>, shared: &Shared) {
    io.flow().waits(Instant::now());
    let lingering = async {
        // Done by hyper, as a rule.
        let _ = io.shutdown().await;
        io.linger().await;
    };
    let lingering = timeout(LINGER, lingering);
    // Whether it is over or not, the connection is closed.
    let _ = shared.closing.run_until_cancelled(lingering).await;
}

/// What comes after the requests of a connection.
enum After<S> {
    Stream(Watched<S>, Takeover),
    Linger(Watched<S>),
    Nothing,
}

/// Serves requests until one is answered by a stream, or the connection ends.
///
/// No `async fn`, which has room for the connection twice.
fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Watched<S>,
    shared: &Arc<Shared>,
    connection: Option<Connection>,
) -> impl Future<Output = After<S>> + Send + use<'_, S> {
    let (slot, flow) = (Slot::default(), io.flow().clone());
    let requests =
        Requests { shared: shared.clone(), flow: flow.clone(), slot: slot.clone(), connection };
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
                    match takeover {
                        Some(takeover) => Poll::Ready(Ok(takeover)),
                        // The rest of a request is not waited for: it would be refused.
                        None if told && !flow.is_answering() => Poll::Ready(Err(Ok(()))),
                        None => Poll::Pending,
                    }
                }
            }
        })
        .await;
        let ended = match ended {
            Ok(takeover) => {
                let parts = connection.into_parts();
                let mut io = parts.io.into_inner();
                // Nothing of the request itself, which has been read to its end.
                io.unread(&parts.read_buf);
                return After::Stream(io, takeover);
            }
            Err(ended) => ended,
        };
        if let Err(error) = &ended {
            stentor_engine::log!(debug, %error, "a connection broke");
        }
        // A head that is too large, or is none, hyper refuses by itself.
        match flow.lingers() || ended.is_err_and(|error| error.is_parse()) {
            true => After::Linger(connection.into_parts().io.into_inner()),
            false => After::Nothing,
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
    connection: Option<Connection>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    // Boxed, as hyper keeps room for one of these for as long as the connection is open.
    type Future = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (shared, flow, slot) = (self.shared.clone(), self.flow.clone(), self.slot.clone());
        if request.uri().path() != shared.endpoint.config.path {
            let unread = !request.body().is_end_stream();
            let response = not_here(&shared.endpoint, &request.into_parts().0);
            let keep_alive = shared.endpoint.config.keep_alive;
            let mut response = response.map(|content| content.into_body(keep_alive, None));
            if unread {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
                flow.linger();
            }
            flow.answered();
            return Box::pin(future::ready(Ok(response)));
        }
        let may_take_over = may_take_over(&request);
        let last = is_last(&request);
        let (mut head, body) = request.into_parts();
        if let Some(connection) = self.connection {
            head.extensions.insert(connection);
        }
        // Only of a POST the body is read.
        let goes_on = match head.method {
            Method::POST => flow.goes_on(),
            _ => flow.asked(),
        };
        if !goes_on {
            // The connection was closed for another one before this came.
            return Box::pin(pending());
        }
        let body = Upload::new(body, Some(flow.clone()));
        Box::pin(async move {
            let endpoint = &shared.endpoint;
            let (head, content) = handle(endpoint, &head, body).await.into_parts();
            if head.headers.contains_key(header::CONNECTION) {
                flow.linger();
            }
            match content {
                Content::Events(events) if may_take_over => {
                    let last = last || shared.closing.is_cancelled();
                    *slot.lock() = Some(Takeover { head, events, last });
                    // The connection is taken away from hyper, and this with it.
                    pending().await
                }
                content => {
                    if matches!(content, Content::Full(_)) {
                        flow.answered();
                    }
                    let body = content.into_body(endpoint.config.keep_alive, Some(flow));
                    Ok(Response::from_parts(head, body))
                }
            }
        })
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
