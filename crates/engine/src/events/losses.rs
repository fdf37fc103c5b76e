//! Events for frames that were lost on streams.

use stentor_delivery::LossCounters;
use stentor_delivery::policy::Class;

use super::{EngineEvent, Events};
use crate::ids::SessionId;

/// Emits events for frames dropped and streams closed between two counts. `session` is `None` if
/// the streams belong to no session.
pub(crate) fn report_losses(
    before: LossCounters,
    now: LossCounters,
    session: Option<&SessionId>,
    events: &Events,
) {
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
