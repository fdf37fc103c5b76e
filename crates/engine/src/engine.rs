//! The handle of an engine: start it, change its catalog, notify every client, shut it down.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use serde::Serialize;
use serde_json::Value;
use stentor_wire::ListKind;
use stentor_wire::encode::ServerIdentity;
use stentor_wire::model::{Icon, Implementation};

use crate::config::Config;
use crate::core::Core;
use crate::embed::{Audience, EngineMsg};
use crate::handler::{Prompt, Resource, ResourceTemplate, Tool};
use crate::ids::{CallId, SessionId};
use crate::registry::{
    Catalog, CatalogError, Change, Item, ItemKind, Mutation, RegistryMsg, Topic,
};
use crate::server_hello::ServerHello;
use crate::session::{EndReason, Saver, SessionEntry, SessionKind, SessionView};
use crate::supervisor::SupervisorActor;
use crate::task::{CallView, CancelReason};
use crate::tasks::{self, TaskStoreError};
use stentor_delivery::CountersView;

/// How long cancelled calls get to end.
pub(crate) const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// A running engine. Clones are handles to the same engine.
///
/// Dropping the last handle does not stop the engine: [`shutdown`](Self::shutdown) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stentor_engine::{Engine, ToolError, tool};
///
/// let engine = Engine::builder("My Server", "1.0.0")
///     .tool(tool("noon", || async { Ok::<_, ToolError>("12:00") }).description("Tells the time"))
///     .start()
///     .await?;
///
/// // Every client hears of this by itself.
/// engine.catalog().add(tool("midnight", || async { Ok::<_, ToolError>("0:00") })).await?;
/// engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    root: ActorRef<EngineMsg>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("server", &self.core.identity.info().name).finish()
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A tool, resource, template or prompt is refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The tasks of the last engine with this store could not be recovered.
    #[error(transparent)]
    Tasks(#[from] TaskStoreError),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Spawn(#[from] SpawnErr),
}

/// The engine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// The settings and items of an engine before it starts.
#[derive(Debug)]
pub struct EngineBuilder {
    info: Implementation,
    instructions: Option<String>,
    config: Config,
    items: Vec<Item>,
}

impl EngineBuilder {
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

    /// Changes limits and times.
    ///
    /// ```
    /// # use stentor_engine::Engine;
    /// # use std::time::Duration;
    /// let builder = Engine::builder("s", "1").configure(|config| {
    ///     config.coalesce_window = Duration::from_millis(50);
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
    /// [`StartError::Catalog`] names what is wrong with an item; nothing runs then.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(self) -> Result<Engine, StartError> {
        self.start_linked(None).await
    }

    pub(crate) async fn start_linked(
        self,
        supervisor: Option<ActorCell>,
    ) -> Result<Engine, StartError> {
        let adds = self.items.into_iter().map(|item| Mutation::Add(item).check());
        let (catalog, _) = Catalog::default().apply(adds.collect::<Result<_, _>>()?)?;
        let identity = ServerIdentity::new(self.info);
        let instructions = self.instructions.as_deref();
        let server_hello =
            ServerHello::new(&identity, instructions, self.config.list_cache.discover);
        let core = Arc::new(Core::new(self.config, identity, server_hello, catalog));
        let (root, _) = match supervisor {
            Some(supervisor) => {
                Actor::spawn_linked(None, SupervisorActor, core.clone(), supervisor).await?
            }
            None => Actor::spawn(None, SupervisorActor, core.clone()).await?,
        };
        if let Err(error) = tasks::recover(&core).await {
            root.stop(None);
            return Err(error.into());
        }
        if core.saver.is_some() {
            tokio::spawn(Saver::run(Arc::downgrade(&core), core.ending.clone()));
        }
        Ok(Engine { core, root })
    }
}

