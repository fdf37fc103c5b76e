//! A running call: attached to a request, between two requests, or as a task.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use ractor::ActorCell;
use stentor_wire::encode::ResultBody;
use stentor_wire::{Era, ErrorObject, Params, TaskStatus, takes_tasks, tasks_required};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tracing::Instrument as _;

use super::ask::InputRequired;
use super::awaiting_input::{AwaitingPermit, Resume, Waiting};
use super::context::Context;
use super::pace::Pace;
use super::pending_inputs::PendingInputs;
use super::record::Record;
use super::responder::Responder;
use super::state_token::{Binding, StateToken};
use crate::core::Core;
use crate::dispatch::{Failure, Target};
use crate::reasons::CallOutcome;
use crate::reasons::CancelReason;
use crate::request_budget::{CALL_COST, Charge, cost_of_params};
use crate::tasks::{AsTask, LiveTask, NewTask, TaskGuard};

/// The author's code; `Err` if it panicked.
type Code = BoxFuture<'static, Result<Result<ResultBody, Failure>, Box<dyn Any + Send>>>;

/// A running call.
pub(crate) struct Run {
    code: Code,
    /// The kind of code, for error texts.
    kind: &'static str,
    as_task: AsTask,
    pace: Option<Arc<Pace>>,
    ctx: Context,
    /// The parameters of the request, to which the states of its questions are bound.
    params: Params,
    side: Side,
    record: Record,
    _charge: Option<Charge>,
    /// The actor that runs the call, once there is one.
    myself: Option<ActorCell>,
}

/// The author's code has panicked, and its client was sent that error.
#[derive(Debug)]
pub(super) struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked", self.0)
    }
}

impl std::error::Error for Panicked {}

/// Whether the client waits for the call, or the call for the client.
pub(super) enum Side {
    /// A request of the client waits for the call.
    Attached(Responder),
    /// Nobody waits: the client fetches the task when it likes.
    Task(TaskGuard),
    /// The call waits for the client's retry.
    AwaitingInput {
        resumed: oneshot::Receiver<Resume>,
        until: Instant,
        _permit: AwaitingPermit,
    },
    Ended,
}

impl Run {
    pub(super) fn new(
        target: Target,
        ctx: Context,
        params: Params,
        side: Side,
        record: Record,
        charge: Option<Charge>,
        span: tracing::Span,
    ) -> Box<Self> {
        let (kind, as_task, pace) = (target.what(), target.as_task(), target.pace());
        let code = {
            let ctx = ctx.clone();
            // Inside the future, because this call is the author's code, too, and may panic.
            AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind()
        };
        let code = code.instrument(span).boxed();
        #[rustfmt::skip]
        let run = Self {
            code, kind, as_task, pace, ctx, params, side, record, _charge: charge, myself: None,
        };
        Box::new(run)
    }

    /// Runs the call where its request was received, if the call is expected to end at once.
    /// Returns the call if it is not, or does not.
    pub(super) async fn in_place(mut self: Box<Self>) -> Result<(), Box<Self>> {
        let proven = self.pace.as_ref().is_some_and(|pace| pace.is_proven());
        // A client that asked for progress wants to see the call run.
        if !proven || self.as_task != AsTask::Never || self.ctx.wants_progress() {
            return Err(self);
        }
        let Some(finished) = self.poll_once().await else { return Err(self) };
        if let Err(panicked) = self.answer_outcome(Some(finished)).await {
            crate::log!(error, error = %panicked, "a call failed");
        }
        Ok(())
    }

    /// Runs the call to its end, in its own task actor.
    pub(super) async fn run_in(&mut self, myself: ActorCell) -> Result<(), Panicked> {
        self.myself = Some(myself);
        let finished = match self.begin().await {
            false => None,
            true => match self.poll_once().await {
                Some(finished) => Some(finished),
                None => self.drive().await,
            },
        };
        self.answer_outcome(finished).await
    }

