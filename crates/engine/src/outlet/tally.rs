//! Counters of what became of frames, and of what is held of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Delivered;
use super::policy::{Class, Pressure};

/// What became of frames, by class. Every count is also added to the engine's total.
#[derive(Debug)]
pub struct Tally {
    delivered: [AtomicU64; Class::ALL.len()],
    coalesced: [AtomicU64; Class::ALL.len()],
    conflated: AtomicU64,
    refused: AtomicU64,
    dropped: [AtomicU64; Class::ALL.len()],
    closed: AtomicU64,
    held: AtomicUsize,
    budget: usize,
    total: Option<Arc<Tally>>,
}

/// A copy of a [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TallyView {
    /// Frames handed to the transport, by [`Class`].
    pub delivered: [u64; Class::ALL.len()],
    /// Frames not queued because the same was waiting, by [`Class`].
    pub coalesced: [u64; Class::ALL.len()],
    /// Progress values overtaken by newer ones; of a stream that is not read, in steps of 64.
    pub conflated: u64,
    /// Progress values that did not increase, or were no number.
    pub refused: u64,
    /// Frames dropped because the client fell behind, by [`Class`].
    pub dropped: [u64; Class::ALL.len()],
    /// Streams closed because their client had stopped reading.
    pub closed: u64,
    /// What waits, or is kept for a client that comes back, in bytes of memory: to 1 KiB for each
    /// stream on which something waits.
    pub held: usize,
}

/// What of the counters is trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) dropped: [u64; Class::ALL.len()],
    pub(crate) closed: u64,
}

impl TallyView {
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

impl Tally {
    /// Of all sessions together, with their budget.
    pub(crate) fn total(budget: usize) -> Self {
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
        }
    }

    /// Of one session, with its budget.
    pub(crate) fn within(total: Arc<Tally>, budget: usize) -> Self {
        Self { total: Some(total), ..Self::total(budget) }
    }

    /// A stream holds so much more now, or less.
    pub(crate) fn holds(&self, before: usize, now: usize) {
        // Wraps around below zero, and back.
        let change = now.wrapping_sub(before);
        if change != 0 {
            self.held.fetch_add(change, Ordering::Relaxed);
            if let Some(total) = &self.total {
                total.held.fetch_add(change, Ordering::Relaxed);
            }
        }
    }

    /// How near the session's budget, or that of all, is to its end.
    pub(crate) fn pressure(&self) -> Pressure {
        let own = Pressure::of(self.held.load(Ordering::Relaxed), self.budget);
        own.max(self.total.as_ref().map_or(Pressure::None, |total| total.pressure()))
    }

    pub(crate) fn delivered(&self, batch: &[Delivered]) {
        let mut counts = [0; Class::ALL.len()];
        for (_, class, _) in batch {
            counts[*class as usize] += 1;
        }
        for (index, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            self.add(count, |tally| &tally.delivered[index]);
        }
    }

    pub(crate) fn coalesced(&self, class: Class) {
        self.add(1, |tally| &tally.coalesced[class as usize]);
    }

    pub(crate) fn conflated(&self, count: u64) {
        self.add(count, |tally| &tally.conflated);
    }

    pub(crate) fn refused(&self) {
        self.add(1, |tally| &tally.refused);
    }

    pub(crate) fn dropped(&self, class: Class, count: u64) {
        self.add(count, |tally| &tally.dropped[class as usize]);
    }

    pub(crate) fn closed(&self) {
        self.add(1, |tally| &tally.closed);
    }

    fn add(&self, count: u64, counter: impl Fn(&Self) -> &AtomicU64) {
        counter(self).fetch_add(count, Ordering::Relaxed);
        if let Some(total) = &self.total {
            counter(total).fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What went wrong so far.
    pub(crate) fn trouble(&self) -> Trouble {
        Trouble {
            dropped: std::array::from_fn(|index| self.dropped[index].load(Ordering::Relaxed)),
            closed: self.closed.load(Ordering::Relaxed),
        }
    }

    /// The counts now.
    #[must_use]
    pub fn view(&self) -> TallyView {
        let read = |counters: &[AtomicU64; Class::ALL.len()]| {
            std::array::from_fn(|index| counters[index].load(Ordering::Relaxed))
        };
        TallyView {
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
