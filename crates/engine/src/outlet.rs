//! The bounded way to one client.
//!
//! An [`Outlet`] is written by whoever has something to say on a stream: the session that
//! opened it, the hub, a running call. Its [`Inlet`] is read by the one transport task that
//! owns the pipe or the response body, or in its place by the hub, with what the transport lends it
//! ([`WriteNow`]). In between lies a queue that never grows past its limits, whatever the client
//! does; what happens then is the table in [`policy`].
//!
//! Nobody ever waits for a client here except a call that asks to
//! ([`Context::report_progress_paced`](crate::Context::report_progress_paced)).

mod gate;
mod handover;
mod inlet;
mod log;
pub mod policy;
mod queue;
mod tally;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use stentor_wire::{EncodedNotice, Id, SubscriptionId};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use gate::Gate;
pub(crate) use handover::StreamRecord;
use inlet::Reader;
pub use inlet::{Inlet, WriteNow};
pub(crate) use log::Log;
pub use log::{EventLog, EventStore, MemoryEventStore, Reopened, Replay};
use policy::{Class, Limits, WhenBehind};
pub use queue::Frame;
use queue::{Pushed, Queue};
pub(crate) use tally::Trouble;
pub use tally::{Tally, TallyView};

use crate::ids::{Seq, StreamId};

/// What happens to a stream when its reader goes away.
#[derive(Debug)]
pub(crate) enum WhenGone {
    /// It waits for the reader to come back.
    Wait,
    /// It waits, too; this is done the first time.
    Tell(Box<dyn Notified>),
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
    /// The request that it answers, where that is to be known.
    request: OnceLock<Box<Id>>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// What was read, where a client can come back for it.
    log: Option<Log>,
    /// Of a reader that sleeps.
    waker: Option<Waker>,
    /// Who can write in its place what waits.
    writer: Option<Weak<dyn WriteNow>>,
    /// Counts readers, so that one that was replaced notices.
    reader: u64,
    attached: bool,
    when_gone: WhenGone,
    /// Since when what waits was seen waiting, and what was the first of it.
    waiting: Option<(Instant, Seq)>,
    /// What the budgets know of what waits, in bytes.
    counted: usize,
    /// Values of progress that were overtaken and are not counted yet.
    overtaken: u64,
}

/// So many bytes more or less may wait than the budgets know, and so many values may be overtaken
/// before they are counted. Others write to the same counters, which costs more than to queue a frame.
const UNTOLD_BYTES: usize = 1024;
const UNTOLD_VALUES: u64 = 64;

/// The writing end of a stream. Clones write to the same stream.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Shared>);

/// A frame with its place in the stream.
pub type Delivered = (Seq, Class, Frame);

