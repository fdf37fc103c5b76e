//! How often an endpoint fails. Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

/// What is looked at.
const SPAN: Duration = Duration::from_secs(60 * 60);
/// Fewer attempts say nothing.
const ENOUGH: u32 = 100;
/// Of 100 attempts; an endpoint that fails more often gets no more until it is refreshed.
const MAX_FAILED: u32 = 95;

/// The attempts of the last hour or two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    begun: Option<Instant>,
    /// Attempts and failures of this hour, and of the one before.
    now: (u32, u32),
    before: (u32, u32),
}

impl Health {
    /// Notes an attempt. `true` if the endpoint fails too often.
    pub(crate) fn note(&mut self, failed: bool, now: Instant) -> bool {
        let begun = *self.begun.get_or_insert(now);
        let passed = now - begun;
        if passed >= 2 * SPAN {
            *self = Self { begun: Some(now), ..Self::default() };
        } else if passed >= SPAN {
            let before = self.now;
            *self = Self { begun: Some(begun + SPAN), now: (0, 0), before };
        }
        self.now.0 = self.now.0.saturating_add(1);
        self.now.1 = self.now.1.saturating_add(u32::from(failed));
        let (all, bad) = (self.now.0 + self.before.0, self.now.1 + self.before.1);
        all >= ENOUGH && u64::from(bad) * 100 > u64::from(all) * u64::from(MAX_FAILED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_endpoint_that_nearly_always_fails_is_left_alone() {
        let now = Instant::now();
        let mut dead = Health::default();
        assert_eq!((0..100).filter(|_| dead.note(true, now)).count(), 1);
        let mut poor = Health::default();
        assert!(!(0..1_000).any(|number| poor.note(number % 10 != 0, now)));
        // What was long ago counts no more.
        let mut once = Health::default();
        (0..99).for_each(|_| assert!(!once.note(true, now)));
        assert!(!once.note(true, now + 3 * SPAN));
    }
}
