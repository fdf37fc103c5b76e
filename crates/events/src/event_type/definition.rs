//! An event type without the types of its author.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use stentor_engine::{AccessRules, Schema};
use stentor_wire::model::JsonObject;

use crate::check::Found;
use crate::error::EventError;
use crate::log::Bounds;
use crate::occurrence::Occurrence;
use crate::subscriber::{Mode, Subscriber};

/// The most bytes of arguments, as canonical JSON: they are kept as long as the subscription.
const MAX_ARGUMENTS: usize = 16 << 10;

/// The arguments of a subscription, as the author knows them.
#[derive(Clone)]
pub(crate) struct Filter(pub(crate) Arc<dyn Any + Send + Sync>);

impl Filter {
    pub(crate) fn get<F: 'static>(&self) -> Option<&F> {
        self.0.downcast_ref()
    }

    pub(crate) fn share<F: Send + Sync + 'static>(&self) -> Option<Arc<F>> {
        self.0.clone().downcast().ok()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

/// Arguments, read and checked, with the text by which equal ones are known.
#[derive(Clone, Debug)]
pub(crate) struct WatchedArguments {
    pub(crate) filter: Filter,
    pub(crate) arguments: Arc<Value>,
    pub(crate) canonical: Arc<str>,
}

impl WatchedArguments {
    /// Whether the author's code has read both as the same type.
    pub(crate) fn is_read_like(&self, other: &Self) -> bool {
        (*self.filter.0).type_id() == (*other.filter.0).type_id()
    }
}

/// Some of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modes([bool; 3]);

impl Modes {
    pub(crate) const ALL: Self = Self([true; 3]);

    pub(crate) fn of(modes: impl IntoIterator<Item = Mode>) -> Self {
        let mut some = Self([false; 3]);
        modes.into_iter().for_each(|mode| some.0[mode as usize] = true);
        some
    }

    pub(crate) fn has(self, mode: Mode) -> bool {
        self.0[mode as usize]
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().filter(move |mode| self.has(*mode))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self::of(self.iter().filter(|mode| other.has(*mode)))
    }
}

type ReadFilter = dyn Fn(&Value) -> Result<Filter, String> + Send + Sync;
type Allow = dyn Fn(&Subscriber, &Filter) -> bool + Send + Sync;
type Matches = dyn Fn(&Filter, &Occurrence) -> bool + Send + Sync;
type Transform = dyn Fn(&Subscriber, &Filter, &Occurrence) -> Option<Bytes> + Send + Sync;
pub(crate) type WatchHook = dyn Fn(&Filter) -> BoxFuture<'static, ()> + Send + Sync;

type Asked = BoxFuture<'static, Result<Found, EventError>>;
type CheckOwn = dyn Fn(Subscriber, &Filter, Option<String>) -> Asked + Send + Sync;
type CheckShared = dyn Fn(&Filter, Option<String>) -> Asked + Send + Sync;

/// How an author asks the upstream.
#[derive(Clone)]
pub(crate) enum Check {
    /// For one principal.
    Own(Arc<CheckOwn>),
    /// For all who have equal arguments.
    Shared(Arc<CheckShared>),
}

impl Check {
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }
}

/// How often an upstream is asked, and for how long an answer is waited for, if the author does not say.
const EVERY: Duration = Duration::from_secs(30);
const CHECK_LIMIT: Duration = Duration::from_secs(30);

type TypeSchema = Result<Arc<Schema>, stentor_engine::SchemaError>;

