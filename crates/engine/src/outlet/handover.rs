//! A stream on its way to another node.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::policy::Class;
use super::{Frame, Log, Outlet, wake};
use crate::ids::{Seq, StreamId};
use crate::peers::{Spoken, leave_out_largest, written};

/// A stream as another node carries it on: its frames keep their numbers, by which its client
/// knows how far it has read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamRecord {
    stream: u64,
    /// From where on nothing is gone.
    floor: u64,
    /// What was read and may be read again.
    past: Vec<Spoken>,
    /// The number of the first frame that was not read.
    next: u64,
    /// What was not read.
    unread: Vec<Spoken>,
    finished: bool,
}

impl StreamRecord {
    /// A stream of which nothing is known but the number of its next frame.
    pub(crate) fn begins_at(stream: StreamId, next: Seq) -> Self {
        let (past, unread) = (Vec::new(), Vec::new());
        Self { stream: stream.0, floor: next.0, past, next: next.0, unread, finished: false }
    }

    /// The same, which is over. What was said is in its log, `whole` or not.
    pub(crate) fn over(mut self, whole: bool) -> Self {
        self.finished = true;
        self.floor = if whole { 0 } else { self.next };
        self
    }

    /// Whether it is over, and all of it in its log.
    pub(crate) fn is_whole(&self) -> bool {
        self.finished && self.floor == 0
    }

    /// With this as what was said last.
    pub(crate) fn answered(mut self, reply: Bytes, error_code: Option<i32>) -> Self {
        let reply = (Seq(self.next), Class::Reply, Frame::Reply(reply, error_code));
        self.unread.push(Spoken::written(&reply));
        self
    }

    pub(crate) fn id(&self) -> StreamId {
        StreamId(self.stream)
    }

    /// Leaves out what was read; `false` if that is nothing.
    pub(crate) fn forget_past(&mut self) -> bool {
        let some = !self.past.is_empty();
        if some {
            self.past.clear();
            self.floor = self.next;
        }
        some
    }

    /// How long the largest frame is that was not read.
    pub(crate) fn largest_unread(&self) -> usize {
        self.unread.iter().map(Spoken::len).max().unwrap_or_default()
    }

    /// Leaves that frame out, or what it answers, as it is more than can be sent.
    pub(crate) fn leave_out_largest(&mut self) -> bool {
        leave_out_largest(&mut self.unread)
    }
}

impl Outlet {
    /// Takes out all that a stream has. Its reader ends; what is said here from now on waits to be
    /// [taken](Self::said_since), too.
    pub(crate) async fn hand_over(&self) -> StreamRecord {
        let (replay, floor, next, unread, finished, waker) = {
            let mut state = self.0.state.lock();
            let (next, mut unread) = (state.queue.read(), Vec::new());
            state.queue.take(&mut unread, usize::MAX, usize::MAX);
            let finished = state.queue.is_finished();
            state.count(&self.0.tally);
            state.attached = false;
            let floor = state.log.as_ref().map_or(next, |log| log.floor);
            let replay = state.log.as_mut().map(|log| log.events.replay(floor));
            (replay, floor, next, unread, finished, state.replace_reader())
        };
        self.0.room.notify_waiters();
        wake(waker);
        let (mut past, mut floor) = (Vec::new(), floor);
        if let Some(replay) = replay {
            let replay = replay.await;
            if !replay.complete {
                floor = replay.events.first().map_or(next, |(seq, ..)| *seq);
            }
            past = replay.events.iter().map(Spoken::written).collect();
        }
        StreamRecord {
            stream: self.stream().0,
            floor: floor.0,
            past,
            next: next.0,
            unread: unread.iter().map(Spoken::written).collect(),
            finished,
        }
    }

    /// Takes out the application's own notifications that came after the stream was handed over.
    pub(crate) fn said_since(&self) -> Vec<Spoken> {
        let mut state = self.0.state.lock();
        let mut unread = Vec::new();
        state.queue.take(&mut unread, usize::MAX, usize::MAX);
        state.count(&self.0.tally);
        // Lists and resources are told anew in any case.
        let own = unread.iter().filter(|(_, class, _)| *class == Class::Custom);
        own.map(Spoken::written).collect()
    }

    /// Adds what the node that had the stream heard after it was handed over, and was not heard
    /// here, too: for a moment both listened.
    pub(crate) async fn add_missed(&self, missed: Vec<Spoken>) {
        let (replay, mut heard) = {
            let mut state = self.0.state.lock();
            let waiting = state.queue.waiting_of(Class::Custom);
            let from = state.log.as_ref().map_or(Seq(0), |log| log.carried_on_at);
            (state.log.as_mut().map(|log| log.events.replay(from)), waiting)
        };
        if let Some(replay) = replay {
            let read = replay.await.events.into_iter();
            heard.extend(read.filter(|(_, class, _)| *class == Class::Custom).map(|(_, _, it)| it));
        }
        let mut heard: Vec<_> = heard.iter().map(written).collect();
        for (_, class, frame) in missed.into_iter().filter_map(Spoken::into_delivered) {
            match heard.iter().position(|it| *it == written(&frame)) {
                Some(index) => drop(heard.swap_remove(index)),
                None => self.push(class, frame),
            }
        }
    }

    /// Goes on as the stream that another node had.
    pub(crate) fn carry_on(&self, mut log: Log, record: StreamRecord) {
        log.floor = Seq(record.floor);
        log.carried_on_at = Seq(record.next + record.unread.len() as u64);
        let past: Vec<_> = record.past.into_iter().filter_map(Spoken::into_delivered).collect();
        self.0.state.lock().queue.begin_at(Seq(record.next));
        self.keep_log(log, &past);
        for spoken in record.unread {
            if let Some((_, class, frame)) = spoken.into_delivered() {
                self.push(class, frame);
            }
        }
        if record.finished {
            self.finish();
        }
    }
}
