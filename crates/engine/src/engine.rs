//! The handle of an engine: start it, change its catalog, notify every client, shut it down.

mod builder;
mod caller_session;
mod rights;
mod session_ref;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::rpc::CallResult;
use ractor::{ActorCell, ActorRef, RpcReplyPort};
use serde::Serialize;
use serde_json::Value;
use stentor_delivery::CountersView;
use stentor_wire::{ListKind, Topic};

use crate::audience::Audience;
use crate::call::CallView;
use crate::core::Core;
use crate::crashes::CrashView;
use crate::events::{EngineEvent, EventBatch, EventReceiver, ExtensionEvent};
use crate::hub::HubMsg;
use crate::ids::{CallId, SessionId};
use crate::lifecycle::Ended;
use crate::observe::{ActorsView, EngineView, TotalsView};
use crate::reasons::{CancelReason, Stopped};
use crate::registry::{CatalogHandle, RegistryMsg};
use crate::session::SessionView;
use crate::supervisor::{self, EngineMsg};
use crate::tasks::TaskView;
pub use builder::{EngineBuilder, StartError};
pub use caller_session::CallerSession;
pub use rights::Revoke;
pub use session_ref::SessionRef;

/// A running engine. Clones are handles to the same engine.
///
/// Dropping the last handle does not stop the engine: [`shutdown`](Self::shutdown) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stentor::{Engine, tool};
///
/// let engine = Engine::builder("My Server", "1.0.0")
///     .tool(tool("noon", || async { "12:00" }).description("Tells the time"))
///     .start()
///     .await?;
///
/// // Every client hears of this by itself.
/// engine.catalog().add(tool("midnight", || async { "0:00" })).await?;
/// engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    supervisor: ActorRef<EngineMsg>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("server", &self.core.calls.identity.info().name).finish()
    }
}

impl Engine {
    /// A builder for an engine whose server has this name and version, as clients see them.
    #[must_use]
    pub fn builder(name: impl Into<String>, version: impl Into<String>) -> EngineBuilder {
        EngineBuilder::new(name.into(), version.into())
    }

    pub(crate) fn new(core: Arc<Core>, supervisor: ActorRef<EngineMsg>) -> Self {
        Self { core, supervisor }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The name of the server, as clients see it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.calls.identity.info().name
    }

