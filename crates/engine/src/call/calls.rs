//! What all calls of an engine use together.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use stentor_delivery::policy::Limits;
use stentor_delivery::{Counters, StreamSender, Terms, WhenGone};
use stentor_wire::encode::ServerIdentity;
use stentor_wire::{DecodeError, Message, Topic};
use tokio_util::task::TaskTracker;

use super::awaiting_input::AwaitingInput;
use super::open_calls::CancelWhenGone;
use super::pool::{self, TaskActor};
use super::record::RunningCalls;
use super::run::Run;
use super::state_token::{Binding, StateKey, StateSealer, StateToken};
use super::stateless::StatelessCalls;
use super::task::TaskMaker;
use crate::actor_pool::ActorPool;
use crate::audience::Audience;
use crate::events::Events;
use crate::handler::{CallHost, Cancel, Context};
use crate::ids::{NodeId, StreamId};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::offload::{LARGE, Offload};
use crate::reasons::{CancelReason, Stopped};
use crate::registry::{CatalogHandle, Registry};
use crate::request_budget::{Callers, RequestBudget};

/// How many calls may run and wait, and for how long. The fields are those of
/// [`Config`](crate::Config).
#[derive(Clone, Debug)]
pub(crate) struct CallLimits {
    pub(crate) node: NodeId,
    pub(crate) max_argument_values: usize,
    pub(crate) max_stateless_calls: usize,
    pub(crate) max_awaiting_input: usize,
    pub(crate) max_awaiting_input_bytes: usize,
    pub(crate) ask_timeout: Duration,
    pub(crate) state_keys: Vec<StateKey>,
    pub(crate) call_timeout: Option<Duration>,
    /// How long the code of a cancelled task may continue.
    pub(crate) task_cancel_grace: Duration,
    pub(crate) stream: Limits,
    pub(crate) requests: RequestBudget,
}

/// All calls of an engine: where they run, what they share, and what bounds them.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) limits: CallLimits,
    pub(crate) identity: Arc<ServerIdentity>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    /// Counts the bytes that are kept of what clients sent.
    pub(crate) requests: Callers,
    /// Reads large input on other threads.
    pub(crate) offload: Offload,
    /// The task actors.
    pub(crate) pool: Arc<ActorPool<TaskActor>>,
    pub(crate) running: RunningCalls,
    /// Counts running calls and tasks, because a shutdown waits for them.
    pub(crate) tracker: TaskTracker,
    /// Modern calls that wait for their client's answer to a question.
    pub(crate) awaiting_input: AwaitingInput,
    pub(super) sealer: StateSealer,
    pub(crate) stateless: Arc<StatelessCalls>,
    /// Counters of the streams of calls that belong to no session.
    pub(crate) stateless_counters: Arc<Counters>,
    tasks: OnceLock<Arc<dyn TaskMaker>>,
}

impl Calls {
    pub(crate) fn new(
        limits: CallLimits,
        identity: Arc<ServerIdentity>,
        registry: Arc<Registry>,
        lifecycle: Arc<Lifecycle>,
        events: Events,
        metrics: Arc<Metrics>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            identity,
            registry,
            lifecycle,
            events,
            metrics,
            requests: Callers::new(limits.requests),
            offload: Offload::default(),
            pool: Arc::default(),
            running: RunningCalls::default(),
            tracker: TaskTracker::new(),
            awaiting_input: AwaitingInput::new(
                limits.max_awaiting_input,
                limits.max_awaiting_input_bytes,
            ),
            sealer: StateSealer::new(limits.state_keys.clone(), limits.ask_timeout),
            stateless: Arc::new(StatelessCalls::new(limits.max_stateless_calls)),
            // Many clients share these counters, so only the budget of all clients limits them.
            stateless_counters: Arc::new(Counters::within(counters.clone(), usize::MAX)),
            tasks: OnceLock::new(),
            limits,
        }
    }

    /// Runs a call in a task actor.
    pub(crate) async fn run(&self, run: Box<Run>) {
        pool::run(&self.pool, run).await;
    }

    /// Sets what makes calls tasks. Called once.
    pub(crate) fn set_tasks(&self, tasks: Arc<dyn TaskMaker>) {
        let _ = self.tasks.set(tasks);
    }

    pub(super) fn tasks(&self) -> Option<&Arc<dyn TaskMaker>> {
        self.tasks.get()
    }

    /// Decodes a message within the bounds of this engine, a large one on another thread.
    pub(crate) async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        let max_values = self.limits.max_argument_values;
        if input.len() <= LARGE {
            return Message::decode_within(&input, max_values);
        }
        // Boxed to keep the common future small: few messages are large.
        Box::pin(self.offload.run(move || Message::decode_within(&input, max_values))).await
    }

    /// The state token that a client sends back. It names this node.
    pub(super) fn seal(&self, sealed: &StateToken, binding: &Binding) -> String {
        self.limits.node.sign(&self.sealer.seal(sealed, binding, SystemTime::now()))
    }

    /// Cancels all calls that run, and those that begin later.
    pub(crate) fn end(&self) {
        self.lifecycle.end_calls();
        self.running.cancel_all(&CancelReason::Shutdown);
    }

    /// The stream of a call without a session. The call is cancelled when its client closes it.
    pub(crate) fn stateless_stream(&self, cancel: &Cancel) -> StreamSender {
        let terms = Terms { limits: self.limits.stream, one_reply: true };
        let gone = WhenGone::Close(Box::new(CancelWhenGone(cancel.clone())));
        StreamSender::new(StreamId(1), terms, self.stateless_counters.clone(), gone, None)
    }
}

impl CallHost for Calls {
    fn events(&self) -> &Events {
        &self.events
    }

    fn offload(&self) -> &Offload {
        &self.offload
    }

    fn ask_timeout(&self) -> Duration {
        self.limits.ask_timeout
    }

    fn announce(&self, topic: Topic) {
        self.registry.announce(topic);
    }

    fn notify<'a>(
        &'a self,
        audience: &'a Audience,
        method: &'a str,
        params: Option<Value>,
    ) -> BoxFuture<'a, Result<(), Stopped>> {
        self.registry.notify(audience, method, params).boxed()
    }
}

impl Context {
    /// The tools, resources and prompts, to read and to change.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "every call belongs to the calls of an engine")]
    pub fn catalog(&self) -> CatalogHandle {
        let host: &dyn Any = &*self.call().host;
        let calls = host.downcast_ref::<Calls>().expect("calls of an engine");
        CatalogHandle::new(calls.registry.clone())
    }
}
