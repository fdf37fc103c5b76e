//! The hooks of a resource: code that runs while some client watches it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use stentor_wire::Topic;

use super::context::CallHost;
use super::{Running, TemplateVars};

type HookFn = dyn Fn(Watch) -> Running<()> + Send + Sync;

/// A resource that clients watch, for the hooks [`on_watch`](crate::Resource::on_watch) and
/// [`on_unwatch`](crate::Resource::on_unwatch). A clone may be kept, for example by the task that
/// watches a file.
#[derive(Clone)]
pub struct Watch {
    uri: Arc<str>,
    vars: Arc<TemplateVars>,
    host: Arc<dyn CallHost>,
}

impl Watch {
    pub(crate) fn new(uri: Arc<str>, vars: Arc<TemplateVars>, host: Arc<dyn CallHost>) -> Self {
        Self { uri, vars, host }
    }

    /// The URI, in its [normal form](stentor_wire::uri::normal): clients may spell it differently.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The variables of the template; empty for a resource with a fixed URI.
    #[must_use]
    pub fn vars(&self) -> &TemplateVars {
        &self.vars
    }

    /// Notifies every client that watches this resource that it changed, on all nodes. Any spelling
    /// of the URI will do. Has no effect after the engine has stopped.
    pub fn send_resource_updated(&self, uri: &str) {
        self.host.announce(Topic::Resource(uri.into()));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("uri", &self.uri).field("vars", &self.vars).finish()
    }
}

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Watch,
    Unwatch,
}

/// The hooks of an item. Clones are equal, and no others.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    watch: Option<Arc<HookFn>>,
    unwatch: Option<Arc<HookFn>>,
}

impl Hooks {
    pub(super) fn set<F, Fut>(&mut self, hook: Hook, function: F)
    where
        F: Fn(Watch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let function: Arc<HookFn> = Arc::new(move |watch| function(watch).boxed());
        match hook {
            Hook::Watch => self.watch = Some(function),
            Hook::Unwatch => self.unwatch = Some(function),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watch.is_none() && self.unwatch.is_none()
    }

    /// Runs a hook, if there is one.
    pub(crate) async fn run(&self, hook: Hook, watch: Watch) {
        let function = match hook {
            Hook::Watch => &self.watch,
            Hook::Unwatch => &self.unwatch,
        };
        if let Some(function) = function {
            function(watch).await;
        }
    }
}

impl PartialEq for Hooks {
    fn eq(&self, other: &Self) -> bool {
        fn same(a: Option<&Arc<HookFn>>, b: Option<&Arc<HookFn>>) -> bool {
            a.map(|it| Arc::as_ptr(it).cast::<()>()) == b.map(|it| Arc::as_ptr(it).cast::<()>())
        }
        same(self.watch.as_ref(), other.watch.as_ref())
            && same(self.unwatch.as_ref(), other.unwatch.as_ref())
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("watch", &self.watch.is_some())
            .field("unwatch", &self.unwatch.is_some())
            .finish()
    }
}

/// The methods of a resource and of a template that set their hooks.
macro_rules! hook_methods {
    () => {
        /// Sets what runs when the first client watches the resource: over all nodes of a cluster,
        /// by `resources/subscribe` or `subscriptions/listen`. For a template it runs once for each
        /// URI that is watched.
        ///
        /// One of the nodes that offer the item with hooks runs it. When that node leaves or dies,
        /// another one does; after a split of the cluster, each side has run it.
        ///
        /// For one URI, hooks run one after the other on a node, [`on_unwatch`](Self::on_unwatch)
        /// after each `on_watch`, also if that panicked or took longer than
        /// [`WatchConfig::hook_timeout`](crate::WatchConfig), after which it is dropped.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use stentor_engine::{Context, ResourceError, Watch, resource};
        /// # struct Database; impl Database { fn watch(&self, _: Watch) {} fn unwatch(&self, _: &str) {} }
        /// let database = Arc::new(Database);
        /// let upstream = database.clone();
        /// let orders = resource("db://orders", "orders", |_ctx: Context| async {
        ///     Ok::<_, ResourceError>("all orders")
        /// })
        /// .on_watch(move |watch: Watch| {
        ///     let database = database.clone();
        ///     // It calls `watch.send_resource_updated(watch.uri())` after each change.
        ///     async move { database.watch(watch) }
        /// })
        /// .on_unwatch(move |watch: Watch| {
        ///     let upstream = upstream.clone();
        ///     async move { upstream.unwatch(watch.uri()) }
        /// });
        /// # let _ = orders;
        /// ```
        #[must_use]
        pub fn on_watch<F, Fut>(mut self, hook: F) -> Self
        where
            F: Fn($crate::handler::Watch) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            self.hooks.set($crate::handler::Hook::Watch, hook);
            self
        }

        /// Sets what runs when no client watches the resource any more, or when this node is not
        /// the one any more that watches for all; also when the item is removed, or replaced by one
        /// with other hooks, and when the engine ends. See [`on_watch`](Self::on_watch).
        #[must_use]
        pub fn on_unwatch<F, Fut>(mut self, hook: F) -> Self
        where
            F: Fn($crate::handler::Watch) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            self.hooks.set($crate::handler::Hook::Unwatch, hook);
            self
        }
    };
}

pub(super) use hook_methods;
