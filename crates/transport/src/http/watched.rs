//! A client's connection, watched while it is written: it fails when the client has stopped reading.
//! What was read from it too early can be put back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How writing to a client goes. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    blocked: AtomicBool,
    stalled: AtomicBool,
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
}

/// A connection that fails when nothing of what is written was taken for some time. Reading has
/// no such limit: the client of an event stream sends nothing for hours.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    limit: Duration,
    /// Runs while a write is pending. Most clients never make one wait.
    overdue: Option<Pin<Box<Sleep>>>,
    flow: Flow,
    /// What was read too early: it is read first.
    unread: Bytes,
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, limit: Duration) -> Self {
        Self { io, limit, overdue: None, flow: Flow::default(), unread: Bytes::new() }
    }

    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Takes back what was read last and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        // Copied, as also an empty part of a buffer keeps all of it.
        self.unread = [bytes, &self.unread].concat().into();
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
        let limit = self.limit;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.flow.0.blocked.store(true, Ordering::Relaxed);
        ready!(overdue.as_mut().poll(cx));
        self.flow.0.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")))
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
            buf.put_slice(&self.unread.split_to(some));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
