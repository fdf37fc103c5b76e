//! Requests that concern the catalog and not the session: they are answered from the catalog, or
//! begin a call.
//!
//! The code that has received the request serves it (see [`Session`](super::Session)).

use std::sync::Arc;

use stentor_wire::{ErrorObject, Request, code};

use super::{Caller, SessionEntry};
use crate::core::Core;
use crate::dispatch::{Dispatch, Scope, Target, dispatch};
use crate::reasons::SessionKind;
use crate::request_budget::{OverBudget, cost_of_call};
use crate::task::{self, Responder, Run};

/// Serves a request of a session. Returns the call to run, or `None` if nothing remains to do.
pub(crate) fn serve(
    core: &Arc<Core>,
    entry: &SessionEntry,
    caller: Caller,
    request: Box<Request>,
    responder: Responder,
) -> Option<Box<Run>> {
    // An immediate answer, too, takes memory until the client reads it.
    if core.requests.is_scarce() && entry.requests().is_too_much() {
        responder.answer(Err(ErrorObject::unavailable(OverBudget.to_string())));
        return None;
    }
    let resumes = entry.kind() == SessionKind::Http;
    let caller = caller.of(entry.principal().cloned()).resuming(resumes);
    let target = match dispatch(core, &caller, &request, Scope::All) {
        Dispatch::Answer(outcome) => {
            responder.answer(outcome);
            return None;
        }
        Dispatch::Call(target) => target,
    };
    match admit(core, entry, caller, target, request) {
        Ok(start) => task::begin(core, start, responder),
        Err(error) => {
            responder.answer(Err(error));
            None
        }
    }
}

/// Admits a call: a new one, or the retry of one that awaits input.
fn admit(
    core: &Arc<Core>,
    entry: &SessionEntry,
    caller: Caller,
    target: Target,
    request: Box<Request>,
) -> Result<task::Start, ErrorObject> {
    let in_use = || ErrorObject::new(code::INVALID_REQUEST, "the request id is in use");
    // Checked first, because a retry uses up the state of the call that waits.
    if entry.calls().is_open(&request.id) {
        return Err(in_use());
    }
    let charge = task::charge(core, entry.requests(), &caller, cost_of_call(&request));
    let charge = charge.map_err(|error| ErrorObject::unavailable(error.to_string()))?;
    let begins = task::enter(core, &caller, &request, &target)?;
    let cancel = begins.cancel();
    let open = Some(entry.calls().open(&request.id, &cancel).ok_or_else(in_use)?);
    // Checked after the call is registered: if the session closes later, it finds the call.
    if entry.is_closed() {
        return Err(ErrorObject::unavailable("the session has ended"));
    }
    let streams = entry.finish_streams();
    let questions = Some(entry.questions().clone());
    #[rustfmt::skip]
    let start = task::Start {
        request, caller, target, entry: begins, cancel, open, streams, questions, charge,
    };
    Ok(start)
}
