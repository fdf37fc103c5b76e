//! The extension, for who builds an engine; and the handle by which types and webhooks are changed
//! while it runs.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ractor::Actor;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::{Context, Engine, Extension, extension};

use crate::IDENTIFIER;
use crate::config::EventsConfig;
use crate::error::EventError;
use crate::event_type::{Definition, EventType};
use crate::keeper::Keeper;
use crate::messages::LIST_CHANGED;
use crate::methods;
use crate::peers;
use crate::push::Push;
use crate::running::TypeView;
use crate::shared::{Link, Shared, TypeError};
use crate::store::EventsStore;
use crate::webhook::{self, OriginError, WebhookConfig, WebhookView, Webhooks};

/// How long a keeper that has crashed is waited for before the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is asked whether the owners of webhooks still may have them.
const RECHECK: Duration = Duration::from_secs(5);

/// How often webhooks that have changed are stored.
const SAVE: Duration = Duration::from_secs(1);

/// The Events extension, `io.modelcontextprotocol/events` (SEP-3415).
///
/// ```
/// # use stentor_events::{Events, event_type};
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// # use stentor_engine::Engine;
/// let noon = event_type::<(), std::collections::BTreeMap<String, u32>>("noon");
/// let events = Events::new().add(&noon);
/// let engine = Engine::builder("Clock", "1.0.0").extension(events).start().await?;
/// noon.emit([("hour".to_owned(), 12)].into()).await?;
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    config: EventsConfig,
    webhooks: Option<WebhookConfig>,
    store: Option<Arc<dyn EventsStore>>,
    types: Vec<(Definition, Link)>,
    handle: EventsHandle,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// The extension without types. Clients can poll and open streams.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: EventsConfig::default(),
            webhooks: None,
            store: None,
            types: Vec::new(),
            handle: EventsHandle(Arc::default()),
        }
    }

    /// Adds a type. Clients see types in the order in which they were added.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "it adds a type, not a number")]
    pub fn add<F, P>(mut self, event_type: &EventType<F, P>) -> Self {
        self.types.push((event_type.definition.clone(), event_type.running.clone()));
        self
    }

    /// Changes limits and times.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut EventsConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Also delivers to the endpoints of clients. Only an authenticated principal can have webhooks.
    #[must_use]
    pub fn webhooks(mut self, config: WebhookConfig) -> Self {
        self.webhooks = Some(config);
        self
    }

    /// Sets where webhooks and the logs of durable types are kept. Default: nowhere, so that they
    /// end with the engine, and no type can be durable.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn EventsStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The handle of the extension. It works while the engine runs.
    #[must_use]
    pub fn handle(&self) -> EventsHandle {
        self.handle.clone()
    }
}

impl From<Events> for Extension {
    fn from(events: Events) -> Self {
        let Events { config, webhooks, store, types, handle } = events;
        let early_clients = config.early_clients;
        let webhooks = Arc::new(Webhooks::new(webhooks, store));
        let shared = Arc::new(Shared::new(config, webhooks));
        shared.webhooks.belong_to(&shared);
        *shared.waiting.lock() = types;
        let (list, poll) = (shared.clone(), shared.clone());
        let (subscribe, unsubscribe) = (shared.clone(), shared.clone());
        let (routed, answered) = (shared.clone(), shared.clone());
        let mut built = extension(IDENTIFIER)
            .settings(json!({"listChanged": true}))
            .modern_only()
            .method("events/list", move |params: Value, ctx: Context| {
                let answer = methods::list(&list, params, &ctx);
                async move { answer }
            })
            .method("events/poll", move |params: Value, ctx: Context| {
                let shared = poll.clone();
                async move { methods::poll(&shared, params, &ctx).await }
            })
            .method("events/subscribe", move |params: Value, ctx: Context| {
                webhook::subscribe(subscribe.clone(), params, ctx)
            })
            .method("events/unsubscribe", move |params: Value, ctx: Context| {
                webhook::unsubscribe(unsubscribe.clone(), params, ctx)
            })
            .stream_method("events/stream", Push(shared.clone()))
            .route(move |requester, method, params| {
                peers::route(&routed, requester, method, params)
            })
            .on_peer_message(move |message| peers::answer(answered.clone(), message))
            .notification(LIST_CHANGED, "eventsListChanged");
        if early_clients {
            built = built.capability("events", json!({}));
        }
        built.on_start(move |engine| start(shared.clone(), handle.clone(), engine))
    }
}

/// Begins with an engine that has started.
async fn start(
    shared: Arc<Shared>,
    handle: EventsHandle,
    engine: Engine,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    shared.engine.store(Some(Arc::new(engine.clone())));
    crate::metrics::describe();
    handle.0.store(Some(shared.clone()));
    let types = std::mem::take(&mut *shared.waiting.lock());
    for (definition, link) in types {
        shared.add(definition, link).await?;
    }
    shared.webhooks.load(&shared).await?;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    tokio::spawn(keep(shared, engine, ready));
    let _ = is_ready.await;
    Ok(())
}

