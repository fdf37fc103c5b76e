//! Links: how they are made, what is sent over them, and how they are cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ractor::message::SerializedMessage;
use ractor::{ActorCell, ActorRef};
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use stentor_engine::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::hello::{self, End, Hello, HelloError, PATIENCE};
use super::relay::RelayMsg;
use super::window::{Flow, cost};
use super::wire::Parcel;
use super::{SendError, Shared};

/// How long it takes to try again to make a link: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The sending end of a link that is up.
pub(crate) struct Link {
    /// The other node's relay, as it is mirrored here.
    relay: ActorCell,
    /// The number by which the other node knows this link.
    number: u64,
    max_frame: usize,
    flow: Mutex<Flow>,
    /// The relay knows that the other node is to be told what was handled here.
    to_tell: AtomicBool,
    room: Notify,
    cut: CancellationToken,
    /// How often it was looked at since something came.
    silent: AtomicU32,
}

impl Link {
    pub(crate) fn new(relay: ActorCell, proven: &Proof, cut: CancellationToken) -> Self {
        let Proof { mine, theirs } = proven;
        Self {
            relay,
            number: theirs.link,
            max_frame: usize::try_from(mine.max_frame.min(theirs.max_frame)).unwrap_or(usize::MAX),
            flow: Mutex::new(Flow::new(mine.window.min(theirs.window))),
            to_tell: AtomicBool::new(false),
            room: Notify::new(),
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
            return Err(SendError::NoRoom);
        }
        // With the lock, so that frames go in the order in which they were counted.
        self.post(flow.tell(), Some(frame))
    }

    pub(crate) async fn send(&self, frame: &Bytes) -> Result<(), SendError> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Before the attempt, or the room that comes right after it is missed.
            room.as_mut().enable();
            match self.try_send(frame) {
                Err(SendError::NoRoom) => {}
                done => return done,
            }
            tokio::select! {
                () = room => {}
                () = self.cut.cancelled() => return Err(SendError::NotConnected),
            }
        }
    }

    /// The other node says how much it has handled. Whether there is room again for those who
    /// found none.
    pub(crate) fn handled_there(&self, up_to: u64) -> bool {
        self.silent.store(0, Ordering::Relaxed);
        let again = self.flow.lock().handled_there(up_to);
        if again {
            self.room.notify_waiters();
        }
        again
    }

    /// A frame of so many bytes came. Whether there may be one.
    pub(crate) fn came(&self, bytes: usize) -> bool {
        self.flow.lock().came(cost(bytes))
    }

    /// A frame of so many bytes was handled here. Whether the other node is to be told soon: it
    /// was not told just now.
    fn handled(&self, bytes: usize) -> bool {
        let mut flow = self.flow.lock();
        let now = flow.handled(cost(bytes));
        if now {
            let _ = self.post(flow.tell(), None);
        }
        !now
    }

    /// Tells the other node what was handled here, if it does not know.
    pub(crate) fn tell(&self) {
        self.to_tell.store(false, Ordering::Relaxed);
        let mut flow = self.flow.lock();
        if flow.owed() > 0 {
            let _ = self.post(flow.tell(), None);
        }
    }

    /// Is called regularly, at both ends: says something, so that the other end hears of this
    /// one. How often it was called since something came.
    pub(crate) fn check(&self) -> u32 {
        let mut flow = self.flow.lock();
        let _ = self.post(flow.tell(), None);
        self.silent.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.flow.lock().in_flight()
    }

    fn post(&self, handled: u64, frame: Option<&Bytes>) -> Result<(), SendError> {
        let args = Parcel::encode(self.number, handled, frame.map(AsRef::as_ref));
        let message = SerializedMessage::Cast { variant: String::new(), args, metadata: None };
        self.relay.send_serialized(message).map_err(|_| SendError::NotConnected)
    }
}

/// A frame that came and is not handled, until this is dropped.
pub(crate) struct Receipt {
    pub(crate) link: Arc<Link>,
    pub(crate) bytes: usize,
    pub(crate) relay: ActorRef<RelayMsg>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.link.handled(self.bytes) && !self.link.to_tell.swap(true, Ordering::Relaxed) {
            let _ = self.relay.cast(RelayMsg::Handled);
        }
    }
}

/// What both ends of a link said.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) mine: Hello,
    pub(crate) theirs: Hello,
}

/// A connection whose two ends have proven themselves.
pub(crate) struct Proven {
    pub(crate) proof: Proof,
    pub(crate) end: End,
    pub(crate) stream: Box<dyn Stream>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// [Connects](dial) to a node until it works, `attempts` having failed before.
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
            // One that has just died looks like this, too.
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

/// Connects to a node.
pub(crate) async fn dial(
    shared: &Shared,
    node: NodeId,
    addr: SocketAddr,
) -> Result<Proven, HelloError> {
    let tls = shared.config.tls.as_ref();
    if !shared.config.may_dial(addr.ip())
        || tls.is_none() && !shared.config.may_talk_plainly(addr.ip())
    {
        let error = "the configuration does not allow to connect to this address";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, error).into());
    }
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    let end = End::Dialled(node);
    match tls {
        Some(tls) => {
            let connecting = tls.connector.connect(tls.name.clone(), stream);
            let stream = tokio::time::timeout(PATIENCE, connecting).await??;
            proven(shared, end, stream, |_| ()).await
        }
        None => proven(shared, end, stream, |_| ()).await,
    }
}

/// `is_proven` is told that the other end has proven itself.
pub(super) async fn proven<S: Stream + 'static>(
    shared: &Shared,
    end: End,
    mut stream: S,
    is_proven: impl FnOnce(&mut S),
) -> Result<Proven, HelloError> {
    let mine = Hello::of(shared);
    let theirs = hello::prove(&mut stream, &end, &mine, &shared.config.cookie).await?;
    is_proven(&mut stream);
    Ok(Proven { proof: Proof { mine, theirs }, end, stream: Box::new(stream) })
}

/// A connection as the node server takes it, which can be cut from elsewhere.
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

/// Half of a connection. When it is cut, it ends, whatever the other node does: one that is
/// frozen would keep a write waiting for ever.
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
