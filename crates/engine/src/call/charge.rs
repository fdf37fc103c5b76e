//! Space for the request of a caller with a smaller share than others, when the budget of all is
//! used up.

use std::sync::Arc;

use super::calls::Calls;
use crate::caller::Caller;
use crate::request_budget::{Charge, Meter, OverBudget};

/// Counts a request. If the budget of all is used up, but not that of the caller's own session,
/// calls of the largest share end for the request: first those that await input, then tasks, then
/// other running calls.
pub(crate) fn charge(
    calls: &Calls,
    meter: &Arc<Meter>,
    caller: &Caller,
    bytes: usize,
) -> Result<Charge, OverBudget> {
    let refused = match meter.charge(bytes) {
        Ok(charge) => return Ok(charge),
        Err(refused) if !meter.own_limit_allows(bytes) => return Err(refused),
        Err(refused) => refused,
    };
    let (share, mut freed) = (caller.share(), 0);
    while freed < bytes {
        freed += calls
            .awaiting_input
            .give_way(&share)
            .or_else(|| calls.tasks()?.clone().give_way(&share))
            .or_else(|| calls.stateless.give_way(&share))
            .ok_or(refused)?;
    }
    // A call that gave way ends a moment later, and is counted until then.
    let mut charge = meter.nothing();
    charge.take_over(bytes);
    Ok(charge)
}
