//! Counters: what became of frames, and how many bytes streams hold.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use stentor_wire::Notice;

use crate::frame::Delivered;
use crate::history::{Change, History, HistoryView, name_of};
use crate::ids::StreamId;
use crate::policy::{Class, Pressure};

/// What became of frames, by class. Every count is also added to the engine's total.
#[derive(Debug)]
pub struct Counters {
    delivered: [AtomicU64; Class::ALL.len()],
    coalesced: [AtomicU64; Class::ALL.len()],
    conflated: AtomicU64,
    refused: AtomicU64,
    dropped: [AtomicU64; Class::ALL.len()],
    closed: AtomicU64,
    held: AtomicUsize,
    budget: usize,
    total: Option<Arc<Counters>>,
    /// Boxed, because few sessions are ever followed.
    history: OnceLock<Box<Mutex<Option<History>>>>,
}

/// A copy of a [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CountersView {
    /// Frames handed to the transport, by [`Class`]. In JSON these three are objects with a member for
    /// each class.
    #[serde(serialize_with = "by_class")]
    pub delivered: [u64; Class::ALL.len()],
    /// Frames not queued because the same frame was waiting, by [`Class`].
    #[serde(serialize_with = "by_class")]
    pub coalesced: [u64; Class::ALL.len()],
    /// Progress values replaced by newer ones; of a stream that is not read, in steps of 64.
    pub conflated: u64,
    /// Progress values that did not increase or were not finite.
    pub refused: u64,
    /// Frames dropped because the client fell behind, by [`Class`].
    #[serde(serialize_with = "by_class")]
    pub dropped: [u64; Class::ALL.len()],
    /// Streams closed because their client stopped reading.
    pub closed: u64,
    /// Bytes of memory in queues and in event logs. Accurate to 1 KiB for each stream on which
    /// frames wait.
    pub held: usize,
}

/// What was lost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounters {
    /// Frames dropped because the client fell behind, by [`Class`].
    pub dropped: [u64; Class::ALL.len()],
    /// Streams closed because their client stopped reading.
    pub closed: u64,
}

fn by_class<S: Serializer>(counts: &[u64; Class::ALL.len()], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(Class::ALL.into_iter().map(|class| (class.as_str(), counts[class as usize])))
}

impl CountersView {
    /// Frames of one class handed to the transport.
    #[must_use]
    pub fn delivered(&self, class: Class) -> u64 {
        self.delivered[class as usize]
    }

    /// Frames of one class that were dropped.
    #[must_use]
    pub fn dropped(&self, class: Class) -> u64 {
        self.dropped[class as usize]
    }
}

impl Counters {
    /// The counters of all sessions together, with their budget in bytes.
    pub fn total(budget: usize) -> Self {
        Self {
            delivered: Default::default(),
            coalesced: Default::default(),
            conflated: AtomicU64::default(),
            refused: AtomicU64::default(),
            dropped: Default::default(),
            closed: AtomicU64::default(),
            held: AtomicUsize::default(),
            budget,
            total: None,
            history: OnceLock::new(),
        }
    }

    /// The counters of one session, with its budget in bytes.
    pub fn within(total: Arc<Counters>, budget: usize) -> Self {
        Self { total: Some(total), ..Self::total(budget) }
    }

    /// Changes the bytes that a stream holds from `before` to `now`.
    pub fn holds(&self, before: usize, now: usize) {
        // A decrease is a large number; adding it wraps around to the right sum.
        let change = now.wrapping_sub(before);
        if change != 0 {
            self.held.fetch_add(change, Ordering::Relaxed);
            if let Some(total) = &self.total {
                total.held.fetch_add(change, Ordering::Relaxed);
            }
        }
    }

    /// How many bytes may be held.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// The pressure on the session's budget or on the total budget, whichever is higher.
    pub fn pressure(&self) -> Pressure {
        let own = Pressure::of(self.held.load(Ordering::Relaxed), self.budget);
        own.max(self.total.as_ref().map_or(Pressure::None, |total| total.pressure()))
    }

    /// Counts frames that were handed to the transport.
    pub fn delivered(&self, batch: &[Delivered]) {
        let mut counts = [0; Class::ALL.len()];
        for Delivered { class, .. } in batch {
            counts[*class as usize] += 1;
        }
        for (index, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            self.add(count, |counters| &counters.delivered[index]);
        }
    }

    /// Counts a frame that was not queued because the same was waiting.
    pub fn coalesced(&self, class: Class) {
        self.add(1, |counters| &counters.coalesced[class as usize]);
    }

    /// Counts progress values that newer ones replaced.
    pub fn conflated(&self, count: u64) {
        self.add(count, |counters| &counters.conflated);
    }

    /// Counts a progress value that did not increase or was not finite.
    pub fn refused(&self) {
        self.add(1, |counters| &counters.refused);
    }

    /// Counts frames that were dropped because the client fell behind.
    pub fn dropped(&self, class: Class, count: u64) {
        self.add(count, |counters| &counters.dropped[class as usize]);
    }

    /// Counts a stream that was closed because its client stopped reading.
    pub fn closed(&self) {
        self.add(1, |counters| &counters.closed);
    }

    fn add(&self, count: u64, counter: impl Fn(&Self) -> &AtomicU64) {
        counter(self).fetch_add(count, Ordering::Relaxed);
        if let Some(total) = &self.total {
            counter(total).fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Follows the session from now on: its history is kept as long as this one says. It goes on if
    /// there is one.
    pub fn follow(&self, history: History) {
        let mut kept = self.history.get_or_init(Box::default).lock();
        let before = kept.take();
        *kept = Some(history.after(before));
    }

    /// Forgets the history.
    pub fn unfollow(&self) {
        if let Some(history) = self.history.get() {
            *history.lock() = None;
        }
    }

    /// What became of the last frames; `None` if nobody follows the session.
    #[must_use]
    pub fn history(&self) -> Option<HistoryView> {
        self.is_followed().then(|| self.history.get()?.lock().as_ref().map(History::view)).flatten()
    }

    /// Whether somebody follows the session.
    #[inline]
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.history.get().is_some_and(|history| {
            let mut history = history.lock();
            if history.as_ref().is_some_and(History::is_over) {
                *history = None;
            }
            history.is_some()
        })
    }

    pub(crate) fn changed(&self, stream: StreamId, changes: Vec<Change>) {
        if let Some(history) = self.history.get()
            && let Some(history) = &mut *history.lock()
        {
            history.changed(stream, changes);
        }
    }

    /// Notes that a notice was not sent to this session, and why, if somebody follows it.
    pub fn filtered(&self, class: Class, notice: &Notice, why: &'static str) {
        if let Some(history) = self.history.get()
            && let Some(history) = &mut *history.lock()
        {
            history.filtered(class, name_of(notice), why);
        }
    }

    /// The counts of dropped frames and closed streams now.
    pub fn losses(&self) -> LossCounters {
        LossCounters {
            dropped: std::array::from_fn(|index| self.dropped[index].load(Ordering::Relaxed)),
            closed: self.closed.load(Ordering::Relaxed),
        }
    }

    /// The counts now.
    #[must_use]
    pub fn view(&self) -> CountersView {
        let read = |counters: &[AtomicU64; Class::ALL.len()]| {
            std::array::from_fn(|index| counters[index].load(Ordering::Relaxed))
        };
        CountersView {
            delivered: read(&self.delivered),
            coalesced: read(&self.coalesced),
            conflated: self.conflated.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: read(&self.dropped),
            closed: self.closed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
        }
    }
}
