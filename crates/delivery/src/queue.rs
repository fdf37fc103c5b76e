//! The pure part of a stream: the frames that wait for one client, under the delivery policy.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use compact_str::CompactString;
use stentor_wire::{Notice, SubscriptionId, Topic};

use crate::frame::{Delivered, Entry, Frame, ProgressValue, QueuedFrame};
use crate::history::{Change, Outcome, name_of_frame, name_of_progress};
use crate::ids::Seq;
use crate::policy::{Class, Limits, WhenBehind};
use crate::progress_gate::ProgressGate;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    pub(crate) gate: &'a Arc<ProgressGate>,
    pub(crate) progress: f64,
    pub(crate) total: Option<f64>,
    pub(crate) message: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The frame waits to be read.
    Queued,
    /// The frame waits, and this many older frames were dropped for it.
    QueuedAfterDrop(u64),
    /// The same notice is already waiting.
    Coalesced,
    /// The frame replaced an older value.
    Conflated,
    /// The stream, or the call that sent the frame, has ended.
    Closed,
    /// The progress value is not larger than the last one, or not finite.
    Refused,
}

/// The key of a notice that waits at most once: its subscription and its topic.
type Flag = (Option<SubscriptionId>, Topic);

/// The frame number of each flag. A client that keeps up has at most one, which is not allocated.
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

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// How many entries contain no frame.
    holes: usize,
    next: u64,
    /// The number of the first frame that has not been read.
    read: u64,
    flags: Flags,
    droppable: VecDeque<u64>,
    droppable_bytes: usize,
    /// The number of the frame that reports dropped messages to the client.
    gap: Option<u64>,
    kept_bytes: usize,
    weight: usize,
    finished: bool,
    closed: bool,
    /// What has become of frames, while the session is followed. Boxed, because few are.
    #[expect(clippy::box_collection, reason = "a stream that rests has to be small")]
    changes: Option<Box<Vec<Change>>>,
}

/// A replaced message leaves its buffer to the next one, up to this capacity in bytes.
const KEPT_TEXT: usize = 1024;

/// Holes are removed when there are more of them than this, and more than frames.
const FEW_HOLES: usize = 32;
/// An empty queue keeps capacity for this many frames.
const KEPT_CAPACITY: usize = 4;

