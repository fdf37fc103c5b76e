//! A client's connection, which fails when the client has gone away, has stopped reading, or takes too
//! long to ask for something. What was read from it too early can be put back.

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

/// What a client may send ahead while a request of it is answered, in bytes.
const AHEAD: usize = 4 * 1024;

/// How long a client may take, and what is done about it.
#[derive(Debug)]
pub(super) struct Limits {
    /// Until it takes something of what is written.
    pub(super) write: Duration,
    /// Until the head of a request was read, from when the one before was answered; and then for each
    /// piece of its body.
    pub(super) read: Duration,
    /// The budget of heads that have not come to their end.
    pub(super) unfinished: Arc<Unfinished>,
}

/// A connection that fails when nothing of what is written was taken for some time, or a request does
/// not come. While one is answered, reading has no limit: the client of an event stream sends nothing for
/// hours.
///
/// While a request is answered nobody waits for the next one. Then it is read as it is flushed, which
/// hyper does each time that it looks at a connection: so it is noticed when the client
/// [may be gone](Flow::may_be_gone), and fails when it is.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    limits: Arc<Limits>,
    /// What is waited for, and since when.
    waits: Option<(usize, Instant)>,
    /// Goes off when that may have taken too long; not set anew for each request, as that would cost
    /// more than to look at the clock.
    late: Option<Pin<Box<Sleep>>>,
    /// How much was read since this came.
    read: (usize, usize),
    /// Counts that, while it is a part of a head.
    share: Option<Share>,
    /// Runs while a write is pending. Most clients never make one wait.
    overdue: Option<Pin<Box<Sleep>>>,
    flow: Flow,
    /// Whether somebody waits to read it, and will see that the client is gone.
    awaited: bool,
    /// Whether the client sends no more. It may still read.
    over: bool,
    /// What was read too early: it is read first.
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

    /// The same, for who [reads ahead](Self::read_ahead) by itself.
    pub(super) fn awaited(mut self) -> Self {
        self.awaited = true;
        (self.late, self.share) = (None, None);
        self
    }

    /// Takes back what was read last and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            // Copied, as also a small part of a buffer keeps all of it.
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

    /// Whether the client takes too long to ask for something, or others need what it holds meanwhile.
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

    /// More was read.
    fn count(&mut self, bytes: usize) {
        let came = self.flow.came();
        match &mut self.read {
            (before, read) if *before == came => *read += bytes,
            read => *read = (came, bytes),
        }
    }

    /// Whether part of a head was read, and has to give way. A body is counted by who reads it.
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
    /// Notices when the client goes away or may have, and keeps what it sends: up to some limit, from
    /// which on the rest waits in the kernel.
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
        // Whoever has more to send looks like one that is gone: what it says is not read.
        if self.flow.doubt() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Waits until the client begins a request. Cancel safe.
    pub(super) async fn begun(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let read = self.read_ahead(cx);
            // Also of a client that says nothing after it.
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

    /// Reads what a client still sends, and forgets it, until it sends no more. A connection that is
    /// closed with something unread is reset, and the client may lose its answer by that.
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
            // The head has come to its end.
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