    /// The version of the server, as clients see it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.core.calls.identity.info().version
    }

    /// The catalog of tools, resources and prompts, to read and to change.
    #[must_use]
    pub fn catalog(&self) -> CatalogHandle {
        CatalogHandle::new(self.core.registry.clone())
    }

    /// Notifies every client that the list of tools changed. A change of the
    /// [`catalog`](Self::catalog) does this by itself.
    pub fn send_tool_list_changed(&self) {
        self.core.registry.announce_list(ListKind::Tools);
    }

    /// Notifies every client that the list of resources changed.
    pub fn send_resource_list_changed(&self) {
        self.core.registry.announce_list(ListKind::Resources);
    }

    /// Notifies every client that the list of prompts changed.
    pub fn send_prompt_list_changed(&self) {
        self.core.registry.announce_list(ListKind::Prompts);
    }

    /// Notifies every client that watches this resource that it changed.
    pub fn send_resource_updated(&self, uri: &str) {
        self.core.registry.announce(Topic::Resource(uri.into()));
    }

    /// Sends a notification of the application's own to every legacy session.
    ///
    /// Modern clients receive only what they listen to: a notification that an
    /// [`Extension`](crate::Extension) declares. `params` should serialize to a JSON object.
    ///
    /// Waits while many such notices are on their way. Cancel safe: the notification is sent or
    /// not.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn notify_all(&self, method: &str, params: impl Serialize) -> Result<(), Stopped> {
        self.notify(&Audience::all(), method, params).await
    }

    /// As [`notify_all`](Self::notify_all), to some of the sessions only.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn notify(
        &self,
        audience: &Audience,
        method: &str,
        params: impl Serialize,
    ) -> Result<(), Stopped> {
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        self.core.registry.notify(audience, method, params).await
    }

    /// All sessions now: legacy clients, pipes, and modern listens.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.core.sessions.directory.views()
    }

    /// One session of this engine, to send to it, to watch it, to end it. `None` if there is no such
    /// session on this engine.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<SessionRef> {
        SessionRef::find(&self.core, id)
    }

    /// All sessions now, to look at one by one: with thousands of them [`sessions`](Self::sessions)
    /// takes a while.
    #[must_use]
    pub fn session_refs(&self) -> Vec<SessionRef> {
        SessionRef::all(&self.core)
    }

    /// Ends a session. Its calls are answered with an error, its streams end, and a legacy HTTP
    /// client gets a 404 from then on. `false` if there is no such session.
    pub fn end_session(&self, id: &SessionId) -> bool {
        self.core.sessions.end_session(id)
    }

    /// Restarts a session, as if its actor had crashed.
    ///
    /// Its calls are answered with an error, and everything else continues. A session that is
    /// restarted more than five times within a minute is ended instead. `false` if there is no such
    /// session.
    pub fn restart_session(&self, id: &SessionId) -> bool {
        self.core.sessions.restart_session(id)
    }

    /// All calls that run now, or wait for their client's answer.
    #[must_use]
    pub fn calls(&self) -> Vec<CallView> {
        self.core.calls.running.views()
    }

    /// Cancels a call: its code is polled once more and dropped, and its caller gets an error.
    /// `false` if the call does not run.
    pub fn cancel_call(&self, id: CallId) -> bool {
        self.core.calls.running.cancel(id, CancelReason::Application)
    }

    /// The tasks of the tasks extension that run now on this engine.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskView> {
        self.core.tasks.views()
    }

    /// The last actors that failed, oldest first.
    #[must_use]
    pub fn crashes(&self) -> Vec<CrashView> {
        self.core.crashes.views()
    }

    /// What the engine has now, in numbers.
    #[must_use]
    pub fn totals(&self) -> TotalsView {
        let core = &self.core;
        let counters = &core.calls.streams.counters;
        TotalsView {
            sessions: core.sessions.directory.by_kind().into(),
            running_calls: core.calls.tracker.len(),
            calls_awaiting_input: core.calls.awaiting_input.len(),
            running_tasks: core.tasks.len(),
            frames: counters.view(),
            frames_budget: counters.budget(),
            request_bytes: core.calls.requests.held(),
            request_budget: core.config.requests.total,
            crashes: core.crashes.count(),
            task_pool: core.calls.pool.view(),
            session_pool: core.sessions.pool.view(),
        }
    }

    /// What became of all frames so far, by class.
    #[must_use]
    pub fn counters(&self) -> CountersView {
        self.core.calls.streams.counters.view()
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.lifecycle.is_draining()
    }

    /// Why a load balancer should send new requests to another node: `"draining"`, or `"joining"` and
    /// `"leaving"` of a node of a cluster. `None` if it should send them here.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        self.core.lifecycle.not_ready()
    }

    /// Completes when a shutdown begins.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.core.lifecycle.draining().clone().cancelled_owned()
    }

    /// Shuts down: accepts no new calls, answers open listens, gives running calls
    /// [`Config::drain_timeout`](crate::Config::drain_timeout), ends the rest, and stops all actors.
    ///
    /// May be called several times; each call returns when the engine has stopped. When dropped
    /// early, the engine accepts no new calls, but continues otherwise.
    pub async fn shutdown(&self) {
        self.shutdown_within(self.core.config.drain_timeout).await;
    }

    /// Like [`shutdown`](Self::shutdown), with another time limit for running calls.
    pub async fn shutdown_within(&self, drain_timeout: Duration) {
        supervisor::shutdown(&self.core, &self.supervisor, drain_timeout).await;
    }

    // Events and views

    /// Subscribes to the events of the engine from now on.
    ///
    /// At most `capacity` events wait to be read, and at least one can. The engine never waits for
    /// a subscriber: when the subscriber is slow, the oldest events are dropped, and an
    /// [`EngineEvent::Missed`](crate::EngineEvent::Missed) takes their place. Events of one actor of the engine come in order.
    ///
    /// If the engine has stopped, the receiver ends at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use stentor::{Engine, tool, observe::EngineEvent};
    ///
    /// let engine = Engine::builder("s", "1").start().await?;
    /// let mut events = engine.events(256);
    /// engine.catalog().add(tool("noon", || async { "12:00" })).await?;
    ///
    /// match events.next().await {
    ///     Some(EngineEvent::CatalogChanged { lists, .. }) => assert_eq!(lists.len(), 1),
    ///     Some(EngineEvent::Missed(count)) => println!("{count} events were lost"),
    ///     other => println!("{other:?}"),
    /// }
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self, capacity: usize) -> EventReceiver {
        self.core.events.receiver(capacity)
    }

    /// Sends the events of the engine to an actor of this process from now on, as messages of the
    /// actor's own type.
    ///
    /// A mailbox of ractor has no bound, so it contains at most one message of a subscription.
    /// `wrap` makes that message from an [`EventBatch`]; the next one is sent after the actor has
    /// read the batch. Meanwhile at most `capacity` events wait, and at least one can. When more
    /// come, the oldest are dropped, and an [`EngineEvent::Missed`](crate::EngineEvent::Missed) takes their place.
    ///
    /// `wrap` runs inside of the engine, and should only wrap. The subscription ends when the actor
    /// or the engine ends, or when `wrap` panics.
    ///
    /// ```
    /// # use ractor::ActorRef;
    /// use stentor::{Engine, observe::EventBatch};
    ///
    /// enum AuditMsg {
    ///     Events(EventBatch),
    /// }
    /// # #[cfg(feature = "cluster")]
    /// # impl ractor::Message for AuditMsg {}
    ///
    /// fn audit(engine: &Engine, auditor: &ActorRef<AuditMsg>) {
    ///     engine.subscribe(auditor, 1024, AuditMsg::Events);
    /// }
    ///
    /// // In the actor:
    /// fn handle(message: AuditMsg) {
    ///     match message {
    ///         AuditMsg::Events(batch) => {
    ///             for event in batch {
    ///                 println!("{event:?}");
    ///             }
    ///         }
    ///     }
    /// }
    /// # let _ = (audit, handle);
    /// ```
    pub fn subscribe<M: ractor::Message>(
        &self,
        actor: &ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.core.events.subscribe(actor.clone(), capacity, wrap);
    }

    /// Reports something of an [`Extension`](crate::Extension) to those who subscribe to the
    /// [events](Self::events), as [`EngineEvent::Extension`](crate::EngineEvent::Extension).
    /// Without a subscriber `make` is not called.
    ///
    /// Not to be called under a lock: a subscriber may run the host's code.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use stentor::{Engine, observe::EngineEvent};
    ///
    /// #[derive(Debug)]
    /// struct Evicted(usize);
    ///
    /// let engine = Engine::builder("s", "1").start().await?;
    /// let mut events = engine.events(16);
    /// engine.report("com.example/cache", || Evicted(3));
    /// let Some(EngineEvent::Extension { event, .. }) = events.next().await else { panic!() };
    /// assert_eq!(event.get::<Evicted>().map(|it| it.0), Some(3));
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn report<T>(&self, identifier: &str, make: impl FnOnce() -> T)
    where
        T: fmt::Debug + Send + Sync + 'static,
    {
        self.core.events.emit(|| EngineEvent::Extension {
            identifier: identifier.into(),
            event: ExtensionEvent::new(make()),
        });
    }

    /// Asks supervisor, registry and hub for their views, which they give after the messages that
    /// are in their mailboxes now. Also reads the state of every session.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the engine stops meanwhile, or an actor is being restarted.
    pub async fn observe(&self) -> Result<EngineView, Stopped> {
        let core = &self.core;
        let ActorsView { supervisor, registry, hub, .. } = self.observe_actors().await?;
        let sessions = core.sessions.directory.all().iter().map(|session| session.view()).collect();
        let (running_calls, calls_awaiting_input) =
            (core.calls.tracker.len(), core.calls.awaiting_input.len());
        let running_tasks = core.tasks.len();
        Ok(EngineView {
            supervisor,
            registry,
            hub,
            sessions,
            running_calls,
            calls_awaiting_input,
            running_tasks,
            task_pool: core.calls.pool.view(),
            session_pool: core.sessions.pool.view(),
        })
    }

    /// As [`observe`](Self::observe), without looking at the sessions.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the engine stops meanwhile, or an actor is being restarted.
    pub async fn observe_actors(&self) -> Result<ActorsView, Stopped> {
        let core = &self.core;
        let (supervisor, first) = ask_timed(&self.supervisor, EngineMsg::Observe).await?;
        let registry = core.registry.actor().ok_or(Stopped)?;
        let (registry, second) = ask_timed(&registry, RegistryMsg::Observe).await?;
        let hub = core.hub.actor().ok_or(Stopped)?;
        let (hub, third) = ask_timed(&hub, HubMsg::Observe).await?;
        Ok(ActorsView { supervisor, registry, hub, took: [first, second, third] })
    }

    /// Updates the counters of frames and the gauges of the [`metrics`] facade. The engine itself
    /// does so every five seconds.
    pub fn record_metrics(&self) {
        self.core.record_metrics();
    }

    // Actors of the host

    /// The engine as an actor, for other actors to send [`EngineMsg`]s to.
    ///
    /// When this actor ends, the engine ends. Stop it with [`EngineMsg::Shutdown`] or
    /// [`Engine::shutdown`]; any other stop cuts off calls that run.
    #[must_use]
    pub fn actor(&self) -> ActorRef<EngineMsg> {
        self.supervisor.clone()
    }

    /// The actor cell of the engine's supervisor, to link, to monitor or to stop it.
    #[must_use]
    pub fn supervisor_cell(&self) -> ActorCell {
        self.supervisor.get_cell()
    }

    // The end

    /// How the engine ended, or is ending; `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.core.lifecycle.ended()
    }

    /// Completes when the engine has ended, in whatever way, and returns how it ended.
    ///
    /// A server returns this as its own end. [`Ended::asked`] turns an end that nobody requested
    /// into an error, so that no process exits with 0 because its engine was killed.
    pub fn stopped(&self) -> impl Future<Output = Ended> + Send + 'static {
        let lifecycle = self.core.lifecycle.clone();
        async move { lifecycle.stopped().await }
    }
}

/// As [`ask`], and returns how long the answer took.
async fn ask_timed<M: ractor::Message, V: Send + 'static>(
    actor: &ActorRef<M>,
    question: impl FnOnce(RpcReplyPort<V>) -> M,
) -> Result<(V, Duration), Stopped> {
    let asked = Instant::now();
    Ok((ask(actor, question).await?, asked.elapsed()))
}

async fn ask<M: ractor::Message, V: Send + 'static>(
    actor: &ActorRef<M>,
    question: impl FnOnce(RpcReplyPort<V>) -> M,
) -> Result<V, Stopped> {
    match actor.call(question, None).await {
        Ok(CallResult::Success(view)) => Ok(view),
        _ => Err(Stopped),
    }
}