/// Runs a keeper as long as the engine runs, and the next one if it crashes.
async fn keep(shared: Arc<Shared>, engine: Engine, ready: tokio::sync::oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let stopped = engine.stopped();
    let supervisor = engine.supervisor_cell();
    // The handle of the engine would keep it in memory.
    drop(engine);
    let running = async {
        loop {
            let spawned =
                Actor::spawn_linked(None, Keeper, shared.clone(), supervisor.clone()).await;
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
            if let Ok((_, ended)) = spawned {
                let _ = ended.await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let saving = async {
        loop {
            tokio::time::sleep(SAVE).await;
            if let Err(error) = shared.webhooks.save().await {
                tracing::error!(%error, "webhooks are not stored");
            }
        }
    };
    let checking = async {
        loop {
            tokio::time::sleep(RECHECK).await;
            shared.webhooks.recheck().await;
        }
    };
    tokio::select! {
        _ = stopped => {}
        () = running => {}
        () = saving => {}
        () = checking => {}
        () = shared.peers.watch(&shared) => {}
    }
    shared.webhooks.close();
    if let Err(error) = shared.webhooks.save().await {
        tracing::error!(%error, "webhooks are not stored");
    }
    shared.close();
}

/// Changes types and webhooks while the engine runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventsHandle(Arc<arc_swap::ArcSwapOption<Shared>>);

impl EventsHandle {
    fn shared(&self) -> Result<Arc<Shared>, TypeError> {
        self.0.load_full().ok_or(TypeError::NotRunning)
    }

    /// Adds a type, and tells the clients that the list has changed.
    ///
    /// # Errors
    ///
    /// [`TypeError`]; nothing has changed then.
    pub async fn add<F, P>(&self, event_type: &EventType<F, P>) -> Result<(), TypeError> {
        let shared = self.shared()?;
        shared.add(event_type.definition.clone(), event_type.running.clone()).await?;
        shared.announce().await;
        Ok(())
    }

    /// Removes a type: its subscriptions end, and the clients are told.
    ///
    /// # Errors
    ///
    /// [`TypeError::Unknown`], [`TypeError::NotRunning`].
    pub async fn remove(&self, name: &str) -> Result<(), TypeError> {
        let shared = self.shared()?;
        shared.remove(name)?;
        shared.announce().await;
        Ok(())
    }

    /// Replaces what is said of a type that has this name: its texts, schemas, rules and functions.
    ///
    /// Added optional properties of a schema end nothing. A schema that does not contain the old one
    /// ends all subscriptions of the type: better give such a type another name.
    ///
    /// # Errors
    ///
    /// [`TypeError`]; nothing has changed then.
    pub async fn replace<F, P>(&self, event_type: &EventType<F, P>) -> Result<(), TypeError>
    where
        F: DeserializeOwned + JsonSchema + Send + Sync + 'static,
        P: Serialize + JsonSchema + Send + Sync + 'static,
    {
        let shared = self.shared()?;
        if shared.replace(event_type.definition.clone())? {
            shared.announce().await;
        }
        Ok(())
    }

    /// Asks at once who may still have what it is subscribed to, and ends the subscriptions of those
    /// who may not. This is done every few seconds anyway.
    pub fn recheck(&self) {
        if let Ok(shared) = self.shared() {
            shared.recheck();
        }
    }

    /// The types on this engine.
    #[must_use]
    pub fn types(&self) -> Vec<TypeView> {
        let shared = self.shared();
        shared
            .map_or_else(|_| Vec::new(), |shared| shared.all().iter().map(|it| it.view()).collect())
    }

    /// All webhooks.
    #[must_use]
    pub fn webhooks(&self) -> Vec<WebhookView> {
        let shared = self.shared();
        shared.map_or_else(
            |_| Vec::new(),
            |shared| shared.webhooks.all().iter().map(|it| it.view()).collect(),
        )
    }

    /// The id that a webhook with this key has, whether it exists or not.
    ///
    /// # Errors
    ///
    /// [`EventError::InvalidParams`] if the URL is none, or the arguments have no canonical form.
    pub fn webhook_id(
        &self,
        principal: &str,
        event_type: &str,
        arguments: &Map<String, Value>,
        url: &str,
    ) -> Result<String, EventError> {
        webhook::id_of(principal, event_type, arguments, url)
    }

    /// One webhook by its id.
    #[must_use]
    pub fn webhook(&self, id: &str) -> Option<WebhookView> {
        Some(self.shared().ok()?.webhooks.find(id)?.view())
    }

    /// Adds a webhook for somebody, with the default time to live. Its endpoint gets no challenge: its
    /// owner has to have agreed. Returns the id.
    ///
    /// # Errors
    ///
    /// As `events/subscribe` answers them.
    pub async fn subscribe_as(
        &self,
        identity: Identity,
        event_type: &str,
        arguments: Map<String, Value>,
        url: &str,
        secret: &str,
    ) -> Result<Arc<str>, EventError> {
        let shared = self.shared().map_err(|error| EventError::Failed(error.to_string()))?;
        let (name, url) = (event_type.to_owned(), url.to_owned());
        webhook::subscribe_as(shared, identity, name, arguments, url, secret).await
    }

    /// Tells one webhook that it may have missed something. `false` if there is no such webhook.
    pub fn report_gap(&self, webhook: &str) -> bool {
        self.shared().is_ok_and(|shared| shared.webhooks.report_gap(webhook))
    }

    /// Ends one webhook, and tells it why. `false` if there is no such webhook.
    pub fn end_webhook(&self, webhook: &str, error: &EventError) -> bool {
        self.shared().is_ok_and(|shared| shared.webhooks.terminate_by_id(webhook, error))
    }

    /// Lets requests go to one more origin, as [`WebhookConfig::allow_origin`] does.
    ///
    /// # Errors
    ///
    /// [`OriginError`].
    pub fn allow_origin(&self, origin: &str) -> Result<(), OriginError> {
        let shared = self.shared().map_err(|_| OriginError::NotRunning)?;
        shared.webhooks.config.origins.allow(origin)
    }
}
