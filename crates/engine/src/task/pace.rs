//! Where a call runs first, judged by how its like went.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Code that works longer than this without waiting holds up who else uses its thread.
const AT_ONCE: Duration = Duration::from_millis(1);

/// So many runs in a row have to be done at once before it is counted on.
const PROVEN: u32 = 16;

/// How the runs of one piece of the author's code went: one tool, one resource, one prompt.
///
/// Most code is done when it is first looked at, as it waits for nothing: an actor for it would
/// cost more than the code. But code that works for long, or tells of its progress without ever
/// waiting, needs a task of its own to be heard meanwhile. Which is which it shows by itself.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Runs in a row that were done at once.
    streak: AtomicU32,
}

impl Pace {
    /// Whether the next run is expected to be done at once, so that it needs no task.
    pub(super) fn is_proven(&self) -> bool {
        self.streak.load(Ordering::Relaxed) >= PROVEN
    }

    /// A run was looked at once: whether that took it to its end, in silence, and how long.
    pub(super) fn saw(&self, ended_in_silence: bool, took: Duration) {
        if !ended_in_silence || took > AT_ONCE {
            self.streak.store(0, Ordering::Relaxed);
        } else if !self.is_proven() {
            self.streak.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_a_streak_of_quick_and_silent_runs_proves_anything(
            runs in proptest::collection::vec((any::<bool>(), 0..3_000_u64), 0..80),
        ) {
            let pace = Pace::default();
            let mut streak = 0;
            for (ended, micros) in runs {
                pace.saw(ended, Duration::from_micros(micros));
                streak = if ended && micros <= 1_000 { streak + 1 } else { 0 };
                prop_assert_eq!(pace.is_proven(), streak >= PROVEN);
            }
        }

        #[test]
        fn one_slow_run_is_enough_to_doubt(quick in PROVEN..100) {
            let pace = Pace::default();
            for _ in 0..quick {
                pace.saw(true, Duration::ZERO);
            }
            prop_assert!(pace.is_proven());
            pace.saw(true, AT_ONCE + Duration::from_micros(1));
            prop_assert!(!pace.is_proven());
        }
    }
}
