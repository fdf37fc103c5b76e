//! The reading end of a stream.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use crate::direct_write::DirectWrite;
use crate::frame::Delivered;
use crate::ids::{Seq, StreamId};
use crate::shared::{Shared, WhenGone};

/// The most a reader takes at once, so that few frames of a slow pipe are outside of its queue.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 16 * 1024;

/// A stream that another node has, as it arrives here.
pub trait RemoteSource: Debug + Send + Sync + 'static {
    /// The id of the stream within its session.
    fn stream_id(&self) -> StreamId;

    /// The number of the next frame, if the stream's node reports it.
    fn next_seq(&self) -> Option<Seq>;

    /// Whether no frame waits and none will follow.
    fn is_drained(&self) -> bool;

    /// Whether the stream has heartbeats of its own.
    fn has_heartbeats(&self) -> bool {
        false
    }

    /// Appends the frames that have arrived to `batch`, or waits for some.
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<Next>;
}

/// The result of a read of a [`RemoteSource`].
#[derive(Debug)]
pub enum Next {
    /// Frames were appended.
    Some,
    /// The stream has ended.
    End,
    /// This receiver reads the rest of the stream.
    From(StreamReceiver),
}

/// The reading end of a stream. A transport drops it when the client has gone.
#[derive(Debug)]
pub struct StreamReceiver(Source);

#[derive(Debug)]
enum Source {
    Local(Reader),
    /// Boxed because most streams are local.
    Remote(Box<dyn RemoteSource>),
}

impl StreamReceiver {
    pub(crate) fn local(reader: Reader) -> Self {
        Self(Source::Local(reader))
    }

    /// A receiver of a stream that another node has.
    #[must_use]
    pub fn remote(source: impl RemoteSource) -> Self {
        Self(Source::Remote(Box::new(source)))
    }

    /// The id of the stream within its session.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        match &self.0 {
            Source::Local(reader) => reader.shared.stream,
            Source::Remote(remote) => remote.stream_id(),
        }
    }

    /// Whether the stream has heartbeats of its own.
    #[must_use]
    pub fn has_heartbeats(&self) -> bool {
        match &self.0 {
            Source::Local(reader) => reader.shared.terms.heartbeats,
            Source::Remote(remote) => remote.has_heartbeats(),
        }
    }

    /// The number of the next frame, or of an earlier one that nobody will read. A client that has
    /// received nothing yet can come back with it. `None` if the node of the stream does not report
    /// the number.
    #[must_use]
    pub fn next_seq(&self) -> Option<Seq> {
        match &self.0 {
            Source::Local(reader) => Some(reader.next_seq()),
            Source::Remote(remote) => remote.next_seq(),
        }
    }

    /// What the writing end shares with this one, if the stream is on this node.
    pub(crate) fn shared(&self) -> Option<&Arc<Shared>> {
        match &self.0 {
            Source::Local(reader) => Some(&reader.shared),
            Source::Remote(_) => None,
        }
    }

    /// Appends waiting frames to `batch`, a bounded amount at once, or waits for a frame.
    /// `Ready(false)` when the stream has ended and no frame was appended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<bool> {
        loop {
            let next = match &mut self.0 {
                Source::Local(reader) => return reader.look(Some(cx.waker()), batch),
                Source::Remote(remote) => ready!(remote.poll_next(cx, batch)),
            };
            match next {
                Next::Some => return Poll::Ready(true),
                Next::End => return Poll::Ready(false),
                Next::From(receiver) => *self = receiver,
            }
        }
    }

    /// As [`poll_next`](Self::poll_next). Cancel safe: no frame is taken before the future is
    /// ready.
    pub async fn next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        poll_fn(|cx| self.poll_next(cx, batch)).await
    }

    /// As [`poll_next`](Self::poll_next), but does not wait: `false` if no frame waits, and always
    /// on a stream of another node.
    pub fn try_next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        match &mut self.0 {
            Source::Local(reader) => reader.look(None, batch) == Poll::Ready(true),
            Source::Remote(_) => false,
        }
    }

    /// Lets `writer` write the waiting frames from now on, until this receiver is dropped or
    /// another reader takes its place. Does nothing on a stream of another node.
    pub fn written_by(&self, writer: Weak<dyn DirectWrite>) {
        if let Source::Local(reader) = &self.0 {
            let mut state = reader.shared.state.lock();
            if state.reader == reader.reader {
                state.writer = Some(writer);
            }
        }
    }

    /// Counts the stream as closed because its client stopped reading. The caller then closes the
    /// connection and drops this receiver.
    pub fn stalled(&self) {
        if let Source::Local(reader) = &self.0
            && reader.shared.state.lock().reader == reader.reader
        {
            reader.shared.counters.closed();
        }
    }

    /// Whether no frame waits and none will follow.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        match &self.0 {
            Source::Local(reader) => reader.is_drained(),
            Source::Remote(remote) => remote.is_drained(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: u64,
    /// Frames to repeat before the queue: they were sent to an earlier reader.
    pub(crate) replay: VecDeque<Delivered>,
}

