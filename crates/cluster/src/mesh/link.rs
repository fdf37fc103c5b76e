//! Links: making, sending and cutting.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ractor::message::SerializedMessage;
use ractor::{ActorCell, ActorRef};
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use stentor_engine::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::hello::{End, HELLO_TIMEOUT, HelloError, Proof, Proven, Stream, proven};
use super::link_message::LinkMessage;
use super::mesh_message::MeshMsg;
use super::shared::Shared;
use super::window::{Flow, cost};

/// The delay before another attempt to make a link: the first one, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The window is full. `MeshHandler::space_available` is called when it has space.
    #[error("too much is on the way to this node")]
    WindowFull,
    #[error("there is no link to this node")]
    NotConnected,
    /// One of the two nodes does not accept frames of this size.
    #[error("the frame is too large")]
    TooLarge,
}

/// The links that are up, by the node at their other end.
pub(crate) type Links = RwLock<HashMap<NodeId, Arc<Link>>>;

pub(crate) struct Link {
    /// The other node's mesh actor, as `ractor_cluster` mirrors it here.
    remote_actor: ActorCell,
    /// The other node's number for this link.
    number: u64,
    max_frame: usize,
    flow: Mutex<Flow>,
    /// Whether the mesh actor has been asked to report what was handled here.
    report_requested: AtomicBool,
    space: Notify,
    cut: CancellationToken,
    /// How often the link was checked since it last received something.
    silent: AtomicU32,
}

impl Link {
    pub(crate) fn new(remote_actor: ActorCell, proven: &Proof, cut: CancellationToken) -> Self {
        let Proof { mine, theirs } = proven;
        Self {
            remote_actor,
            number: theirs.link,
            max_frame: usize::try_from(mine.max_frame.min(theirs.max_frame)).unwrap_or(usize::MAX),
            flow: Mutex::new(Flow::new(mine.window.min(theirs.window))),
            report_requested: AtomicBool::new(false),
            space: Notify::new(),
            cut,
            silent: AtomicU32::new(0),
        }
    }

    pub(crate) fn try_send(&self, frame: &Bytes) -> Result<(), SendError> {
        if frame.len() > self.max_frame {
            return Err(SendError::TooLarge);
        }
        if self.cut.is_cancelled() {
            return Err(SendError::NotConnected);
        }
        let mut flow = self.flow.lock();
        if !flow.reserve(cost(frame.len())) {
            return Err(SendError::WindowFull);
        }
        // Sent under the lock, so that frames leave in the order in which the window counted them.
        self.send_message(flow.report(), Some(frame))
    }

    pub(crate) async fn send(&self, frame: &Bytes) -> Result<(), SendError> {
        loop {
            let mut space = std::pin::pin!(self.space.notified());
            // Before the attempt; otherwise space that becomes free right after it is missed.
            space.as_mut().enable();
            match self.try_send(frame) {
                Err(SendError::WindowFull) => {}
                done => return done,
            }
            tokio::select! {
                () = space => {}
                () = self.cut.cancelled() => return Err(SendError::NotConnected),
            }
        }
    }

    /// The other node reports how much it has handled. Returns whether refused senders can try
    /// again.
    pub(crate) fn remote_handled(&self, up_to: u64) -> bool {
        self.silent.store(0, Ordering::Relaxed);
        let again = self.flow.lock().remote_handled(up_to);
        if again {
            self.space.notify_waiters();
        }
        again
    }

    /// A frame of this size arrived. Returns whether the window allows it.
    pub(crate) fn received(&self, bytes: usize) -> bool {
        self.flow.lock().received(cost(bytes))
    }

    /// A frame of this size was handled here. Returns whether this must still be reported to the
    /// other node.
    fn handled(&self, bytes: usize) -> bool {
        let mut flow = self.flow.lock();
        let now = flow.handled(cost(bytes));
        if now {
            let _ = self.send_message(flow.report(), None);
        }
        !now
    }

