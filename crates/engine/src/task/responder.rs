//! The one answer of a call.

use std::sync::Arc;

use stentor_wire::encode::{self, Question, ResultBody};
use stentor_wire::{Era, ErrorObject, Id};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::cancel::{Cancel, OpenCall};
use crate::core::Core;
use crate::outlet::{Gate, Outlet};
use crate::session::FinishStreams;

/// Answers a request exactly once, whatever happens: who drops it unanswered, by a panic or
/// by being killed, answers with an error.
#[derive(Debug)]
pub(crate) struct Responder {
    core: Arc<Core>,
    outlet: Outlet,
    gate: Arc<Gate>,
    cancel: Cancel,
    era: Era,
    id: Option<Id>,
    held: Held,
}

/// What a running call holds, and gives back with its answer.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for their drops")]
pub(crate) struct Held {
    pub(crate) claim: Claim,
    pub(crate) running: Option<TaskTrackerToken>,
    pub(crate) streams: Option<Arc<FinishStreams>>,
}

/// What a client may claim anew once it has read the answer: its id, and room for one more.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for their drops")]
pub(crate) struct Claim {
    pub(crate) open: Option<OpenCall>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Responder {
    pub(crate) fn new(
        core: Arc<Core>,
        outlet: Outlet,
        gate: Arc<Gate>,
        cancel: Cancel,
        era: Era,
        id: Id,
        held: Held,
    ) -> Self {
        Self { core, outlet, gate, cancel, era, id: Some(id), held }
    }

    pub(crate) fn answer(mut self, outcome: Result<ResultBody, ErrorObject>) {
        self.send(outcome);
    }

    /// Answers with questions; the call goes on with the client's retry.
    pub(crate) fn ask(mut self, round: &[(String, Question)], request_state: &str) {
        let Some(id) = self.id.take() else { return };
        self.gate.close();
        self.held.claim = Claim::default();
        let questions = round.iter().map(|(key, question)| (&**key, question));
        let bytes =
            encode::input_required(&id, &self.core.identity, questions, Some(request_state));
        self.outlet.reply(bytes, None);
    }

    /// Ends the call without an answer, because its client wants none.
    pub(crate) fn withhold(mut self) {
        self.hang_up();
    }

    fn hang_up(&mut self) {
        self.gate.close();
        self.id = None;
        self.outlet.finish_unanswered();
    }

    fn send(&mut self, outcome: Result<ResultBody, ErrorObject>) {
        let Some(id) = self.id.take() else { return };
        // Closed first: nothing that the call says follows its answer.
        self.gate.close();
        self.held.claim = Claim::default();
        match outcome {
            Ok(result) => {
                let bytes = encode::response(&id, self.era, &self.core.identity, &result);
                self.outlet.reply(bytes, None);
            }
            Err(error) => self.outlet.reply(encode::error(Some(&id), &error), Some(error.code)),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        if !self.cancel.is_cancelled() {
            return self.send(Err(ErrorObject::internal("the call ended without an answer")));
        }
        match self.cancel.reason().error() {
            Some(error) => self.send(Err(error)),
            None => self.hang_up(),
        }
    }
}
