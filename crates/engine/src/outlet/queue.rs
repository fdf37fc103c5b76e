//! The pure part of an outlet: what waits for one client, under the delivery policy.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use compact_str::CompactString;
use stentor_wire::{EncodedNotice, ListKind, LogLevel, Notice, SubscriptionId, encode};

use super::gate::Gate;
use super::policy::{Class, Limits};
use crate::ids::Seq;

/// One message to a client, in wire form or one cheap step before it.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The response to a request, with the code of its error, if it is one.
    Reply(Bytes, Option<i32>),
    /// A complete message.
    Message(Bytes),
    /// A log message, and how severe it is.
    Log(LogLevel, Bytes),
    /// Stands where so many log messages were dropped, and says so to the client, as severe as
    /// the last of them.
    Dropped(LogLevel, u64),
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
    /// In place, if it is short.
    pub(crate) message: CompactString,
}

/// A value that is reported now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    pub(crate) gate: &'a Arc<Gate>,
    pub(crate) progress: f64,
    pub(crate) total: Option<f64>,
    pub(crate) message: &'a str,
}

impl Frame {
    /// Appends the message as JSON, without a line break.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Reply(bytes, _) | Self::Message(bytes) | Self::Log(_, bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Dropped(level, count) => {
                let data = serde_json::json!({
                    "dropped": count, "reason": "the client fell behind",
                });
                out.extend_from_slice(&encode::log(*level, Some("stentor"), &data));
            }
            Self::Notice(notice, subscription) => notice.write(out, subscription.as_ref()),
            Self::Progress(value) => {
                if let Some(token) = value.gate.token() {
                    encode::progress(out, token, value.progress, value.total, &value.message);
                }
            }
        }
    }

    /// What it takes of memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        FRAME_COST
            + match self {
                Self::Reply(bytes, _) | Self::Message(bytes) | Self::Log(_, bytes) => bytes.len(),
                Self::Notice(notice, _) => match notice.notice() {
                    Notice::Custom { .. } | Notice::Task { .. } => notice.len_hint(None),
                    // Few of these exist, shared by all sessions: what they cost is the entry.
                    Notice::ResourceUpdated(_) => 0,
                    // One of each kind waits at most for a subscription, and all sessions get theirs
                    // at once: adding to what all hold would cost more than they do.
                    Notice::ListChanged(_) => return 0,
                },
                Self::Dropped(..) => 0,
                Self::Progress(value) => {
                    value.message.len() + value.gate.token().map_or(0, |token| token.text_len())
                }
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
    /// Nobody will read this stream any more, or the call that says it is over.
    Closed,
    /// It is no progress after the value before.
    Refused,
}

/// What of its kind waits at most once: a list, a URI or a task, for one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flag {
    List(Option<SubscriptionId>, ListKind),
    Uri(Option<SubscriptionId>, Arc<str>),
    Task(Option<SubscriptionId>, Arc<str>),
}

/// Where flags wait. A client that keeps up has one at most, for which nothing is allocated.
#[derive(Debug, Default)]
struct Flags {
    first: Option<(Flag, u64)>,
    more: HashMap<Flag, u64>,
}

impl Flags {
    fn get(&self, flag: &Flag) -> Option<u64> {
        match &self.first {
            Some((first, seq)) if first == flag => Some(*seq),
            _ => self.more.get(flag).copied(),
        }
    }

    fn insert(&mut self, flag: Flag, seq: u64) {
        match &self.first {
            None => self.first = Some((flag, seq)),
            Some(_) => {
                self.more.insert(flag, seq);
            }
        }
    }

    fn remove(&mut self, flag: &Flag) {
        if self.first.as_ref().is_some_and(|(first, _)| first == flag) {
            self.first = None;
        } else if !self.more.is_empty() {
            self.more.remove(flag);
        }
    }
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    /// `None` once it was dropped.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    class: Class,
    frame: Frame,
    weight: usize,
}

impl Held {
    fn new(class: Class, frame: Frame) -> Self {
        Self { class, weight: frame.weight(), frame }
    }
}

