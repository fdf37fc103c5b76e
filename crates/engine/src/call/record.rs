//! The running calls of an engine: to list them, to cancel them, to emit their events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Method, code};
use tokio::time::Instant;
use tracing::Span;

use super::calls::Calls;
use crate::events::EngineEvent;
use crate::handler::Cancel;
use crate::ids::CallId;
use crate::reasons::{CallOutcome, CallRef, CancelReason};
use crate::spans;

/// A running call, at one moment.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct CallView {
    /// The call.
    pub call: CallRef,
    /// The method of its request.
    pub method: Method,
    /// How long the call has run; in JSON in milliseconds.
    #[serde(serialize_with = "crate::millis::of")]
    pub age: Duration,
}

/// All calls of an engine, also while they await input.
#[derive(Debug, Default)]
pub(crate) struct RunningCalls {
    next: AtomicU64,
    calls: DashMap<CallId, RunningCall, RandomState>,
}

#[derive(Debug)]
struct RunningCall {
    call: CallRef,
    method: Method,
    started: Instant,
    cancel: Cancel,
}

impl RunningCalls {
    pub(crate) fn next_id(&self) -> CallId {
        CallId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn views(&self) -> Vec<CallView> {
        let view = |running: &RunningCall| CallView {
            call: running.call.clone(),
            method: running.method.clone(),
            age: running.started.elapsed(),
        };
        self.calls.iter().map(|running| view(running.value())).collect()
    }

    pub(crate) fn cancel_all(&self, reason: &CancelReason) {
        // Collected first: a cancelled call may end at once, and then removes its entry.
        let cancels: Vec<_> = self.calls.iter().map(|running| running.cancel.clone()).collect();
        for cancel in cancels {
            cancel.cancel(reason.clone());
        }
    }

    /// Cancels all calls of a principal.
    pub(crate) fn cancel_of(&self, principal: &str, reason: &CancelReason) {
        let own = |it: &RunningCall| it.call.principal.as_deref() == Some(principal);
        let calls = self.calls.iter().filter(|running| own(running.value()));
        let cancels: Vec<_> = calls.map(|running| running.cancel.clone()).collect();
        for cancel in cancels {
            cancel.cancel(reason.clone());
        }
    }

    /// Cancels one call; `false` if it does not run.
    pub(crate) fn cancel(&self, id: CallId, reason: CancelReason) -> bool {
        let cancel = self.calls.get(&id).map(|running| running.cancel.clone());
        if let Some(cancel) = &cancel {
            cancel.cancel(reason);
        }
        cancel.is_some()
    }
}

/// What is recorded of one call. When dropped, in whatever way the call ends, it emits the event of
/// that end.
pub(crate) struct CallRecord {
    calls: Arc<Calls>,
    call: CallRef,
    method: Method,
    cancel: Cancel,
    started: Instant,
    answered: Option<CallOutcome>,
    /// Ends with the record, which outlives the code.
    span: Span,
}

impl CallRecord {
    /// Adds the call to the running calls: from here on it is listed, and the end of the engine
    /// cancels it.
    pub(crate) fn new(
        calls: Arc<Calls>,
        call: CallRef,
        method: Method,
        cancel: Cancel,
        span: Span,
    ) -> Self {
        let started = Instant::now();
        let started_call =
            || EngineEvent::CallStarted { call: call.clone(), method: method.clone() };
        calls.events.emit(started_call);
        let (running, of) = (call.clone(), method.clone());
        let running = RunningCall { call: running, method: of, started, cancel: cancel.clone() };
        calls.running.calls.insert(call.id, running);
        // After the insert: either the end of the engine finds this entry, or it is seen here.
        if calls.lifecycle.ending().is_cancelled() {
            cancel.cancel(CancelReason::Shutdown);
        }
        // The same for a revocation that cancels calls.
        let is_locked_out = |it: &Arc<str>| calls.registry.viewers.revoked().cancels(it);
        if call.principal.as_ref().is_some_and(is_locked_out) {
            cancel.cancel(CancelReason::Application);
        }
        Self { calls, call, method, cancel, started, answered: None, span }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn answered(&mut self, outcome: CallOutcome) {
        self.answered = Some(outcome);
    }

    pub(crate) fn answered_with(&mut self, answer: &Result<ResultBody, ErrorObject>) {
        if let Err(error) = answer {
            spans::failed(&self.span, &error.message);
        }
        self.answered(CallOutcome::of(answer));
    }

    /// Says in the span how the call ended.
    fn end_span(&self, was_cancelled: bool) {
        if self.span.is_disabled() {
            return;
        }
        if let Some(outcome) = self.answered {
            return spans::answered(&self.span, outcome);
        }
        let error = match was_cancelled {
            true => {
                let reason = self.cancel.reason();
                spans::cancelled(&self.span, &reason);
                reason.error().map(|error| error.code)
            }
            false => Some(code::INTERNAL_ERROR),
        };
        if let Some(code) = error {
            spans::answered(&self.span, CallOutcome::Error(code));
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        self.calls.running.calls.remove(&self.call.id);
        let was_cancelled = self.cancel.is_cancelled();
        self.end_span(was_cancelled);
        if self.answered.is_none() && !was_cancelled {
            // The call was killed. Another node that works for it can stop.
            self.cancel.cancel(CancelReason::SessionEnded);
        }
        self.calls.events.emit(|| {
            let (call, took) = (self.call.clone(), self.started.elapsed());
            match self.answered {
                None if was_cancelled => {
                    EngineEvent::CallCancelled { call, reason: self.cancel.reason(), took }
                }
                // The responder of a call that was killed unanswered sends this code.
                answered => {
                    let outcome = answered.unwrap_or(CallOutcome::Error(code::INTERNAL_ERROR));
                    EngineEvent::CallFinished { call, outcome, took }
                }
            }
        });
    }
}
