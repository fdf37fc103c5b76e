//! An event stream that owns its connection. Once a response is a stream, only chunks are left to
//! write, so hyper gives the connection back and frees its buffers.
//!
//! A quiet stream keeps only its socket, its stream receiver and a timer.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, BufMut as _, BytesMut};
use http::response;
use parking_lot::Mutex;
use stentor_delivery::DirectWrite;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::events::{COMMENT, Events, USUAL, next_probe};
use super::watched::Watched;

/// The length of a chunk's size line: the digits and the line end.
const SIZE_LINE: usize = 8 + END.len();

/// The end of a chunk.
const END: &[u8] = b"\r\n";

#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) head: response::Parts,
    pub(super) events: Box<Events>,
    /// Whether the client wants the connection closed after the stream.
    pub(super) last: bool,
}

/// Writes a stream to its end. Returns the connection, unless it is closed or broken.
///
/// Not an `async fn`: that would store its arguments twice, for as long as the stream is open.
pub(super) fn write<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Watched<S>,
    takeover: Takeover,
    keep_alive: Duration,
) -> impl Future<Output = Option<Watched<S>>> {
    let Takeover { head, events, last } = takeover;
    let keep_alive = events.keep_alive(keep_alive);
    let first_due = events.due(Instant::now(), keep_alive);
    let stream = Arc::new(Stream(Mutex::new(Some(Writer {
        io: io.awaited(),
        events: *events,
        out: head_bytes(&head, last),
        begun: false,
        probe: None,
        flushed: false,
        over: false,
        last,
        keep_alive,
        written: Instant::now(),
    }))));
    async move {
        let mut quiet = pin!(sleep_until(first_due));
        let written = poll_fn(|cx| stream.poll(cx, quiet.as_mut())).await;
        let Writer { io, events, .. } = stream.0.lock().take()?;
        if written.is_err() && io.flow().is_stalled() {
            events.stalled();
        }
        (written.is_ok() && !last).then_some(io)
    }
}

