//! A call while it runs: as the answer to a request, between two of them, or as a task.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use ractor::ActorCell;
use serde_json::value::RawValue;
use stentor_wire::encode::ResultBody;
use stentor_wire::{Era, ErrorObject, TaskStatus, takes_tasks, tasks_required};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::ask::InputRequired;
use super::cancel::CancelReason;
use super::context::Context;
use super::record::Record;
use super::responder::Responder;
use super::rounds::Rounds;
use super::seal::{Binding, Sealed};
use super::suspended::{Place, Resume, Waiting};
use crate::core::Core;
use crate::dispatch::Failure;
use crate::events::CallOutcome;
use crate::tasks::{AsTask, LiveTask, NewTask, TaskGuard};

/// A call while it runs.
pub(super) struct Run {
    pub(super) ctx: Context,
    pub(super) binding: Binding,
    pub(super) side: Side,
    pub(super) record: Record,
    pub(super) myself: ActorCell,
}

/// Who waits for whom.
pub(super) enum Side {
    /// A request of the client for the call.
    Attached(Responder),
    /// Nobody: the client looks when it likes.
    Task(TaskGuard),
    /// The call for a request.
    Suspended {
        resumed: oneshot::Receiver<Resume>,
        until: Instant,
        _place: Place,
    },
    Over,
}

