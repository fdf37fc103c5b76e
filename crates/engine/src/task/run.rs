//! A call while it runs: as the answer to a request, between two of them, or as a task.

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
use super::cancel::CancelReason;
use super::context::Context;
use super::pace::Pace;
use super::record::Record;
use super::responder::Responder;
use super::rounds::Rounds;
use super::seal::{Binding, Sealed};
use super::suspended::{Place, Resume, Waiting};
use crate::core::Core;
use crate::dispatch::{Failure, Target};
use crate::events::CallOutcome;
use crate::request_budget::{CALL_COST, Charge, cost_of_params};
use crate::tasks::{AsTask, LiveTask, NewTask, TaskGuard};

/// The author's code, which may panic.
type Code = BoxFuture<'static, Result<Result<ResultBody, Failure>, Box<dyn Any + Send>>>;

/// A call while it runs.
pub(crate) struct Run {
    code: Code,
    /// What kind of code it is.
    what: &'static str,
    as_task: AsTask,
    pace: Option<Arc<Pace>>,
    ctx: Context,
    /// What the client asked for, to which its questions are bound.
    params: Params,
    side: Side,
    record: Record,
    /// What is counted of its request.
    _charge: Option<Charge>,
    /// The actor that it runs in, once it does.
    myself: Option<ActorCell>,
}

/// The author's code has panicked, and its caller was told so.
#[derive(Debug)]
pub(super) struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked", self.0)
    }
}

