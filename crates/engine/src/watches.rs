//! Runs the hooks of resources while clients watch them: `on_watch` for the first watcher of a URI
//! on all nodes, `on_unwatch` after the last one.
//!
//! The hub reports which URIs have watchers on this node, other nodes report the same of theirs, and
//! the catalog says which nodes offer hooks. The [`Machine`] decides what follows. This file gives it
//! its input, runs hooks, each in a task of its own, and tells the other nodes.

mod machine;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::access::Rule;
use crate::call::Calls;
use crate::catalog::Catalog;
use crate::handler::{Hook, Hooks, TemplateVars, Watch};
use crate::hub::Watchers;
use crate::ids::NodeId;
use crate::registry::{Fact, WatchState};
use machine::{HookOffer, Machine, Output};

/// Hooks that run at once; others wait.
const MAX_RUNNING: usize = 1_024;

/// How hooks of resources run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchConfig {
    /// How long a hook of a resource may run. After that it is dropped, and counts as having ended.
    /// Default 1 minute.
    pub hook_timeout: Duration,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { hook_timeout: Duration::from_secs(60) }
    }
}

/// The hooks of an item, with the variables of the URI.
#[derive(Clone, Debug)]
struct UriHooks {
    hooks: Hooks,
    vars: Arc<TemplateVars>,
}

/// The variables follow from the URI and the item.
impl PartialEq for UriHooks {
    fn eq(&self, other: &Self) -> bool {
        self.hooks == other.hooks
    }
}

/// The hooks of an engine. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Watches(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    config: WatchConfig,
    calls: Arc<Calls>,
    machine: Mutex<Machine<UriHooks>>,
    /// Counts the hooks that run, because a shutdown waits for them.
    tracker: TaskTracker,
    /// Bounds how many run at once.
    running: Semaphore,
}

fn offer(catalog: &Catalog, uri: &str) -> Option<HookOffer<UriHooks>> {
    let (item, vars) = catalog.hooks(uri)?;
    let own = item.own.clone().map(|hooks| UriHooks { hooks, vars: Arc::new(vars) });
    Some(HookOffer { own, others: item.others.clone() })
}

impl Watches {
    pub(crate) fn new(config: WatchConfig, calls: Arc<Calls>) -> Self {
        let machine = Mutex::new(Machine::new(calls.node.clone()));
        let running = Semaphore::new(MAX_RUNNING);
        Self(Arc::new(Parts { config, calls, machine, tracker: TaskTracker::new(), running }))
    }

    /// Another node reports these URIs.
    pub(crate) fn remote(&self, node: &NodeId, reported: Vec<(Arc<str>, WatchState)>) {
        self.input(|machine, catalog| {
            for (uri, state) in reported {
                machine.remote(node, &uri, state, offer(catalog, &uri));
            }
        });
    }

    /// Another node is gone.
    pub(crate) fn forget(&self, node: &NodeId) {
        self.input(|machine, _| machine.forget(node));
    }

    /// This engine has joined other nodes, or is alone again.
    pub(crate) fn peers_changed(&self, has_peers: bool) {
        self.input(|machine, _| {
            if !has_peers {
                return machine.forget_all();
            }
            for (uri, state) in machine.told() {
                self.tell(uri, state);
            }
        });
    }

    /// From here on nothing is watched: each `on_watch` that ran is followed by its `on_unwatch`.
    pub(crate) fn close(&self) {
        self.input(|machine, _| machine.close());
        self.0.tracker.close();
    }

    /// Waits until no hook runs any more, after [`close`](Self::close).
    pub(crate) async fn closed(&self) {
        self.0.tracker.wait().await;
    }

    fn input(&self, input: impl FnOnce(&mut Machine<UriHooks>, &Catalog)) {
        // Locked until everything is done, so that other nodes are told in the order of the changes.
        let mut machine = self.0.machine.lock();
        // Loaded under the lock: an older catalog must not follow a newer one.
        input(&mut machine, &self.0.calls.registry.catalog());
        for output in machine.outputs() {
            match output {
                Output::Run(hook, uri, hooks) => self.run(hook, uri, hooks),
                Output::Tell(uri, state) => self.tell(&uri, state),
            }
        }
    }

    fn tell(&self, uri: &Arc<str>, state: WatchState) {
        self.0.calls.registry.tell_peers(|| Fact::Watch(uri.clone(), state));
    }

    fn run(&self, hook: Hook, uri: Arc<str>, UriHooks { hooks, vars }: UriHooks) {
        // The last hooks may be due because the whole runtime ends, and then there is no way to run
        // them.
        let Ok(runtime) = Handle::try_current() else { return };
        let this = self.clone();
        let run = async move {
            // Told in any case, also if a destructor of the hook panics.
            let _finished = Finished { watches: this.clone(), uri: uri.clone() };
            let Ok(_permit) = this.0.running.acquire().await else { return };
            let watch = Watch::new(uri.clone(), vars, &(this.0.calls.clone() as _));
            let running = AssertUnwindSafe(hooks.run(hook, watch)).catch_unwind();
            match timeout(this.0.config.hook_timeout, running).await {
                Ok(Ok(())) => {}
                Ok(Err(_panic)) => crate::log!(error, ?hook, %uri, "a hook of a resource panicked"),
                Err(_) => crate::log!(error, ?hook, %uri, "a hook of a resource takes too long"),
            }
        };
        self.0.tracker.spawn_on(run, &runtime);
    }
}

/// When dropped, tells that a hook has ended.
struct Finished {
    watches: Watches,
    uri: Arc<str>,
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.watches.input(|machine, _| machine.finished(&self.uri));
    }
}

impl Watchers for Watches {
    fn changed(&self, uri: &Arc<str>, watched: bool) {
        self.input(|machine, catalog| machine.local(uri, watched, offer(catalog, uri)));
    }

    fn recount(&self, uris: &mut dyn Iterator<Item = &Arc<str>>) {
        self.input(|machine, catalog| machine.recount(uris, |uri| offer(catalog, uri)));
    }

    fn rule_of(&self, uri: &str) -> Rule {
        let catalog = self.0.calls.registry.catalog();
        if !catalog.is_restricted() {
            return Rule::default();
        }
        catalog.access_to_uri(uri).map(|access| access.rule.clone()).unwrap_or_default()
    }

    fn rules(&self) -> Vec<Rule> {
        self.0.calls.registry.catalog().rules().cloned().collect()
    }
}
