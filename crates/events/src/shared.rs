//! What the parts of the extension share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use indexmap::IndexMap;
use parking_lot::{Mutex, RwLock};
use ractor::ActorCell;
use serde_json::{Map, Value};
use stentor_engine::Engine;
use stentor_wire::bounds::shortened;

use crate::IDENTIFIER;
use crate::branches::Branches;
use crate::config::EventsConfig;
use crate::cursor::Origin;
use crate::error::EventError;
use crate::event_type::{Definition, SchemaChange, WatchedArguments, changed};
use crate::keeper::KeeperMsg;
use crate::messages::LIST_CHANGED;
use crate::peers::Peers;
use crate::report::EventsReport;
use crate::running::RunningType;
use crate::store::StoreError;
use crate::subscriber::{Mode, Subscriber};
use crate::webhook::Webhooks;

/// A type, and where its author's handle finds it.
type Running = (Arc<RunningType>, Link);

/// The place where an author's handle finds its type in an engine that runs.
pub(crate) type Link = Arc<ArcSwapOption<RunningType>>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EventsConfig,
    /// Types that were added before the engine has started.
    pub(crate) waiting: Mutex<Vec<(Definition, Link)>>,
    /// In the order in which they were added, which is the order of the list.
    types: RwLock<IndexMap<Arc<str>, Running>>,
    pub(crate) engine: ArcSwapOption<Engine>,
    /// The keeper of now. Between two keepers it is the one that has ended.
    pub(crate) keeper: Arc<ArcSwapOption<ActorCell>>,
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) peers: Arc<Peers>,
    epoch: u64,
}

/// Why a type is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// There is a type of this name.
    #[error("there is an event type '{0}' already")]
    Twice(Arc<str>),
    /// There is no such type.
    #[error("there is no event type '{0}'")]
    Unknown(Arc<str>),
    /// The name is empty or longer than 256 bytes.
    #[error("an event type needs a name of 1 to 256 bytes")]
    Name,
    /// A schema is invalid.
    #[error("a schema of the event type '{0}': {1}")]
    Schema(Arc<str>, stentor_engine::SchemaError),
    /// No way is left in which the type could be delivered.
    #[error("the event type '{0}' can be delivered in no way")]
    Modes(Arc<str>),
    /// A durable type needs a store.
    #[error("the event type '{0}' is durable, and there is no store that could keep it")]
    NoStore(Arc<str>),
    /// A type with a `check` can only be replaced by one with the same kind of it, and one without only by
    /// one without.
    #[error("the event type '{0}' is checked in another way than the one that it is to replace")]
    Check(Arc<str>),
    /// The log of a durable type could not be read.
    #[error(transparent)]
    Store(StoreError),
    /// The engine has stopped, or has not started.
    #[error("no engine runs")]
    NotRunning,
}

impl Shared {
    pub(crate) fn new(config: EventsConfig, webhooks: Arc<Webhooks>) -> Self {
        Self {
            config,
            waiting: Mutex::default(),
            types: RwLock::default(),
            engine: ArcSwapOption::empty(),
            keeper: Arc::default(),
            webhooks,
            peers: Arc::default(),
            epoch: epoch(),
        }
    }

    /// The types, in their order.
    pub(crate) fn all(&self) -> Vec<Arc<RunningType>> {
        self.types.read().values().map(|(running, _)| running.clone()).collect()
    }

