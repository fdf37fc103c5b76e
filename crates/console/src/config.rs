//! Who may look at a console, and what it may do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use futures::future::{BoxFuture, FutureExt as _};
#[cfg(doc)]
use stentor_engine::Engine;
#[cfg(feature = "events")]
use stentor_events::EventsHandle;

/// A person who looks at the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// The name, for the log of actions.
    pub name: Option<Arc<str>>,
    /// Whether the person may end, cancel, lock out and drain.
    pub may_act: bool,
}

type Drain = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;
type FindOperator = Arc<dyn Fn(&HeaderMap) -> Option<Operator> + Send + Sync>;

/// The settings of a console.
#[derive(Clone)]
pub struct ConsoleConfig {
    pub(crate) hosts: BTreeSet<String>,
    pub(crate) actions: bool,
    pub(crate) operator: Option<FindOperator>,
    pub(crate) timeout: Duration,
    pub(crate) drain: Option<Drain>,
    #[cfg(feature = "events")]
    pub(crate) events: Option<EventsHandle>,
}

impl fmt::Debug for ConsoleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleConfig")
            .field("hosts", &self.hosts)
            .field("actions", &self.actions)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeSet::new(),
            actions: false,
            operator: None,
            timeout: Duration::from_secs(2),
            drain: None,
            #[cfg(feature = "events")]
            events: None,
        }
    }
}

impl ConsoleConfig {
    /// A console that answers on loopback names only, and changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also answers to this `Host`, a name without a port. Other names than those of loopback are
    /// refused otherwise: a page of another site must not read the console through a name of its own.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.insert(name.into().to_ascii_lowercase());
        self
    }

    /// Whether the console may end sessions, cancel calls, lock principals out and drain nodes.
    /// Default `false`. Each action is logged with the target `stentor::console`. On another node
    /// it needs the same setting there.
    #[must_use]
    pub fn actions(mut self, actions: bool) -> Self {
        self.actions = actions;
        self
    }

    /// Finds out who looks, from the headers of each request. `None` is refused with 401. Without
    /// this function everybody may look who reaches the console under one of its hosts.
    ///
    /// ```
    /// use stentor::console::{ConsoleConfig, Operator};
    ///
    /// let config = ConsoleConfig::new().host("console.example.com").actions(true).operator(|headers| {
    ///     // A proxy in front of it has checked who this is, and lets nobody else set the header.
    ///     let name = headers.get("x-forwarded-user")?.to_str().ok()?;
    ///     Some(Operator { name: Some(name.into()), may_act: name == "ann" })
    /// });
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn operator(
        mut self,
        find: impl Fn(&HeaderMap) -> Option<Operator> + Send + Sync + 'static,
    ) -> Self {
        self.operator = Some(Arc::new(find));
        self
    }

    /// How long another node may take to answer. Default 2 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What the action *drain* does. By default the engine [shuts down](Engine::shutdown); a node of a
    /// cluster should leave it before that, so that its sessions go on at another node.
    #[must_use]
    pub fn drain<F>(mut self, drain: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.drain = Some(Arc::new(move || drain().boxed()));
        self
    }

    /// Also shows the events extension.
    #[cfg(feature = "events")]
    #[must_use]
    pub fn events(mut self, events: EventsHandle) -> Self {
        self.events = Some(events);
        self
    }
}