    /// Reports to the other node what was handled here, if it does not know yet.
    pub(crate) fn report_handled(&self) {
        self.report_requested.store(false, Ordering::Relaxed);
        let mut flow = self.flow.lock();
        if flow.unreported() > 0 {
            let _ = self.send_message(flow.report(), None);
        }
    }

    /// Both ends call this regularly. Sends a message, so that the other end receives something
    /// from this one. Returns how often it was called since something arrived.
    pub(crate) fn check(&self) -> u32 {
        let mut flow = self.flow.lock();
        let _ = self.send_message(flow.report(), None);
        self.silent.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.flow.lock().in_flight()
    }

    fn send_message(&self, handled: u64, frame: Option<&Bytes>) -> Result<(), SendError> {
        let args = LinkMessage::encode(self.number, handled, frame.map(AsRef::as_ref));
        let message = SerializedMessage::Cast { variant: String::new(), args, metadata: None };
        self.remote_actor.send_serialized(message).map_err(|_| SendError::NotConnected)
    }
}

/// A received frame. Dropping the receipt marks the frame as handled.
pub(crate) struct Receipt {
    pub(crate) link: Arc<Link>,
    pub(crate) bytes: usize,
    pub(crate) mesh_actor: ActorRef<MeshMsg>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.link.handled(self.bytes)
            && !self.link.report_requested.swap(true, Ordering::Relaxed)
        {
            let _ = self.mesh_actor.cast(MeshMsg::Handled);
        }
    }
}

/// [Dials](dial) a node until it works, after `attempts` failed attempts.
pub(super) async fn until_proven(
    shared: &Shared,
    node: NodeId,
    addr: SocketAddr,
    mut attempts: u32,
) -> Proven {
    loop {
        if attempts > 0 {
            let (first, most) = RETRY;
            tokio::time::sleep((first * 2_u32.pow(attempts.min(10) - 1)).min(most)).await;
        }
        match dial(shared, node.clone(), addr).await {
            Ok(proven) => return proven,
            // Logged once: a node that has just died causes the same error.
            Err(error) if attempts == 3 => {
                stentor_engine::log!(warn, %node, %addr, %error, attempts, "cannot make a link to a node");
            }
            Err(error) => {
                stentor_engine::log!(debug, %node, %addr, %error, attempts, "no link to a node")
            }
        }
        attempts = attempts.saturating_add(1);
    }
}

pub(crate) async fn dial(
    shared: &Shared,
    node: NodeId,
    addr: SocketAddr,
) -> Result<Proven, HelloError> {
    let tls = shared.config.tls.as_ref();
    if !shared.config.may_dial(addr.ip())
        || tls.is_none() && !shared.config.allows_plaintext(addr.ip())
    {
        let error = "the configuration does not allow to connect to this address";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, error).into());
    }
    let stream = tokio::time::timeout(HELLO_TIMEOUT, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    let end = End::Dialled(node);
    match tls {
        Some(tls) => {
            let connecting = tls.connector.connect(tls.name.clone(), stream);
            let stream = tokio::time::timeout(HELLO_TIMEOUT, connecting).await??;
            proven(shared, end, stream, |_| ()).await
        }
        None => proven(shared, end, stream, |_| ()).await,
    }
}

/// A connection for the node server, which a token can cut.
pub(crate) struct LinkStream {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) label: String,
    pub(crate) cut: CancellationToken,
}

impl ClusterBidiStream for LinkStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = tokio::io::split(self.stream);
        let read = Cuttable { half: read, cut: Box::pin(self.cut.clone().cancelled_owned()) };
        let write = Cuttable { half: write, cut: Box::pin(self.cut.cancelled_owned()) };
        (Box::new(read), Box::new(write))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

/// Half of a connection. Cutting ends it, whatever the other node does: a frozen node would block a
/// write for ever.
struct Cuttable<H> {
    half: H,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<H> Cuttable<H> {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<H: AsyncRead + Unpin> AsyncRead for Cuttable<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.half).poll_read(cx, buf)
    }
}

impl<H: AsyncWrite + Unpin> AsyncWrite for Cuttable<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.half).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.half).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(cx)
    }
}
