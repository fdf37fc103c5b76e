//! The pure part of an outlet: what waits for one client, under the delivery policy.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use stentor_wire::{EncodedNotice, ListKind, Notice, SubscriptionId, encode};

use super::gate::Gate;
use super::policy::{Class, Limits, Retention};
use crate::ids::Seq;

/// One message to a client, in wire form or one cheap step before it.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The response to a request, with the code of its error, if it is one.
    Reply(Bytes, Option<i32>),
    /// A complete message.
    Message(Bytes),
    /// A notice that many streams share, and the subscription it is spliced with.
    Notice(Arc<EncodedNotice>, Option<SubscriptionId>),
    /// A value of progress, written only when it is read: most are overtaken before.
    Progress(ProgressValue),
}

/// What a call reported.
#[derive(Clone, Debug)]
pub struct ProgressValue {
    pub(crate) gate: Arc<Gate>,
    pub(crate) progress: f64,
    pub(crate) total: Option<f64>,
    pub(crate) message: Box<str>,
}

impl Frame {
    /// Appends the message as JSON, without a line break.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Reply(bytes, _) | Self::Message(bytes) => out.extend_from_slice(bytes),
            Self::Notice(notice, subscription) => notice.write(out, subscription.as_ref()),
            Self::Progress(value) => {
                if let Some(token) = value.gate.token() {
                    encode::progress(out, token, value.progress, value.total, &value.message);
                }
            }
        }
    }

    fn weight(&self) -> usize {
        64 + match self {
            Self::Reply(bytes, _) | Self::Message(bytes) => bytes.len(),
            // Shared with every other session: its own cost is the entry.
            Self::Notice(..) => 0,
            Self::Progress(value) => value.message.len(),
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits to be read.
    Queued,
    /// It waits, and so many older ones made room for it.
    QueuedAfterDrop(u64),
    /// The same is already waiting.
    Coalesced,
    /// It took the place of an older value.
    Conflated,
    /// Nobody will read this stream any more.
    Closed,
}

/// What of its kind waits at most once: a list or a URI, for one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flag {
    List(Option<SubscriptionId>, ListKind),
    Uri(Option<SubscriptionId>, Arc<str>),
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    /// `None` once it was dropped, or read and not kept.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    class: Class,
    frame: Frame,
    weight: usize,
}

/// Frames in order. Those before `cursor` have been read and are kept for a client that
/// comes back; those from `cursor` on wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// How many entries hold nothing.
    holes: usize,
    /// The number of the next frame.
    next: u64,
    cursor: u64,
    /// Up to where frames have been read at least once.
    read: u64,
    /// From where on every frame is held, was dropped by policy, or is still to come.
    kept: u64,
    retained: usize,
    retained_bytes: usize,
    flags: HashMap<Flag, u64>,
    droppable: VecDeque<u64>,
    droppable_bytes: usize,
    finished: bool,
    closed: bool,
}

/// Holes are let go of when there are more of them than this, and than frames.
const FEW_HOLES: usize = 32;

impl Queue {
    pub(crate) fn push(&mut self, class: Class, frame: Frame, limits: &Limits) -> Pushed {
        if self.closed || self.finished {
            return Pushed::Closed;
        }
        if let Frame::Notice(notice, subscription) = &frame {
            let flag = match notice.notice() {
                Notice::ListChanged(kind) => Some(Flag::List(subscription.clone(), *kind)),
                Notice::ResourceUpdated(uri) => Some(Flag::Uri(subscription.clone(), uri.clone())),
                Notice::Custom { .. } => None,
            };
            if let Some(flag) = flag {
                if self.flags.contains_key(&flag) {
                    return Pushed::Coalesced;
                }
                self.flags.insert(flag, self.next);
            }
        }
        let seq = self.append(class, frame);
        let mut dropped = 0;
        if matches!(class, Class::Log | Class::Custom) {
            self.droppable.push_back(seq);
            self.droppable_bytes += self.entries.back().map_or(0, Entry::weight);
            while self.droppable.len() > limits.frames
                || (self.droppable_bytes > limits.bytes && self.droppable.len() > 1)
            {
                self.drop_oldest();
                dropped += 1;
            }
        }
        if dropped > 0 { Pushed::QueuedAfterDrop(dropped) } else { Pushed::Queued }
    }

