//! **Owns** one running call: the author's code and the one answer to it.
//! **Receives** nothing but the word to run; cancelling is a token, so that it needs no turn.
//! **Sends** progress, log messages, questions and the answer into the outlet of its request.
//! **Dies when** the code returns, panics, is cancelled, or the session dies.
//! **Restarts as** nothing: the caller is answered at once, also when this actor is killed.

mod ask;
mod cancel;
mod context;
mod record;
mod responder;
mod rounds;
mod seal;
mod suspended;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use serde_json::value::RawValue;
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::params::Retry;
use stentor_wire::{
    Era, ErrorObject, Params, Request, RequestMeta, TaskStatus, takes_tasks, tasks_required,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use ask::{AskError, Elicit, InputRequired, Root, Sample, Sampled};
pub use cancel::CancelReason;
pub(crate) use cancel::{Cancel, CancelWhenGone, OpenCall, OpenCalls};
pub use context::Context;
use context::{Call, Lane};
pub use record::CallView;
use record::Record;
pub(crate) use record::RunningCalls;
pub(crate) use responder::Responder;
use responder::Running;
pub(crate) use rounds::Rounds;
pub(crate) use seal::Sealer;
pub use seal::StateKey;
use seal::{Binding, Sealed, StateError};
pub(crate) use suspended::Suspended;
use suspended::{Place, Resume, Waiting};

use crate::core::Core;
use crate::dispatch::{Failure, Target};
use crate::events::{CallOutcome, CallRef};
use crate::handler::ToolEntry;
use crate::outlet::Gate;
use crate::session::{Caller, FinishStreams, Questions};
use crate::tasks::{AsTask, LiveTask, NewTask, TaskGuard, TaskRecord};

/// Everything a call needs to run.
pub(crate) struct TaskArgs {
    target: Target,
    ctx: Context,
    binding: Binding,
    side: Side,
    record: Record,
    span: tracing::Span,
}

#[derive(Debug)]
pub(crate) enum TaskMsg {
    Run,
}

crate::message!(TaskMsg);

pub(crate) struct TaskActor;

impl Actor for TaskActor {
    type Msg = TaskMsg;
    type State = Option<Box<TaskArgs>>;
    type Arguments = Box<TaskArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<TaskMsg>,
        args: Box<TaskArgs>,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.cast(TaskMsg::Run)?;
        Ok(Some(args))
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskMsg>,
        message: TaskMsg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TaskMsg::Run => on_run(&myself, state).await,
        }
    }
}

async fn on_run(
    myself: &ActorRef<TaskMsg>,
    state: &mut Option<Box<TaskArgs>>,
) -> Result<(), ActorProcessingErr> {
    let Some(args) = state.take() else { return Ok(()) };
    let TaskArgs { target, ctx, binding, side, record, span } = *args;
    let label = target.label();
    let as_task = target.as_task();
    let mut run = Run { ctx: ctx.clone(), binding, side, record, myself: myself.get_cell() };
    // Also the call that makes the future is the author's code.
    let code =
        AssertUnwindSafe(async move { target.run(ctx).await }).catch_unwind().instrument(span);
    let finished = match run.begin(as_task).await {
        true => run.drive(code, as_task).await,
        false => None,
    };
    match finished {
        None => run.end().await,
        Some(Ok(outcome)) if run.is_moot(&outcome) => run.end().await,
        Some(Ok(outcome)) => run.answer(outcome).await,
        Some(Err(_panic)) => {
            run.answer(Err(ErrorObject::internal(format!("{label} panicked")).into())).await;
            return Err(format!("{label} panicked").into());
        }
    }
    myself.stop(None);
    Ok(())
}

/// A call while it runs.
struct Run {
    ctx: Context,
    binding: Binding,
    side: Side,
    record: Record,
    myself: ActorCell,
}

/// Who waits for whom.
enum Side {
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
    async fn begin(&mut self, as_task: AsTask) -> bool {
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
        call.handed_over.cancel();
    }

