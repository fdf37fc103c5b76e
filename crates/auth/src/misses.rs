//! Keys that an issuer did not have. Anybody can write any name of a key into a token: this decides
//! for which of them the keys are fetched again. It is told the time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// At most one fetch in this time is for a key that is not known.
const BETWEEN_FETCHES: Duration = Duration::from_secs(10);
/// For how long a key that was not found is not looked for again.
const REMEMBERED: Duration = Duration::from_secs(60);
const MAX_REMEMBERED: usize = 1_000;

/// Which keys were not found, and when they were last looked for.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    fetched_at: Option<Instant>,
    /// Hashes of names, the oldest first.
    not_found: VecDeque<(u64, Instant)>,
}

impl Misses {
    /// Whether a key was looked for a short while ago, in vain.
    pub(crate) fn knows(&self, name: u64, now: Instant) -> bool {
        self.not_found.iter().any(|(it, at)| *it == name && now < *at + REMEMBERED)
    }

    /// Whether the keys may be fetched again for an unknown one. Then it is noted that they were.
    pub(crate) fn may_fetch(&mut self, now: Instant) -> bool {
        let may = self.fetched_at.is_none_or(|at| now >= at + BETWEEN_FETCHES);
        if may {
            self.fetched_at = Some(now);
        }
        may
    }

    /// A fetch for an unknown key failed. Then how soon the next may follow is decided by how often
    /// fetches fail.
    pub(crate) fn fetch_failed(&mut self) {
        self.fetched_at = None;
    }

    pub(crate) fn not_found(&mut self, name: u64, now: Instant) {
        if self.knows(name, now) {
            return;
        }
        while self.not_found.len() >= MAX_REMEMBERED
            || self.not_found.front().is_some_and(|(_, at)| now >= *at + REMEMBERED)
        {
            self.not_found.pop_front();
        }
        self.not_found.push_back((name, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_for_an_unknown_one_at_most_every_10_s() {
        let (mut misses, now) = (Misses::default(), Instant::now());
        assert!(misses.may_fetch(now));
        assert!(!misses.may_fetch(now + Duration::from_millis(9_999)));
        assert!(misses.may_fetch(now + BETWEEN_FETCHES));
        assert!(!misses.may_fetch(now + BETWEEN_FETCHES));
        misses.fetch_failed();
        assert!(misses.may_fetch(now + BETWEEN_FETCHES));
    }

    #[test]
    fn a_bounded_number_of_keys_is_remembered_for_a_minute() {
        let (mut misses, now) = (Misses::default(), Instant::now());
        for name in 0..5_000 {
            misses.not_found(name, now);
            misses.not_found(name, now);
        }
        assert_eq!(misses.not_found.len(), MAX_REMEMBERED);
        assert!(misses.knows(4_999, now) && !misses.knows(3_999, now));
        assert!(!misses.knows(4_999, now + REMEMBERED));
        misses.not_found(1, now + REMEMBERED);
        assert_eq!(misses.not_found.len(), 1);
    }
}
