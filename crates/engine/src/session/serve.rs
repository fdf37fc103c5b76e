//! Requests that concern the catalog and not the session: they are answered from the catalog, or
//! begin a call.

use stentor_wire::{ErrorObject, Request, code};

use super::Session;
use crate::call::{self, Dispatch, NotAdmitted, Responder, Run, Start, Target};
use crate::caller::Caller;
use crate::dispatch::Scope;
use crate::reasons::{Refused, SessionKind};
use crate::request_budget::OverBudget;

impl Session {
    /// Serves a request of the session. Returns the call to run, or `None` if nothing remains to
    /// do.
    pub(super) fn serve(
        &self,
        caller: Caller,
        request: Box<Request>,
        responder: Responder,
    ) -> Option<Box<Run>> {
        let (calls, entry) = (&self.sessions.calls, &self.entry);
        // An immediate answer, too, takes memory until the client reads it.
        if calls.requests.is_scarce() && entry.requests().is_too_much() {
            responder.answer(Err(ErrorObject::unavailable(OverBudget.to_string())));
            return None;
        }
        let resumes = entry.kind() == SessionKind::Http;
        let caller = caller.sent_by(&self.sender).resuming(resumes);
        let target = match self.sessions.dispatcher.dispatch(&caller, &request, Scope::All) {
            Dispatch::Answer(outcome) => {
                if !responder.sender().is_shared() {
                    let needs = self.sessions.dispatcher.needs_of_answer(&request.method, &caller);
                    needs.into_iter().for_each(|need| responder.sender().need(need));
                }
                responder.answer(outcome);
                return None;
            }
            Dispatch::Call(target) => target,
        };
        match self.admit(caller, target, request) {
            Ok(start) => call::begin(calls, start, responder),
            Err(error) => {
                responder.answer(Err(error));
                None
            }
        }
    }

    /// Admits a call: a new one, or the retry of one that awaits input.
    fn admit(
        &self,
        caller: Caller,
        target: Target,
        request: Box<Request>,
    ) -> Result<Start, ErrorObject> {
        let (calls, session) = (&self.sessions.calls, &self.entry);
        let in_use = || ErrorObject::new(code::INVALID_REQUEST, "the request id is in use");
        // Checked first, because a retry uses up the state of the call that waits.
        if session.calls().is_open(&request.id) {
            return Err(in_use());
        }
        let admitted = call::admit(calls, session.requests(), caller, target, request);
        let mut start = admitted.map_err(|error| match error {
            NotAdmitted::OverBudget(error) => ErrorObject::unavailable(error.to_string()),
            NotAdmitted::TooMany => ErrorObject::unavailable(Refused::TooManyRequests.to_string()),
            NotAdmitted::Refused(error) => error,
        })?;
        let (request, cancel) = (&start.request.id, &start.cancel);
        start.open = Some(session.calls().open(request, cancel).ok_or_else(in_use)?);
        // Checked after the call is registered: if the session closes later, it finds the call.
        if session.is_closed() {
            return Err(ErrorObject::unavailable("the session has ended"));
        }
        start.streams = session.finish_streams();
        start.questions = Some(session.questions().clone());
        Ok(start)
    }
}
