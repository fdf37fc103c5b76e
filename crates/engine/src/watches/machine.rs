//! The pure part of watching: which hook of which URI runs next on this node.
//!
//! ```text
//!           wanted: on_watch             finished
//!    idle -------------------> starting ----------> watching
//!      ^                                                |
//!      |      finished                                  | no longer wanted, or with other hooks:
//!      +---------------- ending <-----------------------+ on_unwatch
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::handler::Hook;
use crate::ids::NodeId;
use crate::registry::WatchState;

/// Who offers the item of a URI with hooks. `H` is what identifies and runs hooks.
#[derive(Clone, Debug)]
pub(crate) struct HookOffer<H> {
    /// The hooks on this node, if it is one of them.
    pub(crate) own: Option<H>,
    pub(crate) others: Vec<NodeId>,
}

/// What the code around the machine has to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output<H> {
    /// Run a hook, then call [`Machine::finished`].
    Run(Hook, Arc<str>, H),
    /// Report this to the other nodes.
    Tell(Arc<str>, WatchState),
}

#[derive(Clone, Debug, PartialEq)]
enum Phase<H> {
    Idle,
    Starting(H),
    Watching(H),
    Ending,
}

/// A URI whose item has hooks, or that another node reports.
#[derive(Debug)]
struct Uri<H> {
    /// Whether clients of this node watch it.
    watched: bool,
    /// Whether any node offers hooks.
    is_hooked: bool,
    /// The hooks to run, if this node is the one that runs them.
    hooks: Option<H>,
    others: BTreeMap<NodeId, WatchState>,
    phase: Phase<H>,
    told: WatchState,
}

impl<H> Default for Uri<H> {
    fn default() -> Self {
        Self {
            watched: false,
            is_hooked: false,
            hooks: None,
            others: BTreeMap::new(),
            phase: Phase::Idle,
            told: WatchState::default(),
        }
    }
}

/// The URIs with hooks that are watched on some node, and the hooks that this node runs.
///
/// It keeps a URI as long as clients watch it and some node offers hooks for it, another node
/// reports it, or a hook has still to run.
#[derive(Debug)]
pub(crate) struct Machine<H> {
    node: NodeId,
    uris: HashMap<Arc<str>, Uri<H>>,
    closed: bool,
    outputs: Vec<Output<H>>,
}

