//! What all calls of an engine use together.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use stentor_delivery::{Counters, StreamSender, WhenGone};
use stentor_macros::Setters;
use stentor_wire::bounds::MAX_ARGUMENT_VALUES;
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
use crate::handler::{CallHost, Cancel, Layers};
use crate::ids::{NodeId, SessionId, StreamId};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::offload::{LARGE, Offload};
use crate::principal_limits::PrincipalLimits;
use crate::reasons::{CancelReason, Stopped};
use crate::registry::Registry;
use crate::request_budget::{Callers, RequestBudget};
use crate::states::States;
use crate::streams::Streams;
use crate::viewers::Viewers;

/// The longest wait for a client's answer: an expiry that late can still be computed.
const MAX_ASK_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many calls may run and wait, and for how long.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct CallConfig {
    /// The most values that a tool call may have, with the names of members. A call with more is
    /// refused. Any other message may have [`MAX_VALUES`](stentor_wire::bounds::MAX_VALUES), which
    /// is also the least that this can be. Default 100,000.
    pub max_argument_values: usize,
    /// Modern HTTP requests that may run at once, over all clients.
    ///
    /// Above that, a request of a caller with a smaller share than another ends the oldest request
    /// of the largest share; any other request is refused. Shares are counted as in
    /// [`max_awaiting_input`](Self::max_awaiting_input), from half of this limit on. Default
    /// 10,000.
    pub max_stateless_calls: usize,
    /// Modern calls that may wait for their client's answer at once.
    ///
    /// For one more, the oldest call of the largest share gives way: it ends, and its client gets
    /// an error if it answers after all. Everything of one principal counts as one share, else
    /// everything of one address; within these, each session or connection counts for itself.
    /// Default 10,000.
    pub max_awaiting_input: usize,
    /// The bytes that those calls may take together, counted as for
    /// [`Config::requests`](crate::Config::requests). Above that, a call gives way as well. Less
    /// than half of the budget of requests leaves space for calls that run. Default 96 MiB.
    pub max_awaiting_input_bytes: usize,
    /// How long a call waits for its client's answer to a question, at most a day. Default 5 minutes.
    pub ask_timeout: Duration,
    /// A call that runs longer than this ends with an error. Default: no limit.
    pub timeout: Option<Duration>,
    /// The keys that seal what a modern client sends back with its answer. The first key seals, and
    /// all keys open, so that keys can be rotated. Default: one random key.
    pub state_keys: Vec<StateKey>,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            max_argument_values: MAX_ARGUMENT_VALUES,
            max_stateless_calls: 10_000,
            max_awaiting_input: 10_000,
            max_awaiting_input_bytes: 96 * 1024 * 1024,
            ask_timeout: Duration::from_secs(5 * 60),
            timeout: None,
            state_keys: Vec::new(),
        }
    }
}

/// All calls of an engine: where they run, what they share, and what bounds them.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) config: CallConfig,
    /// The name of this engine, which is part of what it gives out.
    pub(crate) node: NodeId,
    pub(crate) streams: Arc<Streams>,
    pub(crate) identity: Arc<ServerIdentity>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    /// The middleware around all calls.
    pub(crate) layers: Layers,
    /// Counts the bytes that are kept of what clients sent.
    pub(crate) requests: Callers,
    /// What each principal may have at once.
    pub(crate) per_principal: Arc<PrincipalLimits>,
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
    /// The engine, for the author's code.
    engine: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// Saves a session, if there is a session store.
    save: OnceLock<SaveSession>,
}

/// Saves the session with this id soon.
struct SaveSession(Box<dyn Fn(&SessionId) + Send + Sync>);

impl fmt::Debug for SaveSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaveSession")
    }
}

impl Calls {
    #[expect(clippy::too_many_arguments, reason = "each is a part of the calls")]
    pub(crate) fn new(
        mut config: CallConfig,
        node: NodeId,
        streams: Arc<Streams>,
        requests: RequestBudget,
        per_principal: PrincipalLimits,
        identity: Arc<ServerIdentity>,
        registry: Arc<Registry>,
        layers: Layers,
        metrics: Arc<Metrics>,
    ) -> Self {
        config.ask_timeout = config.ask_timeout.min(MAX_ASK_TIMEOUT);
        Self {
            node,
            identity,
            lifecycle: registry.lifecycle.clone(),
            events: registry.events.clone(),
            registry,
            layers,
            metrics,
            requests: Callers::new(requests),
            per_principal: Arc::new(per_principal),
            offload: Offload::default(),
            pool: Arc::default(),
            running: RunningCalls::default(),
            tracker: TaskTracker::new(),
            awaiting_input: AwaitingInput::new(
                config.max_awaiting_input,
                config.max_awaiting_input_bytes,
            ),
            sealer: StateSealer::new(config.state_keys.clone(), config.ask_timeout),
            stateless: Arc::new(StatelessCalls::new(config.max_stateless_calls)),
            // Many clients share these counters, so only the budget of all clients limits them.
            stateless_counters: Arc::new(Counters::within(streams.counters.clone(), usize::MAX)),
            streams,
            tasks: OnceLock::new(),
            engine: OnceLock::new(),
            save: OnceLock::new(),
            config,
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

    /// Sets the engine to which the calls belong. Called once.
    pub(crate) fn set_engine(&self, engine: Weak<dyn Any + Send + Sync>) {
        let _ = self.engine.set(engine);
    }

    /// Sets what saves a session whose streams need more scopes than before. Called once.
    pub(crate) fn set_save(&self, save: impl Fn(&SessionId) + Send + Sync + 'static) {
        let _ = self.save.set(SaveSession(Box::new(save)));
    }

    /// The engine to which the calls belong, while it exists.
    pub(super) fn engine(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.engine.get()?.upgrade()
    }

    /// Decodes a message within the bounds of this engine, a large one on another thread.
    pub(crate) async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        let max_values = self.config.max_argument_values;
        if input.len() <= LARGE {
            return Message::decode_within(&input, max_values);
        }
        // Boxed to keep the common future small: few messages are large.
        Box::pin(self.offload.run(move || Message::decode_within(&input, max_values))).await
    }

    /// The state token that a client sends back. It begins with the name of this node.
    pub(super) fn seal(&self, sealed: &StateToken, binding: &Binding) -> String {
        self.node.prefixed(&self.sealer.seal(sealed, binding, SystemTime::now()))
    }

    /// Cancels all calls that run, and those that begin later.
    pub(crate) fn end(&self) {
        self.lifecycle.end_calls();
        self.running.cancel_all(&CancelReason::Shutdown);
    }

    /// The stream of a call without a session. The call is cancelled when its client closes it.
    pub(crate) fn stateless_stream(&self, cancel: &Cancel) -> StreamSender {
        let terms = self.streams.terms(true);
        let gone = WhenGone::Close(Box::new(CancelWhenGone(cancel.clone())));
        StreamSender::new(StreamId(1), terms, self.stateless_counters.clone(), gone, None)
    }
}

impl CallHost for Calls {
    fn needs_changed(&self, session: &SessionId) {
        if let Some(SaveSession(save)) = self.save.get() {
            save(session);
        }
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn offload(&self) -> &Offload {
        &self.offload
    }

    fn states(&self) -> &States {
        &self.registry.states
    }

    fn layers(&self) -> &Layers {
        &self.layers
    }

    fn viewers(&self) -> &Arc<Viewers> {
        &self.registry.viewers
    }

    fn ask_timeout(&self) -> Duration {
        self.config.ask_timeout
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
