//! The pure part of watching, for one event type: which hook of which arguments runs next on this node.
//!
//! Of the nodes that have the type with hooks, one is the *runner* of some arguments: the one with the
//! highest rank for them. Each node finds the same. The runner begins to watch when clients of any node
//! want that, and ends when the last ones have gone, or when another node has become the runner. That
//! one waits until the one before says that it has ended, or is gone: so an upstream that knows both as
//! one is never left without a watch by the end that comes second.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use stentor_engine::NodeId;
use tokio::time::Instant;

use crate::peers::rank;

/// What a node says of some arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Whether clients of the node watch them.
    pub(crate) watched: bool,
    /// Whether the node watches the upstream, begins to, or has not quite ended.
    pub(crate) running: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// `on_subscribe`
    Begin,
    /// `on_unsubscribe`
    End,
}

/// What the code around the machine has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Run a hook, then call [`Machine::finished`].
    Run(Hook, Arc<str>),
    /// Tell the other nodes what this one [says](Machine::says) of these arguments.
    Tell(Arc<str>),
}

/// The nodes that have the type with hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// This node, if it is one of them.
    pub(crate) own: Option<NodeId>,
    pub(crate) others: Vec<NodeId>,
    /// Some of the others have not said yet what they watch.
    pub(crate) unheard: bool,
}

impl Members {
    fn has_runner_here(&self, name: &str, canonical: &str) -> bool {
        if self.others.is_empty() {
            return true;
        }
        let Some(own) = &self.own else { return false };
        let id = format!("{name}\0{canonical}");
        let own = rank(&id, own);
        self.others.iter().all(|other| rank(&id, other) < own)
    }
}

/// Arguments that clients of some node watch. `T` is what the hooks are given.
pub(crate) struct Watched<T> {
    pub(crate) value: Option<T>,
    /// Streams and webhooks of this node.
    pub(crate) holders: usize,
    /// Until when polls of this node count.
    pub(crate) leased: Option<Instant>,
    others: BTreeMap<NodeId, Said>,
    /// Whether this node is the runner.
    runs: bool,
    /// Whether `on_subscribe` has begun, and `on_unsubscribe` has not.
    begun: bool,
    /// Whether a hook runs now.
    in_turn: bool,
    told: Said,
}

impl<T> Watched<T> {
    fn is_wanted(&self) -> bool {
        self.holders > 0 || self.leased.is_some()
    }

    fn is_unused(&self) -> bool {
        !self.is_wanted() && !self.begun && !self.in_turn && self.others.is_empty()
    }
}

/// The watched arguments of one type.
pub(crate) struct Machine<T> {
    name: Arc<str>,
    members: Members,
    closed: bool,
    all: HashMap<Arc<str>, Watched<T>>,
    /// How many clients of this node watch.
    wanted: usize,
    outputs: Vec<Output>,
}

impl<T> Machine<T> {
    pub(crate) fn new(name: Arc<str>) -> Self {
        let (members, outputs) = (Members::default(), Vec::new());
        Self { name, members, closed: false, all: HashMap::default(), wanted: 0, outputs }
    }

