//! The last time of each of many things.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;

/// Things, each with the number of the last time it occurred, of which the oldest can be
/// dropped.
#[derive(Debug)]
pub(super) struct Latest<T> {
    numbers: HashMap<T, u64>,
    things: BTreeMap<u64, T>,
    floor: u64,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), things: BTreeMap::new(), floor: 0 }
    }
}

impl<T: Clone + Eq + Hash> Latest<T> {
    /// It occurred, last of all.
    pub(super) fn insert(&mut self, thing: T, seq: u64) {
        if let Some(before) = self.numbers.insert(thing.clone(), seq) {
            self.things.remove(&before);
        }
        self.things.insert(seq, thing);
    }

    /// It counts no more.
    pub(super) fn remove(&mut self, thing: &T) {
        if let Some(seq) = self.numbers.remove(thing) {
            self.things.remove(&seq);
        }
    }

    /// Drops the oldest until there are only so many.
    pub(super) fn keep(&mut self, most: usize) {
        while self.things.len() > most {
            let Some((seq, thing)) = self.things.pop_first() else { break };
            self.numbers.remove(&thing);
            self.floor = seq;
        }
    }

    /// The highest number that was dropped: who has everything up to it lacks nothing.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// All that occurred last after `seq`, in order.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &T)> {
        let range = (Bound::Excluded(seq), Bound::Unbounded);
        self.things.range(range).map(|(seq, thing)| (*seq, thing))
    }
}