impl std::error::Error for Panicked {}

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
    pub(super) fn new(
        target: Target,
        ctx: Context,
        params: Params,
        side: Side,
        record: Record,
        charge: Option<Charge>,
        span: tracing::Span,
    ) -> Box<Self> {
        let (what, as_task, pace) = (target.what(), target.as_task(), target.pace());
        let code = {
            let ctx = ctx.clone();
            // Also the call that makes the future is the author's code.
            AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind()
        };
        let code = code.instrument(span).boxed();
        #[rustfmt::skip]
        let run = Self {
            code, what, as_task, pace, ctx, params, side, record, _charge: charge, myself: None,
        };
        Box::new(run)
    }

    /// Runs the call where its request came in, if it is expected to be done at once; gives it
    /// back if it is not.
    pub(super) async fn in_place(mut self: Box<Self>) -> Result<(), Box<Self>> {
        let proven = self.pace.as_ref().is_some_and(|pace| pace.is_proven());
        // Who asked for progress wants to see it run.
        if !proven || self.as_task != AsTask::Never || self.ctx.wants_progress() {
            return Err(self);
        }
        let Some(finished) = self.look().await else { return Err(self) };
        if let Err(panicked) = self.conclude(Some(finished)).await {
            crate::log!(error, error = %panicked, "a call failed");
        }
        Ok(())
    }

    /// Runs the call to its end, in an actor of its own.
    pub(super) async fn run_in(&mut self, myself: ActorCell) -> Result<(), Panicked> {
        self.myself = Some(myself);
        let finished = match self.begin().await {
            false => None,
            true => match self.look().await {
                Some(finished) => Some(finished),
                None => self.drive().await,
            },
        };
        self.conclude(finished).await
    }

    /// Polls the code once.
    async fn look(&mut self) -> Option<<Code as Future>::Output> {
        let begun = std::time::Instant::now();
        let finished = poll_fn(|cx| match self.code.as_mut().poll(cx) {
            Poll::Ready(finished) => Poll::Ready(Some(finished)),
            Poll::Pending => Poll::Ready(None),
        });
        let finished = finished.await;
        if let Some(pace) = &self.pace {
            let silent = !self.ctx.call().lane.load().gate.has_spoken();
            pace.saw(finished.is_some() && silent, begun.elapsed());
        }
        finished
    }

    /// Answers with what the code has come to, or as its cancellation says.
    async fn conclude(
        &mut self,
        finished: Option<<Code as Future>::Output>,
    ) -> Result<(), Panicked> {
        // What is awaited here is boxed, as few calls come to it and all make room for it.
        if finished.is_some() && matches!(self.side, Side::Suspended { .. }) {
            Box::pin(self.asked_again()).await;
        }
        // On a pipe the news of a change goes out before the answer of the call that made it: some
        // clients leave as soon as they have that.
        let core = &self.ctx.call().core;
        if let Side::Attached(responder) = &self.side
            && responder.outlet().is_shared()
            && core.has_news()
        {
            Box::pin(core.news_told()).await;
        }
        let mut panicked = Ok(());
        let kept = match finished {
            None => self.end(),
            Some(Ok(outcome)) if self.is_moot(&outcome) => self.end(),
            Some(Ok(outcome)) => self.answer(outcome),
            Some(Err(_panic)) => {
                let label = format!("{} '{}'", self.what, self.ctx.call().call.subject);
                let panic = Panicked(label);
                let error = ErrorObject::internal(panic.to_string());
                panicked = Err(panic);
                self.answer(Err(error.into()))
            }
        };
        if let Some((guard, status)) = kept {
            Box::pin(guard.finish(status)).await;
        }
        panicked
    }

    /// Waits until the client retries, if it is to.
    async fn asked_again(&mut self) {
        while matches!(self.side, Side::Suspended { .. }) && !self.ctx.is_cancelled() {
            self.resumed().await;
        }
    }

    /// Makes a task of the call before it begins, if that is what its tool wants; `false` if the
    /// call was answered with an error.
    async fn begin(&mut self) -> bool {
        if !matches!(self.side, Side::Attached(_)) {
            return true;
        }
        match self.as_task {
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
            arguments: call.arguments.as_ref().and_then(|raw| raw.read().ok()).unwrap_or_default(),
            capabilities: serde_json::to_value(&*call.lane.load().capabilities).unwrap_or_default(),
            owner: call.caller.principal.clone(),
            share: call.caller.share(),
            rounds: call.rounds().clone(),
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
            && let Some(myself) = &self.myself
            && let Some(parent) = myself.try_get_supervisor()
        {
            myself.unlink(parent);
            myself.link(root.get_cell());
        }
        self.side = Side::Task(guard);
        call.handed_over.notify_waiters();
    }

    /// Runs the code to its end; `None` if it was told to end before.
    async fn drive(&mut self) -> Option<<Code as Future>::Output> {
        let ctx = self.ctx.clone();
        let call = ctx.call();
        let (core, rounds) = (call.core.clone(), call.rounds().clone());
        let mut code = std::mem::replace(&mut self.code, std::future::pending().boxed());
        let cancelled = call.cancel.token();
        let mut deadline = pin!(deadline(core.config.call_timeout));
        let mut patience = pin!(deadline_of(self.as_task));
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
                () = cancelled.cancelled(), if grace.is_none() => {
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
        let bytes = CALL_COST + cost_of_params(&self.params);
        let Some(place) = call.core.suspended.insert(&call.caller.share(), bytes, waiting) else {
            // No room to wait: the code goes on without an answer.
            return call.rounds().fail();
        };
        let sealed = Sealed::Waiting(place.handle());
        let state = call.core.seal(&sealed, &self.binding());
        let round = call.rounds().round();
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
        call.lane.store(lane);
        self.side = Side::Attached(responder);
        call.rounds().deliver(answers);
    }

    /// Answers the client. Of a task it is kept instead, as what this returns.
    fn answer(&mut self, outcome: Result<ResultBody, Failure>) -> Option<(TaskGuard, TaskStatus)> {
        let responder = match std::mem::replace(&mut self.side, Side::Over) {
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
        let sealed = Sealed::Explicit(asked.state.to_string().into_bytes());
        self.ctx.call().core.seal(&sealed, &self.binding())
    }

    fn binding(&self) -> Binding {
        let principal = self.ctx.call().caller.principal.as_deref();
        Binding::new(principal, self.record.method(), &self.params)
    }

    /// It goes on for longer: from here on it is seen among those that run.
    pub(super) fn enlist(&mut self) {
        self.record.enlist();
    }

    /// Whether the call was cancelled before it came to this.
    fn is_moot(&self, outcome: &Result<ResultBody, Failure>) -> bool {
        !matches!(self.side, Side::Task(_))
            && self.ctx.is_cancelled()
            && (outcome.is_err() || self.ctx.call().cancel.reason().error().is_none())
    }

    /// What a task has come to.
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
            Ok(result) if wanted || !result.says_failed() => {
                TaskStatus::completed(&result).unwrap_or_else(|error| TaskStatus::Failed { error })
            }
            Err(error) if wanted => TaskStatus::Failed { error },
            // How it failed as it was told to end is no news.
            _ => TaskStatus::Cancelled,
        }
    }

    /// Ends the call as its cancellation says. Of a task that is kept, as what this returns.
    fn end(&mut self) -> Option<(TaskGuard, TaskStatus)> {
        let reason = self.ctx.call().cancel.reason();
        let (side, error) = (std::mem::replace(&mut self.side, Side::Over), reason.error());
        match (side, error) {
            (Side::Attached(responder), Some(error)) => responder.answer(Err(error)),
            (Side::Attached(responder), None) => responder.withhold(),
            (Side::Task(guard), Some(error)) if reason == CancelReason::GaveWay => {
                return Some((guard, TaskStatus::Failed { error }));
            }
            // As if the process had ended: it may go on with the next one.
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
