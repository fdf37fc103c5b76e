//! The hooks of a resource: code that runs while some client watches it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::ready;
use stentor_wire::Topic;

use super::context::CallHost;
use super::{Handler, Running, State, TemplateVars};
use crate::states::StateType;

type HookFn = dyn Fn(Watch) -> Running<()> + Send + Sync;

/// A resource that clients watch, for the hooks [`on_watch`](crate::Resource::on_watch) and
/// [`on_unwatch`](crate::Resource::on_unwatch). A clone may be kept, for example by the task that
/// watches a file.
#[derive(Clone)]
pub struct Watch {
    uri: Arc<str>,
    vars: Arc<TemplateVars>,
    /// Weak, because a state of the engine may keep this.
    host: Weak<dyn CallHost>,
}

impl Watch {
    pub(crate) fn new(uri: Arc<str>, vars: Arc<TemplateVars>, host: &Arc<dyn CallHost>) -> Self {
        Self { uri, vars, host: Arc::downgrade(host) }
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

    /// Notifies every client that watches the resource that it changed, on all nodes. Does nothing after
    /// the engine has stopped.
    pub fn send_updated(&self) {
        if let Some(host) = self.host.upgrade() {
            host.announce(Topic::Resource(self.uri.clone()));
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("uri", &self.uri).field("vars", &self.vars).finish()
    }
}

/// A parameter of a hook: [`Watch`], or [`State<T>`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a hook",
    label = "not a parameter of a hook",
    note = "a hook takes `Watch` and `State<T>`: it belongs to no call"
)]
pub trait FromWatch: Sized + Send + 'static {
    #[doc(hidden)]
    fn describe(_states: &mut Vec<StateType>) {}

    #[doc(hidden)]
    fn from_watch(watch: &Watch) -> Option<Self>;
}

impl FromWatch for Watch {
    fn from_watch(watch: &Watch) -> Option<Self> {
        Some(watch.clone())
    }
}

impl<T: Clone + Send + Sync + 'static> FromWatch for State<T> {
    fn describe(states: &mut Vec<StateType>) {
        states.push(StateType::of::<T>());
    }

    fn from_watch(watch: &Watch) -> Option<Self> {
        watch.host.upgrade()?.states().get().cloned().map(Self)
    }
}

/// The parameters of a hook: a tuple of at most four [`FromWatch`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the parameters of a hook",
    note = "a hook takes `Watch` and `State<T>`: it belongs to no call"
)]
pub trait HookParameters: Sized {
    #[doc(hidden)]
    fn states() -> Vec<StateType>;

    #[doc(hidden)]
    fn from_watch(watch: &Watch) -> Option<Self>;
}

macro_rules! hook_parameters {
    ($($parameter:ident)*) => {
        impl<$($parameter: FromWatch,)*> HookParameters for ($($parameter,)*) {
            fn states() -> Vec<StateType> {
                #[allow(unused_mut, reason = "a hook without parameters takes no state")]
                let mut states = Vec::new();
                $($parameter::describe(&mut states);)*
                states
            }

            #[allow(unused_variables, reason = "a hook without parameters takes nothing")]
            fn from_watch(watch: &Watch) -> Option<Self> {
                Some(($($parameter::from_watch(watch)?,)*))
            }
        }
    };
}

hook_parameters!();
hook_parameters!(A);
hook_parameters!(A B);
hook_parameters!(A B C);
hook_parameters!(A B C D);

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
    states: Vec<StateType>,
}

impl Hooks {
    pub(super) fn set<M, F>(&mut self, hook: Hook, function: F)
    where
        M: HookParameters,
        F: Handler<M>,
        F::Future: Future<Output = ()> + Send + 'static,
    {
        self.states.extend(M::states());
        let function: Arc<HookFn> = Arc::new(move |watch| match M::from_watch(&watch) {
            Some(parameters) => function.call(parameters).boxed(),
            // An item whose state is missing is refused, so it is there.
            None => ready(()).boxed(),
        });
        match hook {
            Hook::Watch => self.watch = Some(function),
            Hook::Unwatch => self.unwatch = Some(function),
        }
    }

    /// The states that the hooks take.
    pub(crate) fn states(&self) -> &[StateType] {
        &self.states
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
        /// use std::sync::Arc;
        /// use stentor::{State, Watch, resource};
        ///
        /// # struct Database; impl Database { fn watch(&self, _: Watch) {} fn unwatch(&self, _: &str) {} }
        /// async fn begin(State(database): State<Arc<Database>>, watch: Watch) {
        ///     // It calls `watch.send_updated()` after each change.
        ///     database.watch(watch);
        /// }
        ///
        /// async fn end(State(database): State<Arc<Database>>, watch: Watch) {
        ///     database.unwatch(watch.uri());
        /// }
        ///
        /// let orders = resource("db://orders", "orders", || async { "all orders" })
        ///     .on_watch(begin)
        ///     .on_unwatch(end);
        /// # let _ = orders;
        /// ```
        #[must_use]
        pub fn on_watch<M, F>(mut self, hook: F) -> Self
        where
            M: HookParameters,
            F: Handler<M>,
            F::Future: Future<Output = ()> + Send + 'static,
        {
            self.hooks.set(Hook::Watch, hook);
            self
        }

        /// Sets what runs when no client watches the resource any more, or when this node is not
        /// the one any more that watches for all; also when the item is removed, or replaced by one
        /// with other hooks, and when the engine ends. See [`on_watch`](Self::on_watch).
        #[must_use]
        pub fn on_unwatch<M, F>(mut self, hook: F) -> Self
        where
            M: HookParameters,
            F: Handler<M>,
            F::Future: Future<Output = ()> + Send + 'static,
        {
            self.hooks.set(Hook::Unwatch, hook);
            self
        }
    };
}

pub(super) use hook_methods;
