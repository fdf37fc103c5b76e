//! The reading end of a stream.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use super::{Delivered, Outlet, Shared, WhenGone};
use crate::ids::StreamId;
use crate::peers::Relayed;

/// The most a reader takes at once, so that a slow pipe holds little outside of the queue.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 16 * 1024;

/// The reading end of a stream. Dropping it is how a transport says that the client is gone.
#[derive(Debug)]
pub struct Inlet(Source);

/// Writes what waits in a stream to its client, in the place of the task that reads it.
///
/// The task of a connection sleeps most of the time. With thousands of them, it costs as much to wake each
/// for one notice as to write it, so who tells all of them writes to those who keep up.
pub trait WriteNow: Debug + Send + Sync {
    /// Takes what waits, and writes it as far as the client takes it at once. `false` if the task is to
    /// be woken for it: something is left, or the task is at work just now. Must not wait or block.
    fn write_now(&self) -> bool;
}

/// Where the stream is.
#[derive(Debug)]
enum Source {
    Here(Reader),
    /// On another node. Boxed, as most are not.
    There(Box<Relayed>),
}

impl Inlet {
    pub(super) fn here(reader: Reader) -> Self {
        Self(Source::Here(reader))
    }

    pub(crate) fn there(relayed: Relayed) -> Self {
        Self(Source::There(Box::new(relayed)))
    }

    /// The stream's name within its session.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        match &self.0 {
            Source::Here(reader) => reader.shared.stream,
            Source::There(relayed) => relayed.stream(),
        }
    }

    /// The writing end of the same stream, where it is here.
    pub(crate) fn outlet(&self) -> Option<Outlet> {
        match &self.0 {
            Source::Here(reader) => Some(Outlet(reader.shared.clone())),
            Source::There(_) => None,
        }
    }

    /// Appends what waits to `batch`, a bounded amount at once, or waits for something.
    /// `Ready(false)` when the stream has ended and `batch` got nothing.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<bool> {
        match &mut self.0 {
            Source::Here(reader) => reader.look(Some(cx.waker()), batch),
            Source::There(relayed) => relayed.poll_next(cx, batch),
        }
    }

    /// As [`poll_next`](Self::poll_next). Cancel safe: nothing is taken until it is ready.
    pub async fn next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        poll_fn(|cx| self.poll_next(cx, batch)).await
    }

    /// As [`poll_next`](Self::poll_next), but does not wait: `false` if nothing waits.
    pub fn try_next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        match &mut self.0 {
            Source::Here(reader) => reader.look(None, batch) == Poll::Ready(true),
            Source::There(_) => false,
        }
    }

    /// From here on `writer` may be asked to write what waits, while nobody but it reads this inlet.
    pub fn written_by(&self, writer: Weak<dyn WriteNow>) {
        if let Source::Here(reader) = &self.0 {
            let mut state = reader.shared.state.lock();
            if state.reader == reader.reader {
                state.writer = Some(writer);
            }
        }
    }

    /// Says that the client has stopped reading, and that its connection is closed for it.
    /// To be followed by dropping the inlet.
    pub fn stalled(&self) {
        if let Source::Here(reader) = &self.0
            && reader.shared.state.lock().reader == reader.reader
        {
            reader.shared.tally.closed();
        }
    }

    /// Whether nothing waits and nothing will follow.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        match &self.0 {
            Source::Here(reader) => reader.is_drained(),
            Source::There(relayed) => relayed.is_drained(),
        }
    }
}

/// The reading end of a stream of this engine.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: u64,
    /// What comes before the frames that wait: it was sent before, to a reader that is gone.
    pub(super) replay: VecDeque<Delivered>,
}

impl Reader {
    /// Takes what waits; if nothing does, `waker` is woken for what comes.
    fn look(&mut self, waker: Option<&Waker>, batch: &mut Vec<Delivered>) -> Poll<bool> {
        let before = batch.len();
        let mut state = self.shared.state.lock();
        if state.reader != self.reader || state.queue.is_closed() {
            return Poll::Ready(false);
        }
        if !self.replay.is_empty() {
            let some = self.replay.len().min(BATCH_FRAMES);
            batch.extend(self.replay.drain(..some));
            return Poll::Ready(true);
        }
        let weight = state.queue.weight();
        state.queue.take(batch, before + BATCH_FRAMES, BATCH_BYTES);
        if batch.len() > before {
            let tally = &self.shared.tally;
            tally.holds(weight, state.queue.weight());
            state.keep(&batch[before..], tally);
            drop(state);
            tally.delivered(&batch[before..]);
            self.shared.room.notify_waiters();
            return Poll::Ready(true);
        }
        if state.queue.is_finished() {
            return Poll::Ready(false);
        }
        if let Some(waker) = waker
            && !state.waker.as_ref().is_some_and(|last| last.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    fn is_drained(&self) -> bool {
        let state = self.shared.state.lock();
        state.reader != self.reader
            || state.queue.is_closed()
            || (self.replay.is_empty() && state.queue.is_finished() && !state.queue.has_unread())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let notified = {
            let mut state = self.shared.state.lock();
            if state.reader != self.reader {
                return;
            }
            state.waker = None;
            // One that read to the end has not gone away: it is done.
            if self.replay.is_empty() && state.queue.is_finished() && !state.queue.has_unread() {
                state.when_gone = WhenGone::Wait;
            }
            self.shared.reader_gone(&mut state)
        };
        self.shared.room.notify_waiters();
        if let Some(notified) = notified {
            notified.notify();
        }
    }
}