impl Queue {
    pub(crate) fn push(&mut self, class: Class, frame: Frame, limits: &Limits) -> Pushed {
        let new = self.changes.is_some().then(|| (class, name_of_frame(&frame)));
        if self.closed || self.finished {
            self.note(None, Outcome::Closed, new);
            return Pushed::Closed;
        }
        if let Some(flag) = flag(&frame) {
            if let Some(waits) = self.flags.get(&flag) {
                // A newer state replaces the last one; the other notices would repeat the same.
                if class.when_behind() == WhenBehind::LatestWins
                    && let Some(index) = self.find(waits)
                {
                    self.replace(index, class, frame);
                    self.note(Some(waits), Outcome::Conflated, new);
                    return Pushed::Conflated;
                }
                self.note(Some(waits), Outcome::Coalesced, new);
                return Pushed::Coalesced;
            }
            self.flags.insert(flag, self.next);
        }
        let (seq, weight) = self.append(class, frame);
        self.note(Some(seq), Outcome::Waits, new);
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

    /// Pushes a progress value. If the client is behind, it replaces the call's last unread value.
    #[inline]
    pub(crate) fn push_progress(&mut self, report: Report<'_>, behind: bool) -> Pushed {
        let Report { gate, progress, total, message } = report;
        let new =
            (self.changes.is_some()).then(|| (Class::Progress, name_of_progress(progress, total)));
        if gate.is_closed() {
            self.note(None, Outcome::Closed, new);
            return Pushed::Closed;
        }
        if !gate.admit(progress) {
            self.note(None, Outcome::Refused, new);
            return Pushed::Refused;
        }
        if self.closed || self.finished {
            self.note(None, Outcome::Closed, new);
            return Pushed::Closed;
        }
        if behind
            && let Some(index) = gate.latest().and_then(|seq| self.find(seq.0))
            && let Some(held) = &mut self.entries[index].held
            && let Frame::Progress(value) = &mut held.frame
        {
            // Updated in place: a tool that reports more than is read pays this for each report.
            (value.progress, value.total) = (progress, total);
            let before = value.message.len();
            if value.message.capacity() > KEPT_TEXT {
                value.message = CompactString::default();
            }
            value.message.clear();
            value.message.push_str(message);
            self.weight = self.weight - before + message.len();
            held.weight = held.weight - before + message.len();
            let seq = self.entries[index].seq;
            self.note(Some(seq), Outcome::Conflated, new);
            return Pushed::Conflated;
        }
        let value = ProgressValue { gate: gate.clone(), progress, total, message: message.into() };
        let (seq, _) = self.append(Class::Progress, Frame::Progress(value));
        gate.queued(seq);
        self.note(Some(seq), Outcome::Waits, new);
        Pushed::Queued
    }

    /// Moves frames into `batch` until it has `max` frames, or the moved ones come to `bytes`.
    pub(crate) fn take(&mut self, batch: &mut Vec<Delivered>, max: usize, bytes: usize) {
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
            self.note(Some(entry.seq), Outcome::Delivered, None);
            batch.push(Delivered { seq: Seq(entry.seq), class: held.class, frame: held.frame });
        }
        if self.entries.is_empty() && self.entries.capacity() > KEPT_CAPACITY {
            self.entries.shrink_to(KEPT_CAPACITY);
            self.droppable.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Continues the numbers of another queue: `next` is the first frame that was not read there.
    pub(crate) fn begin_at(&mut self, next: Seq) {
        (self.next, self.read) = (next.0, next.0);
    }

    pub(crate) fn waiting_of(&self, class: Class) -> Vec<Frame> {
        let held = self.entries.iter().filter_map(|entry| entry.held.as_ref());
        held.filter(|held| held.class == class).map(|held| held.frame.clone()).collect()
    }

    pub(crate) fn read(&self) -> Seq {
        Seq(self.read)
    }

    /// The memory of all waiting frames, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// The memory of waiting frames that are never dropped, without progress, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// No frame follows what is queued now.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Drops all frames; nothing more is read or queued.
    pub(crate) fn close(&mut self) {
        if self.changes.is_some() {
            let unread = self.entries.iter().filter(|entry| entry.held.is_some());
            let unread: Vec<_> = unread.map(|entry| entry.seq).collect();
            unread.into_iter().for_each(|seq| self.note(Some(seq), Outcome::Closed, None));
        }
        *self = Self { closed: true, changes: self.changes.take(), ..Self::default() };
    }

    /// Notes what becomes of frames from now on, or no longer.
    #[inline]
    pub(crate) fn follow(&mut self, is_followed: bool) {
        if is_followed != self.changes.is_some() {
            self.changes = is_followed.then(Box::default);
        }
    }

    /// What has become of frames since the last time.
    #[inline]
    pub(crate) fn changes(&mut self) -> Option<Vec<Change>> {
        self.changes.as_mut().map(|changes| std::mem::take(&mut **changes))
    }

    #[inline]
    fn note(&mut self, seq: Option<u64>, outcome: Outcome, new: Option<(Class, String)>) {
        if let Some(changes) = &mut self.changes {
            changes.push(Change { seq, outcome, new });
        }
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
        let held = QueuedFrame::new(class, frame);
        let weight = held.weight;
        self.weight += weight;
        if self.entries.capacity() == 0 {
            // A client that keeps up needs one, and most streams rest.
            self.entries.reserve_exact(1);
        }
        self.entries.push_back(Entry { seq, held: Some(held) });
        (seq, weight)
    }

    fn replace(&mut self, index: usize, class: Class, frame: Frame) {
        let held = QueuedFrame::new(class, frame);
        let before = self.entries[index].held.as_ref().map_or(0, |held| held.weight);
        self.weight = self.weight - before + held.weight;
        self.kept_bytes = self.kept_bytes - before + held.weight;
        self.entries[index].held = Some(held);
    }

    fn find(&self, seq: u64) -> Option<usize> {
        // Usually the last frame is wanted.
        if self.entries.back().is_some_and(|entry| entry.seq == seq) {
            return Some(self.entries.len() - 1);
        }
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }

    /// Drops the oldest frame of a class that may be dropped. For dropped log messages, one frame
    /// in the place of the last of them reports their number to the client.
    fn drop_oldest(&mut self) {
        let Some(index) = self.droppable.pop_front().and_then(|seq| self.find(seq)) else { return };
        let Some(dropped) = self.remove(index) else { return };
        self.note(Some(self.entries[index].seq), Outcome::Dropped, None);
        self.droppable_bytes -= dropped.weight;
        if let Frame::Log(level, _) = dropped.frame {
            let before = match self.gap.and_then(|seq| self.find(seq)) {
                Some(gap) => match self.remove(gap).map(|held| held.frame) {
                    Some(Frame::Dropped(_, count)) => count,
                    _ => 0,
                },
                None => 0,
            };
            let report = QueuedFrame::new(Class::Log, Frame::Dropped(level, before + 1));
            self.weight += report.weight;
            self.holes -= 1;
            self.gap = Some(self.entries[index].seq);
            self.entries[index].held = Some(report);
        }
        // Removed wherever they are: otherwise frames that stay in front would keep them.
        if self.holes > FEW_HOLES && self.holes > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.held.is_some());
            self.holes = 0;
        }
    }

    fn remove(&mut self, index: usize) -> Option<QueuedFrame> {
        let held = self.entries[index].held.take()?;
        self.weight -= held.weight;
        self.holes += 1;
        Some(held)
    }

    /// Removes a frame that was read from all counts.
    fn forget(&mut self, held: &QueuedFrame) {
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

/// The flag of a frame that waits at most once.
fn flag(frame: &Frame) -> Option<Flag> {
    let Frame::Notice(notice, subscription) = frame else { return None };
    match notice.notice() {
        Notice::Changed(topic) | Notice::State { topic, .. } => {
            Some((subscription.clone(), topic.clone()))
        }
        Notice::Custom { .. } => None,
    }
}

#[cfg(test)]
mod tests;