impl Engine {
    /// A builder for an engine whose server has this name and version, as clients see them.
    #[must_use]
    pub fn builder(name: impl Into<String>, version: impl Into<String>) -> EngineBuilder {
        EngineBuilder {
            info: Implementation::new(name, version),
            instructions: None,
            config: Config::default(),
            items: Vec::new(),
        }
    }

    pub(crate) fn new(core: Arc<Core>, root: ActorRef<EngineMsg>) -> Self {
        Self { core, root }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn root(&self) -> &ActorRef<EngineMsg> {
        &self.root
    }

    /// The catalog of tools, resources and prompts, to read and to change.
    #[must_use]
    pub fn catalog(&self) -> CatalogHandle {
        CatalogHandle::new(self.core.clone())
    }

    /// Notifies every client that the list of tools changed. A change of the
    /// [`catalog`](Self::catalog) does this by itself.
    pub fn send_tool_list_changed(&self) {
        self.core.announce_list(ListKind::Tools);
    }

    /// Notifies every client that the list of resources changed.
    pub fn send_resource_list_changed(&self) {
        self.core.announce_list(ListKind::Resources);
    }

    /// Notifies every client that the list of prompts changed.
    pub fn send_prompt_list_changed(&self) {
        self.core.announce_list(ListKind::Prompts);
    }

    /// Notifies every client that watches this resource that it changed.
    pub fn send_resource_updated(&self, uri: &str) {
        self.core.announce(Topic::Resource(uri.into()));
    }

    /// Sends a notification of the application's own to every legacy session.
    ///
    /// Modern clients receive only what they listen to, and the protocol limits that to its own
    /// notices. `params` should serialize to a JSON object.
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
        self.core.notify(audience, method, params).await
    }

    /// All sessions now: legacy clients, pipes, modern listens, and the one session of all other
    /// modern requests.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.core.directory.views()
    }

    /// Ends a session. Its calls are answered with an error, its streams end, and a legacy HTTP
    /// client gets a 404 from then on. `false` if there is no such session.
    pub fn end_session(&self, id: &SessionId) -> bool {
        self.core.end_session(id)
    }

    /// Gives a session a new actor, as if the old one had crashed.
    ///
    /// Its calls are answered with an error, and everything else continues. A session that is
    /// restarted more than five times within a minute is ended instead. A session that has had no
    /// work for an actor has no actor to lose, and continues unchanged. `false` if there is no such
    /// session.
    pub fn restart_session(&self, id: &SessionId) -> bool {
        self.core.restart_session(id)
    }

    /// All calls that run now, or wait for their client's answer. A call whose code always finishes
    /// at once may never be among them.
    #[must_use]
    pub fn calls(&self) -> Vec<CallView> {
        self.core.running.views()
    }

    /// Cancels a call: its code is polled once more and dropped, and its caller gets an error.
    /// `false` if the call does not run.
    pub fn cancel_call(&self, id: CallId) -> bool {
        self.core.running.cancel(id, CancelReason::Application)
    }

    /// What became of all frames so far, by class.
    #[must_use]
    pub fn counters(&self) -> CountersView {
        self.core.counters.view()
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }

    /// Completes when a shutdown begins.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.core.draining.clone().cancelled_owned()
    }

    /// Shuts down: accepts no new calls, answers open listens, gives running calls
    /// [`Config::drain_timeout`], ends the rest, and stops all actors.
    ///
    /// May be called several times; each call returns when the engine has stopped. When dropped
    /// early, the engine accepts no new calls, but continues otherwise.
    pub async fn shutdown(&self) {
        self.shutdown_within(self.core.config.drain_timeout).await;
    }

    /// Like [`shutdown`](Self::shutdown), with another time limit for running calls.
    pub async fn shutdown_within(&self, drain_timeout: Duration) {
        self.core.end.ask();
        self.core.draining.cancel();
        for session in self.clients() {
            session.drain(&self.core);
        }
        self.core.calls.close();
        let in_time = tokio::time::timeout(drain_timeout, self.core.calls.wait());
        if in_time.await.is_err() {
            let left = self.core.calls.len();
            crate::log!(warn, left, "calls are still running at the end of the drain time");
            self.core.end_calls();
            // A call that blocks its thread cannot be cancelled, and must not delay the rest.
            let _ = tokio::time::timeout(CANCEL_GRACE, self.core.calls.wait()).await;
        }
        let ending = self.clients();
        let actors: Vec<_> = ending.iter().filter_map(|session| session.actor()).collect();
        for session in &ending {
            session.end(&self.core, EndReason::Shutdown);
        }
        // Awaited, because the end of the supervisor kills the remaining ones before they can send
        // everything.
        let ended = actors.iter().map(|actor| actor.wait(Some(CANCEL_GRACE)));
        futures::future::join_all(ended).await;
        for session in &ending {
            // A call that cannot be cancelled may still keep its session's streams open.
            if let Some(sender) = session.streams().notices() {
                sender.finish();
            }
        }
        self.root.stop(None);
        let _ = self.root.wait(None).await;
    }

    /// The sessions that serve a client: all but the one of stateless calls, which ends with the
    /// supervisor.
    fn clients(&self) -> Vec<Arc<SessionEntry>> {
        let mut sessions = self.core.directory.all();
        sessions.retain(|session| session.kind() != SessionKind::Stateless);
        sessions
    }
}

