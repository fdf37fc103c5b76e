//! For how long what was fetched from an issuer is used, and when it is fetched again: a state
//! machine that is told the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long something fetched is fresh if its sender does not say.
const DEFAULT_FRESH: Duration = Duration::from_secs(10 * 60);
const MIN_FRESH: Duration = Duration::from_secs(60);
const MAX_FRESH: Duration = Duration::from_secs(60 * 60);
/// How long it is used after that while nothing newer can be fetched.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long nothing is fetched after a first failure; this doubles with each further one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Keeps apart the attempts to reach somebody who does not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        let pause = MIN_PAUSE.saturating_mul(1 << self.failures.min(8)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long no further attempt is made, if one must wait.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let left = self.retry_at?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

/// Something that was fetched, if anything was, and how the last attempts ended.
#[derive(Debug)]
pub(crate) struct Freshness<T> {
    held: Option<Held<T>>,
    backoff: Backoff,
    /// How many attempts have ended.
    attempts: u64,
}

#[derive(Debug)]
pub(crate) struct Held<T> {
    pub(crate) value: Arc<T>,
    /// The number of the fetch that brought it.
    pub(crate) fetch: u64,
    refresh_at: Instant,
    fresh_until: Instant,
    usable_until: Instant,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

impl<T> Clone for Freshness<T> {
    fn clone(&self) -> Self {
        let Self { held, backoff, attempts } = self;
        Self { held: held.clone(), backoff: backoff.clone(), attempts: *attempts }
    }
}

impl<T> Default for Freshness<T> {
    fn default() -> Self {
        Self { held: None, backoff: Backoff::default(), attempts: 0 }
    }
}

/// What to do at this moment.
#[derive(Debug)]
pub(crate) enum Look<'a, T> {
    /// Use it.
    Fresh(&'a Held<T>),
    /// Use it, and fetch it again meanwhile.
    Aging(&'a Held<T>),
    /// Fetch it first.
    Absent,
    /// There is none, and nothing is fetched for so long.
    Unavailable(Duration),
}

impl<T> Freshness<T> {
    pub(crate) fn look(&self, now: Instant) -> Look<'_, T> {
        let pause = self.backoff.pause(now);
        let Some(held) = self.held.as_ref().filter(|held| now < held.usable_until) else {
            return pause.map_or(Look::Absent, Look::Unavailable);
        };
        match pause {
            _ if now < held.refresh_at => Look::Fresh(held),
            Some(_) => Look::Fresh(held),
            // While nobody answers, only the first who asks waits.
            None if now < held.fresh_until || self.backoff.is_failing() => Look::Aging(held),
            None => Look::Absent,
        }
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.attempts
    }

    pub(crate) fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    pub(crate) fn succeeded(
        &mut self,
        value: T,
        max_age: Option<Duration>,
        fetch: u64,
        now: Instant,
    ) {
        let fresh = max_age.map_or(DEFAULT_FRESH, |it| it.clamp(MIN_FRESH, MAX_FRESH));
        self.held = Some(Held {
            value: Arc::new(value),
            fetch,
            refresh_at: now + fresh * 4 / 5,
            fresh_until: now + fresh,
            usable_until: now + fresh + MAX_STALE,
        });
        self.backoff.succeeded();
        self.attempts += 1;
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.backoff.failed(now);
        self.attempts += 1;
    }

    /// What is held seems to be wrong: it is fetched again before its time.
    pub(crate) fn doubted(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            held.refresh_at = held.refresh_at.min(now);
            held.fresh_until = held.fresh_until.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// What a look says, as one word.
    fn says(freshness: &Freshness<u8>, now: Instant) -> &'static str {
        match freshness.look(now) {
            Look::Fresh(_) => "fresh",
            Look::Aging(_) => "aging",
            Look::Absent => "absent",
            Look::Unavailable(_) => "unavailable",
        }
    }

    #[test]
    fn what_was_fetched_ages() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        for (max_age, fresh) in
            [(None, 600), (Some(0), 60), (Some(900), 900), (Some(86_400), 3_600)]
        {
            let mut freshness = Freshness::default();
            assert_eq!(says(&freshness, start), "absent");
            freshness.succeeded(1, max_age.map(Duration::from_secs), 1, start);
            let after = |seconds: u64| start + Duration::from_secs(seconds);
            assert_eq!(says(&freshness, after(fresh * 4 / 5) - second), "fresh");
            assert_eq!(says(&freshness, after(fresh * 4 / 5)), "aging");
            assert_eq!(says(&freshness, after(fresh) - second), "aging");
            // Nobody asked for long: the first who does waits for what is new.
            assert_eq!(says(&freshness, after(fresh)), "absent");
            freshness.failed(after(fresh));
            assert_eq!(says(&freshness, after(fresh)), "fresh");
            assert_eq!(says(&freshness, after(fresh + 1)), "aging");
            assert_eq!(says(&freshness, after(fresh) + 24 * HOUR - second), "aging");
            assert_eq!(says(&freshness, after(fresh) + 24 * HOUR), "absent");
            freshness.failed(after(fresh) + 24 * HOUR);
            assert_eq!(says(&freshness, after(fresh) + 24 * HOUR), "unavailable");
        }
    }

    #[test]
    fn what_is_doubted_is_fetched_again() {
        let now = Instant::now();
        let mut freshness = Freshness::default();
        freshness.succeeded(1, None, 1, now);
        freshness.doubted(now);
        assert_eq!(says(&freshness, now), "absent");
    }

    #[test]
    fn attempts_that_fail_are_kept_apart() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            backoff.failed(now);
            let pause = backoff.pause(now).unwrap();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(backoff.pause(now), None);
            assert!(backoff.is_failing());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        backoff.succeeded();
        assert!(!backoff.is_failing());
    }

    proptest! {
        #[test]
        fn attempts_that_fail_are_never_closer_than_a_second(
            steps in prop::collection::vec(0_u64..3_000, 1..200),
        ) {
            let (start, mut now) = (Instant::now(), Instant::now());
            let (mut freshness, mut attempts) = (Freshness::<u8>::default(), Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                if let Look::Absent | Look::Aging(_) = freshness.look(now) {
                    attempts.push(now - start);
                    freshness.failed(now);
                }
            }
            let apart = attempts.windows(2).all(|pair| pair[1] - pair[0] >= MIN_PAUSE);
            prop_assert!(apart, "{attempts:?}");
        }
    }
}