impl Reader {
    /// Takes waiting frames. If there are none, registers `waker`.
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
        state.queue.take(batch, before + BATCH_FRAMES, BATCH_BYTES);
        if batch.len() > before {
            let counters = &self.shared.counters;
            state.count(counters);
            state.tell(self.shared.stream, counters);
            state.keep(&batch[before..], counters);
            drop(state);
            counters.delivered(&batch[before..]);
            self.shared.space.notify_waiters();
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

    fn next_seq(&self) -> Seq {
        let again = self.replay.front().map(|event| event.seq);
        again.unwrap_or_else(|| self.shared.state.lock().queue.read())
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
            // Even a weak reference keeps the memory of its target.
            state.writer = None;
            // A reader that has read to the end has not gone away: the stream is finished.
            if self.replay.is_empty() && state.queue.is_finished() && !state.queue.has_unread() {
                state.when_gone = WhenGone::Wait;
            }
            self.shared.detach_reader(&mut state)
        };
        self.shared.space.notify_waiters();
        if let Some(notified) = notified {
            notified.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{self, Display};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::Wake;

    use parking_lot::Mutex;
    use stentor_wire::{EncodedNotice, Id, ListKind, Notice, Topic};

    use super::*;
    use crate::policy::{Budget, Class, Limits};
    use crate::shared::{UNCOUNTED_BYTES, UNCOUNTED_VALUES};
    use crate::{Counters, Frame, ProgressGate, StreamSender, Terms};

    /// Counts how often the task of a connection is woken.
    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection whose client accepts writes, or does not.
    #[derive(Debug)]
    struct Connection {
        receiver: Mutex<StreamReceiver>,
        takes: AtomicBool,
        asked: AtomicUsize,
        written: Mutex<Vec<Delivered>>,
    }

    impl DirectWrite for Connection {
        fn write_directly(&self) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let takes = self.takes.load(Ordering::Relaxed);
            if takes {
                self.receiver.lock().try_next(&mut self.written.lock());
            }
            takes
        }
    }

    struct Fixture {
        sender: StreamSender,
        connection: Arc<Connection>,
        woken: Arc<Woken>,
    }

    impl Fixture {
        fn new() -> Self {
            let terms = Terms { limits: Limits::default(), one_reply: false, heartbeats: false };
            let counters = Arc::new(Counters::total(Budget::default().total));
            let sender =
                StreamSender::new(StreamId::STANDALONE, terms, counters, WhenGone::Wait, None);
            let connection = Arc::new(Connection {
                receiver: Mutex::new(sender.attach()),
                takes: AtomicBool::new(true),
                asked: AtomicUsize::new(0),
                written: Mutex::default(),
            });
            let this: Weak<Connection> = Arc::downgrade(&connection);
            connection.receiver.lock().written_by(this);
            Self { sender, connection, woken: Arc::default() }
        }

        /// The task reads all waiting frames, then sleeps.
        fn sleep(&self) {
            let waker = self.woken.clone().into();
            let mut batch = Vec::new();
            let mut receiver = self.connection.receiver.lock();
            while receiver.poll_next(&mut Context::from_waker(&waker), &mut batch).is_ready() {}
        }

        fn notify(&self, kind: ListKind) {
            let notice = Arc::new(EncodedNotice::new(Notice::Changed(Topic::List(kind))));
            self.sender.notice_directly(Class::ListChanged, notice, None);
        }

        fn weight(&self) -> usize {
            self.sender.0.state.lock().queue.weight()
        }

        /// How often the connection was asked to write, how many frames it wrote, how often its
        /// task was woken.
        fn seen(&self) -> (usize, usize, usize) {
            let asked = self.connection.asked.load(Ordering::Relaxed);
            (asked, self.connection.written.lock().len(), self.woken.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_direct_notice_is_written_while_the_task_of_its_connection_sleeps() {
        let case = Fixture::new();
        case.sleep();
        case.notify(ListKind::Tools);
        assert_eq!(case.seen(), (1, 1, 0));
        // The client accepts nothing, so the task is woken.
        case.connection.takes.store(false, Ordering::Relaxed);
        case.notify(ListKind::Prompts);
        assert_eq!(case.seen(), (2, 1, 1));
    }

    #[test]
    fn a_task_that_is_awake_writes_by_itself() {
        let case = Fixture::new();
        case.notify(ListKind::Tools);
        assert_eq!(case.seen(), (0, 0, 0));
        assert_eq!(case.sender.unread(), 1);
        case.sleep();
        assert_eq!(case.sender.unread(), 0);
    }

    #[test]
    fn the_writer_of_a_reader_that_was_replaced_is_not_called() {
        let case = Fixture::new();
        case.sleep();
        let mut next = case.sender.attach();
        let woken: Arc<Woken> = Arc::default();
        let waker = woken.clone().into();
        let (mut cx, mut batch) = (Context::from_waker(&waker), Vec::new());
        assert!(next.poll_next(&mut cx, &mut batch).is_pending());
        // The replaced connection offers its writer too late.
        let late: Weak<Connection> = Arc::downgrade(&case.connection);
        case.connection.receiver.lock().written_by(late);
        case.notify(ListKind::Tools);
        assert_eq!(case.seen(), (0, 0, 1), "woken as it was replaced, and not asked");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(next.poll_next(&mut cx, &mut batch), Poll::Ready(true));
    }

    #[test]
    fn what_waits_is_counted_roughly_while_it_changes_and_exactly_once_it_was_read() {
        let case = Fixture::new();
        let counters = case.sender.counters().clone();
        let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
        let limits = Limits::default();
        // Values that wait, and as many more that replace the last of them.
        let (most, mut conflated) = (2 * limits.progress, 0);
        for value in 1..=most {
            case.sender.progress(&gate, value.into(), None, &"a message of some length");
            conflated += u64::from(value > limits.progress);
            let (held, known) = (case.weight(), counters.view());
            assert!(held.abs_diff(known.held) < UNCOUNTED_BYTES, "{held}: {known:?}");
            assert!((known.conflated..known.conflated + UNCOUNTED_VALUES).contains(&conflated));
        }
        case.sleep();
        assert_eq!((counters.view().held, counters.view().conflated), (0, conflated));
        // Also when a stream is dropped with unread frames.
        case.sender.progress(&gate, f64::from(most) + 1.0, None, &"x".repeat(2 * UNCOUNTED_BYTES));
        assert!(counters.view().held > UNCOUNTED_BYTES);
        drop(case);
        assert_eq!(counters.view().held, 0);
    }

    fn reported(batch: &[Delivered]) -> Vec<(f64, &str)> {
        let values = batch.iter().map(|event| match &event.frame {
            Frame::Progress(value) => (value.progress, value.message.as_str()),
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    #[test]
    fn messages_of_all_lengths_arrive_whole_whatever_they_replace() {
        let case = Fixture::new();
        let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
        let keeps = f64::from(Limits::default().progress);
        let mut batch = Vec::new();
        let mut value = 0.0;
        for before in [0, 24, 25, 2000] {
            for length in [0, 1, 23, 24, 25, 255, 256, 257, 1024, 1025, 5000] {
                let message = "x".repeat(length);
                let first = value + 1.0;
                while value < first + keeps {
                    value += 1.0;
                    case.sender.progress(&gate, value, None, &"y".repeat(before));
                }
                value += 1.0;
                case.sender.progress(&gate, value, None, &message);
                assert_eq!(case.sender.unread(), keeps as usize);
                while case.connection.receiver.lock().try_next(&mut batch) {}
                assert_eq!(reported(&batch).last(), Some(&(value, &*message)), "after {before}");
                assert_eq!(case.weight(), 0);
                batch.clear();
            }
        }
    }

    #[test]
    fn a_message_whose_formatting_fails_is_what_it_wrote_before() {
        struct Fails;

        impl Display for Fails {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("so far")?;
                Err(fmt::Error)
            }
        }

        let case = Fixture::new();
        let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
        case.sender.progress(&gate, 1.0, None, &Fails);
        let mut batch = Vec::new();
        assert!(case.connection.receiver.lock().try_next(&mut batch));
        assert_eq!(reported(&batch), [(1.0, "so far")]);
    }

    #[test]
    fn a_message_may_report_progress_while_it_is_formatted() {
        struct Reports<'a>(&'a StreamSender, &'a Arc<ProgressGate>);

        impl Display for Reports<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")?;
                self.0.progress(self.1, 1.0, None, &"inner");
                f.write_str(", too")
            }
        }

        let case = Fixture::new();
        let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
        case.sender.progress(&gate, 2.0, None, &Reports(&case.sender, &gate));
        case.sender.progress(&gate, 1.5, None, &"too little");
        let mut batch = Vec::new();
        assert!(case.connection.receiver.lock().try_next(&mut batch));
        assert_eq!(reported(&batch), [(1.0, "inner"), (2.0, "outer, too")]);
        assert_eq!(case.sender.counters().view().refused, 1);
    }
}