    /// Polls the code once, and records for its [`Pace`] how that went.
    async fn poll_once(&mut self) -> Option<<Code as Future>::Output> {
        let begun = std::time::Instant::now();
        let finished = poll_fn(|cx| match self.code.as_mut().poll(cx) {
            Poll::Ready(finished) => Poll::Ready(Some(finished)),
            Poll::Pending => Poll::Ready(None),
        });
        let finished = finished.await;
        if let Some(pace) = &self.pace {
            let silent = !self.ctx.call().output.load().gate.has_sent();
            pace.saw(finished.is_some() && silent, begun.elapsed());
        }
        finished
    }

    /// Answers with the outcome of the code, or as its cancellation requires.
    async fn answer_outcome(
        &mut self,
        finished: Option<<Code as Future>::Output>,
    ) -> Result<(), Panicked> {
        // The futures here are boxed to keep the common future small: few calls await them.
        if finished.is_some() && matches!(self.side, Side::AwaitingInput { .. }) {
            Box::pin(self.wait_for_retry()).await;
        }
        // On a pipe the notice of a change is sent before the response to the call that made the
        // change, because some clients disconnect as soon as they have the response.
        let core = &self.ctx.call().core;
        if let Side::Attached(responder) = &self.side
            && responder.sender().is_shared()
            && core.registry.has_unannounced()
        {
            Box::pin(core.registry.wait_announced()).await;
        }
        let mut panicked = Ok(());
        let task_end = match finished {
            None => self.end(),
            Some(Ok(outcome)) if self.cancellation_counts(&outcome) => self.end(),
            Some(Ok(outcome)) => self.answer(outcome),
            Some(Err(_panic)) => {
                let label = format!("{} '{}'", self.kind, self.ctx.call().call.subject);
                let panic = Panicked(label);
                let error = ErrorObject::internal(panic.to_string());
                panicked = Err(panic);
                self.answer(Err(error.into()))
            }
        };
        if let Some((guard, status)) = task_end {
            Box::pin(guard.finish(status)).await;
        }
        panicked
    }

    /// Waits for the client's retry, so that there is a request to answer, or for a cancellation.
    async fn wait_for_retry(&mut self) {
        while matches!(self.side, Side::AwaitingInput { .. }) && !self.ctx.is_cancelled() {
            self.resumed().await;
        }
    }

