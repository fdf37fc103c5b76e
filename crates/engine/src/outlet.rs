//! The bounded way to one client.
//!
//! An [`Outlet`] is written by whoever has something to say on a stream: the session that
//! opened it, the hub, a running call. Its [`Inlet`] is read by the one transport task that
//! owns the pipe or the response body. In between lies a queue that never grows past its
//! limits, whatever the client does; what happens then is the table in [`policy`].
//!
//! Nobody ever waits for a client here except a call that asks to
//! ([`Context::report_progress_paced`](crate::Context::report_progress_paced)).

mod gate;
pub mod policy;
mod queue;
mod tally;

use std::fmt::Display;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use stentor_wire::{EncodedNotice, SubscriptionId};
use tokio::sync::Notify;

pub(crate) use gate::Gate;
use policy::{Class, Limits, Retention};
pub use queue::Frame;
use queue::{ProgressValue, Pushed, Queue};
pub use tally::{Tally, TallyView};

use crate::ids::{Seq, StreamId};

/// The most a reader takes at once, so that a slow pipe holds little outside of the queue.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 16 * 1024;

/// What happens to a stream when its reader goes away.
#[derive(Debug)]
pub(crate) enum WhenGone {
    /// It waits for the reader to come back.
    Wait,
    /// It is closed; then this is done once.
    Close(Box<dyn Notified>),
}

/// Something to do once when nobody reads a stream any more.
pub(crate) trait Notified: Send + std::fmt::Debug {
    fn notify(self: Box<Self>);
}

/// How a stream behaves; fixed when it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    pub(crate) retention: Retention,
    /// Whether its reply is the last frame, as on the response of an HTTP request.
    pub(crate) one_reply: bool,
}

#[derive(Debug)]
struct Shared {
    stream: StreamId,
    terms: Terms,
    tally: Arc<Tally>,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    waker: Option<Waker>,
    /// Counts readers, so that one that was replaced notices.
    reader: u64,
    attached: bool,
    when_gone: WhenGone,
}

/// The writing end of a stream. Clones write to the same stream.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Shared>);

/// The reading end of a stream. Dropping it is how a transport says that the client is gone.
#[derive(Debug)]
pub struct Inlet {
    shared: Arc<Shared>,
    reader: u64,
}

/// A frame with its place in the stream.
pub type Delivered = (Seq, Class, Frame);

impl Outlet {
    pub(crate) fn new(
        stream: StreamId,
        terms: Terms,
        tally: Arc<Tally>,
        when_gone: WhenGone,
    ) -> Self {
        let state =
            State { queue: Queue::default(), waker: None, reader: 0, attached: false, when_gone };
        Self(Arc::new(Shared {
            stream,
            terms,
            tally,
            state: Mutex::new(state),
            room: Notify::new(),
        }))
    }

