//! A client's connection. It fails when the client has closed it, has stopped reading, or takes too
//! long to send a request. Bytes that were read too early can be put back.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::flow::Flow;
use super::unfinished::{Share, Unfinished};

/// How many bytes a client may send ahead while its request is answered.
const AHEAD: usize = 4 * 1024;

/// The time limits of a client, and the budget of unfinished heads.
#[derive(Debug)]
pub(super) struct Limits {
    /// Until the client reads some of the written bytes.
    pub(super) write: Duration,
    /// From the end of the previous response until the head of a request was read; then for each
    /// piece of its body.
    pub(super) read: Duration,
    pub(super) unfinished: Arc<Unfinished>,
}

/// A connection that fails when the client reads nothing for some time, or sends no request. While
/// a request is answered, reading has no limit: the client of an event stream sends nothing for
/// hours.
///
/// While a request is answered, nothing polls the connection for the next one. So the connection
/// reads ahead on each flush, and hyper flushes each time that it polls a connection. In this way
/// the connection notices that the client [may be gone](Flow::may_be_gone), and fails when the
/// client has disconnected.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    limits: Arc<Limits>,
    /// The value of [`Flow::came`] when the server began to wait for the client, and when that was.
    waits: Option<(usize, Instant)>,
    /// Fires when the client may have taken too long. Not reset for each request: that would cost
    /// more than to read the clock.
    late: Option<Pin<Box<Sleep>>>,
    /// The value of [`Flow::came`], and how many bytes were read since it had this value.
    read: (usize, usize),
    /// Counts these bytes in the budget while they are part of a head.
    share: Option<Share>,
    /// Runs while a write is pending. Most clients never make a write wait.
    overdue: Option<Pin<Box<Sleep>>>,
    flow: Flow,
    /// Whether a pending read will notice that the client has disconnected.
    awaited: bool,
    /// Whether the client has closed its sending half. It may still read.
    over: bool,
    /// Bytes that were read too early. The next read returns them first.
    unread: BytesMut,
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, limits: Arc<Limits>, flow: Flow) -> Self {
        Self {
            io,
            limits,
            waits: None,
            late: None,
            read: (0, 0),
            share: None,
            overdue: None,
            flow,
            awaited: false,
            over: false,
            unread: BytesMut::new(),
        }
    }

    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The same connection, for a caller that [reads ahead](Self::read_ahead) by itself.
    pub(super) fn awaited(mut self) -> Self {
        self.awaited = true;
        (self.late, self.share) = (None, None);
        self
    }

    /// Puts back the bytes that were read last and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            // Copied, because even a small slice of a buffer keeps the whole buffer alive.
            self.unread = [bytes, &self.unread].concat()[..].into();
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.overdue.take().is_some() {
                self.flow.blocked(false);
            }
            return written;
        }
        let limit = self.limits.write;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.flow.blocked(true);
        ready!(overdue.as_mut().poll(cx));
        self.flow.stalled();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")))
    }

    /// Completes when the client takes too long to send a request, or its unfinished request has to
    /// give way to others.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(next) = self.flow.awaits() else { return Poll::Pending };
        let since = match self.waits {
            Some((what, since)) if what == next => since,
            _ => {
                let now = Instant::now();
                self.flow.waits(now);
                self.waits.insert((next, now)).1
            }
        };
        if self.gives_way(cx, next) {
            let what = "others need what an unfinished request holds";
            return Poll::Ready(io::Error::other(what));
        }
        let Some(due) = since.checked_add(self.limits.read) else { return Poll::Pending };
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while late.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                let what = "the client sends no request";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            late.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn count(&mut self, bytes: usize) {
        let came = self.flow.came();
        match &mut self.read {
            (before, read) if *before == came => *read += bytes,
            read => *read = (came, bytes),
        }
    }

    /// Whether part of a head was read, and has to give way. A body is counted by its reader.
    fn gives_way(&mut self, cx: &mut Context<'_>, came: usize) -> bool {
        let (before, read) = self.read;
        if before != came || read == 0 || !self.flow.awaits_head() {
            self.share = None;
            return false;
        }
        let share = self.share.get_or_insert_with(|| self.limits.unfinished.share());
        share.hold(read);
        share.poll_gives_way(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Notices when the client has disconnected or may have. Keeps what the client sends, up to
    /// [`AHEAD`] bytes; the rest waits in the kernel.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.over && self.unread.len() < AHEAD {
            let mut bytes = [MaybeUninit::uninit(); AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes[self.unread.len()..]);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) if buf.filled().is_empty() => self.over = true,
                Poll::Ready(()) => self.unread.extend_from_slice(buf.filled()),
            }
        }
        // The client has closed its sending half, or the buffer is full. From now on reading cannot
        // show that the client has disconnected.
        if self.flow.doubt() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Waits until the client begins a request. Cancel safe.
    pub(super) async fn begun(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let read = self.read_ahead(cx);
            // Checked first, so that bytes are served even if the client closed its sending half
            // after them.
            if !self.unread.is_empty() {
                return Poll::Ready(Ok(()));
            }
            read?;
            if self.over {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.poll_late(cx).map(Err)
        })
        .await
    }

    /// Reads and discards what the client still sends, until it sends no more. Closing a connection
    /// with unread bytes resets it, and then the client may lose its response.
    pub(super) async fn linger(&mut self) {
        poll_fn(|cx| {
            loop {
                let mut bytes = [MaybeUninit::uninit(); AHEAD];
                let mut buf = ReadBuf::uninit(&mut bytes);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                    Ok(()) if !buf.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let some = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..some]);
            self.unread.advance(some);
            if self.unread.is_empty() {
                self.unread = BytesMut::new();
            }
            self.awaited = false;
            self.count(some);
            return Poll::Ready(Ok(()));
        }
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        self.awaited = read.is_pending();
        if self.awaited
            && let Poll::Ready(late) = self.poll_late(cx)
        {
            return Poll::Ready(Err(late));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let flushed = ready!(self.watch(cx, flushed));
        if !self.awaited {
            // The head has been read.
            self.share = None;
            self.read_ahead(cx)?;
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
