//! What an author says of an event type, and how occurrences of it are emitted.

mod checking;
mod definition;
mod emitter;
mod schema_change;

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stentor_engine::{AccessRules, Schema};
use stentor_wire::model::JsonObject;

pub(crate) use definition::{Check, Definition, Filter, Modes, WatchedArguments, guarded};
pub use emitter::EmitMessage;
pub(crate) use schema_change::{SchemaChange, changed};

use crate::error::EventError;
use crate::log::Bounds;
use crate::occurrence::{MAX_ID, Occurrence, is_id};
use crate::running::RunningType;
use crate::subscriber::{Mode, Subscriber};

/// Makes an event type with this name. `F` are the arguments of a subscription, `P` is the payload.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
/// use stentor_events::{Events, event_type};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Filter {
///     severity: Option<String>,
/// }
///
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Incident {
///     id: String,
///     severity: String,
/// }
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let incidents = event_type::<Filter, Incident>("incident.created")
///     .description("An incident was opened.")
///     .replay(1_000, Duration::from_secs(3600))
///     .matches(|filter, incident| {
///         filter.severity.as_ref().is_none_or(|wanted| *wanted == incident.severity)
///     });
/// let events = Events::new().add(&incidents);
/// # let _ = events;
///
/// // From anywhere, once the engine has started with `.extension(events)`:
/// incidents.emit(Incident { id: "inc-1".into(), severity: "high".into() }).await?;
/// # Ok(())
/// # }
/// ```
pub fn event_type<F, P>(name: impl Into<Arc<str>>) -> EventType<F, P>
where
    F: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    P: Serialize + JsonSchema + Send + Sync + 'static,
{
    let definition = Definition::new(
        name.into(),
        Schema::of::<F>().map(Arc::new),
        Schema::of::<P>().map(Arc::new),
        Arc::new(|arguments| {
            let read = serde_json::from_value::<F>(arguments.clone());
            // A type such as `()` takes no arguments.
            let read = read.or_else(|error| {
                serde_json::from_value::<F>(serde_json::Value::Null).map_err(|_| error)
            });
            read.map(|filter| Filter(Arc::new(filter))).map_err(|error| error.to_string())
        }),
        TypeId::of::<F>(),
    );
    EventType { definition, running: Arc::default(), types: PhantomData }
}

/// An event type: what it is, and the handle by which occurrences are emitted. Cheap to clone; all
/// clones emit into the same log.
pub struct EventType<F, P> {
    pub(crate) definition: Definition,
    /// Set while an engine runs that has the type.
    pub(crate) running: Arc<ArcSwapOption<RunningType>>,
    types: PhantomData<fn(F, P)>,
}

impl<F, P> Clone for EventType<F, P> {
    fn clone(&self) -> Self {
        Self {
            definition: self.definition.clone(),
            running: self.running.clone(),
            types: PhantomData,
        }
    }
}

impl<F, P> fmt::Debug for EventType<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventType").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

/// Why an occurrence is not emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// No engine runs that has the type.
    #[error("no engine runs with the event type '{0}'")]
    NotRunning(Arc<str>),
    /// The payload does not serialize to a JSON object.
    #[error("the payload of '{0}' is no JSON object")]
    NoObject(Arc<str>),
    /// The payload is too large.
    #[error("the payload has {bytes} bytes, and {max} are allowed")]
    TooLarge {
        /// Its bytes as JSON.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
    /// The type has a [`check`](EventType::check): what happens is asked for.
    #[error("occurrences of '{0}' come from its `check`, and cannot be emitted")]
    Checked(Arc<str>),
    /// The id is empty, too long, or contains more than visible ASCII.
    #[error("an id of an occurrence has 1 to {MAX_ID} characters of visible ASCII")]
    Id,
    /// The store did not take it.
    #[error("the occurrence was not stored: {0}")]
    Store(String),
}

impl<F, P> EventType<F, P>
where
    F: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    P: Serialize + JsonSchema + Send + Sync + 'static,
{
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Sets the description, for people and models.
    #[must_use]
    pub fn description(mut self, description: impl Into<Arc<str>>) -> Self {
        self.definition.description = Some(description.into());
        self
    }

    /// Keeps the last `count` occurrences, each for `age`, for clients that come back with a cursor.
    /// Without this, clients get no cursors.
    #[must_use]
    pub fn replay(mut self, count: usize, age: Duration) -> Self {
        self.definition.replay = Some(Bounds { count: count.max(1), age, bytes: usize::MAX });
        self
    }

    /// Keeps the log of the type in the [store](crate::Events::store), too: an occurrence is stored
    /// before [`emit`](Self::emit) returns, and is there after a restart. For types with
    /// [replay](Self::replay).
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.definition.is_durable = true;
        self
    }

    /// Delivers the type in these ways only. Default: in all that are possible.
    #[must_use]
    pub fn delivery(mut self, modes: impl IntoIterator<Item = Mode>) -> Self {
        self.definition.modes = Some(Modes::of(modes));
        self
    }

    /// The JSON Schema of the arguments; empty if it is invalid.
    #[must_use]
    pub fn input_schema(&self) -> JsonObject {
        self.definition.input.as_ref().map(|it| it.object().clone()).unwrap_or_default()
    }

    /// The JSON Schema of the payload; empty if it is invalid.
    #[must_use]
    pub fn payload_schema(&self) -> JsonObject {
        self.definition.payload.as_ref().map(|it| it.object().clone()).unwrap_or_default()
    }

    /// Replaces the JSON Schemas of arguments and payload, which come from the types otherwise.
    #[must_use]
    pub fn schemas(mut self, input: JsonObject, payload: JsonObject) -> Self {
        self.definition.input = Schema::new(input).map(Arc::new);
        self.definition.payload = Schema::new(payload).map(Arc::new);
        self
    }

    /// Allows each principal this many webhook subscriptions of the type.
    #[must_use]
    pub fn max_webhooks(mut self, max: usize) -> Self {
        self.definition.max_webhooks = Some(max);
        self
    }

    /// Says who may know of the type, and which scopes its subscribers need: as for tools.
    ///
    /// ```
    /// # use stentor_events::event_type;
    /// let audits = event_type::<(), serde_json::Map<String, serde_json::Value>>("audit")
    ///     .access(|rules| rules.only_for(["auditor"]).require_scope("audit:read"));
    /// # let _ = audits;
    /// ```
    #[must_use]
    pub fn access(mut self, rules: impl FnOnce(AccessRules) -> AccessRules) -> Self {
        self.definition.access = rules(std::mem::take(&mut self.definition.access));
        self
    }

    /// Decides who may subscribe with these arguments. Asked at each request, every few seconds while
    /// a stream is open or a webhook exists, and after
    /// [`EventsHandle::recheck`](crate::EventsHandle::recheck). Who may not any longer is told, and its
    /// subscription ends.
    #[must_use]
    pub fn allow(
        mut self,
        allow: impl Fn(&Subscriber, &F) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.definition.allow = Some(Arc::new(move |subscriber, filter| {
            filter.get::<F>().is_some_and(|filter| allow(subscriber, filter))
        }));
        self
    }

    /// Decides whether a subscription with these arguments hears of an occurrence. Default: of each.
    ///
    /// The function is called on each node, once for all subscriptions with equal arguments. On other
    /// nodes the payload is read from its JSON.
    #[must_use]
    pub fn matches(mut self, matches: impl Fn(&F, &P) -> bool + Send + Sync + 'static) -> Self
    where
        P: DeserializeOwned,
    {
        self.definition.matches = Some(Arc::new(move |filter, occurrence| {
            let Some(filter) = filter.get::<F>() else { return false };
            payload(occurrence).is_some_and(|payload| matches(filter, &payload))
        }));
        self
    }

    /// Changes the payload for one subscriber; with `None` it does not hear of the occurrence.
    #[must_use]
    pub fn transform(
        mut self,
        transform: impl Fn(&Subscriber, &F, &P) -> Option<P> + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned,
    {
        self.definition.transform = Some(Arc::new(move |subscriber, filter, occurrence| {
            let filter = filter.get::<F>()?;
            let changed = transform(subscriber, filter, &*payload::<P>(occurrence)?)?;
            serde_json::to_vec(&changed).ok().map(Bytes::from)
        }));
        self
    }

    /// Runs when the first subscription with these arguments begins, of any client and in any mode: to
    /// watch the upstream. `on_unsubscribe` follows when the last one has ended, or the type or the
    /// engine ends. Both run in order, one at a time for equal arguments.
    ///
    /// On several nodes this is the first subscription on any of them, and one node runs both. When that
    /// dies or leaves, or one with a higher rank joins, another node begins: after the
    /// `on_unsubscribe` of the one before, so the hook has to find out what has happened in between.
    /// While nodes do not see each other, as in a split, each side runs the hooks. So what they do
    /// upstream must be idempotent: to begin twice has to be the same as once.
    #[must_use]
    pub fn on_subscribe<R>(
        mut self,
        subscribe: impl Fn(Arc<F>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        self.definition.on_subscribe = Some(watch_hook(subscribe));
        self
    }

    /// Runs when the last subscription with these arguments has ended; for polls a while after the
    /// last one. See [`on_subscribe`](Self::on_subscribe).
    #[must_use]
    pub fn on_unsubscribe<R>(
        mut self,
        unsubscribe: impl Fn(Arc<F>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        self.definition.on_unsubscribe = Some(watch_hook(unsubscribe));
        self
    }

    /// Emits an occurrence that happened now. Returns its id, once polls find it.
    ///
    /// Waits while the streams of this node are far behind. When dropped early, the occurrence is
    /// emitted or not.
    ///
    /// # Errors
    ///
    /// [`EmitError`]; nobody hears of the occurrence then.
    pub async fn emit(&self, payload: P) -> Result<Arc<str>, EmitError> {
        self.emit_as(Emit::new(payload)).await
    }

    /// As [`emit`](Self::emit), with more said of the occurrence.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub async fn emit_as(&self, emit: Emit<P>) -> Result<Arc<str>, EmitError> {
        let running = self.running.load_full();
        let running = running.ok_or_else(|| EmitError::NotRunning(self.definition.name.clone()))?;
        emit.into_log(&running).await
    }

    /// Ends all subscriptions of the type, in all modes, and tells them why. The type stays.
    pub fn end_subscriptions(&self, error: EventError) {
        if let Some(running) = self.running.load_full() {
            running.end_subscriptions(&error);
        }
    }

    /// Tells all streams of the type that its source failed. They go on.
    pub fn report_failure(&self, error: impl Into<String>) {
        if let Some(running) = self.running.load_full() {
            running.report_failure(&EventError::Failed(error.into()));
        }
    }

    /// Tells all streams of the type that they may have missed something. They go on.
    pub fn report_gap(&self) {
        if let Some(running) = self.running.load_full() {
            running.report_gap();
        }
    }
}

/// An occurrence to emit.
#[derive(Debug)]
pub struct Emit<P> {
    payload: P,
    id: Option<Arc<str>>,
    at: SystemTime,
    only_for: Option<Arc<str>>,
}

impl<P> Emit<P> {
    /// One that happened now.
    pub fn new(payload: P) -> Self {
        Self { payload, id: None, at: SystemTime::now(), only_for: None }
    }

    /// Sets the id that the upstream gave it: 1 to 256 characters of visible ASCII. Clients that hear
    /// of the occurrence twice know it by that. Default: an id is made.
    #[must_use]
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets when it happened.
    #[must_use]
    pub fn at(mut self, at: SystemTime) -> Self {
        self.at = at;
        self
    }

    /// Sends it to one subscription only, by its [id](Subscriber::id). Neither `matches` nor
    /// `transform` are asked, and no poll finds it.
    #[must_use]
    pub fn only_for(mut self, subscription: impl Into<Arc<str>>) -> Self {
        self.only_for = Some(subscription.into());
        self
    }
}

impl<P: Serialize + Send + Sync + 'static> Emit<P> {
    /// Emits it. Returns its id.
    async fn into_log(self, running: &Arc<RunningType>) -> Result<Arc<str>, EmitError> {
        if running.branches().is_some() {
            return Err(EmitError::Checked(running.name()));
        }
        let data = serde_json::to_vec(&self.payload).unwrap_or_default();
        if data.first() != Some(&b'{') {
            return Err(EmitError::NoObject(running.name()));
        }
        if self.id.as_ref().is_some_and(|id| !is_id(id)) {
            return Err(EmitError::Id);
        }
        let typed = Arc::new(self.payload);
        running.emit(self.id, self.at, data.into(), Some(typed), self.only_for).await
    }
}

fn watch_hook<F, R>(
    hook: impl Fn(Arc<F>) -> R + Send + Sync + 'static,
) -> Arc<definition::WatchHook>
where
    F: Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |filter: &Filter| match filter.share::<F>() {
        Some(filter) => Box::pin(hook(filter)),
        None => Box::pin(std::future::ready(())),
    })
}

/// The payload as the author knows it: as it was emitted, or read from JSON on another node.
fn payload<P: DeserializeOwned + Send + Sync + 'static>(occurrence: &Occurrence) -> Option<Arc<P>> {
    let read = || serde_json::from_slice::<P>(&occurrence.data).ok().map(Arc::new);
    // Read once, for all who ask.
    let typed = occurrence.typed.get_or_init(|| read().map(|it| it as _));
    let typed = typed.clone().and_then(|typed| typed.downcast::<P>().ok());
    typed.or_else(read)
}
