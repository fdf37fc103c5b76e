//! What was sent on a stream, kept for a client that comes back (2025-11-25,
//! basic/transports, "Resumability and Redelivery").

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::ready;

use futures::future::BoxFuture;

use super::policy::{Class, Pressure, Retention};
use super::{Delivered, Tally};
use crate::ids::{Seq, SessionId, StreamId};

/// Keeps what was sent on the streams of legacy HTTP sessions.
///
/// What still waits for a client is not here: it is in the engine, under the delivery policy.
/// [`testing::event_store_keeps_its_contract`](crate::testing::event_store_keeps_its_contract)
/// says what every store has to do.
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Begins the log of one stream, which keeps what `retention` says and no more.
    fn open(
        &self,
        session: &SessionId,
        stream: StreamId,
        retention: Retention,
    ) -> Box<dyn EventLog>;

    /// Goes on with the log of a stream that another node or process had and is gone, if this store
    /// outlives it and has something. By default it has not.
    ///
    /// When dropped early, nothing has changed.
    fn reopen<'a>(
        &'a self,
        _session: &'a SessionId,
        _stream: StreamId,
        _retention: Retention,
    ) -> BoxFuture<'a, Option<Reopened>> {
        Box::pin(ready(None))
    }
}

/// A log that is gone on with.
#[derive(Debug)]
pub struct Reopened {
    /// The log, with what is kept of the stream so far.
    pub log: Box<dyn EventLog>,
    /// The number of its last frame, and what that is. There may have been others after it.
    pub last: (Seq, Class),
}

/// The log of one stream. Dropping it means that nobody comes back for it, unless it was
/// [left](Self::leave).
pub trait EventLog: Debug + Send + 'static {
    /// Keeps a frame that goes to the client now, in the order of their numbers. Must not wait
    /// or block: it is called under the stream's lock, and for a notice to many by whoever tells
    /// all of them.
    fn append(&mut self, event: &Delivered);

    /// What is kept from a frame on, of all that was appended before this call. May wait.
    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay>;

    /// What it holds in the memory of this process now, in bytes. It counts towards the
    /// [`Budget`](super::policy::Budget).
    fn held(&self) -> usize;

    /// Lets go of what is more than this: memory is short.
    fn trim(&mut self, retention: Retention);

    /// The session may go on on another node, or in a process after this one: dropping the log
    /// forgets nothing from here on. For stores that outlive this process.
    fn leave(&mut self) {}
}

/// What a log still has.
#[derive(Clone, Debug)]
pub struct Replay {
    /// In the order of their numbers.
    pub events: Vec<Delivered>,
    /// Whether nothing is missing between the frame that was asked for and the last one.
    pub complete: bool,
}

/// The log of a stream, and how much it may keep.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) events: Box<dyn EventLog>,
    retention: Retention,
    /// What was before this is known to be gone, whatever the log says.
    pub(super) floor: Seq,
    /// Where the stream was carried on that another node had.
    pub(super) carried_on_at: Seq,
    /// What it counts for in the budgets, in bytes: what it held when that was looked at last.
    counted: usize,
}

impl Log {
    pub(crate) fn new(events: Box<dyn EventLog>, retention: Retention) -> Self {
        Self { events, retention, floor: Seq(0), carried_on_at: Seq(0), counted: 0 }
    }

    /// Keeps what was read.
    pub(super) fn keep(&mut self, read: &[Delivered], tally: &Tally) {
        for event in read {
            self.events.append(event);
        }
        let pressure = tally.pressure();
        if pressure > Pressure::None {
            self.events.trim(self.retention.under(pressure));
        }
        self.recount(tally);
    }

    /// Counts what it holds now, which may become less by itself.
    pub(super) fn recount(&mut self, tally: &Tally) {
        let held = self.events.held();
        tally.holds(std::mem::replace(&mut self.counted, held), held);
    }

    /// It counts no more, as it is dropped.
    pub(super) fn uncount(&self, tally: &Tally) {
        tally.holds(self.counted, 0);
    }
}

/// Keeps what was sent in the memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryEventStore;

impl EventStore for MemoryEventStore {
    fn open(&self, _: &SessionId, _: StreamId, retention: Retention) -> Box<dyn EventLog> {
        Box::new(MemoryLog { events: VecDeque::new(), held: 0, kept: Seq(0), retention })
    }
}

#[derive(Debug)]
struct MemoryLog {
    events: VecDeque<Delivered>,
    held: usize,
    /// From where on nothing was let go.
    kept: Seq,
    retention: Retention,
}

impl EventLog for MemoryLog {
    fn append(&mut self, event: &Delivered) {
        self.held += event.2.weight();
        self.events.push_back(event.clone());
        self.trim(self.retention);
    }

    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay> {
        let from = self.events.partition_point(|(seq, ..)| *seq < next);
        let events = self.events.range(from..).cloned().collect();
        Box::pin(ready(Replay { events, complete: next >= self.kept }))
    }

    fn held(&self) -> usize {
        self.held
    }

    fn trim(&mut self, retention: Retention) {
        let over = |log: &Self| {
            log.events.len() > retention.frames.max(1)
                || (log.held > retention.bytes && log.events.len() > 1)
        };
        while over(self)
            && let Some((seq, _, frame)) = self.events.pop_front()
        {
            self.held -= frame.weight();
            self.kept = Seq(seq.0 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::outlet::Frame;
    use crate::outlet::policy::Class;

    #[tokio::test]
    async fn it_keeps_its_contract() {
        crate::testing::event_store_keeps_its_contract(&MemoryEventStore).await;
    }

    #[test]
    fn it_is_bounded_in_bytes_too_but_keeps_the_newest() {
        let retention = Retention { frames: 100, bytes: 1_000 };
        let mut log = MemoryEventStore.open(
            &SessionId::random(&crate::NodeId::random()),
            StreamId(1),
            retention,
        );
        for seq in 0..10 {
            let frame = Frame::Message(Bytes::from(vec![b'x'; 300]));
            log.append(&(Seq(seq), Class::Custom, frame));
            assert!(log.held() <= 1_000);
        }
        log.append(&(Seq(10), Class::Reply, Frame::Message(Bytes::from(vec![b'x'; 9_000]))));
        assert!(log.held() > 9_000);
    }
}
