//! Stores of frames that were sent on a stream, for clients that come back (2025-11-25,
//! basic/transports, "Resumability and Redelivery").

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::ready;

use futures::future::BoxFuture;

use crate::counters::Counters;
use crate::frame::Delivered;
use crate::ids::{Seq, SessionId, StreamId};
use crate::policy::{Class, Pressure, Retention};

/// Stores frames that were sent on the streams of legacy HTTP sessions.
///
/// Frames that still wait for a client are not stored here: the engine keeps them, under the
/// delivery policy.
/// `stentor::test::stores::event_store_keeps_its_contract` checks all that a store has to do.
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Begins the log of one stream, which keeps at most what `retention` allows.
    fn open(
        &self,
        session: &SessionId,
        stream: StreamId,
        retention: Retention,
    ) -> Box<dyn EventLog>;

    /// Continues the log of a stream whose node or process has ended, if this store outlives it and
    /// has frames of it. The default returns `None`.
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

/// A log that continues.
#[derive(Debug)]
pub struct Reopened {
    /// The log, with the frames of the stream that are still stored.
    pub log: Box<dyn EventLog>,
    /// The number and class of the last stored frame. The stream may have had later frames.
    pub last: (Seq, Class),
}

/// The log of one stream. Dropping it means that no client comes back for the stream, unless
/// [`leave`](Self::leave) was called.
pub trait EventLog: Debug + Send + 'static {
    /// Stores a frame that goes to the client now. Frames come in the order of their numbers. Must
    /// not wait or block: it is called under the stream's lock, and for a notice to many clients by
    /// the task that sends it to all of them.
    fn append(&mut self, event: &Delivered);

    /// The stored frames from frame `next` on, of all that were appended before this call. May
    /// wait.
    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay>;

    /// Bytes that the log holds in the memory of this process now. They count towards the
    /// [`Budget`](crate::policy::Budget).
    fn held(&self) -> usize;

    /// Drops the oldest frames beyond `retention`, because memory is short.
    fn trim(&mut self, retention: Retention);

    /// Keeps the stored frames when the log is dropped: the session may go on on another node, or
    /// in a process after this one. For stores that outlive this process.
    fn leave(&mut self) {}
}

/// The frames that a log still has.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The frames, in the order of their numbers.
    pub events: Vec<Delivered>,
    /// Whether no frame is missing between the requested one and the last one.
    pub complete: bool,
}

/// The log of a stream, with what the counters know of it.
#[derive(Debug)]
pub struct Log {
    pub(crate) events: Box<dyn EventLog>,
    retention: Retention,
    /// Frames before this one are lost, whatever the log reports.
    pub(crate) floor: Seq,
    /// The first frame that this node added to a stream of another node.
    pub(crate) restored_at: Seq,
    /// The bytes of the log that the counters already include.
    counted: usize,
}

impl Log {
    /// A log of which nothing is counted yet.
    pub fn new(events: Box<dyn EventLog>, retention: Retention) -> Self {
        Self { events, retention, floor: Seq(0), restored_at: Seq(0), counted: 0 }
    }

    pub(crate) fn keep(&mut self, read: &[Delivered], counters: &Counters) {
        for event in read {
            self.events.append(event);
        }
        let pressure = counters.pressure();
        if pressure > Pressure::None {
            self.events.trim(self.retention.under(pressure));
        }
        self.recount(counters);
    }

    /// Updates the counters: the log may have shrunk by itself.
    pub(crate) fn recount(&mut self, counters: &Counters) {
        let held = self.events.held();
        counters.holds(std::mem::replace(&mut self.counted, held), held);
    }

    /// Removes the log's bytes from the counters, before the log is dropped.
    pub(crate) fn uncount(&self, counters: &Counters) {
        counters.holds(self.counted, 0);
    }
}

/// Stores frames in the memory of this process.
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
    /// The first frame from which on no frame was dropped.
    kept: Seq,
    retention: Retention,
}

impl EventLog for MemoryLog {
    fn append(&mut self, event: &Delivered) {
        self.held += event.frame.weight();
        self.events.push_back(event.clone());
        self.trim(self.retention);
    }

    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay> {
        let from = self.events.partition_point(|event| event.seq < next);
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
            && let Some(Delivered { seq, frame, .. }) = self.events.pop_front()
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
    use crate::Frame;
    use crate::policy::Class;

    #[tokio::test]
    async fn the_memory_store_keeps_its_contract() {
        crate::testing::event_store_keeps_its_contract(&MemoryEventStore).await;
    }

    #[test]
    fn the_memory_store_is_bounded_in_bytes_but_keeps_the_newest_frame() {
        let retention = Retention { frames: 100, bytes: 1_000 };
        let mut log = MemoryEventStore.open(&SessionId::new("one"), StreamId(1), retention);
        for seq in 0..10 {
            let frame = Frame::Message(Bytes::from(vec![b'x'; 300]));
            log.append(&Delivered { seq: Seq(seq), class: Class::Custom, frame });
            assert!(log.held() <= 1_000);
        }
        let frame = Frame::Message(Bytes::from(vec![b'x'; 9_000]));
        log.append(&Delivered { seq: Seq(10), class: Class::Reply, frame });
        assert!(log.held() > 9_000);
    }
}