/// Frames in order that wait for the client.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// How many entries hold nothing.
    holes: usize,
    /// The number of the next frame.
    next: u64,
    /// From where on nothing has been read.
    read: u64,
    /// Where each of those waits that wait only once.
    flags: Flags,
    droppable: VecDeque<u64>,
    droppable_bytes: usize,
    /// Where the client is told that messages were dropped.
    gap: Option<u64>,
    /// What waits that is never dropped, in bytes.
    kept_bytes: usize,
    weight: usize,
    finished: bool,
    closed: bool,
}

/// What a frame costs beside its text: its entry, in a queue that may have room for as many
/// more, and what the allocator adds to its text.
const FRAME_COST: usize = 2 * size_of::<Entry>() + 32;

/// Room that a message keeps for the one that takes its place, in bytes.
const KEPT_TEXT: usize = 1024;

/// Holes are let go of when there are more of them than this, and than frames.
const FEW_HOLES: usize = 32;
/// An empty queue keeps room for so many frames.
const ROOM_KEPT: usize = 4;

impl Queue {
    pub(crate) fn push(&mut self, class: Class, frame: Frame, limits: &Limits) -> Pushed {
        if self.closed || self.finished {
            return Pushed::Closed;
        }
        if let Some(flag) = flag(&frame) {
            if let Some(waits) = self.flags.get(&flag) {
                // Of a task the newer one says more; the others say the same.
                if class == Class::Task
                    && let Some(index) = self.find(waits)
                {
                    self.replace(index, class, frame);
                    return Pushed::Conflated;
                }
                return Pushed::Coalesced;
            }
            self.flags.insert(flag, self.next);
        }
        let (seq, weight) = self.append(class, frame);
        let mut dropped = 0;
        if class.may_drop() {
            self.droppable.push_back(seq);
            self.droppable_bytes += weight;
            while self.droppable.len() > limits.frames
                || (self.droppable_bytes > limits.bytes && self.droppable.len() > 1)
            {
                self.drop_oldest();
                dropped += 1;
            }
        } else {
            self.kept_bytes += weight;
        }
        if dropped > 0 { Pushed::QueuedAfterDrop(dropped) } else { Pushed::Queued }
    }

    /// Pushes a value of progress; of a client that is behind it takes the place of the call's last
    /// unread one.
    #[inline]
    pub(crate) fn push_progress(&mut self, report: Report<'_>, behind: bool) -> Pushed {
        let Report { gate, progress, total, message } = report;
        if gate.is_closed() {
            return Pushed::Closed;
        }
        if !gate.admit(progress) {
            return Pushed::Refused;
        }
        if self.closed || self.finished {
            return Pushed::Closed;
        }
        if behind
            && let Some(index) = gate.latest().and_then(|seq| self.find(seq.0))
            && let Some(held) = &mut self.entries[index].held
            && let Frame::Progress(value) = &mut held.frame
        {
            // In its place, as this is what a tool pays that reports more than is read.
            (value.progress, value.total) = (progress, total);
            let before = value.message.len();
            if value.message.capacity() > KEPT_TEXT {
                value.message = CompactString::default();
            }
            value.message.clear();
            value.message.push_str(message);
            self.weight = self.weight - before + message.len();
            held.weight = held.weight - before + message.len();
            return Pushed::Conflated;
        }
        let value = ProgressValue { gate: gate.clone(), progress, total, message: message.into() };
        let (seq, _) = self.append(Class::Progress, Frame::Progress(value));
        gate.queued(seq);
        Pushed::Queued
    }

    /// Takes up to `max` frames, or fewer when they come to more than `bytes`.
    pub(crate) fn take(&mut self, batch: &mut Vec<(Seq, Class, Frame)>, max: usize, bytes: usize) {
        let before = self.weight;
        while batch.len() < max
            && before - self.weight < bytes
            && let Some(entry) = self.entries.pop_front()
        {
            self.read = entry.seq + 1;
            let Some(held) = entry.held else {
                self.holes -= 1;
                continue;
            };
            self.forget(&held);
            batch.push((Seq(entry.seq), held.class, held.frame));
        }
        if self.entries.is_empty() && self.entries.capacity() > ROOM_KEPT {
            self.entries.shrink_to(ROOM_KEPT);
            self.droppable.shrink_to(ROOM_KEPT);
        }
    }

