//! The bounded stream to one client.
//!
//! The session that opened a stream, the hub and running calls write into its [`StreamSender`]. The
//! one transport task that owns the pipe or the response body reads the [`StreamReceiver`]. The hub
//! can read in place of that task, with a [`DirectWrite`] that the transport lends to the stream.
//! Between the two ends is a queue that never grows past its limits, whatever the client does. The
//! table in [`policy`] says what becomes of frames that do not fit.
//!
//! No write waits for the client, except the progress of a call that asks for it
//! ([`Context::report_progress_paced`](crate::Context::report_progress_paced)).

mod counters;
mod event_store;
pub mod policy;
mod progress_gate;
mod queue;
mod receiver;
mod record;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use stentor_wire::{EncodedNotice, Id, SubscriptionId};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use counters::LossCounters;
pub use counters::{Counters, CountersView};
pub(crate) use event_store::Log;
pub use event_store::{EventLog, EventStore, MemoryEventStore, Reopened, Replay};
use policy::{Class, Limits, WhenBehind};
pub(crate) use progress_gate::ProgressGate;
pub use queue::Frame;
use queue::{Pushed, Queue};
use receiver::Reader;
pub use receiver::{DirectWrite, StreamReceiver};
pub(crate) use record::StreamRecord;

use crate::ids::{Seq, StreamId};

/// What happens to a stream when its reader is dropped or has stalled.
#[derive(Debug)]
pub(crate) enum WhenGone {
    /// The stream waits for another reader.
    Wait,
    /// The stream waits for another reader; the callback runs the first time.
    Notify(Box<dyn Notified>),
    /// The stream is closed; then the callback runs once.
    Close(Box<dyn Notified>),
}

/// A callback that runs once when a stream has no reader any more.
pub(crate) trait Notified: Send + std::fmt::Debug {
    fn notify(self: Box<Self>);
}

/// How a stream behaves. Fixed when the stream is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    /// Whether the reply is the last frame, as on the response body of an HTTP request.
    pub(crate) one_reply: bool,
}

#[derive(Debug)]
struct Shared {
    stream: StreamId,
    terms: Terms,
    counters: Arc<Counters>,
    state: Mutex<State>,
    space: Notify,
    request: OnceLock<Box<Id>>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    log: Option<Log>,
    waker: Option<Waker>,
    /// Writes the queue to the client in place of a reader that sleeps.
    writer: Option<Weak<dyn DirectWrite>>,
    /// The number of the current reader. A reader that was replaced sees another number and ends.
    reader: u64,
    attached: bool,
    when_gone: WhenGone,
    /// Since when frames have been seen waiting, and the number of the first of them.
    waiting: Option<(Instant, Seq)>,
    /// The bytes of the queue that the counters already include.
    counted: usize,
    /// Conflated progress values that the counters do not include yet.
    overtaken: u64,
}

/// How much the counters may lag behind one stream: bytes in its queue, and conflated progress
/// values. Other streams write to the same counters, so an update costs more than queueing a frame.
const UNTOLD_BYTES: usize = 1024;
const UNTOLD_VALUES: u64 = 64;

/// The writing end of a stream. Clones write to the same stream.
#[derive(Clone, Debug)]
pub struct StreamSender(Arc<Shared>);

/// A frame with its number in the stream and its class.
pub type Delivered = (Seq, Class, Frame);

impl StreamSender {
    pub(crate) fn new(
        stream: StreamId,
        terms: Terms,
        counters: Arc<Counters>,
        when_gone: WhenGone,
        log: Option<Log>,
    ) -> Self {
        let state = State {
            queue: Queue::default(),
            log,
            waker: None,
            writer: None,
            reader: 0,
            attached: false,
            when_gone,
            waiting: None,
            counted: 0,
            overtaken: 0,
        };
        Self(Arc::new(Shared {
            stream,
            terms,
            counters,
            state: Mutex::new(state),
            space: Notify::new(),
            request: OnceLock::new(),
        }))
    }

    pub(crate) fn answers(&self, request: &Id) {
        self.0.request.get_or_init(|| Box::new(request.clone()));
    }

    pub(crate) fn request(&self) -> Option<&Id> {
        self.0.request.get().map(|id| &**id)
    }

