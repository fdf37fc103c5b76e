//! A client's connection, which fails when the client has gone away, has stopped reading, or takes too
//! long to ask for something. What was read from it too early can be put back.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What a client may send ahead while a request of it is answered, in bytes.
const AHEAD: usize = 4 * 1024;

/// How writing to a client goes. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    blocked: AtomicBool,
    stalled: AtomicBool,
    /// How often something came that the client was waited for.
    came: AtomicUsize,
    /// Whether a request is answered, and its client not waited for.
    answering: AtomicBool,
}

impl Flow {
    /// Whether something is written that was not taken yet.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    /// Whether the connection was given up because its client took nothing any more.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// The head of a request was read, or a piece of its body, and more is to come.
    pub(super) fn goes_on(&self) {
        self.0.came.fetch_add(1, Ordering::Relaxed);
    }

    /// All of a request was read that is to be.
    pub(super) fn asked(&self) {
        self.0.answering.store(true, Ordering::Relaxed);
    }

    /// The request has its answer, or the beginning of one.
    pub(super) fn answered(&self) {
        self.0.came.fetch_add(1, Ordering::Relaxed);
        self.0.answering.store(false, Ordering::Relaxed);
    }

    /// What is waited for, unless a request is answered now.
    fn awaits(&self) -> Option<usize> {
        let answering = self.0.answering.load(Ordering::Relaxed);
        (!answering).then(|| self.0.came.load(Ordering::Relaxed))
    }
}

/// How long a client may take, and what is done about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until it takes something of what is written.
    pub(super) write: Duration,
    /// Until the head of a request was read, from when the one before was answered; and then for each
    /// piece of its body.
    pub(super) read: Duration,
}

/// A connection that fails when nothing of what is written was taken for some time, or a request does
/// not come. While one is answered, reading has no limit: the client of an event stream sends nothing for
/// hours.
///
/// While a request is answered nobody waits for the next one. Then it is read as it is flushed, which
/// hyper does each time that it looks at a connection: so it fails when the client is gone.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    limits: Limits,
    /// What is waited for, and since when.
    waits: Option<(usize, Instant)>,
    /// Goes off when that may have taken too long; not set anew for each request, as that would cost
    /// more than to look at the clock.
    late: Option<Pin<Box<Sleep>>>,
    /// Runs while a write is pending. Most clients never make one wait.
    overdue: Option<Pin<Box<Sleep>>>,
    flow: Flow,
    /// Whether somebody waits to read it, and will see that the client is gone.
    awaited: bool,
    /// What was read too early: it is read first.
    unread: BytesMut,
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, limits: Limits) -> Self {
        Self {
            io,
            limits,
            waits: None,
            late: None,
            overdue: None,
            flow: Flow::default(),
            awaited: false,
            unread: BytesMut::new(),
        }
    }

    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The same, for who [reads ahead](Self::read_ahead) by itself.
    pub(super) fn awaited(mut self) -> Self {
        self.awaited = true;
        self.late = None;
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
                self.flow.0.blocked.store(false, Ordering::Relaxed);
            }
            return written;
        }
        let limit = self.limits.write;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.flow.0.blocked.store(true, Ordering::Relaxed);
        ready!(overdue.as_mut().poll(cx));
        self.flow.0.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")))
    }

    /// Whether the client takes too long to ask for something.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(next) = self.flow.awaits() else { return Poll::Pending };
        let since = match self.waits {
            Some((what, since)) if what == next => since,
            _ => self.waits.insert((next, Instant::now())).1,
        };
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
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Notices when the client goes away, and keeps what it sends: up to some limit, from which on
    /// the rest waits in the kernel.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.unread.len() < AHEAD {
            let mut bytes = [MaybeUninit::uninit(); AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes[self.unread.len()..]);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf)? {
                Poll::Pending => break,
                Poll::Ready(()) if buf.filled().is_empty() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(()) => self.unread.extend_from_slice(buf.filled()),
            }
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
            self.poll_late(cx).map(Err)
        })
        .await
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
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
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
            self.read_ahead(cx)?;
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