/// A stream, shared by the task of its connection and by the hub, which [writes
/// directly](DirectWrite) in place of the task; `None` once it has ended.
struct Stream<S>(Mutex<Option<Writer<S>>>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream<S> {
    fn poll(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        quiet: Pin<&mut Sleep>,
    ) -> Poll<io::Result<()>> {
        let mut writer = self.0.lock();
        let Some(writer) = &mut *writer else { return Poll::Ready(Ok(())) };
        if !writer.begun {
            let this: Weak<Self> = Arc::downgrade(self);
            writer.events.written_by(this);
        }
        writer.poll(cx, quiet)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> DirectWrite for Stream<S> {
    fn write_directly(&self) -> bool {
        let Some(mut writer) = self.0.try_lock() else { return false };
        writer.as_mut().is_none_or(Writer::write_directly)
    }
}

impl<S> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

fn head_bytes(head: &response::Parts, last: bool) -> BytesMut {
    let mut out = BytesMut::with_capacity(512);
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| out.put_slice(part));
        out.put_slice(b"\r\n");
    };
    // With the reason phrase, for clients that expect one.
    let reason = head.status.canonical_reason().unwrap_or_default();
    line(&[b"HTTP/1.1 ", head.status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    for (name, value) in &head.headers {
        line(&[name.as_ref(), b": ", value.as_bytes()]);
    }
    line(&[b"date: ", httpdate::fmt_http_date(SystemTime::now()).as_bytes()]);
    line(&[b"transfer-encoding: chunked"]);
    if last {
        line(&[b"connection: close"]);
    }
    line(&[]);
    out
}

struct Writer<S> {
    io: Watched<S>,
    events: Events,
    /// The bytes that are not written yet.
    out: BytesMut,
    /// Whether `out` was filled beyond the head.
    begun: bool,
    /// The interval between comments that find out if the client has disconnected.
    probe: Option<Duration>,
    flushed: bool,
    /// Whether the stream has ended: nothing follows `out`.
    over: bool,
    /// Whether the connection is closed after the stream.
    last: bool,
    keep_alive: Duration,
    /// When bytes were last put into `out`.
    written: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    fn poll(&mut self, cx: &mut Context<'_>, mut quiet: Pin<&mut Sleep>) -> Poll<io::Result<()>> {
        loop {
            // The head is written together with the first events, if there are any.
            let has_room = self.out.is_empty() || !std::mem::replace(&mut self.begun, true);
            let filled = has_room && !self.over && self.fill(cx);
            if !filled && self.out.is_empty() && self.flushed {
                match (self.over, self.last) {
                    (true, true) => return Pin::new(&mut self.io).poll_shutdown(cx),
                    (true, false) => return Poll::Ready(Ok(())),
                    (false, _) => {}
                }
                self.io.read_ahead(cx)?;
                let may_be_gone = self.io.flow().may_be_gone();
                let probes_now = may_be_gone && self.probe.is_none();
                if !probes_now {
                    ready!(quiet.as_mut().poll(cx));
                }
                // The timer is reset only when it fires: most streams are written to more often.
                let due = self.due();
                if !probes_now && due > Instant::now() {
                    quiet.as_mut().reset(due);
                    continue;
                }
                if self.events.is_late() {
                    self.fill(cx);
                    continue;
                }
                if may_be_gone {
                    self.probe = Some(next_probe(self.probe));
                }
                self.chunk(|_, out| out.put_slice(COMMENT));
                quiet.as_mut().reset(self.due());
            }
            if self.flush(cx)?.is_pending() {
                self.io.read_ahead(cx)?;
                return Poll::Pending;
            }
        }
    }

    /// How long the stream may be quiet before a comment is written.
    fn pause(&self) -> Duration {
        self.probe.unwrap_or(self.keep_alive).min(self.keep_alive)
    }

    /// When the stream has to be looked at next: to write a comment, or to close it.
    fn due(&self) -> Instant {
        self.events.due(self.written, self.pause())
    }

    /// Writes the waiting frames in place of the task. `false` if something is left to write.
    fn write_directly(&mut self) -> bool {
        // Nothing follows the last chunk.
        if self.over {
            return true;
        }
        // The previous bytes are not written yet.
        if !self.out.is_empty() || !self.flushed {
            return false;
        }
        if self.events.take_ready() {
            self.chunk(|events, out| events.write(out));
        }
        // The task polls again for whatever is not ready.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.flush(&mut cx), Poll::Ready(Ok(())))
    }

    /// Takes the waiting frames; `true` if there were any, or if the stream has ended.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        match self.events.poll_ready(cx) {
            Poll::Ready(true) => self.chunk(|events, out| events.write(out)),
            Poll::Ready(false) => {
                self.out.put_slice(b"0\r\n\r\n");
                self.flushed = false;
                self.over = true;
            }
            Poll::Pending => return false,
        }
        true
    }

    fn chunk(&mut self, write: impl FnOnce(&mut Events, &mut BytesMut)) {
        self.out.reserve(SIZE_LINE + USUAL + END.len());
        let start = self.out.len();
        self.out.put_bytes(b'0', SIZE_LINE);
        write(&mut self.events, &mut self.out);
        finish_chunk(&mut self.out, start);
        self.written = Instant::now();
        self.flushed = false;
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // Keep no buffer for the next events.
        self.out = BytesMut::new();
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
}

/// Writes the size of a chunk into the space reserved for it, and ends the chunk.
fn finish_chunk(out: &mut BytesMut, start: usize) {
    let mut size = out.len() - start - SIZE_LINE;
    let (digits, end) = out[start..start + SIZE_LINE].split_at_mut(SIZE_LINE - END.len());
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[size % 16];
        size /= 16;
    }
    end.copy_from_slice(END);
    out.put_slice(END);
}