    /// The id of the stream within its session.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.0.stream
    }

    /// Queues a frame under the delivery policy. Never waits.
    pub(crate) fn push(&self, class: Class, frame: Frame) {
        let limits = self.limits_of(class);
        self.with_queue(class, |queue| queue.push(class, frame, &limits));
    }

    pub(crate) fn notice(
        &self,
        class: Class,
        notice: Arc<EncodedNotice>,
        subscription: Option<SubscriptionId>,
    ) {
        self.push(class, Frame::Notice(notice, subscription));
    }

    /// As [`notice`](Self::notice), and writes the notice to the client at once if that needs no
    /// waiting. For a notice to many clients: waking the task of each connection takes longer.
    pub(crate) fn notice_directly(
        &self,
        class: Class,
        notice: Arc<EncodedNotice>,
        subscription: Option<SubscriptionId>,
    ) {
        let limits = self.limits_of(class);
        let (pushed, asleep, writer) = {
            let mut state = self.0.state.lock();
            let pushed = self.push_to(&mut state, |queue| {
                queue.push(class, Frame::Notice(notice, subscription), &limits)
            });
            // A task that is awake writes the notice by itself.
            let asleep = state.waker.is_some();
            (pushed, asleep, state.writer.as_ref().filter(|_| asleep).and_then(Weak::upgrade))
        };
        if asleep && !writer.is_some_and(|writer| writer.write_directly()) {
            let waker = self.0.state.lock().waker.take();
            wake(waker);
        }
        self.count(class, pushed);
    }

    /// Queues the response to a request. On a stream of one request no frame follows it.
    pub(crate) fn reply(&self, bytes: bytes::Bytes, error_code: Option<i32>) {
        let limits = self.limits_of(Class::Reply);
        self.with_queue(Class::Reply, |queue| {
            let pushed = queue.push(Class::Reply, Frame::Reply(bytes, error_code), &limits);
            if self.0.terms.one_reply {
                queue.finish();
            }
            pushed
        });
    }

    pub(crate) fn is_shared(&self) -> bool {
        !self.0.terms.one_reply
    }

    /// Ends the stream of one request without a response. Does nothing to a shared stream.
    pub(crate) fn finish_unanswered(&self) {
        if self.0.terms.one_reply {
            self.finish();
        }
    }

    /// Ends the stream: no frame follows the frames that are queued.
    pub(crate) fn finish(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.queue.finish();
            state.waker.take()
        };
        self.0.space.notify_waiters();
        wake(waker);
    }

    /// Stores frames that are read from now on. `read` contains all frames that were read before.
    pub(crate) fn keep_log(&self, log: Log, read: &[Delivered]) {
        let mut state = self.0.state.lock();
        state.log = Some(log);
        state.keep(read, &self.0.counters);
    }

    /// Keeps the log in the event store when the stream is dropped: another node or process may
    /// continue the stream.
    pub(crate) fn leave_log(&self) {
        if let Some(log) = &mut self.0.state.lock().log {
            log.events.leave();
        }
    }

    /// Removes the action for a lost reader: the work behind the stream goes on without one.
    pub(crate) fn keep_without_reader(&self) {
        self.0.state.lock().when_gone = WhenGone::Wait;
    }

    /// Waits until at most [`Limits::answers`] bytes of replies and questions are queued, or the
    /// stream has ended or has no reader. Cancel safe.
    pub(crate) async fn wait_until_read(&self) {
        self.wait_for_space(|state| !state.is_read()).await;
    }

    /// As [`wait_until_read`](Self::wait_until_read), but also waits while the stream has no reader.
    pub(crate) async fn wait_for_space_to_ask(&self) {
        self.wait_for_space(State::is_over).await;
    }

    async fn wait_for_space(&self, or: impl Fn(&State) -> bool) {
        loop {
            let space = self.0.space.notified();
            {
                let state = self.0.state.lock();
                if state.queue.kept_bytes() <= self.0.terms.limits.answers || or(&state) {
                    return;
                }
            }
            space.await;
        }
    }

    /// Attaches a reader that continues where the last one stopped. A reader that is still attached
    /// ends.
    pub(crate) fn attach(&self) -> StreamReceiver {
        let mut state = self.0.state.lock();
        let (reader, waker) = self.attach_to(&mut state);
        drop(state);
        wake(waker);
        StreamReceiver::local(reader)
    }

    /// Attaches a reader that begins at frame `next`, or at the first stored frame after it. The
    /// result is `false` if frames in between are lost. A reader that is still attached ends.
    ///
    /// When dropped early, the stream has no reader.
    pub(crate) async fn resume(&self, next: Seq) -> (StreamReceiver, bool) {
        let (mut reader, waker, replay) = {
            let mut state = self.0.state.lock();
            let read = state.queue.read();
            // Under the same lock: the replay does not contain frames that are read from here on.
            let (reader, waker) = self.attach_to(&mut state);
            let replay = match &mut state.log {
                Some(log) if next < read => Ok((log.events.replay(next), next >= log.floor)),
                _ => Err(next == read),
            };
            (reader, waker, replay)
        };
        wake(waker);
        match replay {
            Ok((replay, kept)) => {
                let Replay { events, complete } = replay.await;
                reader.replay = events.into();
                (StreamReceiver::local(reader), complete && kept)
            }
            Err(complete) => (StreamReceiver::local(reader), complete),
        }
    }

    fn attach_to(&self, state: &mut State) -> (Reader, Option<Waker>) {
        let waker = state.replace_reader();
        state.attached = true;
        state.waiting = None;
        let reader =
            Reader { shared: self.0.clone(), reader: state.reader, replay: VecDeque::new() };
        (reader, waker)
    }

    /// Ends the reader but not the stream: the client is to come back for the rest.
    pub(crate) fn detach(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.attached = false;
            state.replace_reader()
        };
        self.0.space.notify_waiters();
        wake(waker);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.state.lock().is_over()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.0.state.lock().attached
    }

    pub(crate) fn unread(&self) -> usize {
        self.0.state.lock().queue.unread()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Ends the reader if it has not read for `timeout` although frames wait; `true` if so. To be
    /// called periodically.
    pub(crate) fn close_if_stalled(&self, timeout: Duration) -> bool {
        let (notified, waker) = {
            let mut state = self.0.state.lock();
            // The log may shrink by itself.
            if let Some(log) = &mut state.log {
                log.recount(&self.0.counters);
            }
            let first = state.queue.read();
            if !state.attached || !state.queue.has_unread() {
                state.waiting = None;
                return false;
            }
            match state.waiting {
                Some((since, seen)) if seen == first => {
                    if since.elapsed() < timeout {
                        return false;
                    }
                }
                _ => {
                    state.waiting = Some((Instant::now(), first));
                    return false;
                }
            }
            let waker = state.replace_reader();
            (self.0.detach_reader(&mut state), waker)
        };
        self.0.counters.closed();
        self.0.space.notify_waiters();
        wake(waker);
        if let Some(notified) = notified {
            notified.notify();
        }
        true
    }

    /// The limits of the stream under the current pressure on the budgets.
    fn limits(&self) -> Limits {
        self.0.terms.limits.under(self.0.counters.pressure())
    }

    fn limits_of(&self, class: Class) -> Limits {
        match class.when_behind() {
            // The budgets do not change the limits of these classes, so this does not read them:
            // each session has its budget at another place in memory, and a notice goes to all
            // sessions.
            WhenBehind::Keep | WhenBehind::OneFlag => self.0.terms.limits,
            WhenBehind::LatestWins | WhenBehind::DropOldest => self.limits(),
        }
    }

    fn with_queue(&self, class: Class, push: impl FnOnce(&mut Queue) -> Pushed) {
        let (pushed, waker) = {
            let mut state = self.0.state.lock();
            let pushed = self.push_to(&mut state, push);
            (pushed, state.waker.take())
        };
        wake(waker);
        self.count(class, pushed);
    }

    fn push_to(&self, state: &mut State, push: impl FnOnce(&mut Queue) -> Pushed) -> Pushed {
        let pushed = push(&mut state.queue);
        state.overtaken += u64::from(pushed == Pushed::Conflated);
        state.count(&self.0.counters);
        pushed
    }

    fn count(&self, class: Class, pushed: Pushed) {
        match pushed {
            // Counted in batches, later.
            Pushed::Queued | Pushed::Conflated => {}
            Pushed::QueuedAfterDrop(count) => self.0.counters.dropped(class, count),
            // No client reads the stream, so none has fallen behind.
            Pushed::Closed => {}
            Pushed::Refused => self.0.counters.refused(),
            Pushed::Coalesced => self.0.counters.coalesced(class),
        }
    }
}