    /// The stream's name within its session.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.0.stream
    }

    /// Queues a frame under the delivery policy. Never waits.
    pub(crate) fn push(&self, class: Class, frame: Frame) {
        self.with_queue(class, |queue, terms| queue.push(class, frame, &terms.limits));
    }

    /// Queues a notice that other streams share.
    pub(crate) fn notice(
        &self,
        class: Class,
        notice: Arc<EncodedNotice>,
        subscription: Option<SubscriptionId>,
    ) {
        self.push(class, Frame::Notice(notice, subscription));
    }

    /// Queues the response to a request; on a stream of one request, nothing follows it.
    pub(crate) fn reply(&self, bytes: bytes::Bytes, error_code: Option<i32>) {
        self.with_queue(Class::Reply, |queue, terms| {
            let pushed = queue.push(Class::Reply, Frame::Reply(bytes, error_code), &terms.limits);
            if terms.one_reply {
                queue.finish();
            }
            pushed
        });
    }

    /// Ends the stream of one request that is not answered; does nothing to a shared stream.
    pub(crate) fn finish_unanswered(&self) {
        if self.0.terms.one_reply {
            self.finish();
        }
    }

    /// Nothing follows what is queued.
    pub(crate) fn finish(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.queue.finish();
            state.waker.take()
        };
        self.0.room.notify_waiters();
        wake(waker);
    }

    /// Queues something that a running call says; nothing, and `false`, once it is over.
    pub(crate) fn say(&self, gate: &Gate, class: Class, frame: Frame) -> bool {
        let passing = gate.pass();
        if passing.is_some() {
            self.push(class, frame);
        }
        passing.is_some()
    }

    /// Reports progress: admitted by `gate`, then queued, or put in the place of an older
    /// value when the client falls behind.
    pub(crate) fn progress(
        &self,
        gate: &Arc<Gate>,
        progress: f64,
        total: Option<f64>,
        message: &dyn Display,
    ) {
        let Some(mut passing) = gate.pass() else { return };
        if !passing.admit(progress) {
            drop(passing);
            self.0.tally.refused();
            return;
        }
        let value = value(gate, progress, total, message);
        self.with_queue(Class::Progress, |queue, terms| {
            queue.push_progress(value, &mut passing.latest, &terms.limits)
        });
    }

    /// As [`progress`](Self::progress), but waits until the value can be queued without
    /// taking the place of another.
    pub(crate) async fn progress_paced(
        &self,
        gate: &Arc<Gate>,
        progress: f64,
        total: Option<f64>,
        message: &(dyn Display + Sync),
    ) {
        loop {
            let room = self.0.room.notified();
            // Without a reader nobody makes room: then the latest wins.
            if gate.unread() < self.0.terms.limits.progress || !self.is_read() {
                return self.progress(gate, progress, total, message);
            }
            room.await;
        }
    }

    /// Whether somebody reads the stream, and it goes on.
    fn is_read(&self) -> bool {
        let state = self.0.state.lock();
        state.attached && !state.queue.is_closed() && !state.queue.is_finished()
    }

    /// Begins to read the stream where the last reader stopped, or at a frame that the client
    /// names. A reader that is still there ends.
    ///
    /// `None` if frames from there on are gone.
    pub(crate) fn attach(&self, next: Option<Seq>) -> Option<Inlet> {
        let (waker, reader) = {
            let mut state = self.0.state.lock();
            if next.is_some_and(|seq| !state.queue.rewind(seq)) {
                return None;
            }
            state.reader += 1;
            state.attached = true;
            (state.waker.take(), state.reader)
        };
        wake(waker);
        Some(Inlet { shared: self.0.clone(), reader })
    }

    /// Ends the reader, but not the stream: the client is to come back for the rest.
    pub(crate) fn detach(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.reader += 1;
            state.attached = false;
            state.waker.take()
        };
        self.0.room.notify_waiters();
        wake(waker);
    }

    /// Whether nothing follows what is queued.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.0.state.lock();
        state.queue.is_finished() || state.queue.is_closed()
    }

    /// Whether somebody reads the stream.
    pub(crate) fn is_attached(&self) -> bool {
        self.0.state.lock().attached
    }

    /// Frames that wait for the client.
    pub(crate) fn unread(&self) -> usize {
        self.0.state.lock().queue.unread()
    }

    /// The counters of the stream's session.
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.0.tally
    }

    fn with_queue(&self, class: Class, push: impl FnOnce(&mut Queue, &Terms) -> Pushed) {
        let (pushed, waker) = {
            let mut state = self.0.state.lock();
            let pushed = push(&mut state.queue, &self.0.terms);
            (pushed, state.waker.take())
        };
        wake(waker);
        match pushed {
            Pushed::Queued => {}
            Pushed::QueuedAfterDrop(count) => self.0.tally.dropped(class, count),
            Pushed::Closed => self.0.tally.dropped(class, 1),
            Pushed::Coalesced => self.0.tally.coalesced(class),
            Pushed::Conflated => self.0.tally.conflated(),
        }
    }
}

fn value(
    gate: &Arc<Gate>,
    progress: f64,
    total: Option<f64>,
    message: &dyn Display,
) -> ProgressValue {
    ProgressValue {
        gate: gate.clone(),
        progress,
        total: total.filter(|total| total.is_finite()),
        message: message.to_string().into(),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Inlet {
    /// The stream's name within its session.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.shared.stream
    }

    /// The writing end of the same stream.
    pub(crate) fn outlet(&self) -> Outlet {
        Outlet(self.shared.clone())
    }

    /// Appends what waits to `batch`, a bounded amount at once, or waits for something.
    /// `Ready(false)` when the stream has ended and `batch` got nothing.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<bool> {
        let before = batch.len();
        let mut state = self.shared.state.lock();
        if state.reader != self.reader || state.queue.is_closed() {
            return Poll::Ready(false);
        }
        let terms = &self.shared.terms;
        state.queue.take(batch, before + BATCH_FRAMES, BATCH_BYTES, &terms.retention);
        if batch.len() > before {
            drop(state);
            for (_, class, _) in &batch[before..] {
                self.shared.tally.delivered(*class);
            }
            self.shared.room.notify_waiters();
            return Poll::Ready(true);
        }
        if state.queue.is_finished() {
            return Poll::Ready(false);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// As [`poll_next`](Self::poll_next). Cancel safe: nothing is taken until it is ready.
    pub async fn next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        poll_fn(|cx| self.poll_next(cx, batch)).await
    }

    /// Says that the client has stopped reading, and that its connection is closed for it.
    /// To be followed by dropping the inlet.
    pub fn stalled(&self) {
        self.shared.tally.closed();
    }

    /// Whether nothing waits and nothing will follow.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let state = self.shared.state.lock();
        state.reader != self.reader
            || state.queue.is_closed()
            || (state.queue.is_finished() && !state.queue.has_unread())
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let notified = {
            let mut state = self.shared.state.lock();
            if state.reader != self.reader {
                return;
            }
            state.attached = false;
            state.waker = None;
            // One that read to the end has not gone away: it is done.
            if state.queue.is_finished() && !state.queue.has_unread() {
                state.when_gone = WhenGone::Wait;
            }
            match std::mem::replace(&mut state.when_gone, WhenGone::Wait) {
                WhenGone::Wait => None,
                WhenGone::Close(notified) => {
                    state.queue.close();
                    Some(notified)
                }
            }
        };
        self.shared.room.notify_waiters();
        if let Some(notified) = notified {
            notified.notify();
        }
    }
}
