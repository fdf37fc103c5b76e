//! The record of a stream that moves to another node.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event_store::Log;
use crate::frame::{Delivered, Frame};
use crate::ids::{Seq, StreamId};
use crate::policy::Class;
use crate::sender::StreamSender;
use crate::serialized::{SerializedFrame, leave_out_largest, written};
use crate::shared::wake;

/// A stream that another node continues. Its frames keep their numbers, because the client
/// reports by number how far it has read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamRecord {
    stream: u64,
    /// The first frame from which on no frame is lost.
    floor: u64,
    /// Frames that were read and can be replayed.
    past: Vec<SerializedFrame>,
    next: u64,
    unread: Vec<SerializedFrame>,
    finished: bool,
    /// What its reader has to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    needs: Vec<Arc<str>>,
}

impl StreamRecord {
    /// A stream of which only the number of the next frame is known.
    pub fn begins_at(stream: StreamId, next: Seq) -> Self {
        let (past, unread) = (Vec::new(), Vec::new());
        #[rustfmt::skip]
        let record = Self {
            stream: stream.0, floor: next.0, past, next: next.0, unread, finished: false, needs: Vec::new(),
        };
        record
    }

    /// The same stream after its end. Its log has all of its frames if `whole`.
    pub fn over(mut self, whole: bool) -> Self {
        self.finished = true;
        self.floor = if whole { 0 } else { self.next };
        self
    }

    /// Whether the stream has ended and its log has all of its frames.
    pub fn is_whole(&self) -> bool {
        self.finished && self.floor == 0
    }

    /// The same stream with `reply` as the last frame.
    pub fn answered(mut self, reply: Bytes, error_code: Option<i32>) -> Self {
        let frame = Frame::Reply(reply, error_code);
        let reply = Delivered { seq: Seq(self.next), class: Class::Reply, frame };
        self.unread.push(SerializedFrame::written(&reply));
        self
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        StreamId(self.stream)
    }

    /// Leaves out the frames that were read; `false` if there are none.
    pub fn forget_past(&mut self) -> bool {
        let some = !self.past.is_empty();
        if some {
            self.past.clear();
            self.floor = self.next;
        }
        some
    }

    /// The length of the largest unread frame, in bytes.
    pub fn largest_unread(&self) -> usize {
        self.unread.iter().map(SerializedFrame::len).max().unwrap_or_default()
    }

    /// Leaves out the largest unread frame, or replaces a reply by an error, because the record is
    /// too large to be sent. `false` if there is no unread frame.
    pub fn leave_out_largest(&mut self) -> Option<usize> {
        leave_out_largest(&mut self.unread)
    }
}

impl StreamSender {
    /// Takes all frames out of the stream. Its reader ends. Frames that are queued here later wait
    /// to be [taken](Self::take_late_notifications), too.
    pub async fn migrate(&self) -> StreamRecord {
        let (replay, floor, next, unread, finished, waker) = {
            let mut state = self.0.state.lock();
            let (next, mut unread) = (state.queue.read(), Vec::new());
            state.queue.take(&mut unread, usize::MAX, usize::MAX);
            let finished = state.queue.is_finished();
            state.count(&self.0.counters);
            state.attached = false;
            let floor = state.log.as_ref().map_or(next, |log| log.floor);
            let replay = state.log.as_mut().map(|log| log.events.replay(floor));
            (replay, floor, next, unread, finished, state.replace_reader())
        };
        self.0.space.notify_waiters();
        wake(waker);
        let (mut past, mut floor) = (Vec::new(), floor);
        if let Some(replay) = replay {
            let replay = replay.await;
            if !replay.complete {
                floor = replay.events.first().map_or(next, |event| event.seq);
            }
            past = replay.events.iter().map(SerializedFrame::written).collect();
        }
        StreamRecord {
            stream: self.stream_id().0,
            floor: floor.0,
            past,
            next: next.0,
            unread: unread.iter().map(SerializedFrame::written).collect(),
            finished,
            needs: self.needs(),
        }
    }

    /// Takes out the application's own notifications that were queued after the migration.
    pub fn take_late_notifications(&self) -> Vec<SerializedFrame> {
        let mut state = self.0.state.lock();
        let mut unread = Vec::new();
        state.queue.take(&mut unread, usize::MAX, usize::MAX);
        state.count(&self.0.counters);
        // Changes of lists and resources are announced again in any case.
        let own = unread.iter().filter(|event| event.class == Class::Custom);
        own.map(SerializedFrame::written).collect()
    }

    /// Adds the notifications that the former node of the stream received after the migration,
    /// except those that this node received as well: for a moment both nodes received
    /// notifications.
    pub async fn add_missed(&self, missed: Vec<SerializedFrame>) {
        let (replay, mut known) = {
            let mut state = self.0.state.lock();
            let waiting = state.queue.waiting_of(Class::Custom);
            let from = state.log.as_ref().map_or(Seq(0), |log| log.restored_at);
            (state.log.as_mut().map(|log| log.events.replay(from)), waiting)
        };
        if let Some(replay) = replay {
            let read = replay.await.events.into_iter();
            known
                .extend(read.filter(|event| event.class == Class::Custom).map(|event| event.frame));
        }
        let mut known: Vec<_> = known.iter().map(written).collect();
        for Delivered { class, frame, .. } in
            missed.into_iter().filter_map(SerializedFrame::into_delivered)
        {
            match known.iter().position(|it| *it == written(&frame)) {
                Some(index) => drop(known.swap_remove(index)),
                None => self.push(class, frame),
            }
        }
    }

    /// Continues the stream of another node.
    pub fn restore(&self, mut log: Log, record: StreamRecord) {
        log.floor = Seq(record.floor);
        log.restored_at = Seq(record.next + record.unread.len() as u64);
        let past: Vec<_> =
            record.past.into_iter().filter_map(SerializedFrame::into_delivered).collect();
        record.needs.into_iter().for_each(|need| self.need(need));
        self.0.state.lock().queue.begin_at(Seq(record.next));
        self.keep_log(log, &past);
        for frame in record.unread {
            if let Some(Delivered { class, frame, .. }) = frame.into_delivered() {
                self.push(class, frame);
            }
        }
        if record.finished {
            self.finish();
        }
    }
}