impl Shared {
    /// Detaches the reader: the stream waits for another reader or is closed. Returns the callback
    /// that the caller has to run.
    fn detach_reader(&self, state: &mut State) -> Option<Box<dyn Notified>> {
        state.attached = false;
        state.waiting = None;
        match std::mem::replace(&mut state.when_gone, WhenGone::Wait) {
            WhenGone::Wait => None,
            WhenGone::Notify(notified) => Some(notified),
            WhenGone::Close(notified) => {
                state.queue.close();
                state.count(&self.counters);
                Some(notified)
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        state.queue.close();
        state.count(&self.counters);
        if let Some(log) = &state.log {
            log.uncount(&self.counters);
        }
    }
}

impl State {
    /// Invalidates the current reader. The caller has to wake the returned waker, so that the
    /// reader ends.
    fn replace_reader(&mut self) -> Option<Waker> {
        self.reader += 1;
        self.writer = None;
        self.waker.take()
    }

    /// Updates the counters if the queue is empty, or has changed by [`UNTOLD_BYTES`] or
    /// [`UNTOLD_VALUES`].
    fn count(&mut self, counters: &Counters) {
        let (counted, now) = (self.counted, self.queue.weight());
        if now == 0 || now.abs_diff(counted) >= UNTOLD_BYTES {
            counters.holds(counted, now);
            self.counted = now;
        }
        if self.overtaken > 0 && (now == 0 || self.overtaken >= UNTOLD_VALUES) {
            counters.conflated(std::mem::take(&mut self.overtaken));
        }
    }

    fn keep(&mut self, read: &[Delivered], counters: &Counters) {
        if let Some(log) = &mut self.log {
            log.keep(read, counters);
        }
    }

    fn is_over(&self) -> bool {
        self.queue.is_closed() || self.queue.is_finished()
    }

    fn is_read(&self) -> bool {
        self.attached && !self.is_over()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
