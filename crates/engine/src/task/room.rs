//! Room for the request of a caller who has less than others, when the budget of all is used up.

use std::sync::Arc;

use crate::core::Core;
use crate::request_budget::{Charge, Meter, OverBudget};
use crate::session::Caller;

/// Counts a request. If it does not fit although its own session has room, calls of whoever has the
/// most end for it: those that wait for an answer first, then tasks, then others that run.
pub(crate) fn charge(
    core: &Arc<Core>,
    meter: &Arc<Meter>,
    caller: &Caller,
    bytes: usize,
) -> Result<Charge, OverBudget> {
    let refused = match meter.charge(bytes) {
        Ok(charge) => return Ok(charge),
        Err(refused) if !meter.has_own_room(bytes) => return Err(refused),
        Err(refused) => refused,
    };
    let (share, mut given) = (caller.share(), 0);
    while given < bytes {
        given += core
            .suspended
            .give_way(&share)
            .or_else(|| core.tasks.give_way(core, &share))
            .or_else(|| core.stateless_calls.give_way(&share))
            .ok_or(refused)?;
    }
    // What gave way ends a moment later, and is counted until then.
    let mut charge = meter.nothing();
    charge.take_over(bytes);
    Ok(charge)
}
