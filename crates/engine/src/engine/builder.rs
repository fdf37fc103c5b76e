//! The settings and items of an engine before it starts.

use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

use futures::FutureExt as _;
use ractor::{Actor, ActorCell, SpawnErr};
use serde::Serialize;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::model::{Icon, Implementation, JsonObject};

use crate::catalog::{Catalog, CatalogError, Item, Mutation, Toolbox};
use crate::config::Config;
use crate::core::{Core, ServerOffer, Surroundings};
use crate::engine::Engine;
use crate::extension::{self, Extension, ExtensionError};
use crate::handler::{Layers, Middleware, Prompt, Resource, ResourceTemplate, Tool};
use crate::identity::{Identity, Labels};
use crate::session::Saver;
use crate::states::States;
use crate::supervisor::SupervisorActor;
use crate::tasks::TaskStoreError;
use crate::viewers::LabelsOf;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A tool, resource, template or prompt is refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// An extension is refused.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// The tasks of the last engine with this store could not be recovered.
    #[error(transparent)]
    Tasks(#[from] TaskStoreError),
    /// An extension did not start.
    #[error("extension '{extension}' did not start: {source}")]
    ExtensionStart {
        /// Its identifier.
        extension: Arc<str>,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Spawn(#[from] SpawnErr),
}

/// The settings and items of an engine before it starts.
pub struct EngineBuilder {
    info: Implementation,
    states: States,
    layers: Layers,
    labels: Option<LabelsOf>,
    instructions: Option<String>,
    config: Config,
    items: Vec<Item>,
    capabilities: JsonObject,
    extensions: Vec<Extension>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").field("info", &self.info).finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(crate) fn new(name: String, version: String) -> Self {
        let info = Implementation::new(name, version);
        Self {
            info,
            states: States::default(),
            layers: Layers::default(),
            labels: None,
            instructions: None,
            config: Config::default(),
            items: Vec::new(),
            capabilities: JsonObject::new(),
            extensions: Vec::new(),
        }
    }

    /// Sets the value that handlers take as [`State<T>`](crate::State); of each type there is one.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.set(state);
        self
    }

    /// Adds a middleware around every call, read and list, outside of those that are there.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Self {
        self.layers = self.layers.within(Arc::new(layer));
        self
    }

    /// Sets the function that finds the labels of an identity, which decide what it
    /// [sees](Tool::only_for). Default: [`Labels::of`], its scopes, roles and principal.
    ///
    /// It is called at the first request of an identity, and again after
    /// [`Engine::refresh_visibility`]. It must be quick; what takes longer belongs into the
    /// authenticator, which can put it into the [identity](Identity::with). Such a value is as old as
    /// the identity, which an open session or listen keeps: what must change while one is open, this
    /// function has to look up. In a cluster the node that receives a request calls it.
    ///
    /// ```
    /// use stentor::Engine;
    /// use stentor::identity::{Identity, Labels};
    ///
    /// let builder = Engine::builder("s", "1").labels(|identity: &Identity| {
    ///     let mut labels = Labels::of(identity);
    ///     if identity.principal().ends_with("@example.com") {
    ///         labels.extend(["staff"]);
    ///     }
    ///     labels
    /// });
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn labels(mut self, labels: impl Fn(&Identity) -> Labels + Send + Sync + 'static) -> Self {
        self.labels = Some(Arc::new(labels));
        self
    }

    /// Adds an item: a tool, a resource, a resource template or a prompt.
    #[must_use]
    pub fn item(mut self, item: impl Into<Item>) -> Self {
        self.items.push(item.into());
        self
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(self, tool: Tool) -> Self {
        self.item(tool)
    }

    /// Adds a resource.
    #[must_use]
    pub fn resource(self, resource: Resource) -> Self {
        self.item(resource)
    }

    /// Adds a resource template.
    #[must_use]
    pub fn resource_template(self, template: ResourceTemplate) -> Self {
        self.item(template)
    }

    /// Adds a prompt.
    #[must_use]
    pub fn prompt(self, prompt: Prompt) -> Self {
        self.item(prompt)
    }

    /// Adds all items of a toolbox.
    #[must_use]
    pub fn toolbox(mut self, toolbox: Toolbox) -> Self {
        self.items.extend(toolbox.into_items());
        self
    }

    /// Sets the instructions, which tell models how the server is best used.
    #[must_use]
    pub fn instructions(mut self, instructions: impl Into<String>) -> Self {
        self.instructions = Some(instructions.into());
        self
    }

    /// Sets the name of the server that people read.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.info.title = Some(title.into());
        self
    }

    /// Sets the icons of the server.
    #[must_use]
    pub fn icons(mut self, icons: impl IntoIterator<Item = Icon>) -> Self {
        self.info.icons = Some(icons.into_iter().collect());
        self
    }

    /// Sets the address of a page about the server.
    #[must_use]
    pub fn website_url(mut self, url: impl Into<String>) -> Self {
        self.info.website_url = Some(url.into());
        self
    }

    /// Adds an extension of the protocol. [`start`](Self::start) checks it.
    #[must_use]
    pub fn extension(mut self, extension: impl Into<Extension>) -> Self {
        let extension = extension.into();
        self.capabilities.extend(extension.capabilities.clone());
        self.extensions.push(extension);
        self
    }

    /// Declares a capability of the application's own, which clients see as it is in `initialize`
    /// and `server/discover`. The capabilities of the protocol cannot be replaced.
    #[must_use]
    pub fn capability(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.capabilities.insert(key.into(), value);
        }
        self
    }

    /// Changes limits and times.
    ///
    /// ```
    /// # use stentor::Engine;
    /// # use std::time::Duration;
    /// let builder = Engine::builder("s", "1").configure(|config| {
    ///     config.registry.coalesce_window = Duration::from_millis(50);
    ///     config.sessions.passivate_after = None;
    /// });
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the engine on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Catalog`] names what is wrong with an item, [`StartError::Extension`] what is
    /// wrong with an extension; nothing runs then.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(self) -> Result<Engine, StartError> {
        self.start_linked(None).await
    }

    /// As [`start`](Self::start), with the engine's own supervisor as a linked child of
    /// `supervisor`: it stops when `supervisor` stops, and its end reaches the
    /// `handle_supervisor_evt` of `supervisor`.
    ///
    /// The default `handle_supervisor_evt` of ractor stops an actor when any of its children ends.
    /// Override it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_under(self, supervisor: ActorCell) -> Result<Engine, StartError> {
        self.start_linked(Some(supervisor)).await
    }

    async fn start_linked(self, supervisor: Option<ActorCell>) -> Result<Engine, StartError> {
        let states = Arc::new(self.states);
        let adds = self.items.into_iter().map(|item| Mutation::Add(item).check(&states));
        let (catalog, _) = Catalog::default().apply(adds.collect::<Result<_, _>>()?)?;
        let identity = ServerIdentity::new(self.info);
        extension::check(&self.extensions, &states)?;
        let hooks: Vec<_> = self.extensions.iter().filter_map(Extension::start_hook).collect();
        let offer = ServerOffer {
            identity,
            instructions: self.instructions,
            capabilities: self.capabilities,
            extensions: self.extensions,
        };
        let surroundings = Surroundings { states, layers: self.layers, labels: self.labels };
        let core = Arc::new(Core::new(self.config, offer, surroundings, catalog));
        core.calls.set_engine(Arc::downgrade(&core) as _);
        let (root, _) = match supervisor {
            Some(supervisor) => {
                Actor::spawn_linked(None, SupervisorActor, core.clone(), supervisor).await?
            }
            None => Actor::spawn(None, SupervisorActor, core.clone()).await?,
        };
        let _ = core.supervisor.set(root.get_cell());
        if let Err(error) = core.tasks.recover(&core.calls).await {
            root.stop(None);
            return Err(error.into());
        }
        if core.sessions.saver.is_some() {
            let ending = core.lifecycle.ending().clone();
            tokio::spawn(Saver::run(Arc::downgrade(&core.sessions), ending));
        }
        let engine = Engine::new(core, root);
        for (extension, start) in hooks {
            if let Err(source) = start(Arc::new(engine.clone())).await {
                engine.supervisor_cell().stop(None);
                return Err(StartError::ExtensionStart { extension, source });
            }
        }
        Ok(engine)
    }
}

impl Extension {
    /// Sets a function that runs when the engine has started, before [`EngineBuilder::start`] returns.
    #[must_use]
    pub fn on_start<F, S>(mut self, start: S) -> Self
    where
        S: Fn(Engine) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.start = Some(Arc::new(move |engine| match engine.downcast::<Engine>() {
            Ok(engine) => start((*engine).clone()).boxed(),
            // Only an engine calls this.
            Err(_) => ready(Ok(())).boxed(),
        }));
        self
    }
}
