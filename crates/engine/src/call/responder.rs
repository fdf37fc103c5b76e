//! Sends the one response to a request.

use std::sync::Arc;

use bytes::Bytes;
use stentor_delivery::{ProgressGate, StreamSender};
use stentor_wire::encode::{self, Question, ResultBody};
use stentor_wire::{Era, ErrorObject, Id, Method, Request};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::calls::Calls;
use super::open_calls::OpenCall;
use super::stateless::CallPermit;
use crate::caller::Caller;
use crate::handler::Cancel;
use crate::offload::LARGE;
use crate::reasons::CallOutcome;
use crate::request_budget::Meter;

/// Answers a request exactly once, in every case. A responder is made where the request is
/// received, and stays with the request. If it is dropped unanswered, after a panic or because its
/// actor is killed, it answers with an error.
#[derive(Debug)]
pub(crate) struct Responder {
    calls: Arc<Calls>,
    sender: StreamSender,
    era: Era,
    /// `None` once there is nothing more to answer.
    id: Option<Id>,
    method: Method,
    arrived: Instant,
    permits: Permits,
    call: Option<UntilAnswered>,
    meter: Arc<Meter>,
}

/// The request's id and its permit. Both become free before the response is sent, so that a client
/// that has read the response can use them again.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for their drops")]
struct Permits {
    permit: Option<CallPermit>,
    open: Option<OpenCall>,
}

#[derive(Debug)]
pub(super) struct UntilAnswered {
    pub(super) gate: Arc<ProgressGate>,
    pub(super) cancel: Cancel,
    /// Counts the call among the calls that a shutdown waits for.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) counted: TaskTrackerToken,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) streams: Option<Arc<FinishStreams>>,
}

impl Responder {
    /// For a request that was received; `permit` is its right to run.
    pub(crate) fn new(
        calls: Arc<Calls>,
        sender: StreamSender,
        era: Era,
        request: &Request,
        permit: impl Into<CallPermit>,
        meter: Arc<Meter>,
    ) -> Self {
        let (id, method) = (Some(request.id.clone()), request.method.clone());
        let permits = Permits { permit: Some(permit.into()), open: None };
        Self { calls, sender, era, id, method, arrived: Instant::now(), permits, call: None, meter }
    }

    pub(crate) fn sender(&self) -> &StreamSender {
        &self.sender
    }

    /// Marks the request as a call that runs from here on.
    pub(super) fn running(mut self, open: Option<OpenCall>, call: UntilAnswered) -> Self {
        self.permits.open = open;
        self.call = Some(call);
        self
    }

    pub(crate) fn answer(mut self, outcome: Result<ResultBody, ErrorObject>) {
        self.send(outcome);
    }

    /// Answers with a response that another node has encoded.
    pub(crate) fn answer_encoded(mut self, response: Bytes, code: Option<i32>) {
        if self.close().is_some() {
            let outcome = code.map_or(CallOutcome::Ok, CallOutcome::Error);
            self.calls.metrics.operation(&self.method, outcome, self.arrived.elapsed());
            self.sender.reply(response, code);
        }
    }

    /// Answers with questions, for the client to retry with their answers.
    pub(crate) fn ask(mut self, round: &[(String, Question)], request_state: &str) {
        let Some(id) = self.close() else { return };
        self.calls.metrics.operation(&self.method, CallOutcome::Ok, self.arrived.elapsed());
        let questions = round.iter().map(|(key, question)| (&**key, question));
        let bytes =
            encode::input_required(&id, &self.calls.identity, questions, Some(request_state));
        self.sender.reply(bytes, None);
    }

    /// Ends the request without a response: its client wants none, or gets the response when its
    /// listen ends.
    pub(crate) fn withhold(mut self) {
        self.end_unanswered();
    }

    fn end_unanswered(&mut self) {
        if self.close().is_some() {
            self.sender.finish_unanswered();
        }
    }

    fn send(&mut self, outcome: Result<ResultBody, ErrorObject>) {
        let Some(id) = self.close() else { return };
        let took = self.arrived.elapsed();
        self.calls.metrics.operation(&self.method, CallOutcome::of(&outcome), took);
        match outcome {
            Ok(result) => {
                let bytes = encode::response(&id, self.era, &self.calls.identity, &result);
                self.sender.reply(self.meter.counted(bytes), None);
            }
            Err(error) => self.sender.reply(encode::error(Some(&id), &error), Some(error.code)),
        }
    }

    /// Closes the request: from here on nothing of the call is sent, and its permits are free
    /// before the client can read the response. Returns the id, unless the request was closed
    /// before.
    fn close(&mut self) -> Option<Id> {
        let id = self.id.take()?;
        if let Some(call) = &self.call {
            self.sender.close_gate(&call.gate);
        }
        self.permits = Permits::default();
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
            Some(None) => self.end_unanswered(),
        }
    }
}

/// Encodes the response to a request that runs no call. Also returns the code, if it is an error.
pub(crate) fn answer_now(
    calls: &Calls,
    caller: &Caller,
    id: &Id,
    outcome: &Result<ResultBody, ErrorObject>,
) -> (Bytes, Option<i32>) {
    match outcome {
        Ok(result) => {
            let mut answer = encode::response(id, caller.era(), &calls.identity, result);
            if answer.len() > LARGE {
                answer = calls.requests.of(&caller.share()).counted(answer);
            }
            (answer, None)
        }
        Err(error) => (encode::error(Some(id), error), Some(error.code)),
    }
}

/// Ends the stream of a session when the last owner that may still answer on it drops it. Owners
/// are the session itself, and each of its calls.
#[derive(Debug)]
pub(crate) struct FinishStreams(pub(crate) StreamSender);

impl Drop for FinishStreams {
    fn drop(&mut self) {
        self.0.finish();
    }
}
