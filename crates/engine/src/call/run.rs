//! A running call: attached to a request, between two requests, or as a task.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use stentor_wire::{Era, ErrorObject, Params, TaskStatus, takes_tasks, tasks_required};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tracing::Instrument as _;

use super::awaiting_input::{AwaitingPermit, Resume, Waiting};
use super::calls::Calls;
use super::record::CallRecord;
use super::responder::Responder;
use super::start::Held;
use super::state_token::{Binding, StateToken};
use super::target::{Failure, Outcome, Target};
use super::task::{NewTask, TaskHandle};
use crate::handler::{AsTask, Context, InputRequired};
use crate::log::quietly;
use crate::reasons::{CallOutcome, CancelReason};
use crate::request_budget::{CALL_COST, cost_of_params};

/// The author's code, or nothing. Its output is `Err` if it panicked. A panic of a destructor, when
/// the code is dropped, ends here, too.
struct Code(Option<BoxFuture<'static, Finished>>);

type Finished = Result<Outcome, Box<dyn Any + Send>>;

impl Future for Code {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Finished> {
        self.0.as_mut().map_or(Poll::Pending, |code| code.as_mut().poll(cx))
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        let code = self.0.take();
        quietly(|| drop(code));
    }
}

/// A running call.
pub(crate) struct Run {
    calls: Arc<Calls>,
    code: Code,
    /// The kind of code, for error texts.
    kind: &'static str,
    as_task: AsTask,
    ctx: Context,
    /// The parameters of the request, to which the states of its questions are bound.
    params: Params,
    side: Side,
    record: CallRecord,
    _held: Option<Held>,
}

/// A task that ends, and the status to store.
type TaskEnd = (Box<dyn TaskHandle>, TaskStatus);

/// Whether the client waits for the call, or the call for the client.
pub(super) enum Side {
    /// A request of the client waits for the call.
    Attached(Responder),
    /// Nobody waits: the client fetches the task when it likes.
    Task(Box<dyn TaskHandle>),
    /// The call waits for the client's retry.
    AwaitingInput {
        resumed: oneshot::Receiver<Resume>,
        until: Instant,
        _permit: AwaitingPermit,
    },
    Ended,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("call", &self.ctx.call().call).finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn new(
        calls: Arc<Calls>,
        target: Target,
        ctx: Context,
        params: Params,
        side: Side,
        record: CallRecord,
        held: Option<Held>,
    ) -> Box<Self> {
        let (kind, as_task) = (target.what, target.as_task);
        let code = {
            let ctx = ctx.clone();
            // Inside the future, because this call is the author's code, too, and may panic.
            AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind()
        };
        let code = Code(Some(code.instrument(record.span().clone()).boxed()));
        Box::new(Self { calls, code, kind, as_task, ctx, params, side, record, _held: held })
    }

    /// Runs the call to its end.
    pub(super) async fn run(mut self: Box<Self>) {
        // The futures here are boxed to keep the common future small: few calls await them.
        let finished = match self.begins_as_task() {
            true if !Box::pin(self.begin_as_task()).await => None,
            _ => match self.poll_once().await {
                Some(finished) => Some(finished),
                None => Box::pin(self.drive()).await,
            },
        };
        if finished.is_some() && matches!(self.side, Side::AwaitingInput { .. }) {
            Box::pin(self.wait_for_retry()).await;
        }
        // On a pipe the notice of a change is sent before the response to the call that made the
        // change, because some clients disconnect as soon as they have the response.
        if let Side::Attached(responder) = &self.side
            && responder.sender().is_shared()
            && self.calls.registry.has_unannounced()
        {
            Box::pin(self.calls.registry.wait_announced()).await;
        }
        if let Some((task, status)) = self.end_with(finished) {
            task.finish(status).await;
        }
    }

    /// Polls the code once: most calls end at their first poll.
    async fn poll_once(&mut self) -> Option<Finished> {
        poll_fn(|cx| match self.code.poll_unpin(cx) {
            Poll::Ready(finished) => Poll::Ready(Some(finished)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Answers with the outcome of the code, or as the cancellation of the call requires. For a
    /// task, returns the task and the status to store instead.
    fn end_with(&mut self, finished: Option<Finished>) -> Option<TaskEnd> {
        match finished {
            None => self.end(),
            Some(Ok(outcome)) if self.cancellation_counts(&outcome) => self.end(),
            Some(Ok(outcome)) => self.answer(outcome),
            Some(Err(_panic)) => {
                let what = format!("{} '{}' panicked", self.kind, self.ctx.call().call.subject);
                crate::log!(error, session = ?self.ctx.session_id(), what, "a call failed");
                self.answer(Err(ErrorObject::internal(what).into()))
            }
        }
    }

    /// Waits for the client's retry, so that there is a request to answer, or for a cancellation.
    async fn wait_for_retry(&mut self) {
        while matches!(self.side, Side::AwaitingInput { .. }) && !self.ctx.is_cancelled() {
            self.resumed().await;
        }
    }

    /// Whether the call may have to become a task before its code begins.
    fn begins_as_task(&self) -> bool {
        matches!(self.as_task, AsTask::Always | AsTask::WhenPossible)
            && matches!(self.side, Side::Attached(_))
    }

    /// Makes the call a task before its code begins, if its tool requires that. `false` if the
    /// request was answered with an error.
    async fn begin_as_task(&mut self) -> bool {
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
            owner: call.caller.principal().cloned(),
            share: call.caller.share(),
            inputs: call.inputs().clone(),
            cancel: call.cancel.clone(),
        };
        let created = match self.calls.tasks() {
            Some(tasks) => tasks.clone().create(new).await,
            None => Err(tasks_required()),
        };
        let shown = created.as_ref().map_err(Clone::clone);
        let shown = shown.and_then(|task| Ok(task.result()?.as_task_result()));
        let became = shown.is_ok();
        if let Ok(task) = created {
            self.continue_as_task(task);
        }
        if let Err(error) = &shown {
            self.record.answered(CallOutcome::Error(error.code));
        }
        // From here on a client that disconnects cancels nothing.
        responder.sender().keep_without_reader();
        responder.answer(shown);
        became
    }

    /// Continues the call as a task: from here on no request and no session waits for it.
    fn continue_as_task(&mut self, task: Box<dyn TaskHandle>) {
        let call = self.ctx.call();
        // Set once: a call becomes a task once.
        if let Some(task) = task.task() {
            let _ = call.task.set(task);
        }
        self.side = Side::Task(task);
        call.task_started.notify_waiters();
    }

    /// Runs the code to its end; `None` if the call was ended before.
    async fn drive(&mut self) -> Option<Finished> {
        let ctx = self.ctx.clone();
        let call = ctx.call();
        let (calls, inputs) = (self.calls.clone(), call.inputs().clone());
        let mut code = std::mem::replace(&mut self.code, Code(None));
        let cancelled = call.cancel.token();
        let mut deadline = pin!(deadline(calls.config.timeout));
        let mut task_deadline = pin!(deadline_of_task(self.as_task));
        let (mut seen, mut may_become_task, mut grace) = (0, true, None);
        loop {
            let attached = matches!(self.side, Side::Attached(_));
            let awaiting_input = matches!(self.side, Side::AwaitingInput { .. });
            let is_task = matches!(self.side, Side::Task(_));
            let reports = match &self.side {
                Side::Task(task) => task.send_reports(),
                _ => std::future::pending().boxed(),
            };
            tokio::select! {
                // The code comes first: after a cancellation it is polled once more before it is
                // dropped, and all questions that it asks before it waits are sent together.
                biased;
                finished = &mut code => return Some(finished),
                () = cancelled.cancelled(), if grace.is_none() => {
                    // The client cancelled the task and waits for nothing, so the code gets time to
                    // end.
                    match (&self.side, call.cancel.reason()) {
                        (Side::Task(task), CancelReason::Client(_)) => {
                            grace = Some(Instant::now() + task.cancel_grace());
                        }
                        _ => return None,
                    }
                }
                () = until(grace), if grace.is_some() => return None,
                () = &mut deadline, if !is_task => {
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
                () = inputs.changed(&mut seen), if is_task => {
                    if let Side::Task(task) = &self.side {
                        task.show_questions();
                    }
                }
                () = reports => {}
            }
        }
    }

    /// Answers the request with the questions. The call then awaits input.
    fn await_input(&mut self) {
        let call = self.ctx.call();
        let (resume, resumed) = oneshot::channel();
        let needs = call.output.load().sender.needs();
        let waiting = Waiting { cancel: call.cancel.clone(), needs, resume };
        let bytes = CALL_COST + cost_of_params(&self.params);
        let Some(permit) = self.calls.awaiting_input.insert(&call.caller.share(), bytes, waiting)
        else {
            // No space to wait: the questions fail, and the code continues without an answer.
            return call.inputs().fail();
        };
        let sealed = StateToken::Waiting(permit.handle());
        let state = self.calls.seal(&sealed, &self.binding());
        let round = call.inputs().round();
        let until = Instant::now() + self.calls.config.ask_timeout;
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
        for need in call.output.load().sender.needs() {
            output.sender.need(need);
        }
        call.output.store(output);
        self.side = Side::Attached(responder);
        call.inputs().deliver(answers);
    }

    /// Answers the client. For a task, returns the task and the status to store instead.
    fn answer(&mut self, outcome: Outcome) -> Option<TaskEnd> {
        let responder = match std::mem::replace(&mut self.side, Side::Ended) {
            Side::Attached(responder) => responder,
            Side::Task(task) => return Some((task, self.status(outcome))),
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
        self.record.answered_with(&outcome);
        responder.answer(outcome);
        None
    }

    fn seal(&self, asked: &InputRequired) -> String {
        let sealed = StateToken::Explicit(asked.state.to_string().into_bytes());
        self.calls.seal(&sealed, &self.binding())
    }

    fn binding(&self) -> Binding {
        Binding::new(&self.ctx.call().caller.who, self.record.method(), &self.params)
    }

    /// Whether the cancellation of the call replaces its outcome. Not for a task, and not for a
    /// success that the client still wants.
    fn cancellation_counts(&self, outcome: &Outcome) -> bool {
        !matches!(self.side, Side::Task(_))
            && self.ctx.is_cancelled()
            && (outcome.is_err() || self.ctx.call().cancel.reason().error().is_none())
    }

    /// The status that a task ends with.
    fn status(&mut self, outcome: Outcome) -> TaskStatus {
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Ask(_) | Failure::Encoded(..) => {
                ErrorObject::internal("a task asks its client while it runs")
            }
        });
        self.record.answered_with(&outcome);
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

    /// Ends the call as its cancellation requires. For a task, returns the task and the status to
    /// store.
    fn end(&mut self) -> Option<TaskEnd> {
        let reason = self.ctx.call().cancel.reason();
        let (side, error) = (std::mem::replace(&mut self.side, Side::Ended), reason.error());
        match (side, error) {
            (Side::Attached(responder), Some(error)) => responder.answer(Err(error)),
            (Side::Attached(responder), None) => responder.withhold(),
            (Side::Task(task), Some(error)) if reason == CancelReason::GaveWay => {
                return Some((task, TaskStatus::Failed { error }));
            }
            // As if the process had ended: the next process may continue the task.
            (Side::Task(task), _) if reason == CancelReason::Shutdown => drop(task),
            (Side::Task(task), Some(error)) if reason == CancelReason::TimedOut => {
                return Some((task, TaskStatus::Failed { error }));
            }
            (Side::Task(task), _) => return Some((task, TaskStatus::Cancelled)),
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

async fn deadline(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => std::future::pending().await,
    }
}
