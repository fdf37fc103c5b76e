//! What is known of the calls that run: to see them, to cancel them, to tell of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use stentor_wire::{Method, code};
use tokio::time::Instant;

use super::cancel::{Cancel, CancelReason};
use crate::core::Core;
use crate::events::{CallOutcome, CallRef, EngineEvent};
use crate::ids::CallId;

/// A call that runs, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallView {
    /// Which call.
    pub call: CallRef,
    /// What the client asked for.
    pub method: Method,
    /// How long it has run.
    pub age: Duration,
}

/// All calls of an engine that run or wait for their client.
#[derive(Debug, Default)]
pub(crate) struct RunningCalls {
    next: AtomicU64,
    calls: DashMap<CallId, Known, RandomState>,
}

#[derive(Debug)]
struct Known {
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
        let view = |known: &Known| CallView {
            call: known.call.clone(),
            method: known.method.clone(),
            age: known.started.elapsed(),
        };
        self.calls.iter().map(|known| view(known.value())).collect()
    }

    /// Cancels all that run now.
    pub(crate) fn cancel_all(&self, reason: &CancelReason) {
        // Collected first: who is told may end at once, and takes its entry out.
        let cancels: Vec<_> = self.calls.iter().map(|known| known.cancel.clone()).collect();
        for cancel in cancels {
            cancel.cancel(reason.clone());
        }
    }

    /// `false` if it does not run.
    pub(crate) fn cancel(&self, id: CallId, reason: CancelReason) -> bool {
        let cancel = self.calls.get(&id).map(|known| known.cancel.clone());
        if let Some(cancel) = &cancel {
            cancel.cancel(reason);
        }
        cancel.is_some()
    }
}

/// What is recorded of one call. Dropping it, in whatever way the call ends, tells who wants to
/// know.
pub(crate) struct Record {
    core: Arc<Core>,
    call: CallRef,
    method: Method,
    cancel: Cancel,
    started: Instant,
    /// Whether it is among the calls that run.
    enlisted: bool,
    /// How it was answered, once it was.
    answered: Option<CallOutcome>,
}

impl Record {
    pub(crate) fn new(core: Arc<Core>, call: CallRef, method: Method, cancel: Cancel) -> Self {
        let started = Instant::now();
        core.events
            .emit(|| EngineEvent::CallStarted { call: call.clone(), method: method.clone() });
        Self { core, call, method, cancel, started, enlisted: false, answered: None }
    }

    /// The call goes on for longer: it is one of those that are seen, and end with the engine.
    pub(crate) fn enlist(&mut self) {
        let (call, method, cancel) = (self.call.clone(), self.method.clone(), self.cancel.clone());
        let known = Known { call, method, started: self.started, cancel };
        self.core.running.calls.insert(self.call.id, known);
        self.enlisted = true;
        // After the insert: whoever ends the engine either sees it, or was seen here.
        if self.core.ending.is_cancelled() {
            self.cancel.cancel(CancelReason::Shutdown);
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn answered(&mut self, outcome: CallOutcome) {
        self.answered = Some(outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.enlisted {
            self.core.running.calls.remove(&self.call.id);
        }
        let was_cancelled = self.cancel.is_cancelled();
        if self.answered.is_none() && !was_cancelled {
            // Killed. Whoever works for it elsewhere can stop.
            self.cancel.cancel(CancelReason::SessionEnded);
        }
        self.core.events.emit(|| {
            let (call, took) = (self.call.clone(), self.started.elapsed());
            match self.answered {
                None if was_cancelled => {
                    EngineEvent::CallCancelled { call, reason: self.cancel.reason(), took }
                }
                // What is killed unanswered its responder answers so.
                answered => {
                    let outcome = answered.unwrap_or(CallOutcome::Error(code::INTERNAL_ERROR));
                    EngineEvent::CallFinished { call, outcome, took }
                }
            }
        });
    }
}
