//! Decides where a call runs first, from how earlier runs of the same code went.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Code that works longer than this without waiting blocks other work on its thread.
const AT_ONCE: Duration = Duration::from_millis(1);

/// So many runs in a row have to end at once before the next run is expected to do so.
const PROVEN: u32 = 16;

/// How the runs of one tool, resource or prompt went.
///
/// Most code ends at its first poll, because it waits for nothing: an actor for it would cost more
/// than the code. But code that works for long, or reports progress without ever waiting, needs a
/// task actor, so that the client receives its messages meanwhile. The runs show which kind of code
/// it is.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many runs in a row ended at once.
    streak: AtomicU32,
}

impl Pace {
    /// Whether the next run is expected to end at once, so that it needs no actor.
    pub(super) fn is_proven(&self) -> bool {
        self.streak.load(Ordering::Relaxed) >= PROVEN
    }

    /// Records the first poll of a run: whether the run ended there and sent nothing, and how long
    /// the poll took.
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
        fn only_quick_and_silent_runs_in_a_row_prove_a_call(
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
        fn one_slow_run_resets_the_streak(quick in PROVEN..100) {
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