/// The catalog of an engine, to read and to change. Every change is announced automatically.
#[derive(Clone, Debug)]
pub struct CatalogHandle(Arc<Core>);

impl CatalogHandle {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// The lists as they are now. A snapshot does not change.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Catalog> {
        self.0.catalog()
    }

    /// Adds a tool, a resource, a resource template or a prompt.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Exists`] if its name is taken, or the reason why the item is invalid.
    pub async fn add(&self, item: impl Into<Item>) -> Result<Change, CatalogError> {
        self.apply([Mutation::Add(item.into())]).await
    }

    /// Adds an item, or replaces the item that has its name.
    ///
    /// # Errors
    ///
    /// The reason why the item is invalid.
    pub async fn put(&self, item: impl Into<Item>) -> Result<Change, CatalogError> {
        self.apply([Mutation::Put(item.into())]).await
    }

    /// Removes a tool. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`].
    pub async fn remove_tool(&self, name: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Tools, name).await
    }

    /// Removes a resource. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`].
    pub async fn remove_resource(&self, uri: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Resources, uri).await
    }

    /// Removes a resource template. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`].
    pub async fn remove_resource_template(&self, uri_template: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Templates, uri_template).await
    }

    /// Removes a prompt. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`].
    pub async fn remove_prompt(&self, name: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Prompts, name).await
    }

    async fn remove(&self, kind: ItemKind, key: &str) -> Result<bool, CatalogError> {
        let change = self.apply([Mutation::Remove(kind, key.to_owned())]).await?;
        Ok(!change.lists.is_empty())
    }

    /// Applies several changes together: all of them or, on an error, none. Clients get one notice
    /// for each list that differs, and none for a list that does not.
    ///
    /// Returns when readers see the new lists. When dropped early, the change may still happen.
    ///
    /// # Errors
    ///
    /// The first error.
    pub async fn apply(
        &self,
        mutations: impl IntoIterator<Item = Mutation>,
    ) -> Result<Change, CatalogError> {
        let checked = mutations.into_iter().map(Mutation::check).collect::<Result<Vec<_>, _>>()?;
        let registry = self.0.refs.registry.load_full().ok_or(CatalogError::Stopped)?;
        match registry.call(|reply| RegistryMsg::Apply(checked, Some(reply)), None).await {
            Ok(CallResult::Success(result)) => result,
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
                Err(if self.0.is_draining() {
                    CatalogError::Stopped
                } else {
                    CatalogError::Interrupted
                })
            }
        }
    }
}
