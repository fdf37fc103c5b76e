//! The one answer of a request.

use std::sync::Arc;

use stentor_wire::encode::{self, Question, ResultBody};
use stentor_wire::{Era, ErrorObject, Id, Method, Request};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::CallPermit;
use super::cancel::{Cancel, OpenCall};
use crate::core::Core;
use crate::events::CallOutcome;
use crate::outlet::{Gate, Outlet};
use crate::request_budget::Meter;
use crate::session::FinishStreams;

/// Answers a request exactly once, whatever happens: made where the request comes in, it goes
/// with it, and who drops it unanswered, by a panic or by being killed, answers with an error.
#[derive(Debug)]
pub(crate) struct Responder {
    core: Arc<Core>,
    outlet: Outlet,
    era: Era,
    /// `None` once there is nothing to answer.
    id: Option<Id>,
    method: Method,
    came_in: Instant,
    claim: Claim,
    call: Option<Running>,
    /// Counts what is kept of its caller.
    meter: Arc<Meter>,
}

/// What a client may claim anew once it has read the answer: its id, and room for one more.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for their drops")]
struct Claim {
    permit: Option<CallPermit>,
    open: Option<OpenCall>,
}

/// What a call holds until it is answered.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) gate: Arc<Gate>,
    pub(super) cancel: Cancel,
    /// Counts it among those that a shutdown waits for.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) counted: TaskTrackerToken,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) streams: Option<Arc<FinishStreams>>,
}

impl Responder {
    /// For a request that came in; `permit` is its right to be running.
    pub(crate) fn new(
        core: Arc<Core>,
        outlet: Outlet,
        era: Era,
        request: &Request,
        permit: impl Into<CallPermit>,
        meter: Arc<Meter>,
    ) -> Self {
        let (id, method) = (Some(request.id.clone()), request.method.clone());
        let claim = Claim { permit: Some(permit.into()), open: None };
        Self { core, outlet, era, id, method, came_in: Instant::now(), claim, call: None, meter }
    }

    /// Where the answer goes.
    pub(crate) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// The request is a call that runs from here on.
    pub(super) fn running(mut self, open: Option<OpenCall>, call: Running) -> Self {
        self.claim.open = open;
        self.call = Some(call);
        self
    }

    pub(crate) fn answer(mut self, outcome: Result<ResultBody, ErrorObject>) {
        self.send(outcome);
    }

    /// Answers with a response that another node has written.
    pub(crate) fn answer_encoded(mut self, response: bytes::Bytes, code: Option<i32>) {
        if self.last_word().is_some() {
            let outcome = code.map_or(CallOutcome::Ok, CallOutcome::Error);
            self.core.metrics.operation(&self.method, outcome, self.came_in.elapsed());
            self.outlet.reply(response, code);
        }
    }

    /// Answers with questions; the call goes on with the client's retry.
    pub(crate) fn ask(mut self, round: &[(String, Question)], request_state: &str) {
        let Some(id) = self.last_word() else { return };
        self.core.metrics.operation(&self.method, CallOutcome::Ok, self.came_in.elapsed());
        let questions = round.iter().map(|(key, question)| (&**key, question));
        let bytes =
            encode::input_required(&id, &self.core.identity, questions, Some(request_state));
        self.outlet.reply(bytes, None);
    }

    /// Ends the request without an answer: its client wants none, or gets it when its listen
    /// ends.
    pub(crate) fn withhold(mut self) {
        self.hang_up();
    }

    fn hang_up(&mut self) {
        if self.last_word().is_some() {
            self.outlet.finish_unanswered();
        }
    }

    fn send(&mut self, outcome: Result<ResultBody, ErrorObject>) {
        let Some(id) = self.last_word() else { return };
        let took = self.came_in.elapsed();
        self.core.metrics.operation(&self.method, CallOutcome::of(&outcome), took);
        match outcome {
            Ok(result) => {
                let bytes = encode::response(&id, self.era, &self.core.identity, &result);
                self.outlet.reply(self.meter.counted(bytes), None);
            }
            Err(error) => self.outlet.reply(encode::error(Some(&id), &error), Some(error.code)),
        }
    }

    /// From here on nothing that the call says is sent, and the client may claim what the
    /// request held: before it can read the answer.
    fn last_word(&mut self) -> Option<Id> {
        let id = self.id.take()?;
        if let Some(call) = &self.call {
            self.outlet.close_gate(&call.gate);
        }
        self.claim = Claim::default();
        Some(id)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        let cancel = self.call.as_ref().map(|call| call.cancel.clone());
        match cancel.filter(Cancel::is_cancelled).map(|cancel| cancel.reason().error()) {
            None => self.send(Err(ErrorObject::internal("the call ended without an answer"))),
            Some(Some(error)) => self.send(Err(error)),
            Some(None) => self.hang_up(),
        }
    }
}
