//! The reading end of a stream.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use super::{Delivered, Outlet, Shared, WhenGone};
use crate::ids::{Seq, StreamId};
use crate::peers::{Next, Relayed};

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

    /// The number of the frame that is read next, or of one before it that nobody reads any more:
    /// by it a client can come back that was told nothing yet. `None` if the node that has the
    /// stream does not tell.
    #[must_use]
    pub fn next_seq(&self) -> Option<Seq> {
        match &self.0 {
            Source::Here(reader) => Some(reader.next_seq()),
            Source::There(relayed) => relayed.next_seq(),
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
        loop {
            let next = match &mut self.0 {
                Source::Here(reader) => return reader.look(Some(cx.waker()), batch),
                Source::There(relayed) => ready!(relayed.poll_next(cx, batch)),
            };
            match next {
                Next::Some => return Poll::Ready(true),
                Next::End => return Poll::Ready(false),
                Next::From(inlet) => *self = inlet,
            }
        }
    }

    /// As [`poll_next`](Self::poll_next). Cancel safe: nothing is taken until it is ready.
    pub async fn next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        poll_fn(|cx| self.poll_next(cx, batch)).await
    }

    /// As [`poll_next`](Self::poll_next), but does not wait: `false` if nothing waits, and always of a
    /// stream that is on another node.
    pub fn try_next(&mut self, batch: &mut Vec<Delivered>) -> bool {
        match &mut self.0 {
            Source::Here(reader) => reader.look(None, batch) == Poll::Ready(true),
            Source::There(_) => false,
        }
    }

    /// From here on `writer` may be asked to write what waits, until the inlet is dropped or another
    /// reader takes its place. Nobody asks for a stream that is on another node.
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
        state.queue.take(batch, before + BATCH_FRAMES, BATCH_BYTES);
        if batch.len() > before {
            let tally = &self.shared.tally;
            state.count(tally);
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

    fn next_seq(&self) -> Seq {
        let again = self.replay.front().map(|(seq, ..)| *seq);
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
            // Weak as it is, it keeps the memory of what it was.
            state.writer = None;
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

#[cfg(test)]
mod tests {
    use std::fmt::{self, Display};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::Wake;

    use parking_lot::Mutex;
    use stentor_wire::{EncodedNotice, Id, ListKind, Notice};

    use super::*;
    use crate::outlet::policy::{Budget, Class, Limits};
    use crate::outlet::{Frame, Gate, Tally, Terms, UNTOLD_BYTES, UNTOLD_VALUES};

    /// The task of a connection, as far as it is woken.
    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection whose client takes what is written, or does not.
    #[derive(Debug)]
    struct Connection {
        inlet: Mutex<Inlet>,
        takes: AtomicBool,
        asked: AtomicUsize,
        written: Mutex<Vec<Delivered>>,
    }

    impl WriteNow for Connection {
        fn write_now(&self) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let takes = self.takes.load(Ordering::Relaxed);
            if takes {
                self.inlet.lock().try_next(&mut self.written.lock());
            }
            takes
        }
    }

    struct Fixture {
        outlet: Outlet,
        connection: Arc<Connection>,
        woken: Arc<Woken>,
    }

    impl Fixture {
        fn new() -> Self {
            let terms = Terms { limits: Limits::default(), one_reply: false };
            let tally = Arc::new(Tally::total(Budget::default().total));
            let outlet = Outlet::new(StreamId::STANDALONE, terms, tally, WhenGone::Wait, None);
            let connection = Arc::new(Connection {
                inlet: Mutex::new(outlet.attach()),
                takes: AtomicBool::new(true),
                asked: AtomicUsize::new(0),
                written: Mutex::default(),
            });
            let this: Weak<Connection> = Arc::downgrade(&connection);
            connection.inlet.lock().written_by(this);
            Self { outlet, connection, woken: Arc::default() }
        }

        /// The task reads all that waits, and sleeps.
        fn sleep(&self) {
            let waker = self.woken.clone().into();
            let mut batch = Vec::new();
            let mut inlet = self.connection.inlet.lock();
            while inlet.poll_next(&mut Context::from_waker(&waker), &mut batch).is_ready() {}
        }

        fn tell(&self, kind: ListKind) {
            let notice = Arc::new(EncodedNotice::new(Notice::ListChanged(kind)));
            self.outlet.notice_now(Class::ListChanged, notice, None);
        }

        /// What waits, in bytes.
        fn weight(&self) -> usize {
            self.outlet.0.state.lock().queue.weight()
        }

        /// How often the connection was asked to write, what it wrote, how often its task was woken.
        fn seen(&self) -> (usize, usize, usize) {
            let asked = self.connection.asked.load(Ordering::Relaxed);
            (asked, self.connection.written.lock().len(), self.woken.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn what_is_told_at_once_is_written_while_the_task_of_its_connection_sleeps_on() {
        let told = Fixture::new();
        told.sleep();
        told.tell(ListKind::Tools);
        assert_eq!(told.seen(), (1, 1, 0));
        // Also after that it would be woken.
        told.connection.takes.store(false, Ordering::Relaxed);
        told.tell(ListKind::Prompts);
        assert_eq!(told.seen(), (2, 1, 1));
    }

    #[test]
    fn a_task_that_is_awake_is_left_to_write_by_itself() {
        let told = Fixture::new();
        told.tell(ListKind::Tools);
        assert_eq!(told.seen(), (0, 0, 0));
        assert_eq!(told.outlet.unread(), 1);
        told.sleep();
        assert_eq!(told.outlet.unread(), 0);
    }

    #[test]
    fn nobody_writes_for_a_reader_that_was_replaced() {
        let told = Fixture::new();
        told.sleep();
        let mut next = told.outlet.attach();
        let woken: Arc<Woken> = Arc::default();
        let waker = woken.clone().into();
        let (mut cx, mut batch) = (Context::from_waker(&waker), Vec::new());
        assert!(next.poll_next(&mut cx, &mut batch).is_pending());
        // Of the one before, as it comes too late with it.
        let late: Weak<Connection> = Arc::downgrade(&told.connection);
        told.connection.inlet.lock().written_by(late);
        told.tell(ListKind::Tools);
        assert_eq!(told.seen(), (0, 0, 1), "woken as it was replaced, and not asked");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(next.poll_next(&mut cx, &mut batch), Poll::Ready(true));
    }

    #[test]
    fn what_waits_is_counted_roughly_while_it_changes_and_exactly_once_it_was_read() {
        let told = Fixture::new();
        let tally = told.outlet.tally().clone();
        let gate = Arc::new(Gate::new(Some(Id::Number(1))));
        let limits = Limits::default();
        // Values that wait, and as many again that overtake the last of them.
        let (most, mut conflated) = (2 * limits.progress, 0);
        for value in 1..=most {
            told.outlet.progress(&gate, value.into(), None, &"a message of some length");
            conflated += u64::from(value > limits.progress);
            let (held, known) = (told.weight(), tally.view());
            assert!(held.abs_diff(known.held) < UNTOLD_BYTES, "{held}: {known:?}");
            assert!((known.conflated..known.conflated + UNTOLD_VALUES).contains(&conflated));
        }
        told.sleep();
        assert_eq!((tally.view().held, tally.view().conflated), (0, conflated));
        // Also of what nobody reads any more.
        told.outlet.progress(&gate, f64::from(most) + 1.0, None, &"x".repeat(2 * UNTOLD_BYTES));
        assert!(tally.view().held > UNTOLD_BYTES);
        drop(told);
        assert_eq!(tally.view().held, 0);
    }

    fn said(batch: &[Delivered]) -> Vec<(f64, &str)> {
        let values = batch.iter().map(|(_, _, frame)| match frame {
            Frame::Progress(value) => (value.progress, value.message.as_str()),
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    #[test]
    fn messages_of_all_lengths_arrive_whole_whatever_they_take_the_place_of() {
        let told = Fixture::new();
        let gate = Arc::new(Gate::new(Some(Id::Number(1))));
        let keeps = f64::from(Limits::default().progress);
        let mut batch = Vec::new();
        let mut value = 0.0;
        for before in [0, 24, 25, 2000] {
            for length in [0, 1, 23, 24, 25, 255, 256, 257, 1024, 1025, 5000] {
                let message = "x".repeat(length);
                let first = value + 1.0;
                while value < first + keeps {
                    value += 1.0;
                    told.outlet.progress(&gate, value, None, &"y".repeat(before));
                }
                value += 1.0;
                told.outlet.progress(&gate, value, None, &message);
                assert_eq!(told.outlet.unread(), keeps as usize);
                while told.connection.inlet.lock().try_next(&mut batch) {}
                assert_eq!(said(&batch).last(), Some(&(value, &*message)), "after {before}");
                assert_eq!(told.weight(), 0);
                batch.clear();
            }
        }
    }

    #[test]
    fn a_message_that_fails_to_write_itself_is_what_it_wrote() {
        struct Fails;

        impl Display for Fails {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("so far")?;
                Err(fmt::Error)
            }
        }

        let told = Fixture::new();
        let gate = Arc::new(Gate::new(Some(Id::Number(1))));
        told.outlet.progress(&gate, 1.0, None, &Fails);
        let mut batch = Vec::new();
        assert!(told.connection.inlet.lock().try_next(&mut batch));
        assert_eq!(said(&batch), [(1.0, "so far")]);
    }

    #[test]
    fn a_message_may_report_progress_as_it_is_written() {
        struct Reports<'a>(&'a Outlet, &'a Arc<Gate>);

        impl Display for Reports<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")?;
                self.0.progress(self.1, 1.0, None, &"inner");
                f.write_str(", too")
            }
        }

        let told = Fixture::new();
        let gate = Arc::new(Gate::new(Some(Id::Number(1))));
        told.outlet.progress(&gate, 2.0, None, &Reports(&told.outlet, &gate));
        told.outlet.progress(&gate, 1.5, None, &"too little");
        let mut batch = Vec::new();
        assert!(told.connection.inlet.lock().try_next(&mut batch));
        assert_eq!(said(&batch), [(1.0, "inner"), (2.0, "outer, too")]);
        assert_eq!(told.outlet.tally().view().refused, 1);
    }
}