    /// The types, and the branches of those with `check`.
    pub(crate) fn all_running(&self) -> Vec<Arc<RunningType>> {
        let mut all = self.all();
        let branches = |it: &Arc<RunningType>| it.branches().map(Branches::all).unwrap_or_default();
        let branches: Vec<_> = all.iter().flat_map(branches).collect();
        all.extend(branches);
        all
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<RunningType>> {
        self.types.read().get(name).map(|(running, _)| running.clone())
    }

    /// Finds a type, and checks whether this subscriber may have it in this mode with these arguments.
    pub(crate) fn ask(
        &self,
        name: &str,
        mode: Mode,
        arguments: Option<Map<String, Value>>,
        subscriber: &Subscriber,
    ) -> Result<(Arc<RunningType>, WatchedArguments), EventError> {
        let unknown = || EventError::UnknownType(shortened(name));
        let running = self.find(name).ok_or_else(unknown)?;
        let definition = running.definition();
        if definition.hides(subscriber) {
            return Err(unknown());
        }
        if !running.modes.has(mode) {
            return Err(EventError::UnsupportedMode(mode.to_string()));
        }
        let watched = definition.arguments(arguments)?;
        definition.permits(subscriber, &watched)?;
        Ok((running, watched))
    }

    /// A number that differs for each process of a node.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Adds a type. Its actor begins when the keeper hears of it.
    pub(crate) async fn add(&self, definition: Definition, link: Link) -> Result<(), TypeError> {
        let name = definition.name.clone();
        let modes = check(&definition, self.webhooks.is_on())?;
        if definition.is_durable && self.webhooks.store.is_none() {
            return Err(TypeError::NoStore(name));
        }
        let engine = self.engine.load_full().ok_or(TypeError::NotRunning)?;
        // Each time that a type is added its numbers begin anew.
        let own = Arc::new(Origin { node: engine.node().clone(), epoch: epoch() });
        let running = Arc::new(RunningType::new(definition, modes, own, self));
        running.restore().await.map_err(TypeError::Store)?;
        {
            let mut types = self.types.write();
            if types.contains_key(&name) {
                return Err(TypeError::Twice(name));
            }
            types.insert(name, (running.clone(), link.clone()));
        }
        link.store(Some(running.clone()));
        self.tell_keeper(KeeperMsg::Added(running.clone()));
        self.has_come(&running);
        Ok(())
    }

    /// A type has come, perhaps with hooks: the other nodes are told, and have to say what they watch.
    fn has_come(&self, running: &RunningType) {
        if running.watches.has_hooks() {
            self.peers.hear_anew();
        }
        self.peers.wake();
    }

    /// Removes a type: its subscriptions end.
    pub(crate) fn remove(&self, name: &str) -> Result<(), TypeError> {
        let removed = self.types.write().shift_remove(name);
        let (running, link) = removed.ok_or_else(|| TypeError::Unknown(name.into()))?;
        link.store(None);
        running.close();
        let error = EventError::UnknownType(name.to_owned());
        running.end_subscriptions(&error);
        // Also of a type that has no actor now.
        self.webhooks.end_type(name, &error);
        self.tell_keeper(KeeperMsg::Removed(running));
        Ok(())
    }

    /// Replaces what is said of a type. A change that old arguments or readers do not fit ends its
    /// subscriptions. `true` if clients see a difference.
    pub(crate) fn replace(&self, definition: Definition) -> Result<bool, TypeError> {
        check(&definition, self.webhooks.is_on())?;
        let name = definition.name.clone();
        let running = self.find(&name).ok_or(TypeError::Unknown(name))?;
        let old = running.definition();
        if old.shares_checks() != definition.shares_checks() {
            return Err(TypeError::Check(old.name.clone()));
        }
        let differs = old.descriptor(running.modes) != definition.descriptor(running.modes);
        let change = |old: &Definition, new: &Definition, input: bool| {
            let of = |it: &Definition| if input { it.input.clone() } else { it.payload.clone() };
            match (of(old), of(new)) {
                (Ok(old), Ok(new)) => changed(old.object(), new.object()),
                _ => SchemaChange::Breaking,
            }
        };
        let broken = [(true, "inputSchema"), (false, "payloadSchema")].into_iter();
        let mut broken =
            broken.filter(|(input, _)| change(&old, &definition, *input) == SchemaChange::Breaking);
        let broken = broken.next();
        let had_hooks = running.watches.has_hooks();
        running.redefine(definition);
        if !had_hooks {
            self.has_come(&running);
        }
        if let Some((_, feature)) = broken {
            running.end_subscriptions(&EventError::SchemaChanged(feature.to_owned()));
        }
        Ok(differs)
    }

    /// Tells the clients that the list of types has changed.
    pub(crate) async fn announce(&self) {
        if let Some(engine) = self.engine.load_full() {
            // The engine may be stopping.
            let _ = engine.notify_all(LIST_CHANGED, serde_json::json!({})).await;
        }
    }

    pub(crate) fn recheck(&self) {
        self.all().iter().for_each(|running| running.recheck());
        let webhooks = self.webhooks.clone();
        tokio::spawn(async move { webhooks.recheck().await });
    }

    /// Tells the observers of the engine. Not to be called under a lock.
    pub(crate) fn report(&self, make: impl FnOnce() -> EventsReport) {
        let engine = self.engine.load_full();
        if let Some(engine) = engine {
            engine.report(IDENTIFIER, make);
        }
    }

    pub(crate) fn tell_keeper(&self, message: KeeperMsg) {
        if let Some(keeper) = &*self.keeper.load() {
            let _ = keeper.send_message(message);
        }
    }

    /// Forgets the engine, which has stopped.
    pub(crate) fn close(&self) {
        let types = std::mem::take(&mut *self.types.write());
        for (running, link) in types.into_values() {
            running.close();
            // Another engine may have the type by now.
            let current = link.load_full();
            if current.is_some_and(|it| Arc::ptr_eq(&it, &running)) {
                link.store(None);
            }
        }
        self.keeper.store(None);
        self.engine.store(None);
    }
}

/// A random number, which is never the same again.
pub(crate) fn epoch() -> u64 {
    getrandom::u64().expect("the operating system gives random bytes")
}

/// Checks a type. Returns the ways in which it can be delivered.
pub(crate) fn check(
    definition: &Definition,
    has_webhooks: bool,
) -> Result<crate::event_type::Modes, TypeError> {
    let name = || definition.name.clone();
    if !(1..=256).contains(&definition.name.len()) {
        return Err(TypeError::Name);
    }
    for schema in [&definition.input, &definition.payload] {
        if let Err(error) = schema {
            return Err(TypeError::Schema(name(), error.clone()));
        }
    }
    let modes = definition.modes_with(has_webhooks);
    match modes.iter().next() {
        Some(_) => Ok(modes),
        None => Err(TypeError::Modes(name())),
    }
}