    /// Goes on from a frame that somebody else would have read next.
    pub(crate) fn begin_at(&mut self, next: Seq) {
        (self.next, self.read) = (next.0, next.0);
    }

    /// The frames of this class that wait.
    pub(crate) fn waiting_of(&self, class: Class) -> Vec<Frame> {
        let held = self.entries.iter().filter_map(|entry| entry.held.as_ref());
        held.filter(|held| held.class == class).map(|held| held.frame.clone()).collect()
    }

    /// From where on nothing has been read.
    pub(crate) fn read(&self) -> Seq {
        Seq(self.read)
    }

    /// What waits, in bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// What waits that is never dropped, in bytes of memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
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
        self.entries.len() - self.holes
    }

    fn append(&mut self, class: Class, frame: Frame) -> (u64, usize) {
        let seq = self.next;
        self.next += 1;
        let held = Held::new(class, frame);
        let weight = held.weight;
        self.weight += weight;
        self.entries.push_back(Entry { seq, held: Some(held) });
        (seq, weight)
    }

    /// Puts a frame in the place of one that waits.
    fn replace(&mut self, index: usize, class: Class, frame: Frame) {
        let held = Held::new(class, frame);
        let before = self.entries[index].held.as_ref().map_or(0, |held| held.weight);
        self.weight = self.weight - before + held.weight;
        self.kept_bytes = self.kept_bytes - before + held.weight;
        self.entries[index].held = Some(held);
    }

    fn find(&self, seq: u64) -> Option<usize> {
        // Mostly the last one is looked for.
        if self.entries.back().is_some_and(|entry| entry.seq == seq) {
            return Some(self.entries.len() - 1);
        }
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }

    /// Drops the oldest frame that may be. Where log messages were dropped the client is told,
    /// once, in the place of the last of them.
    fn drop_oldest(&mut self) {
        let Some(index) = self.droppable.pop_front().and_then(|seq| self.find(seq)) else { return };
        let Some(dropped) = self.remove(index) else { return };
        self.droppable_bytes -= dropped.weight;
        if let Frame::Log(level, _) = dropped.frame {
            let before = match self.gap.and_then(|seq| self.find(seq)) {
                Some(gap) => match self.remove(gap).map(|held| held.frame) {
                    Some(Frame::Dropped(_, count)) => count,
                    _ => 0,
                },
                None => 0,
            };
            let told = Held::new(Class::Log, Frame::Dropped(level, before + 1));
            self.weight += told.weight;
            self.holes -= 1;
            self.gap = Some(self.entries[index].seq);
            self.entries[index].held = Some(told);
        }
        // Wherever they are, so that frames that stay do not keep them.
        if self.holes > FEW_HOLES && self.holes > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.held.is_some());
            self.holes = 0;
        }
    }

    fn remove(&mut self, index: usize) -> Option<Held> {
        let held = self.entries[index].held.take()?;
        self.weight -= held.weight;
        self.holes += 1;
        Some(held)
    }

    /// A frame was read: it no longer counts as waiting.
    fn forget(&mut self, held: &Held) {
        self.weight -= held.weight;
        match &held.frame {
            Frame::Progress(value) => return value.gate.read(),
            Frame::Dropped(..) => {
                self.gap = None;
                return;
            }
            frame => {
                if let Some(flag) = flag(frame) {
                    self.flags.remove(&flag);
                }
            }
        }
        if held.class.may_drop() {
            self.droppable.pop_front();
            self.droppable_bytes -= held.weight;
        } else {
            self.kept_bytes -= held.weight;
        }
    }
}

/// What the frame says, if it is to wait only once.
fn flag(frame: &Frame) -> Option<Flag> {
    let Frame::Notice(notice, subscription) = frame else { return None };
    match notice.notice() {
        Notice::ListChanged(kind) => Some(Flag::List(subscription.clone(), *kind)),
        Notice::ResourceUpdated(uri) => Some(Flag::Uri(subscription.clone(), uri.clone())),
        Notice::Task { id, .. } => Some(Flag::Task(subscription.clone(), id.clone())),
        Notice::Custom { .. } => None,
    }
}

#[cfg(test)]
mod tests;