    /// Makes the call a task before its code begins, if its tool requires that. `false` if the
    /// request was answered with an error.
    async fn begin(&mut self) -> bool {
        if !matches!(self.side, Side::Attached(_)) {
            return true;
        }
        match self.as_task {
            // The legacy era has no tasks: there, a long call streams.
            AsTask::Always if self.ctx.era() == Era::Modern && !self.may_be_task() => {
                if let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Ended) {
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
        call.caller.era() == Era::Modern && takes_tasks(&call.output.load().capabilities)
    }

    /// Stores a task, then answers the request with it. `false` if the request was answered with an
    /// error instead.
    async fn become_task(&mut self) -> bool {
        let call = self.ctx.call();
        let Side::Attached(responder) = std::mem::replace(&mut self.side, Side::Ended) else {
            return true;
        };
        let new = NewTask {
            tool: call.call.subject.to_string(),
            arguments: call.arguments.as_ref().and_then(|raw| raw.read().ok()).unwrap_or_default(),
            capabilities: serde_json::to_value(&*call.output.load().capabilities)
                .unwrap_or_default(),
            owner: call.caller.principal.clone(),
            share: call.caller.share(),
            inputs: call.inputs().clone(),
            cancel: call.cancel.clone(),
        };
        let created = LiveTask::create(&call.core, new).await;
        let shown = created.as_ref().map_err(Clone::clone).and_then(|guard| match guard.task() {
            Some(task) => Ok(task.result()?.as_task_result()),
            None => Err(ErrorObject::internal("no task")),
        });
        let became = shown.is_ok();
        if let Ok(guard) = created {
            self.continue_as_task(guard);
        }
        if let Err(error) = &shown {
            self.record.answered(CallOutcome::Error(error.code));
        }
        // From here on a client that disconnects cancels nothing.
        responder.sender().keep_without_reader();
        responder.answer(shown);
        became
    }

    /// Continues the call as a task. The supervisor becomes the parent of its actor, so that the
    /// end of the session does not end the task.
    fn continue_as_task(&mut self, guard: TaskGuard) {
        let call = self.ctx.call();
        if let Some(task) = guard.task() {
            // Set once: a call becomes a task once.
            let _ = call.task.set(task.clone());
        }
        if let Some(root) = &*call.core.supervisor.load()
            && let Some(myself) = &self.myself
            && let Some(parent) = myself.try_get_supervisor()
        {
            myself.unlink(parent);
            myself.link(root.get_cell());
        }
        self.side = Side::Task(guard);
        call.task_started.notify_waiters();
    }

    /// Runs the code to its end; `None` if the call was ended before.
    async fn drive(&mut self) -> Option<<Code as Future>::Output> {
        let ctx = self.ctx.clone();
        let call = ctx.call();
        let (core, inputs) = (call.core.clone(), call.inputs().clone());
        let mut code = std::mem::replace(&mut self.code, std::future::pending().boxed());
        let cancelled = call.cancel.token();
        let mut deadline = pin!(deadline(core.config.call_timeout));
        let mut task_deadline = pin!(deadline_of_task(self.as_task));
        let (mut seen, mut may_become_task, mut grace) = (0, true, None);
        loop {
            let attached = matches!(self.side, Side::Attached(_));
            let awaiting_input = matches!(self.side, Side::AwaitingInput { .. });
            let task = match &self.side {
                Side::Task(guard) => guard.task().cloned(),
                _ => None,
            };
            tokio::select! {
                // The code comes first: after a cancellation it is polled once more before it is
                // dropped, and all questions that it asks before it waits are sent together.
                biased;
                finished = &mut code => return Some(finished),
                () = cancelled.cancelled(), if grace.is_none() => {
                    // The client cancelled the task and waits for nothing, so the code gets time to
                    // end.
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
                () = call.task_requested.notified(), if attached => {
                    if !self.become_task().await {
                        return None;
                    }
                }
                () = &mut task_deadline, if attached && may_become_task => {
                    may_become_task = false;
                    let quiet = !call.output.load().gate.has_sent();
                    if quiet && self.may_be_task() && !self.become_task().await {
                        return None;
                    }
                }
                () = inputs.asked(), if attached => self.await_input(),
                () = self.resumed(), if awaiting_input => {}
                () = questions_changed(task.as_ref(), &inputs, &mut seen) => {
                    if let Some(task) = &task {
                        task.show_questions(&core);
                    }
                }
                () = send_reports(task.as_ref(), &core) => {}
            }
        }
    }

    /// Answers the request with the questions. The call then awaits input.
    fn await_input(&mut self) {
        let call = self.ctx.call();
        let (resume, resumed) = oneshot::channel();
        let waiting = Waiting { cancel: call.cancel.clone(), resume };
        let bytes = CALL_COST + cost_of_params(&self.params);
        let Some(permit) = call.core.awaiting_input.insert(&call.caller.share(), bytes, waiting)
        else {
            // No space to wait: the questions fail, and the code continues without an answer.
            return call.inputs().fail();
        };
        let sealed = StateToken::Waiting(permit.handle());
        let state = call.core.seal(&sealed, &self.binding());
        let round = call.inputs().round();
        let until = Instant::now() + call.core.config.ask_timeout;
        let side = Side::AwaitingInput { resumed, until, _permit: permit };
        if let Side::Attached(responder) = std::mem::replace(&mut self.side, side) {
            responder.ask(&round, &state);
        }
    }

    /// Waits for the client's retry. Cancels the call if none arrives in time. Cancel safe.
    async fn resumed(&mut self) {
        let Side::AwaitingInput { resumed, until, .. } = &mut self.side else { return };
        let call = self.ctx.call();
        let resume = match tokio::time::timeout_at(*until, resumed).await {
            Ok(Ok(resume)) => resume,
            _ => return call.cancel.cancel(CancelReason::Abandoned),
        };
        let Resume { output, responder, answers } = resume;
        call.output.store(output);
        self.side = Side::Attached(responder);
        call.inputs().deliver(answers);
    }

    /// Answers the client. For a task, returns the guard and the status to store instead.
    fn answer(&mut self, outcome: Result<ResultBody, Failure>) -> Option<(TaskGuard, TaskStatus)> {
        let responder = match std::mem::replace(&mut self.side, Side::Ended) {
            Side::Attached(responder) => responder,
            Side::Task(guard) => return Some((guard, self.status(outcome))),
            _ => return None,
        };
        let outcome = match outcome {
            Ok(result) => Ok(result),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Ask(asked)) => match asked.check(&self.ctx) {
                Ok(()) => {
                    self.record.answered(CallOutcome::Ok);
                    responder.ask(&asked.questions, &self.seal(&asked));
                    return None;
                }
                Err(error) => Err(error),
            },
            Err(Failure::Encoded(response, code)) => {
                let outcome = code.map_or(CallOutcome::Ok, CallOutcome::Error);
                self.record.answered(outcome);
                responder.answer_encoded(response, code);
                return None;
            }
        };
        self.record.answered(CallOutcome::of(&outcome));
        responder.answer(outcome);
        None
    }

    fn seal(&self, asked: &InputRequired) -> String {
        let sealed = StateToken::Explicit(asked.state.to_string().into_bytes());
        self.ctx.call().core.seal(&sealed, &self.binding())
    }

    fn binding(&self) -> Binding {
        let principal = self.ctx.call().caller.principal.as_deref();
        Binding::new(principal, self.record.method(), &self.params)
    }

    /// Adds the call to the running calls, because it takes longer.
    pub(super) fn enlist(&mut self) {
        self.record.enlist();
    }

    /// Whether the cancellation of the call replaces its outcome. Not for a task, and not for a
    /// success that the client still wants.
    fn cancellation_counts(&self, outcome: &Result<ResultBody, Failure>) -> bool {
        !matches!(self.side, Side::Task(_))
            && self.ctx.is_cancelled()
            && (outcome.is_err() || self.ctx.call().cancel.reason().error().is_none())
    }

    /// The status that a task ends with.
    fn status(&mut self, outcome: Result<ResultBody, Failure>) -> TaskStatus {
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Ask(_) | Failure::Encoded(..) => {
                ErrorObject::internal("a task asks its client while it runs")
            }
        });
        self.record.answered(CallOutcome::of(&outcome));
        let wanted = !self.ctx.is_cancelled();
        match outcome {
            Ok(result) if wanted || !result.is_error() => {
                TaskStatus::completed(&result).unwrap_or_else(|error| TaskStatus::Failed { error })
            }
            Err(error) if wanted => TaskStatus::Failed { error },
            // A failure after a cancellation is a result of the cancellation.
            _ => TaskStatus::Cancelled,
        }
    }

