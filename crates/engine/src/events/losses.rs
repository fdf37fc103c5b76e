//! Events for frames that were lost on streams.

use parking_lot::Mutex;
use stentor_delivery::policy::Class;
use stentor_delivery::{Counters, LossCounters};

use super::{EngineEvent, Events};
use crate::ids::SessionId;

/// The losses that are already reported.
#[derive(Debug, Default)]
pub(crate) struct ReportedLosses(Mutex<LossCounters>);

impl ReportedLosses {
    /// Emits events for frames dropped and streams closed since the last report. `session` is
    /// `None` if the streams belong to no session.
    pub(crate) fn report(&self, counters: &Counters, session: Option<&SessionId>, events: &Events) {
        let (before, now) = {
            let mut reported = self.0.lock();
            // Read while it is locked, because another thread may report the same losses.
            let now = counters.losses();
            (std::mem::replace(&mut *reported, now), now)
        };
        if now == before {
            return;
        }
        for class in Class::ALL {
            let count = now.dropped[class as usize] - before.dropped[class as usize];
            if count > 0 {
                let session = || session.cloned();
                events.emit(|| EngineEvent::FramesDropped { session: session(), class, count });
            }
        }
        let count = now.closed - before.closed;
        if count > 0 {
            events.emit(|| EngineEvent::StreamsClosed { session: session.cloned(), count });
        }
    }
}