impl Outlet {
    pub(crate) fn new(
        stream: StreamId,
        terms: Terms,
        tally: Arc<Tally>,
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
            tally,
            state: Mutex::new(state),
            room: Notify::new(),
            request: OnceLock::new(),
        }))
    }

    /// Lets it be known which request the stream answers.
    pub(crate) fn answers(&self, request: &Id) {
        self.0.request.get_or_init(|| Box::new(request.clone()));
    }

    /// The request that the stream answers, where that is known.
    pub(crate) fn request(&self) -> Option<&Id> {
        self.0.request.get().map(|id| &**id)
    }

    /// The stream's name within its session.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.0.stream
    }

    /// Queues a frame under the delivery policy. Never waits.
    pub(crate) fn push(&self, class: Class, frame: Frame) {
        let limits = self.limits_of(class);
        self.with_queue(class, |queue| queue.push(class, frame, &limits));
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

    /// As [`notice`](Self::notice), and writes it to the client at once if that takes no waiting:
    /// for who tells many, as to wake the task of each connection takes longer.
    pub(crate) fn notice_now(
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
            // One that is awake writes it by itself.
            let asleep = state.waker.is_some();
            (pushed, asleep, state.writer.as_ref().filter(|_| asleep).and_then(Weak::upgrade))
        };
        if asleep && !writer.is_some_and(|writer| writer.write_now()) {
            let waker = self.0.state.lock().waker.take();
            wake(waker);
        }
        self.count(class, pushed);
    }

    /// Queues the response to a request; on a stream of one request, nothing follows it.
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

    /// Whether notices go out on it beside answers.
    pub(crate) fn is_shared(&self) -> bool {
        !self.0.terms.one_reply
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

    /// Keeps from here on what is read, after `read`, which is all that was so far.
    pub(crate) fn keep_log(&self, log: Log, read: &[Delivered]) {
        let mut state = self.0.state.lock();
        state.log = Some(log);
        state.keep(read, &self.0.tally);
    }

    /// What was read stays in the store when the stream is dropped: it may go on elsewhere.
    pub(crate) fn leave_log(&self) {
        if let Some(log) = &mut self.0.state.lock().log {
            log.events.leave();
        }
    }

    /// What the stream was for goes on without its reader: nothing happens when that goes away.
    pub(crate) fn let_go(&self) {
        self.0.state.lock().when_gone = WhenGone::Wait;
    }

    /// Waits until few enough answers and questions wait for the client, or nobody reads them. Cancel
    /// safe.
    pub(crate) async fn answers_read(&self) {
        self.room_for_answers(|state| !state.is_read()).await;
    }

    /// As [`answers_read`](Self::answers_read), but also waits for a client that is away.
    pub(crate) async fn room_to_ask(&self) {
        self.room_for_answers(State::is_over).await;
    }

    async fn room_for_answers(&self, or: impl Fn(&State) -> bool) {
        loop {
            let room = self.0.room.notified();
            {
                let state = self.0.state.lock();
                if state.queue.kept_bytes() <= self.0.terms.limits.answers || or(&state) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Begins to read the stream where the last reader stopped. A reader that is still there
    /// ends.
    pub(crate) fn attach(&self) -> Inlet {
        let mut state = self.0.state.lock();
        let (reader, waker) = self.attach_to(&mut state);
        drop(state);
        wake(waker);
        Inlet::here(reader)
    }

    /// Begins to read the stream at a frame that the client names, or at the first that is
    /// kept after it; `false` if frames in between are gone. A reader that is still there ends.
    ///
    /// When dropped early, the stream has no reader.
    pub(crate) async fn resume(&self, next: Seq) -> (Inlet, bool) {
        let (mut reader, waker, replay) = {
            let mut state = self.0.state.lock();
            let read = state.queue.read();
            // In the same moment: what is read from here on is not in the replay.
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
                (Inlet::here(reader), complete && kept)
            }
            Err(complete) => (Inlet::here(reader), complete),
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

    /// Ends the reader, but not the stream: the client is to come back for the rest.
    pub(crate) fn detach(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.attached = false;
            state.replace_reader()
        };
        self.0.room.notify_waiters();
        wake(waker);
    }

    /// Whether nothing follows what is queued.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.state.lock().is_over()
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

    /// Ends the reader if it has not read for this long although something waits; `true` if so.
    /// To be called from time to time.
    pub(crate) fn close_if_stalled(&self, timeout: Duration) -> bool {
        let (notified, waker) = {
            let mut state = self.0.state.lock();
            // What a log holds may become less by itself.
            if let Some(log) = &mut state.log {
                log.recount(&self.0.tally);
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
            (self.0.reader_gone(&mut state), waker)
        };
        self.0.tally.closed();
        self.0.room.notify_waiters();
        wake(waker);
        if let Some(notified) = notified {
            notified.notify();
        }
        true
    }

    /// What may wait, as the budgets are now.
    fn limits(&self) -> Limits {
        self.0.terms.limits.under(self.0.tally.pressure())
    }

    /// What may wait of this class, as the budgets are now.
    fn limits_of(&self, class: Class) -> Limits {
        match class.when_behind() {
            // No budget changes what becomes of these, so it is not looked at: each session's is
            // somewhere else in memory, and a notice is for all of them.
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
        state.count(&self.0.tally);
        pushed
    }

    fn count(&self, class: Class, pushed: Pushed) {
        match pushed {
            // Counted with others.
            Pushed::Queued | Pushed::Conflated => {}
            Pushed::QueuedAfterDrop(count) => self.0.tally.dropped(class, count),
            // Nobody is there who could have fallen behind.
            Pushed::Closed => {}
            Pushed::Refused => self.0.tally.refused(),
            Pushed::Coalesced => self.0.tally.coalesced(class),
        }
    }
}

impl Shared {
    /// Nobody reads the stream any more: it waits, or is closed, and who is to know is
    /// returned.
    fn reader_gone(&self, state: &mut State) -> Option<Box<dyn Notified>> {
        state.attached = false;
        state.waiting = None;
        match std::mem::replace(&mut state.when_gone, WhenGone::Wait) {
            WhenGone::Wait => None,
            WhenGone::Tell(notified) => Some(notified),
            WhenGone::Close(notified) => {
                state.queue.close();
                state.count(&self.tally);
                Some(notified)
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        state.queue.close();
        state.count(&self.tally);
        if let Some(log) = &state.log {
            log.uncount(&self.tally);
        }
    }
}

impl State {
    /// There is another reader, or none; the one before is to be woken, and ends.
    fn replace_reader(&mut self) -> Option<Waker> {
        self.reader += 1;
        self.writer = None;
        self.waker.take()
    }

    /// Counts what waits and what was overtaken, if that is much by now, or nothing waits.
    fn count(&mut self, tally: &Tally) {
        let (counted, now) = (self.counted, self.queue.weight());
        if now == 0 || now.abs_diff(counted) >= UNTOLD_BYTES {
            tally.holds(counted, now);
            self.counted = now;
        }
        if self.overtaken > 0 && (now == 0 || self.overtaken >= UNTOLD_VALUES) {
            tally.conflated(std::mem::take(&mut self.overtaken));
        }
    }

    /// Keeps what was read, where a client can come back for it.
    fn keep(&mut self, read: &[Delivered], tally: &Tally) {
        if let Some(log) = &mut self.log {
            log.keep(read, tally);
        }
    }

    /// Whether nothing follows what is queued.
    fn is_over(&self) -> bool {
        self.queue.is_closed() || self.queue.is_finished()
    }

    /// Whether somebody reads the stream, and it goes on.
    fn is_read(&self) -> bool {
        self.attached && !self.is_over()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
