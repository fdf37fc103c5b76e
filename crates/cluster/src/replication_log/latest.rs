//! The last occurrence of each of many keys.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;

/// Keys, each with the number of its last occurrence. The oldest ones can be dropped.
#[derive(Debug)]
pub(super) struct Latest<T> {
    seqs: HashMap<T, u64>,
    by_seq: BTreeMap<u64, T>,
    floor: u64,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { seqs: HashMap::new(), by_seq: BTreeMap::new(), floor: 0 }
    }
}

impl<T: Clone + Eq + Hash> Latest<T> {
    /// Records an occurrence, which is later than all others.
    pub(super) fn insert(&mut self, key: T, seq: u64) {
        if let Some(before) = self.seqs.insert(key.clone(), seq) {
            self.by_seq.remove(&before);
        }
        self.by_seq.insert(seq, key);
    }

    pub(super) fn remove(&mut self, key: &T) {
        if let Some(seq) = self.seqs.remove(key) {
            self.by_seq.remove(&seq);
        }
    }

    /// Drops the oldest keys until at most `most` remain.
    pub(super) fn keep(&mut self, most: usize) {
        while self.by_seq.len() > most {
            let Some((seq, key)) = self.by_seq.pop_first() else { break };
            self.seqs.remove(&key);
            self.floor = seq;
        }
    }

    /// The highest number that was dropped: after it, nothing is missing.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// All keys that last occurred after `seq`, in order.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &T)> {
        let range = (Bound::Excluded(seq), Bound::Unbounded);
        self.by_seq.range(range).map(|(seq, key)| (*seq, key))
    }
}
