//! The writing end of a stream.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use stentor_wire::{EncodedNotice, Id, SubscriptionId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::event_store::{Log, Replay};
use crate::frame::{Delivered, Frame};
use crate::ids::{Seq, StreamId};
use crate::policy::{Class, Limits, WhenBehind};
use crate::queue::{Pushed, Queue};
use crate::receiver::{Reader, StreamReceiver};
use crate::shared::{Shared, State, Terms, WhenGone, wake};

/// A stream that is read again from a frame on.
#[derive(Debug)]
pub struct Resumed {
    /// The reader.
    pub receiver: StreamReceiver,
    /// Whether no frame in between is lost.
    pub complete: bool,
}

/// The writing end of a stream. Clones write to the same stream.
#[derive(Clone, Debug)]
pub struct StreamSender(pub(crate) Arc<Shared>);

impl StreamSender {
    /// Opens a stream. `log` is where frames go that were read; `None` keeps none.
    pub fn new(
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
            resumed: false,
            attached: false,
            when_gone,
            waiting: None,
            counted: 0,
            conflated: 0,
        };
        Self(Arc::new(Shared {
            stream,
            terms,
            counters,
            state: Mutex::new(state),
            space: Notify::new(),
            request: OnceLock::new(),
            needs: OnceLock::new(),
        }))
    }

    /// Notes the request that the stream answers.
    pub fn answers(&self, request: &Id) {
        self.0.request.get_or_init(|| Box::new(request.clone()));
    }

    /// The request that the stream answers, if it was noted.
    pub fn request(&self) -> Option<&Id> {
        self.0.request.get().map(|id| &**id)
    }

    /// Notes something that a reader of the stream has to have. Who gives the stream out checks it.
    ///
    /// A reader that has resumed the stream ends, because it may not have it. Its client can come back.
    pub fn need(&self, need: Arc<str>) {
        {
            let mut needs = self.0.needs.get_or_init(Box::default).lock();
            if needs.contains(&need) {
                return;
            }
            needs.push(need);
        }
        let resumed = self.0.state.lock().resumed;
        if resumed {
            self.detach();
        }
    }

    /// What a reader of the stream has to have.
    #[must_use]
    pub fn needs(&self) -> Vec<Arc<str>> {
        self.0.needs.get().map(|needs| needs.lock().clone()).unwrap_or_default()
    }

    /// The id of the stream within its session.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.0.stream
    }

    /// Queues a frame under the delivery policy. Never waits.
    pub fn push(&self, class: Class, frame: Frame) {
        let limits = self.limits_of(class);
        self.with_queue(class, |queue| queue.push(class, frame, &limits));
    }

    /// As [`push`](Self::push), and runs `then` before anybody can read the frame. `then` must not
    /// block, nor use this stream.
    pub fn push_then(&self, class: Class, frame: Frame, then: impl FnOnce()) {
        let limits = self.limits_of(class);
        self.with_queue(class, |queue| {
            let pushed = queue.push(class, frame, &limits);
            then();
            pushed
        });
    }

    /// Queues a notice that many streams share.
    pub fn notice(
        &self,
        class: Class,
        notice: Arc<EncodedNotice>,
        subscription: Option<SubscriptionId>,
    ) {
        self.push(class, Frame::Notice(notice, subscription));
    }

    /// As [`notice`](Self::notice), and writes the notice to the client at once if that needs no
    /// waiting. For a notice to many clients: waking the task of each connection takes longer.
    pub fn notice_directly(
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
    pub fn reply(&self, bytes: bytes::Bytes, error_code: Option<i32>) {
        let limits = self.limits_of(Class::Reply);
        self.with_queue(Class::Reply, |queue| {
            let pushed = queue.push(Class::Reply, Frame::Reply(bytes, error_code), &limits);
            if self.0.terms.one_reply {
                queue.finish();
            }
            pushed
        });
    }

    /// Whether the stream has more than the messages of one request.
    pub fn is_shared(&self) -> bool {
        !self.0.terms.one_reply
    }

    /// Ends the stream of one request without a response. Does nothing to a shared stream.
    pub fn finish_unanswered(&self) {
        if self.0.terms.one_reply {
            self.finish();
        }
    }

    /// Ends the stream: no frame follows the frames that are queued.
    pub fn finish(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.queue.finish();
            state.waker.take()
        };
        self.0.space.notify_waiters();
        wake(waker);
    }

    /// Stores frames that are read from now on. `read` contains all frames that were read before.
    pub fn keep_log(&self, log: Log, read: &[Delivered]) {
        let mut state = self.0.state.lock();
        state.log = Some(log);
        state.keep(read, &self.0.counters);
    }

    /// Keeps the log in the event store when the stream is dropped: another node or process may
    /// continue the stream.
    pub fn leave_log(&self) {
        if let Some(log) = &mut self.0.state.lock().log {
            log.events.leave();
        }
    }

    /// Removes the action for a lost reader: the work behind the stream goes on without one.
    pub fn keep_without_reader(&self) {
        self.0.state.lock().when_gone = WhenGone::Wait;
    }

    /// Waits until at most [`Limits::answers`] bytes of replies and questions are queued, or the
    /// stream has ended or has no reader. Cancel safe.
    pub async fn wait_until_read(&self) {
        self.wait_for_space(|state| !state.is_read()).await;
    }

    /// As [`wait_until_read`](Self::wait_until_read), but also waits while the stream has no reader.
    pub async fn wait_for_space_to_ask(&self) {
        self.wait_for_space(State::is_over).await;
    }

    /// Whether there is room for an event: the frames that wait and are never dropped are within
    /// [`Limits::bytes`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        let limit = self.limits().bytes;
        self.0.state.lock().queue.kept_bytes() <= limit
    }

    /// Waits until half of [`Limits::bytes`] is free, or the stream has ended. Cancel safe.
    pub async fn wait_for_room(&self) {
        loop {
            let space = self.0.space.notified();
            let limit = self.limits().bytes / 2;
            {
                let state = self.0.state.lock();
                if state.queue.kept_bytes() <= limit || state.is_over() {
                    return;
                }
            }
            space.await;
        }
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
    pub fn attach(&self) -> StreamReceiver {
        let mut state = self.0.state.lock();
        let (reader, waker) = self.attach_to(&mut state);
        drop(state);
        wake(waker);
        StreamReceiver::local(reader)
    }

    /// Attaches a reader that begins at frame `next`, or at the first stored frame after it. A
    /// reader that is still attached ends.
    ///
    /// When dropped early, the stream has no reader.
    pub async fn resume(&self, next: Seq) -> Resumed {
        let (mut reader, waker, replay) = {
            let mut state = self.0.state.lock();
            let read = state.queue.read();
            // Under the same lock: the replay does not contain frames that are read from here on.
            let (reader, waker) = self.attach_to(&mut state);
            state.resumed = true;
            let replay = match &mut state.log {
                Some(log) if next < read => Ok((log.events.replay(next), next >= log.floor)),
                _ => Err(next == read),
            };
            (reader, waker, replay)
        };
        wake(waker);
        let complete = match replay {
            Ok((replay, kept)) => {
                let Replay { events, complete } = replay.await;
                reader.replay = events.into();
                complete && kept
            }
            Err(complete) => complete,
        };
        Resumed { receiver: StreamReceiver::local(reader), complete }
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
    pub fn detach(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.attached = false;
            state.replace_reader()
        };
        self.0.space.notify_waiters();
        wake(waker);
    }

    /// Whether no frame follows the frames that are queued.
    pub fn is_finished(&self) -> bool {
        self.0.state.lock().is_over()
    }

    /// Whether the stream has a reader.
    pub fn is_attached(&self) -> bool {
        self.0.state.lock().attached
    }

    /// How many frames wait for the client.
    pub fn unread(&self) -> usize {
        self.0.state.lock().queue.unread()
    }

    /// The counters of the stream's session.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Ends the reader if it has not read for `timeout` although frames wait; `true` if so. To be
    /// called periodically.
    pub fn close_if_stalled(&self, timeout: Duration) -> bool {
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
    pub(crate) fn limits(&self) -> Limits {
        self.0.terms.limits.under(self.0.counters.pressure())
    }

    pub(crate) fn limits_of(&self, class: Class) -> Limits {
        match class.when_behind() {
            // The budgets do not change the limits of these classes, so this does not read them:
            // each session has its budget at another place in memory, and a notice goes to all
            // sessions.
            WhenBehind::Keep | WhenBehind::OneFlag => self.0.terms.limits,
            WhenBehind::LatestWins | WhenBehind::DropOldest => self.limits(),
        }
    }

    pub(crate) fn with_queue(&self, class: Class, push: impl FnOnce(&mut Queue) -> Pushed) {
        let (pushed, waker) = {
            let mut state = self.0.state.lock();
            let pushed = self.push_to(&mut state, push);
            (pushed, state.waker.take())
        };
        wake(waker);
        self.count(class, pushed);
    }

    fn push_to(&self, state: &mut State, push: impl FnOnce(&mut Queue) -> Pushed) -> Pushed {
        let counters = &self.0.counters;
        state.queue.follow(counters.is_followed());
        let pushed = push(&mut state.queue);
        state.tell(self.0.stream, counters);
        state.conflated += u64::from(pushed == Pushed::Conflated);
        state.count(counters);
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

impl StreamReceiver {
    /// The writing end of the same stream, if the stream is on this node.
    #[must_use]
    pub fn sender(&self) -> Option<StreamSender> {
        self.shared().cloned().map(StreamSender)
    }
}