    /// Runs the code to its end; `None` if it was told to end before.
    async fn drive<T>(&mut self, code: impl Future<Output = T>, as_task: AsTask) -> Option<T> {
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
    async fn answer(&mut self, outcome: Result<ResultBody, Failure>) {
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
    fn is_moot(&self, outcome: &Result<ResultBody, Failure>) -> bool {
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
    async fn end(&mut self) {
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

/// A call that may run: who asks for what, and how the answer gets back.
pub(crate) struct Start {
    pub(crate) request: Request,
    pub(crate) meta: RequestMeta,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) entry: Entry,
    pub(crate) cancel: Cancel,
    /// Its place among the open calls of a session.
    pub(crate) open: Option<OpenCall>,
    /// What it may still answer on.
    pub(crate) streams: Option<Arc<FinishStreams>>,
    /// Where a legacy call asks.
    pub(crate) questions: Option<Questions>,
}

/// What a request that may be a retry brings with it.
pub(crate) enum Entry {
    /// It begins a call.
    New { retry: Retry, explicit: Option<serde_json::Value>, binding: Binding },
    /// It answers the questions of a call that waits.
    Retry { waiting: Waiting, retry: Retry },
}

impl Entry {
    /// How a call that waits is cancelled, so that the new request can do so, too.
    pub(crate) fn cancel(&self, core: &Core) -> Cancel {
        match self {
            Self::New { .. } => Cancel::within(core),
            Self::Retry { waiting, .. } => waiting.cancel.clone(),
        }
    }
}

/// Tells a new call from a retry (2026-07-28, basic/patterns/mrtr).
pub(crate) fn enter(core: &Core, caller: &Caller, request: &Request) -> Result<Entry, ErrorObject> {
    let binding = Binding::new(caller.principal.as_deref(), &request.method, &request.params);
    let retry = match caller.era() {
        Era::Modern if request.method.may_ask() => request.params.parse::<Retry>()?,
        _ => Retry::default(),
    };
    let refused = |error: StateError| ErrorObject::invalid_params(error.to_string());
    let Some(state) = &retry.request_state else {
        return Ok(Entry::New { retry, explicit: None, binding });
    };
    let sealed = core.sealer.open(state, &binding, SystemTime::now()).map_err(refused)?;
    match sealed {
        Sealed::Waiting(handle) => {
            let waiting = core.suspended.take(&handle);
            let waiting = waiting.ok_or_else(|| refused(StateError::Expired))?;
            Ok(Entry::Retry { waiting, retry })
        }
        Sealed::Explicit(state) => {
            let explicit = serde_json::from_slice(&state).ok();
            Ok(Entry::New { retry, explicit, binding })
        }
    }
}

/// Begins a call in a task actor of its own, linked to `parent`, or goes on with one that
/// waits. The request is answered in any case.
pub(crate) async fn start(core: &Arc<Core>, parent: ActorCell, start: Start, responder: Responder) {
    let Start { request, meta, caller, target, entry, cancel, open, streams, questions } = start;
    let gate = Arc::new(Gate::new(meta.progress_token.clone()));
    let outlet = responder.outlet().clone();
    let running = Running {
        gate: gate.clone(),
        cancel: cancel.clone(),
        counted: core.calls.token(),
        streams,
    };
    let responder = responder.running(open, running);
    let meta = Arc::new(meta);
    let lane = Lane::new(outlet, gate, &caller, meta.clone());
    let (retry, explicit, binding) = match entry {
        Entry::New { retry, explicit, binding } => (retry, explicit, binding),
        Entry::Retry { waiting, retry } => {
            let answers = retry.input_responses.unwrap_or_default();
            let resume = Resume { lane, responder, answers };
            // A call that ended just now drops the responder, which answers.
            let _ = waiting.resume.send(resume);
            return;
        }
    };
    let id = core.running.next_id();
    let subject: Arc<str> = target.subject().into();
    let call = CallRef {
        id,
        session: caller.session.clone(),
        request: request.id.clone(),
        subject: subject.clone(),
    };
    let span = tracing::info_span!(
        "mcp.call",
        call = %id,
        mcp.method.name = %request.method,
        mcp.session.id = caller.session.as_ref().map(tracing::field::debug),
        jsonrpc.request.id = %request.id,
        subject = &*subject,
        traceparent = meta.trace.traceparent.as_deref(),
        tracestate = meta.trace.tracestate.as_deref(),
    );
    let record = Record::new(core.clone(), call.clone(), request.method, cancel.clone());
    let ctx = Context::new(Call {
        core: core.clone(),
        caller,
        call,
        cancel,
        lane: ArcSwap::from_pointee(lane),
        rounds: Arc::new(Rounds::with_given(retry.input_responses.unwrap_or_default())),
        questions,
        explicit,
        arguments: target.task_arguments(),
        handover: Notify::new(),
        handed_over: CancellationToken::new(),
        task: OnceLock::new(),
        checkpoint: None,
    });
    let side = Side::Attached(responder);
    let args = Box::new(TaskArgs { target, ctx, binding, side, record, span });
    if let Err(error) = Actor::spawn_linked(None, TaskActor, args, parent).await {
        // The responder was dropped, which has answered.
        tracing::error!(%error, "a call could not be started");
    }
}

/// Runs a tool again whose task ran when the last engine with its store ended.
pub(crate) async fn resume(core: &Arc<Core>, tool: Arc<ToolEntry>, task: TaskRecord) {
    let capabilities = serde_json::from_value(task.capabilities.clone()).unwrap_or_default();
    let caller = Caller::of_task(capabilities, task.owner.clone());
    let meta = Arc::new(RequestMeta::default());
    let gate = Arc::new(Gate::new(None));
    gate.close();
    let cancel = Cancel::within(core);
    let outlet = crate::session::of_stateless_call(core, &cancel);
    outlet.let_go();
    let call = CallRef {
        id: core.running.next_id(),
        session: None,
        request: stentor_wire::Id::Text(task.id.as_str().into()),
        subject: task.tool.as_str().into(),
    };
    let span =
        tracing::info_span!("mcp.call", call = %call.id, subject = task.tool, resumed = true);
    let method = stentor_wire::Method::ToolsCall;
    let record = Record::new(core.clone(), call.clone(), method, cancel.clone());
    let rounds = Arc::new(Rounds::default());
    let target = Target::Tool(tool, task.arguments.clone());
    let ctx = Context::new(Call {
        core: core.clone(),
        lane: ArcSwap::from_pointee(Lane::new(outlet, gate, &caller, meta)),
        caller,
        call,
        cancel: cancel.clone(),
        rounds: rounds.clone(),
        questions: None,
        explicit: None,
        arguments: target.task_arguments(),
        handover: Notify::new(),
        handed_over: CancellationToken::new(),
        task: OnceLock::new(),
        checkpoint: task.checkpoint.clone(),
    });
    let binding = Binding::new(None, &stentor_wire::Method::ToolsCall, &Params::default());
    let guard = LiveTask::run(core, task, rounds, cancel);
    if let Some(task) = guard.task() {
        // Set once: it is one from the beginning.
        let _ = ctx.call().task.set(task.clone());
    }
    let Some(root) = core.refs.root.load_full() else { return };
    let side = Side::Task(guard);
    let args = Box::new(TaskArgs { target, ctx, binding, side, record, span });
    if let Err(error) = Actor::spawn_linked(None, TaskActor, args, root.get_cell()).await {
        tracing::error!(%error, "a task could not go on");
    }
}

/// A finished answer for a request that needs no task.
pub(crate) fn answer_now(
    core: &Core,
    era: Era,
    id: &stentor_wire::Id,
    outcome: &Result<ResultBody, ErrorObject>,
) -> (bytes::Bytes, Option<i32>) {
    match outcome {
        Ok(result) => (encode::response(id, era, &core.identity, result), None),
        Err(error) => (encode::error(Some(id), error), Some(error.code)),
    }
}
