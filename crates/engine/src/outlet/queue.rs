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
    /// It waits, and an older one made room for it.
    QueuedAfterDrop,
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
    class: Class,
    frame: Frame,
    weight: usize,
}

/// Frames in order. Those before `cursor` have been read and are kept for a client that
/// comes back; those from `cursor` on wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// `None` where a frame was dropped; its number is not used again.
    entries: VecDeque<Option<Entry>>,
    first: u64,
    cursor: u64,
    /// Up to where frames have been read at least once.
    read: u64,
    retained_bytes: usize,
    flags: HashMap<Flag, u64>,
    droppable: VecDeque<u64>,
    droppable_bytes: usize,
    finished: bool,
    closed: bool,
}

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
                self.flags.insert(flag, self.end());
            }
        }
        let weight = frame.weight();
        let mut outcome = Pushed::Queued;
        if matches!(class, Class::Log | Class::Custom) {
            self.droppable.push_back(self.end());
            self.droppable_bytes += weight;
            while self.droppable.len() > limits.frames
                || (self.droppable_bytes > limits.bytes && self.droppable.len() > 1)
            {
                self.drop_oldest();
                outcome = Pushed::QueuedAfterDrop;
            }
        }
        self.entries.push_back(Some(Entry { class, frame, weight }));
        outcome
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
            && let Some(slot) = latest.and_then(|seq| self.unread_mut(seq))
        {
            let frame = Frame::Progress(value);
            *slot = Entry { class: Class::Progress, weight: frame.weight(), frame };
            return Pushed::Conflated;
        }
        *latest = Some(Seq(self.end()));
        value.gate.queued();
        let frame = Frame::Progress(value);
        self.entries.push_back(Some(Entry {
            class: Class::Progress,
            weight: frame.weight(),
            frame,
        }));
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
        while batch.len() < max && taken < bytes && self.cursor < self.end() {
            let seq = self.cursor;
            self.cursor += 1;
            let index = self.index(seq);
            let keep = retention.frames > 0;
            let entry = &mut self.entries[index];
            let Some(held) = entry else { continue };
            taken += held.weight;
            let (class, frame) = (held.class, held.frame.clone());
            if seq >= self.read {
                self.read = seq + 1;
                let weight = held.weight;
                if keep {
                    self.retained_bytes += weight;
                } else {
                    *entry = None;
                }
                self.forget(class, &frame, weight);
            }
            batch.push((Seq(seq), class, frame));
        }
        self.evict(retention);
    }

    /// Starts over after `seq`, for a client that read up to there and came back.
    ///
    /// `false` if some frame after it is gone.
    pub(crate) fn rewind(&mut self, after: Seq) -> bool {
        let next = after.0.saturating_add(1);
        if next < self.first || next > self.end() {
            return false;
        }
        self.cursor = next;
        true
    }

    /// No frame follows what is queued now.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Nothing more is read or queued: everything is let go.
    pub(crate) fn close(&mut self) {
        *self = Self {
            closed: true,
            first: self.end(),
            cursor: self.end(),
            read: self.end(),
            ..Self::default()
        };
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.cursor < self.end()
    }

    pub(crate) fn unread(&self) -> usize {
        usize::try_from(self.end() - self.cursor).unwrap_or(usize::MAX)
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn index(&self, seq: u64) -> usize {
        usize::try_from(seq - self.first).unwrap_or(usize::MAX)
    }

    fn unread_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        if seq.0 < self.read.max(self.first) {
            return None;
        }
        let index = self.index(seq.0);
        self.entries.get_mut(index)?.as_mut()
    }

    fn drop_oldest(&mut self) {
        let Some(seq) = self.droppable.pop_front() else { return };
        let index = self.index(seq);
        if let Some(entry) = self.entries.get_mut(index).and_then(Option::take) {
            self.droppable_bytes -= entry.weight;
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

    fn evict(&mut self, retention: &Retention) {
        while self.first < self.cursor {
            let retained = self.read.min(self.cursor) - self.first;
            let over = retained > retention.frames as u64 || self.retained_bytes > retention.bytes;
            match self.entries.front() {
                Some(None) => {}
                Some(Some(_)) if over => {}
                _ => break,
            }
            if let Some(Some(entry)) = self.entries.pop_front() {
                self.retained_bytes -= entry.weight;
            }
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests;