    /// Pushes a value of progress, or lets it take the place of the call's last unread one.
    pub(crate) fn push_progress(
        &mut self,
        value: ProgressValue,
        latest: &mut Option<Seq>,
        limits: &Limits,
    ) -> Pushed {
        if self.closed || self.finished {
            return Pushed::Closed;
        }
        if value.gate.unread() >= limits.progress
            && let Some(seq) = latest.filter(|seq| seq.0 >= self.read)
            && let Some(held) = self.held_mut(seq.0)
        {
            let frame = Frame::Progress(value);
            *held = Held { class: Class::Progress, weight: frame.weight(), frame };
            return Pushed::Conflated;
        }
        value.gate.queued();
        *latest = Some(Seq(self.append(Class::Progress, Frame::Progress(value))));
        Pushed::Queued
    }

    /// Takes up to `max` unread frames, or fewer when they come to more than `bytes`.
    pub(crate) fn take(
        &mut self,
        batch: &mut Vec<(Seq, Class, Frame)>,
        max: usize,
        bytes: usize,
        retention: &Retention,
    ) {
        let mut taken = 0;
        let mut index = self.entries.partition_point(|entry| entry.seq < self.cursor);
        while batch.len() < max && taken < bytes && index < self.entries.len() {
            let entry = &mut self.entries[index];
            index += 1;
            self.cursor = entry.seq + 1;
            let Some(held) = &entry.held else { continue };
            taken += held.weight;
            let (class, frame, weight) = (held.class, held.frame.clone(), held.weight);
            let seq = entry.seq;
            if seq >= self.read {
                self.read = seq + 1;
                if retention.frames > 0 {
                    self.retained += 1;
                    self.retained_bytes += weight;
                } else {
                    entry.held = None;
                    self.holes += 1;
                    self.kept = seq + 1;
                }
                self.forget(class, &frame, weight);
            }
            batch.push((Seq(seq), class, frame));
        }
        self.evict(retention);
    }

    /// Goes back to `next`, for a client that has read what is before it and came back.
    ///
    /// `false` if some frame from there on is gone, or `next` was never reached.
    pub(crate) fn rewind(&mut self, next: Seq) -> bool {
        let known = next.0 >= self.kept && next.0 <= self.read;
        if known {
            self.cursor = next.0;
        }
        known
    }

    /// No frame follows what is queued now.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Nothing more is read or queued: everything is let go.
    pub(crate) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.unread() > 0
    }

    pub(crate) fn unread(&self) -> usize {
        let from = self.entries.partition_point(|entry| entry.seq < self.cursor);
        self.entries.range(from..).filter(|entry| entry.held.is_some()).count()
    }

    fn append(&mut self, class: Class, frame: Frame) -> u64 {
        let seq = self.next;
        self.next += 1;
        let held = Held { class, weight: frame.weight(), frame };
        self.entries.push_back(Entry { seq, held: Some(held) });
        seq
    }

    fn held_mut(&mut self, seq: u64) -> Option<&mut Held> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries[index].held.as_mut()
    }

    fn drop_oldest(&mut self) {
        let Some(seq) = self.droppable.pop_front() else { return };
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq);
        if let Some(held) = index.ok().and_then(|index| self.entries[index].held.take()) {
            self.droppable_bytes -= held.weight;
            self.holes += 1;
        }
        // Wherever they are, so that frames that stay do not keep them.
        if self.holes > FEW_HOLES && self.holes > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.held.is_some());
            self.holes = 0;
        }
    }

    /// A frame was read for the first time: it no longer counts as waiting.
    fn forget(&mut self, class: Class, frame: &Frame, weight: usize) {
        match frame {
            Frame::Notice(notice, subscription) => match notice.notice() {
                Notice::ListChanged(kind) => {
                    self.flags.remove(&Flag::List(subscription.clone(), *kind));
                }
                Notice::ResourceUpdated(uri) => {
                    self.flags.remove(&Flag::Uri(subscription.clone(), uri.clone()));
                }
                Notice::Custom { .. } => {}
            },
            Frame::Progress(value) => value.gate.read(),
            Frame::Reply(..) | Frame::Message(_) => {}
        }
        if matches!(class, Class::Log | Class::Custom) {
            self.droppable.pop_front();
            self.droppable_bytes -= weight;
        }
    }

    /// Lets go of holes in front, and of the oldest frames that were read when there are more
    /// of them than may be kept.
    fn evict(&mut self, retention: &Retention) {
        while let Some(front) = self.entries.front() {
            let over = self.retained > retention.frames || self.retained_bytes > retention.bytes;
            match &front.held {
                None => self.holes -= 1,
                Some(held) if over && front.seq < self.cursor => {
                    self.retained -= 1;
                    self.retained_bytes -= held.weight;
                    self.kept = front.seq + 1;
                }
                Some(_) => return,
            }
            self.entries.pop_front();
        }
    }
}

impl Entry {
    fn weight(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.weight)
    }
}

#[cfg(test)]
mod tests;
