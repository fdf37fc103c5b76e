//! The last actors of an engine that failed, to be read afterwards.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use stentor_delivery::SessionId;

use crate::millis;

/// Crashes that are kept.
const KEPT: usize = 64;
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 512;

/// An actor that failed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CrashView {
    /// When, in JSON as milliseconds since 1970.
    #[serde(serialize_with = "millis::since_1970")]
    pub at: SystemTime,
    /// `"registry"`, `"hub"`, `"session"`, or `"other"`: a task actor, or an actor of an extension.
    pub actor: &'static str,
    /// The session that it served, if it was a session's.
    pub session: Option<SessionId>,
    /// Its error, or the message of its panic, cut to 512 bytes.
    pub reason: String,
}

#[derive(Debug, Default)]
pub(crate) struct Crashes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<CrashView>,
    count: u64,
}

impl Crashes {
    pub(crate) fn record(
        &self,
        actor: &'static str,
        session: Option<SessionId>,
        reason: impl ToString,
    ) {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let mut kept = self.0.lock();
        if kept.last.len() >= KEPT {
            kept.last.pop_front();
        }
        kept.count += 1;
        kept.last.push_back(CrashView { at: SystemTime::now(), actor, session, reason });
    }

    /// Oldest first.
    pub(crate) fn views(&self) -> Vec<CrashView> {
        self.0.lock().last.iter().cloned().collect()
    }

    /// How many there were, also of those that are forgotten.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_crashes_are_kept_and_their_reasons_cut() {
        let crashes = Crashes::default();
        for number in 0..100 {
            crashes.record("hub", None, format!("{number}{}", "ä".repeat(1_000)));
        }
        let views = crashes.views();
        assert_eq!((views.len(), crashes.count()), (KEPT, 100));
        assert!(views[0].reason.starts_with("36") && views[0].reason.len() <= MAX_REASON);
    }
}