    /// Ends the call as its cancellation requires. For a task, returns the guard and the status to
    /// store.
    fn end(&mut self) -> Option<(TaskGuard, TaskStatus)> {
        let reason = self.ctx.call().cancel.reason();
        let (side, error) = (std::mem::replace(&mut self.side, Side::Ended), reason.error());
        match (side, error) {
            (Side::Attached(responder), Some(error)) => responder.answer(Err(error)),
            (Side::Attached(responder), None) => responder.withhold(),
            (Side::Task(guard), Some(error)) if reason == CancelReason::GaveWay => {
                return Some((guard, TaskStatus::Failed { error }));
            }
            // As if the process had ended: the next process may continue the task.
            (Side::Task(guard), _) if reason == CancelReason::Shutdown => drop(guard),
            (Side::Task(guard), Some(error)) if reason == CancelReason::TimedOut => {
                return Some((guard, TaskStatus::Failed { error }));
            }
            (Side::Task(guard), _) => return Some((guard, TaskStatus::Cancelled)),
            _ => {}
        }
        None
    }
}

/// Waits until a call becomes a task by itself, if its tool wants that.
async fn deadline_of_task(as_task: AsTask) {
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

async fn questions_changed(task: Option<&Arc<LiveTask>>, inputs: &PendingInputs, seen: &mut u64) {
    match task {
        Some(_) => inputs.changed(seen).await,
        None => std::future::pending().await,
    }
}

async fn send_reports(task: Option<&Arc<LiveTask>>, core: &Core) {
    match task {
        Some(task) => task.send_reports(core).await,
        None => std::future::pending().await,
    }
}

async fn deadline(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => std::future::pending().await,
    }
}
