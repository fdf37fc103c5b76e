//! How a call begins: for a new request, for the retry of a call that awaits input, or after a
//! restart of the server.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use stentor_delivery::ProgressGate;
use stentor_wire::params::Retry;
use stentor_wire::{Era, ErrorObject, Params, Request, RequestMeta};
use tokio::sync::Notify;

use super::awaiting_input::{Resume, Waiting};
use super::calls::Calls;
use super::charge::charge;
use super::open_calls::{OpenCall, gave_way};
use super::record::CallRecord;
use super::responder::{FinishStreams, Responder, UntilAnswered};
use super::run::{Run, Side};
use super::state_token::{Binding, StateError, StateToken};
use super::target::Target;
use super::task::TaskHandle;
use crate::access::scope_of_need;
use crate::caller::Caller;
use crate::handler::{
    Call, CallOutput, CallOutputs, Cancel, Context, PendingInputs, PendingRequests,
};
use crate::ids::{NodeId, TaskId};
use crate::principal_limits::{Counted, PrincipalPermit};
use crate::reasons::CallRef;
use crate::request_budget::{Charge, Meter, OverBudget, cost_of_call};
use crate::spans;

/// What a call holds of the limits while it runs, awaits input, or is a task.
#[expect(dead_code, reason = "held for its drops")]
pub(super) struct Held {
    charge: Charge,
    permit: PrincipalPermit,
}

/// A call that may run: the request, its caller, and what it takes of its session, if it has one.
pub(crate) struct Start {
    pub(crate) request: Box<Request>,
    caller: Caller,
    target: Target,
    entry: NewOrRetry,
    pub(crate) cancel: Cancel,
    /// The call's entry among the open calls of its session.
    pub(crate) open: Option<OpenCall>,
    /// Keeps the streams of the session open until the call is answered.
    pub(crate) streams: Option<Arc<FinishStreams>>,
    /// The open questions of the session, to which a legacy call adds its own.
    pub(crate) questions: Option<PendingRequests>,
    held: Held,
}

enum NewOrRetry {
    New {
        retry: Retry,
        explicit: Option<serde_json::Value>,
    },
    /// It answers the questions of a call that awaits input.
    Retry {
        waiting: Waiting,
        retry: Retry,
    },
}

/// Why a call may not begin.
pub(crate) enum NotAdmitted {
    /// Too much is kept of requests.
    OverBudget(OverBudget),
    /// As many calls of the principal run as may.
    TooMany,
    /// The client may read this.
    Refused(ErrorObject),
}

impl From<ErrorObject> for NotAdmitted {
    fn from(error: ErrorObject) -> Self {
        Self::Refused(error)
    }
}

/// Admits a call: its request is counted by `meter`, and a new call is told from the retry of one
/// that awaits input.
pub(crate) fn admit(
    calls: &Calls,
    meter: &Arc<Meter>,
    caller: Caller,
    target: Target,
    request: Box<Request>,
) -> Result<Start, NotAdmitted> {
    // Charged before `enter`, because a retry uses up the state of the call that waits.
    let charge = charge(calls, meter, &caller, cost_of_call(&request));
    let charge = charge.map_err(NotAdmitted::OverBudget)?;
    let permit = calls.per_principal.one(caller.principal(), Counted::Calls);
    let held = Held { charge, permit: permit.ok_or(NotAdmitted::TooMany)? };
    let entry = enter(calls, &caller, &request, &target)?;
    // The retry can cancel the call that waits.
    let cancel = match &entry {
        NewOrRetry::New { .. } => Cancel::default(),
        NewOrRetry::Retry { waiting, .. } => waiting.cancel.clone(),
    };
    let (open, streams, questions) = (None, None, None);
    #[rustfmt::skip]
    let start = Start {
        request, caller, target, entry, cancel, open, streams, questions, held,
    };
    Ok(start)
}

/// Distinguishes a new call from a retry (2026-07-28, basic/patterns/mrtr).
fn enter(
    calls: &Calls,
    caller: &Caller,
    request: &Request,
    target: &Target,
) -> Result<NewOrRetry, ErrorObject> {
    if target.is_remote {
        // The other node decides.
        return Ok(NewOrRetry::New { retry: Retry::default(), explicit: None });
    }
    let retry = match caller.era() {
        Era::Modern if request.method.may_ask() => Retry::read(&request.params)?,
        _ => Retry::default(),
    };
    let refused = |error| match error {
        StateError::GaveWay => gave_way(),
        error => ErrorObject::invalid_params(error.to_string()),
    };
    let Some(state) = &retry.request_state else {
        return Ok(NewOrRetry::New { retry, explicit: None });
    };
    let binding = Binding::new(&caller.who, &request.method, &request.params);
    let sealed = calls.sealer.open(NodeId::without_prefix(state), &binding, SystemTime::now());
    let sealed = sealed.map_err(refused)?;
    match sealed {
        StateToken::Waiting(handle) => {
            // A weaker credential must not go on with what a stronger one began, and not use it up.
            let needs = calls.awaiting_input.needs(&handle);
            let viewers = &calls.registry.viewers;
            let scopes: Vec<_> = needs.iter().filter_map(|need| scope_of_need(need)).collect();
            viewers.check_scopes(&caller.who, caller.era(), &scopes)?;
            let viewer = viewers.viewer(&caller.who);
            if !needs.iter().all(|need| viewer.meets(need)) {
                return Err(refused(StateError::Invalid));
            }
            let waiting = calls.awaiting_input.take(&handle).map_err(refused)?;
            Ok(NewOrRetry::Retry { waiting, retry })
        }
        StateToken::Explicit(state) => {
            let explicit = serde_json::from_slice(&state).ok();
            Ok(NewOrRetry::New { retry, explicit })
        }
    }
}

