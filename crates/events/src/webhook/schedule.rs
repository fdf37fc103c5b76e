//! When an attempt that failed is made again.

use std::time::Duration;

/// How far jitter moves the first retry, as a part of its wait.
const FIRST_SPREAD: f64 = 1.0 / 3.0;

/// How far jitter moves the later retries. They are far apart already, and must end in time.
const LATER_SPREAD: f64 = 0.15;

/// When the attempts at one delivery are made. By default the first retry comes after 1 to 2
/// seconds, the fifth and last attempt after 10 to 15 minutes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// How long the first retry waits, before jitter. Default 1.5 seconds.
    pub first: Duration,
    /// How many times longer each retry waits than the one before. Default 7.5.
    pub factor: f64,
    /// How many attempts are made, with the first. Default 5.
    pub max_attempts: u32,
    /// After which time no attempt begins. Default 15 minutes.
    pub within: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(1500),
            factor: 7.5,
            max_attempts: 5,
            within: Duration::from_mins(15),
        }
    }
}

impl Schedule {
    /// How long to wait before the next attempt, or `None` if no more is made.
    ///
    /// `attempts_done` attempts were made, the first of them `elapsed` ago. `retry_after` is for
    /// how long the endpoint asked not to be tried: the wait is at least as long, but never beyond
    /// the end of the schedule. `jitter` is random, from 0 to 1.
    pub(crate) fn next(
        &self,
        attempts_done: u32,
        elapsed: Duration,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        if attempts_done >= self.max_attempts {
            return None;
        }
        let left = self.within.checked_sub(elapsed)?;
        // No attempt is squeezed in at the very end.
        if left < self.first {
            return None;
        }
        let retries_done = attempts_done.saturating_sub(1);
        let spread = if retries_done == 0 { FIRST_SPREAD } else { LATER_SPREAD };
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        let power = self.factor.max(1.0).powf(f64::from(retries_done));
        let seconds = self.first.as_secs_f64() * power * (1.0 + spread * (2.0 * jitter - 1.0));
        // More seconds than a duration holds are more than there are left.
        let planned = Duration::try_from_secs_f64(seconds).unwrap_or(left);
        Some(planned.max(retry_after.unwrap_or_default()).min(left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// All waits of a delivery that never succeeds.
    fn waits(
        schedule: &Schedule,
        mut answers: impl FnMut() -> (Option<Duration>, f64),
        attempt: Duration,
    ) -> Vec<Duration> {
        let (mut waits, mut elapsed) = (Vec::new(), Duration::ZERO);
        loop {
            elapsed += attempt;
            let (retry_after, jitter) = answers();
            let Some(wait) = schedule.next(waits.len() as u32 + 1, elapsed, retry_after, jitter)
            else {
                return waits;
            };
            elapsed += wait;
            waits.push(wait);
        }
    }

    #[test]
    fn the_default_schedule() {
        let seconds = waits(&Schedule::default(), || (None, 0.5), Duration::ZERO);
        let seconds: Vec<_> = seconds.iter().map(Duration::as_secs_f64).collect();
        assert_eq!(seconds, [1.5, 11.25, 84.375, 632.8125]);
    }

    #[test]
    fn an_endpoint_may_ask_for_a_longer_wait_within_the_schedule() {
        let schedule = Schedule::default();
        let next = |elapsed, asked| {
            let asked = Some(Duration::from_secs(asked));
            schedule.next(1, Duration::from_secs(elapsed), asked, 0.5).map(|it| it.as_secs_f64())
        };
        assert_eq!(next(0, 0), Some(1.5));
        assert_eq!(next(0, 30), Some(30.0));
        assert_eq!(next(100, 3600), Some(800.0));
        assert_eq!(next(899, 0), None);
        assert_eq!(next(901, 0), None);
    }

    #[test]
    fn no_setting_breaks_the_schedule() {
        let odd = Schedule { factor: f64::NAN, max_attempts: u32::MAX, ..Schedule::default() };
        assert_eq!(odd.next(9, Duration::ZERO, None, f64::NAN), Some(Duration::from_millis(1500)));
        let steep = Schedule { factor: f64::MAX, ..Schedule::default() };
        assert_eq!(steep.next(4, Duration::ZERO, None, 0.5), Some(steep.within));
        let once = Schedule { max_attempts: 1, ..Schedule::default() };
        assert_eq!(once.next(1, Duration::ZERO, None, 0.5), None);
        let none = Schedule { within: Duration::ZERO, ..Schedule::default() };
        assert_eq!(none.next(1, Duration::ZERO, None, 0.5), None);
        assert_eq!(none.next(1, Duration::MAX, Some(Duration::MAX), 0.5), None);
    }

    proptest! {
        #[test]
        fn the_default_takes_ten_to_fifteen_minutes(
            jitters in vec(0.0..1.0f64, 5),
            attempt in 0u64..=5_000,
        ) {
            let mut jitter = jitters.into_iter();
            let attempt = Duration::from_millis(attempt);
            let schedule = Schedule::default();
            let waits = waits(&schedule, || (None, jitter.next().unwrap()), attempt);
            prop_assert_eq!(waits.len(), 4);
            prop_assert!((1.0..=2.0).contains(&waits[0].as_secs_f64()));
            prop_assert!(waits.is_sorted());
            let total = waits.iter().sum::<Duration>() + 4 * attempt;
            prop_assert!((600.0..=900.0).contains(&total.as_secs_f64()), "{:?}", total);
        }

        #[test]
        fn no_attempt_begins_after_the_end(
            first in 0u64..10_000,
            factor in 0.0..10.0f64,
            max_attempts in 0u32..9,
            within in 0u64..2_000_000,
            answers in vec((proptest::option::of(0u64..5_000_000), 0.0..1.0f64), 10),
        ) {
            let schedule = Schedule {
                first: Duration::from_millis(first),
                factor,
                max_attempts,
                within: Duration::from_millis(within),
            };
            let mut given = answers.iter();
            let mut answer = || {
                let (asked, jitter) = given.next().unwrap();
                (asked.map(Duration::from_millis), *jitter)
            };
            let waits = waits(&schedule, &mut answer, Duration::ZERO);
            prop_assert!(waits.len() < 1.max(max_attempts as usize));
            prop_assert!(waits.iter().sum::<Duration>() <= schedule.within);
            // Each wait is as long as the endpoint asked, but for one that ends the schedule.
            let mut elapsed = Duration::ZERO;
            for (wait, (asked, _)) in waits.iter().zip(&answers) {
                elapsed += *wait;
                let asked = Duration::from_millis(asked.unwrap_or_default());
                prop_assert!(*wait >= asked || elapsed == schedule.within);
                prop_assert!(wait.as_secs_f64() >= schedule.first.as_secs_f64() * 0.66);
            }
        }
    }
}