impl<H: Clone + PartialEq> Machine<H> {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, uris: HashMap::new(), closed: false, outputs: Vec::new() }
    }

    /// Takes what has to be done.
    pub(crate) fn outputs(&mut self) -> Vec<Output<H>> {
        std::mem::take(&mut self.outputs)
    }

    /// Clients of this node begin or cease to watch a URI, for which hooks are offered or not.
    pub(crate) fn local(&mut self, uri: &Arc<str>, watched: bool, offer: Option<HookOffer<H>>) {
        self.change(uri, |node, state| {
            state.watched = watched;
            state.offer(node, uri, offer);
        });
    }

    /// Another node reports a URI.
    pub(crate) fn remote(
        &mut self,
        from: &NodeId,
        uri: &Arc<str>,
        reported: WatchState,
        offer: Option<HookOffer<H>>,
    ) {
        self.change(uri, |node, state| {
            if reported == WatchState::default() {
                state.others.remove(from);
            } else {
                state.others.insert(from.clone(), reported);
            }
            state.offer(node, uri, offer);
        });
    }

    /// What is offered changed. `local` are all URIs that clients of this node watch.
    pub(crate) fn recount<'a>(
        &mut self,
        local: impl IntoIterator<Item = &'a Arc<str>>,
        offer: impl Fn(&str) -> Option<HookOffer<H>>,
    ) {
        self.uris.values_mut().for_each(|state| state.watched = false);
        for uri in local {
            if let Some(state) = self.uris.get_mut(uri) {
                state.watched = true;
            } else if let Some(offer) = offer(uri) {
                self.local(uri, true, Some(offer));
            }
        }
        self.change_all(|node, uri, state| state.offer(node, uri, offer(uri)));
    }

    /// A hook of this URI has ended.
    pub(crate) fn finished(&mut self, uri: &Arc<str>) {
        self.change(uri, |_, state| {
            state.phase = match std::mem::replace(&mut state.phase, Phase::Idle) {
                Phase::Starting(hooks) => Phase::Watching(hooks),
                Phase::Ending => Phase::Idle,
                other => other,
            };
        });
    }

    /// Another node is gone.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.change_all(|_, _, state| {
            state.others.remove(node);
        });
    }

    /// All other nodes are gone.
    pub(crate) fn forget_all(&mut self) {
        self.change_all(|_, _, state| state.others.clear());
    }

    /// From here on no hook begins to watch, and those that do end.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.change_all(|_, _, _| ());
    }

    /// What the other nodes have been told.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&Arc<str>, WatchState)> {
        let told = self.uris.iter().map(|(uri, state)| (uri, state.told));
        told.filter(|(_, told)| *told != WatchState::default())
    }

    fn change(&mut self, uri: &Arc<str>, change: impl FnOnce(&NodeId, &mut Uri<H>)) {
        let state = self.uris.entry(uri.clone()).or_default();
        change(&self.node, state);
        state.step(uri, self.closed, &mut self.outputs);
        if state.is_unused() {
            self.uris.remove(uri);
        }
    }

    fn change_all(&mut self, change: impl Fn(&NodeId, &Arc<str>, &mut Uri<H>)) {
        let (node, closed, outputs) = (&self.node, self.closed, &mut self.outputs);
        self.uris.retain(|uri, state| {
            change(node, uri, state);
            state.step(uri, closed, outputs);
            !state.is_unused()
        });
    }
}

impl<H: Clone + PartialEq> Uri<H> {
    fn offer(&mut self, node: &NodeId, uri: &str, offer: Option<HookOffer<H>>) {
        self.is_hooked = offer.is_some();
        let own = offer.and_then(|HookOffer { own, others }| {
            own.filter(|_| others.iter().all(|other| rank(other, uri) < rank(node, uri)))
        });
        self.hooks = own;
    }

    /// Starts the hook that is due, and reports what changed.
    fn step(&mut self, uri: &Arc<str>, closed: bool, outputs: &mut Vec<Output<H>>) {
        let is_watched = self.watched || self.others.values().any(|other| other.watched);
        let wanted = self.hooks.as_ref().filter(|_| is_watched && !closed);
        match (&self.phase, wanted) {
            // The node that ran the hooks before says when it has ended.
            (Phase::Idle, Some(hooks)) if !self.others.values().any(|other| other.running) => {
                outputs.push(Output::Run(Hook::Watch, uri.clone(), hooks.clone()));
                self.phase = Phase::Starting(hooks.clone());
            }
            (Phase::Watching(hooks), wanted) if wanted != Some(hooks) => {
                outputs.push(Output::Run(Hook::Unwatch, uri.clone(), hooks.clone()));
                self.phase = Phase::Ending;
            }
            _ => {}
        }
        let now = WatchState {
            watched: self.watched && self.is_hooked && !closed,
            running: self.phase != Phase::Idle,
        };
        if std::mem::replace(&mut self.told, now) != now {
            outputs.push(Output::Tell(uri.clone(), now));
        }
    }

    fn is_unused(&self) -> bool {
        self.told == WatchState::default() && self.others.is_empty()
    }
}

/// The node with the highest rank runs the hooks of a URI, so that the nodes share the URIs, and few
/// URIs move when a node comes or goes.
fn rank<'a>(node: &'a NodeId, uri: &str) -> ([u8; 32], &'a NodeId) {
    let hash = Sha256::new().chain_update(node.as_str()).chain_update([0]).chain_update(uri);
    (hash.finalize().into(), node)
}

#[cfg(test)]
mod tests;