/// Makes the call that the task pool has to run. Returns `None` for the retry of a call that awaits
/// input: that call continues. The request is answered in either case.
///
/// Not an `async fn`, so that futures do not reserve space for all parts of a call.
pub(crate) fn begin(calls: &Arc<Calls>, start: Start, responder: Responder) -> Option<Box<Run>> {
    #[rustfmt::skip]
    let Start {
        request, caller, target, entry, cancel, open, streams, questions, held,
    } = start;
    let Request { id: request, method, params, meta } = *request;
    let may_ask = method.may_ask();
    let gate = Arc::new(ProgressGate::new(meta.progress_token.clone()));
    let sender = responder.sender().clone();
    let running = UntilAnswered {
        gate: gate.clone(),
        cancel: cancel.clone(),
        counted: calls.tracker.token(),
        streams,
    };
    let responder = responder.running(open, running);
    let output = CallOutput::new(sender, gate, &caller, meta.clone());
    let (retry, explicit) = match entry {
        NewOrRetry::New { retry, explicit } => (retry, explicit),
        NewOrRetry::Retry { waiting, retry } => {
            let answers = retry.input_responses.unwrap_or_default();
            let resume = Resume { output, responder, answers };
            // If the call has just ended, the responder is dropped here, and answers.
            let _ = waiting.resume.send(resume);
            return None;
        }
    };
    let given = retry.input_responses.map(|given| Arc::new(PendingInputs::with_given(given)));
    let call = CallRef {
        id: calls.running.next_id(),
        principal: caller.principal().cloned(),
        session: caller.session.clone(),
        request,
        subject: target.subject.clone(),
    };
    let span = spans::of_call(&call, &method, &caller, Some(&meta));
    let record = CallRecord::new(calls.clone(), call.clone(), method, cancel.clone(), span);
    let ctx = Context::new(Call {
        host: calls.clone(),
        engine: calls.engine(),
        may_ask,
        caller,
        call,
        cancel,
        output: CallOutputs::new(output),
        inputs: given.map_or_else(OnceLock::new, OnceLock::from),
        questions,
        explicit,
        arguments: target.task_arguments.clone(),
        task_requested: Notify::new(),
        task_started: Notify::new(),
        task: OnceLock::new(),
        checkpoint: None,
    });
    ctx.needs(target.needs.iter().cloned());
    let side = Side::Attached(responder);
    Some(Run::new(calls.clone(), target, ctx, params, side, record, Some(held)))
}

/// A task that runs again: it was running when the last engine with this store ended.
pub(crate) struct ResumedTask {
    pub(crate) id: TaskId,
    pub(crate) handle: Box<dyn TaskHandle>,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) inputs: Arc<PendingInputs>,
    pub(crate) cancel: Cancel,
    pub(crate) checkpoint: Option<serde_json::Value>,
}

/// Makes the call of a task that runs again.
pub(crate) fn resume(calls: &Arc<Calls>, resumed: ResumedTask) -> Box<Run> {
    let ResumedTask { id, handle, caller, target, inputs, cancel, checkpoint } = resumed;
    let task = handle.task().map_or_else(OnceLock::new, OnceLock::from);
    let gate = Arc::new(ProgressGate::closed());
    let sender = calls.stateless_stream(&cancel);
    sender.keep_without_reader();
    let call = CallRef {
        id: calls.running.next_id(),
        principal: caller.principal().cloned(),
        session: None,
        request: stentor_wire::Id::Text(id.as_str().into()),
        subject: target.subject.clone(),
    };
    let method = stentor_wire::Method::ToolsCall;
    let span = spans::of_call(&call, &method, &caller, None);
    let record = CallRecord::new(calls.clone(), call.clone(), method, cancel.clone(), span);
    let meta = Arc::new(RequestMeta::default());
    let ctx = Context::new(Call {
        host: calls.clone(),
        engine: calls.engine(),
        may_ask: true,
        output: CallOutputs::new(CallOutput::new(sender, gate, &caller, meta)),
        caller,
        call,
        cancel,
        inputs: inputs.into(),
        questions: None,
        explicit: None,
        arguments: target.task_arguments.clone(),
        task_requested: Notify::new(),
        task_started: Notify::new(),
        task,
        checkpoint,
    });
    let side = Side::Task(handle);
    Run::new(calls.clone(), target, ctx, Params::default(), side, record, None)
}