/// An event type, as its author defines it.
#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) name: Arc<str>,
    pub(crate) description: Option<Arc<str>>,
    pub(crate) input: TypeSchema,
    pub(crate) payload: TypeSchema,
    pub(crate) replay: Option<Bounds>,
    pub(crate) is_durable: bool,
    /// `None` if the author did not say.
    pub(crate) modes: Option<Modes>,
    pub(crate) max_webhooks: Option<usize>,
    pub(crate) access: AccessRules,
    pub(crate) read: Arc<ReadFilter>,
    /// What `read` makes.
    filter_type: TypeId,
    pub(crate) allow: Option<Arc<Allow>>,
    pub(crate) matches: Option<Arc<Matches>>,
    pub(crate) transform: Option<Arc<Transform>>,
    pub(crate) on_subscribe: Option<Arc<WatchHook>>,
    pub(crate) on_unsubscribe: Option<Arc<WatchHook>>,
    pub(crate) check: Option<Check>,
    /// How often `check` is called for streams and webhooks.
    pub(crate) every: Duration,
    /// How long a call of `check` may take.
    pub(crate) check_limit: Duration,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Definition {
    pub(crate) fn new(
        name: Arc<str>,
        input: TypeSchema,
        payload: TypeSchema,
        read: Arc<ReadFilter>,
        filter_type: TypeId,
    ) -> Self {
        Self {
            name,
            description: None,
            input,
            payload,
            replay: None,
            is_durable: false,
            modes: None,
            max_webhooks: None,
            access: AccessRules::default(),
            read,
            filter_type,
            allow: None,
            matches: None,
            transform: None,
            on_subscribe: None,
            on_unsubscribe: None,
            check: None,
            every: EVERY,
            check_limit: CHECK_LIMIT,
        }
    }

    /// Whether clients get cursors.
    pub(crate) fn has_cursors(&self) -> bool {
        self.replay.is_some() || self.check.is_some()
    }

    /// Whether equal arguments are checked once, whoever has them; `None` if nothing is checked.
    pub(crate) fn shares_checks(&self) -> Option<bool> {
        self.check.as_ref().map(Check::is_shared)
    }

    /// Asks the upstream what there is after a cursor.
    pub(crate) fn ask_upstream(
        &self,
        subscriber: &Subscriber,
        watched: &WatchedArguments,
        cursor: Option<String>,
    ) -> Option<Asked> {
        let filter = self.filter_of(watched)?;
        Some(match self.check.as_ref()? {
            Check::Own(check) => check(subscriber.clone(), &filter, cursor),
            Check::Shared(check) => check(&filter, cursor),
        })
    }

    /// The ways in which it can be delivered. A poll of a type without cursors finds nothing, so that is
    /// offered only if the author says so.
    pub(crate) fn modes_with(&self, webhooks: bool) -> Modes {
        let usual = match self.has_cursors() {
            true => Modes::ALL,
            false => Modes::of([Mode::Push, Mode::Webhook]),
        };
        let possible = match webhooks {
            true => Modes::ALL,
            false => Modes::of([Mode::Poll, Mode::Push]),
        };
        self.modes.unwrap_or(usual).and(possible)
    }

    /// Whether this subscriber must not know of the type.
    pub(crate) fn hides(&self, subscriber: &Subscriber) -> bool {
        !subscriber.requester.sees(&self.access)
    }

    /// As clients see it.
    pub(crate) fn descriptor(&self, modes: Modes) -> Value {
        let schema = |schema: &TypeSchema| match schema {
            Ok(schema) => schema.object().clone(),
            // An extension with such a schema does not start.
            Err(_) => JsonObject::new(),
        };
        let mut descriptor = Map::new();
        descriptor.insert("name".to_owned(), (*self.name).into());
        if let Some(description) = &self.description {
            descriptor.insert("description".to_owned(), (**description).into());
        }
        let modes: Vec<_> = modes.iter().map(Mode::as_str).collect();
        descriptor.insert("delivery".to_owned(), json!(modes));
        descriptor.insert("inputSchema".to_owned(), schema(&self.input).into());
        descriptor.insert("payloadSchema".to_owned(), schema(&self.payload).into());
        Value::Object(descriptor)
    }

    /// Reads and checks the arguments of a subscription; none count as an empty object.
    pub(crate) fn arguments(
        &self,
        arguments: Option<Map<String, Value>>,
    ) -> Result<WatchedArguments, EventError> {
        let invalid = |why: String| EventError::InvalidParams(format!("invalid arguments: {why}"));
        let arguments = arguments.unwrap_or_default();
        let canonical = crate::webhook::key::canonical(&arguments)
            .map_err(|error| invalid(error.to_string()))?;
        if canonical.len() > MAX_ARGUMENTS {
            return Err(invalid(format!("more than {MAX_ARGUMENTS} bytes")));
        }
        let arguments = Value::Object(arguments);
        if let Ok(schema) = &self.input {
            schema.check(&arguments).map_err(invalid)?;
        }
        let filter = (self.read)(&arguments).map_err(invalid)?;
        let (arguments, canonical) = (Arc::new(arguments), canonical.into());
        Ok(WatchedArguments { filter, arguments, canonical })
    }

    /// Whether this subscriber may have these occurrences, with its rights as of now.
    pub(crate) fn permits(
        &self,
        subscriber: &Subscriber,
        watched: &WatchedArguments,
    ) -> Result<(), EventError> {
        if subscriber.requester.is_revoked() {
            return Err(EventError::Forbidden("the principal was locked out".to_owned()));
        }
        if self.hides(subscriber) {
            return Err(EventError::UnknownType((*self.name).to_owned()));
        }
        let lacks = subscriber.requester.lacks(&self.access, &self.name, &watched.arguments);
        if let Some(scopes) = lacks.map_err(|error| EventError::Failed(error.message))? {
            return Err(EventError::MissingScope(scopes));
        }
        match &self.allow {
            Some(allow) if !self.allows(&**allow, subscriber, watched) => {
                Err(EventError::Forbidden("these events are not for you".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, allow: &Allow, subscriber: &Subscriber, watched: &WatchedArguments) -> bool {
        let Some(filter) = self.filter_of(watched) else { return false };
        guarded(|| allow(subscriber, &filter)) == Some(true)
    }

    /// The arguments as the author knows them now. The type may have been replaced by one that reads
    /// them in another way.
    fn filter_of<'a>(&self, watched: &'a WatchedArguments) -> Option<Cow<'a, Filter>> {
        if (*watched.filter.0).type_id() == self.filter_type {
            return Some(Cow::Borrowed(&watched.filter));
        }
        guarded(|| (self.read)(&watched.arguments))?.ok().map(Cow::Owned)
    }

    /// Whether a subscription with these arguments hears of an occurrence.
    pub(crate) fn may_match(&self, watched: &WatchedArguments, occurrence: &Occurrence) -> bool {
        let Some(matches) = &self.matches else { return true };
        let Some(filter) = self.filter_of(watched) else { return false };
        guarded(|| matches(&filter, occurrence)) == Some(true)
    }

    /// The occurrence as this subscriber hears of it; `None` if it does not.
    pub(crate) fn for_subscriber(
        &self,
        subscriber: &Subscriber,
        watched: &WatchedArguments,
        occurrence: &Arc<Occurrence>,
    ) -> Option<Arc<Occurrence>> {
        if let Some(only) = &occurrence.only_for {
            return (subscriber.id.as_ref() == Some(only)).then(|| occurrence.clone());
        }
        if !self.may_match(watched, occurrence) {
            return None;
        }
        match &self.transform {
            Some(transform) => {
                let filter = self.filter_of(watched)?;
                let data = guarded(|| transform(subscriber, &filter, occurrence))??;
                Some(Arc::new(occurrence.with_data(data)))
            }
            None => Some(occurrence.clone()),
        }
    }

    /// Whether each subscriber with the same arguments hears the same.
    pub(crate) fn is_shared(&self) -> bool {
        self.transform.is_none()
    }
}

/// The result of the author's code; `None` if it panics. A panic is a bug of one event type, and must
/// not end what others wait for.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
    ran.inspect_err(|_| tracing::error!("a function of an event type panicked")).ok()
}
