//! What the two ends of a stream share.

use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use parking_lot::Mutex;
use stentor_wire::Id;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::direct_write::DirectWrite;
use crate::event_store::Log;
use crate::frame::Delivered;
use crate::ids::{Seq, StreamId};
use crate::policy::Limits;
use crate::queue::Queue;

/// What happens to a stream when its reader is dropped or has stalled.
#[derive(Debug)]
pub enum WhenGone {
    /// The stream waits for another reader.
    Wait,
    /// The stream waits for another reader; the callback runs the first time.
    Notify(Box<dyn Notified>),
    /// The stream is closed; then the callback runs once.
    Close(Box<dyn Notified>),
}

/// A callback that runs once when a stream has no reader any more.
pub trait Notified: Send + std::fmt::Debug {
    /// Runs it.
    fn notify(self: Box<Self>);
}

/// How a stream behaves. Fixed when the stream is opened.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How much may wait on the stream.
    pub limits: Limits,
    /// Whether the reply is the last frame, as on the response body of an HTTP request.
    pub one_reply: bool,
    /// Whether the stream has heartbeats of its own, so that the transport writes no keep-alive.
    pub heartbeats: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stream: StreamId,
    pub(crate) terms: Terms,
    pub(crate) counters: Arc<Counters>,
    pub(crate) state: Mutex<State>,
    pub(crate) space: Notify,
    pub(crate) request: OnceLock<Box<Id>>,
    /// Boxed, because few streams need any.
    pub(crate) needs: OnceLock<Box<Mutex<Vec<Arc<str>>>>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) log: Option<Log>,
    pub(crate) waker: Option<Waker>,
    /// Writes the queue to the client in place of a reader that sleeps.
    pub(crate) writer: Option<Weak<dyn DirectWrite>>,
    /// The number of the current reader. A reader that was replaced sees another number and ends.
    pub(crate) reader: u64,
    /// Whether there was a reader that did not begin the stream.
    pub(crate) resumed: bool,
    pub(crate) attached: bool,
    pub(crate) when_gone: WhenGone,
    /// Since when frames have been seen waiting, and the number of the first of them.
    pub(crate) waiting: Option<(Instant, Seq)>,
    /// The bytes of the queue that the counters already include.
    pub(crate) counted: usize,
    /// Conflated progress values that the counters do not include yet.
    pub(crate) conflated: u64,
}

/// How much the counters may lag behind one stream: bytes in its queue, and conflated progress
/// values. Other streams write to the same counters, so an update costs more than queueing a frame.
pub(crate) const UNCOUNTED_BYTES: usize = 1024;
pub(crate) const UNCOUNTED_VALUES: u64 = 64;

impl Shared {
    /// Detaches the reader: the stream waits for another reader or is closed. Returns the callback
    /// that the caller has to run.
    pub(crate) fn detach_reader(&self, state: &mut State) -> Option<Box<dyn Notified>> {
        state.attached = false;
        state.waiting = None;
        match std::mem::replace(&mut state.when_gone, WhenGone::Wait) {
            WhenGone::Wait => None,
            WhenGone::Notify(notified) => Some(notified),
            WhenGone::Close(notified) => {
                state.close(self.stream, &self.counters);
                Some(notified)
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        state.close(self.stream, &self.counters);
        if let Some(log) = &state.log {
            log.uncount(&self.counters);
        }
    }
}

impl State {
    /// Invalidates the current reader. The caller has to wake the returned waker, so that the
    /// reader ends.
    pub(crate) fn replace_reader(&mut self) -> Option<Waker> {
        self.reader += 1;
        self.writer = None;
        self.waker.take()
    }

    /// Updates the counters if the queue is empty, or has changed by [`UNCOUNTED_BYTES`] or
    /// [`UNCOUNTED_VALUES`].
    pub(crate) fn count(&mut self, counters: &Counters) {
        let (counted, now) = (self.counted, self.queue.weight());
        if now == 0 || now.abs_diff(counted) >= UNCOUNTED_BYTES {
            counters.holds(counted, now);
            self.counted = now;
        }
        if self.conflated > 0 && (now == 0 || self.conflated >= UNCOUNTED_VALUES) {
            counters.conflated(std::mem::take(&mut self.conflated));
        }
    }

    /// Drops all frames.
    fn close(&mut self, stream: StreamId, counters: &Counters) {
        self.queue.close();
        self.count(counters);
        self.tell(stream, counters);
    }

    /// Tells the history of the session what has become of frames, if it is followed.
    #[inline]
    pub(crate) fn tell(&mut self, stream: StreamId, counters: &Counters) {
        if let Some(changes) = self.queue.changes() {
            counters.changed(stream, changes);
        }
    }

    pub(crate) fn keep(&mut self, read: &[Delivered], counters: &Counters) {
        if let Some(log) = &mut self.log {
            log.keep(read, counters);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.queue.is_closed() || self.queue.is_finished()
    }

    pub(crate) fn is_read(&self) -> bool {
        self.attached && !self.is_over()
    }
}

pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