impl Run {
    /// Makes a task of the call before it begins, if that is what its tool wants; `false` if the
    /// call was answered with an error.
    pub(super) async fn begin(&mut self, as_task: AsTask) -> bool {
        if !matches!(self.side, Side::Attached(_)) {
            return true;
        }
        match as_task {
            // In the legacy era there are none: there a long call streams.
            AsTask::Always if self.ctx.era() == Era::Modern && !self.may_be_task() => {
                if let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Over) {
                    self.record
                        .answered(CallOutcome::Error(stentor_wire::code::MISSING_CAPABILITY));
                    responder.answer(Err(tasks_required()));
                }
                false
            }
            AsTask::Always | AsTask::WhenPossible if self.may_be_task() => self.become_task().await,
            _ => true,
        }
    }

    fn may_be_task(&self) -> bool {
        let call = self.ctx.call();
        call.caller.era() == Era::Modern && takes_tasks(&call.lane.load().capabilities)
    }

    /// Answers the request with a task, which is stored by then; `false` if it was answered with
    /// an error instead.
    async fn become_task(&mut self) -> bool {
        let call = self.ctx.call();
        let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Over) else {
            return true;
        };
        let new = NewTask {
            tool: call.call.subject.to_string(),
            arguments: call.arguments.clone().unwrap_or_default(),
            capabilities: serde_json::to_value(&*call.lane.load().capabilities).unwrap_or_default(),
            owner: call.caller.principal.clone(),
            rounds: call.rounds.clone(),
            cancel: call.cancel.clone(),
        };
        let created = LiveTask::create(&call.core, new).await;
        let shown = created.as_ref().map_err(Clone::clone).and_then(|guard| match guard.task() {
            Some(task) => Ok(task.result()?.that_is_a_task()),
            None => Err(ErrorObject::internal("no task")),
        });
        let became = shown.is_ok();
        if let Ok(guard) = created {
            self.adopt(guard);
        }
        if let Err(error) = &shown {
            self.record.answered(CallOutcome::Error(error.code));
        }
        // A client that goes away has cancelled nothing from here on.
        responder.outlet().let_go();
        responder.answer(shown);
        became
    }

    /// The call runs as a task from here on: nobody who served its request ends it.
    fn adopt(&mut self, guard: TaskGuard) {
        let call = self.ctx.call();
        if let Some(task) = guard.task() {
            // Set once: a call becomes a task once.
            let _ = call.task.set(task.clone());
        }
        if let Some(root) = &*call.core.refs.root.load()
            && let Some(parent) = self.myself.try_get_supervisor()
        {
            self.myself.unlink(parent);
            self.myself.link(root.get_cell());
        }
        self.side = Side::Task(guard);
        call.handed_over.notify_waiters();
    }

    /// Runs the code to its end; `None` if it was told to end before.
    pub(super) async fn drive<T>(
        &mut self,
        code: impl Future<Output = T>,
        as_task: AsTask,
    ) -> Option<T> {
        let ctx = self.ctx.clone();
        let call = ctx.call();
        let (core, rounds) = (call.core.clone(), call.rounds.clone());
        let mut code = pin!(code);
        let mut deadline = pin!(deadline(core.config.call_timeout));
        let mut patience = pin!(deadline_of(as_task));
        let (mut seen, mut patient, mut grace) = (0, true, None);
        loop {
            let attached = matches!(self.side, Side::Attached(_));
            let suspended = matches!(self.side, Side::Suspended { .. });
            let task = match &self.side {
                Side::Task(guard) => guard.task().cloned(),
                _ => None,
            };
            tokio::select! {
                // The code first: told to end, it is polled once more before it is dropped, and
                // all that it asks before it waits is asked together.
                biased;
                finished = &mut code => return Some(finished),
                () = call.cancel.token().cancelled(), if grace.is_none() => {
                    // Its client asked the task to end, and waits for nothing.
                    match (&task, call.cancel.reason()) {
                        (Some(_), CancelReason::Client(_)) => {
                            grace = Some(Instant::now() + core.config.tasks.cancel_grace);
                        }
                        _ => return None,
                    }
                }
                () = until(grace), if grace.is_some() => return None,
                () = &mut deadline, if task.is_none() => {
                    call.cancel.cancel(CancelReason::TimedOut);
                    return None;
                }
                () = call.handover.notified(), if attached => {
                    if !self.become_task().await {
                        return None;
                    }
                }
                () = &mut patience, if attached && patient => {
                    patient = false;
                    let quiet = !call.lane.load().gate.has_spoken();
                    if quiet && self.may_be_task() && !self.become_task().await {
                        return None;
                    }
                }
                () = rounds.asked(), if attached => self.suspend(),
                () = self.resumed(), if suspended => {}
                () = changes(task.as_ref(), &rounds, &mut seen) => {
                    if let Some(task) = &task {
                        task.show_questions(&core);
                    }
                }
                () = reports(task.as_ref(), &core) => {}
            }
        }
    }

    /// Answers the request with the questions, and waits for the client to retry.
    fn suspend(&mut self) {
        let call = self.ctx.call();
        let (resume, resumed) = oneshot::channel();
        let waiting = Waiting { cancel: call.cancel.clone(), resume };
        let Some(place) = call.core.suspended.insert(waiting) else {
            // No room to wait: the code goes on without an answer.
            return call.rounds.fail();
        };
        let sealed = Sealed::Waiting(place.handle());
        let state = call.core.sealer.seal(&sealed, &self.binding, SystemTime::now());
        let round = call.rounds.round();
        let until = Instant::now() + call.core.config.ask_timeout;
        let side = Side::Suspended { resumed, until, _place: place };
        if let Side::Attached(responder) = std::mem::replace(&mut self.side, side) {
            responder.ask(&round, &state);
        }
    }

    /// Waits for the client's retry. Ends the call if none comes in time. Cancel safe.
    async fn resumed(&mut self) {
        let Side::Suspended { resumed, until, .. } = &mut self.side else { return };
        let call = self.ctx.call();
        let resume = match tokio::time::timeout_at(*until, resumed).await {
            Ok(Ok(resume)) => resume,
            _ => return call.cancel.cancel(CancelReason::Abandoned),
        };
        let Resume { lane, responder, answers } = resume;
        call.lane.store(Arc::new(lane));
        self.side = Side::Attached(responder);
        call.rounds.deliver(answers);
    }

    /// Answers the client, if need be when it retries.
    pub(super) async fn answer(&mut self, outcome: Result<ResultBody, Failure>) {
        while matches!(self.side, Side::Suspended { .. }) && !self.ctx.is_cancelled() {
            self.resumed().await;
        }
        let responder = match std::mem::replace(&mut self.side, Side::Over) {
            Side::Attached(responder) => responder,
            Side::Task(guard) => return self.finish(guard, outcome).await,
            _ => return,
        };
        let outcome = match outcome {
            Ok(result) => Ok(result),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Ask(asked)) => match asked.check(&self.ctx) {
                Ok(()) => {
                    self.record.answered(CallOutcome::Ok);
                    return responder.ask(&asked.questions, &self.seal(&asked));
                }
                Err(error) => Err(error),
            },
        };
        self.record.answered(CallOutcome::of(&outcome));
        responder.answer(outcome);
    }

    fn seal(&self, asked: &InputRequired) -> String {
        let sealed = Sealed::Explicit(asked.state.to_string().into_bytes());
        self.ctx.call().core.sealer.seal(&sealed, &self.binding, SystemTime::now())
    }

    /// Whether the call was cancelled before it came to this.
    pub(super) fn is_moot(&self, outcome: &Result<ResultBody, Failure>) -> bool {
        !matches!(self.side, Side::Task(_))
            && self.ctx.is_cancelled()
            && (outcome.is_err() || self.ctx.call().cancel.reason().error().is_none())
    }

    /// Keeps what a task has come to.
    async fn finish(&mut self, guard: TaskGuard, outcome: Result<ResultBody, Failure>) {
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Ask(_) => ErrorObject::internal("a task asks its client while it runs"),
        });
        self.record.answered(CallOutcome::of(&outcome));
        let wanted = !self.ctx.is_cancelled();
        let status = match outcome {
            Ok(result) if wanted || !result.says_failed() => completed(&result),
            Err(error) if wanted => TaskStatus::Failed { error },
            // How it failed as it was told to end is no news.
            _ => TaskStatus::Cancelled,
        };
        guard.finish(status).await;
    }

    /// Ends the call as its cancellation says.
    pub(super) async fn end(&mut self) {
        let reason = self.ctx.call().cancel.reason();
        let (side, error) = (std::mem::replace(&mut self.side, Side::Over), reason.error());
        match (side, error) {
            (Side::Attached(responder), Some(error)) => responder.answer(Err(error)),
            (Side::Attached(responder), None) => responder.withhold(),
            // As if the process had ended: it may go on with the next one.
            (Side::Task(guard), _) if reason == CancelReason::Shutdown => drop(guard),
            (Side::Task(guard), Some(error)) if reason == CancelReason::TimedOut => {
                guard.finish(TaskStatus::Failed { error }).await;
            }
            (Side::Task(guard), _) => guard.finish(TaskStatus::Cancelled).await,
            _ => {}
        }
    }
}

fn completed(result: &ResultBody) -> TaskStatus {
    let json = String::from_utf8(result.to_json().into()).ok().map(RawValue::from_string);
    match json {
        Some(Ok(result)) => TaskStatus::Completed { result },
        _ => TaskStatus::Failed { error: ErrorObject::internal("the result is not JSON") },
    }
}

/// After which time a call becomes a task by itself.
async fn deadline_of(as_task: AsTask) {
    deadline(match as_task {
        AsTask::After(time) => Some(time),
        _ => None,
    })
    .await;
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until the questions of a task are not what they were.
async fn changes(task: Option<&Arc<LiveTask>>, rounds: &Rounds, seen: &mut u64) {
    match task {
        Some(_) => rounds.changed(seen).await,
        None => std::future::pending().await,
    }
}

/// Tells of what a task reports.
async fn reports(task: Option<&Arc<LiveTask>>, core: &Core) {
    match task {
        Some(task) => task.tell_reports(core).await,
        None => std::future::pending().await,
    }
}

async fn deadline(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => std::future::pending().await,
    }
}