    /// Takes what has to be done.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// How many arguments the clients of this node watch.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(crate) fn is_wanted(&self, canonical: &str) -> bool {
        self.all.get(canonical).is_some_and(Watched::is_wanted)
    }

    pub(crate) fn value(&mut self, canonical: &str) -> Option<&mut Option<T>> {
        self.all.get_mut(canonical).map(|watched| &mut watched.value)
    }

    /// Clients of this node begin or cease to watch.
    pub(crate) fn local(&mut self, canonical: &Arc<str>, change: impl FnOnce(&mut Watched<T>)) {
        let watched = self.entry(canonical);
        let before = watched.is_wanted();
        change(watched);
        let after = watched.is_wanted();
        self.wanted = self.wanted + usize::from(after) - usize::from(before);
        self.step(canonical);
    }

    /// Changes what clients of this node watch, of all arguments that fit.
    pub(crate) fn local_all(
        &mut self,
        fits: impl Fn(&Watched<T>) -> bool,
        change: impl Fn(&mut Watched<T>),
    ) {
        let fitting = self.all.iter().filter(|(_, it)| fits(it)).map(|(it, _)| it.clone());
        for canonical in fitting.collect::<Vec<_>>() {
            self.local(&canonical, &change);
        }
    }

    /// What another node says of some arguments.
    pub(crate) fn said(&mut self, from: &NodeId, canonical: &Arc<str>, said: Said) {
        let watched = self.entry(canonical);
        if said == Said::default() {
            watched.others.remove(from);
        } else {
            watched.others.insert(from.clone(), said);
        }
        self.step(canonical);
    }

    /// Another node says nothing of any arguments but these. With none of them, it is gone.
    pub(crate) fn says_no_more(&mut self, from: &NodeId, but: impl Fn(&str) -> bool) {
        let of = |(canonical, it): (&Arc<str>, &Watched<T>)| {
            (it.others.contains_key(from) && !but(canonical)).then(|| canonical.clone())
        };
        for canonical in self.all.iter().filter_map(of).collect::<Vec<_>>() {
            self.said(from, &canonical, Said::default());
        }
    }

    /// Other nodes have come or gone.
    pub(crate) fn members(&mut self, members: Members) {
        if members == self.members {
            return;
        }
        self.members = members;
        for (canonical, watched) in &mut self.all {
            watched.runs = self.members.has_runner_here(&self.name, canonical);
        }
        self.step_all();
    }

    /// A hook has ended.
    pub(crate) fn finished(&mut self, canonical: &Arc<str>) {
        self.entry(canonical).in_turn = false;
        self.step(canonical);
    }

    /// A hook could not run.
    pub(crate) fn not_run(&mut self, canonical: &Arc<str>) {
        let watched = self.entry(canonical);
        (watched.begun, watched.in_turn) = (!watched.begun, false);
    }

    /// From here on nothing begins, and what has begun ends.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.step_all();
    }

    /// What this node says of some arguments.
    pub(crate) fn says(&self, canonical: &str) -> Said {
        self.all.get(canonical).map(|watched| watched.told).unwrap_or_default()
    }

    /// All of which this node says something.
    pub(crate) fn says_all(&self) -> impl Iterator<Item = (&Arc<str>, Said)> {
        let all = self.all.iter().map(|(canonical, watched)| (canonical, watched.told));
        all.filter(|(_, said)| *said != Said::default())
    }

    fn entry(&mut self, canonical: &Arc<str>) -> &mut Watched<T> {
        self.all.entry(canonical.clone()).or_insert_with(|| Watched {
            value: None,
            holders: 0,
            leased: None,
            others: BTreeMap::new(),
            runs: self.members.has_runner_here(&self.name, canonical),
            begun: false,
            in_turn: false,
            told: Said::default(),
        })
    }

    fn step_all(&mut self) {
        for canonical in self.all.keys().cloned().collect::<Vec<_>>() {
            self.step(&canonical);
        }
    }

    /// Starts the hook that is due, and tells what has changed.
    fn step(&mut self, canonical: &Arc<str>) {
        let Some(watched) = self.all.get_mut(canonical) else { return };
        if !watched.in_turn {
            let others = || watched.others.values();
            let is_watched = watched.is_wanted() || others().any(|it| it.watched);
            let wanted = is_watched && watched.runs && !self.closed;
            let is_free = !self.members.unheard && !others().any(|it| it.running);
            let hook = match (watched.begun, wanted) {
                (false, true) if is_free => Some(Hook::Begin),
                (true, false) => Some(Hook::End),
                _ => None,
            };
            if let Some(hook) = hook {
                (watched.begun, watched.in_turn) = (hook == Hook::Begin, true);
                self.outputs.push(Output::Run(hook, canonical.clone()));
            }
        }
        let now = Said {
            watched: watched.is_wanted() && !self.closed,
            running: watched.begun || watched.in_turn,
        };
        if std::mem::replace(&mut watched.told, now) != now {
            self.outputs.push(Output::Tell(canonical.clone()));
        }
        if watched.is_unused() {
            self.all.remove(canonical);
        }
    }
}

#[cfg(test)]
mod tests;
