//! Which arguments of a type are subscribed to, and the hooks of its author.
//!
//! The [`Machine`] decides what follows. This file gives it its input, runs hooks, and has the other
//! nodes told.

mod machine;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use stentor_engine::NodeId;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::error::EventError;
use crate::event_type::{Definition, Filter, WatchedArguments};
use crate::peers::Peers;
use machine::{Hook, Machine, Output};
pub(crate) use machine::{Members, Said};

/// Polls with so many different arguments are watched at once, of one type with hooks.
const MAX_LEASED: usize = 1_000;

/// The watched arguments of one type.
#[derive(Clone, Debug)]
pub(crate) struct Watches(Arc<Inner>);

struct Inner {
    definition: ArcSwap<Definition>,
    machine: Mutex<Machine<Filter>>,
    peers: Arc<Peers>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watches")
    }
}

/// A stream or a webhook that watches some arguments. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Watching(Option<(Arc<Inner>, Arc<str>)>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some((inner, canonical)) = self.0.take() {
            inner.input(|machine| machine.local(&canonical, |watched| watched.holders -= 1));
        }
    }
}

impl Watches {
    pub(crate) fn new(definition: &Definition, peers: Arc<Peers>) -> Self {
        let machine = Mutex::new(Machine::new(definition.name.clone()));
        let definition = ArcSwap::from_pointee(definition.clone());
        Self(Arc::new(Inner { definition, machine, peers }))
    }

    /// Uses the hooks of this definition from now on. What is watched with those of the one before
    /// ends with the new ones.
    pub(crate) fn redefine(&self, definition: &Definition) {
        self.0.definition.store(Arc::new(definition.clone()));
    }

    pub(crate) fn has_hooks(&self) -> bool {
        let definition = self.0.definition.load();
        definition.on_subscribe.is_some() || definition.on_unsubscribe.is_some()
    }

    /// What is watched, if there are hooks.
    fn hooked(&self) -> Option<&Arc<Inner>> {
        self.has_hooks().then_some(&self.0)
    }

    /// Counts a stream or a webhook.
    pub(crate) fn watch(&self, arguments: &WatchedArguments) -> Watching {
        let Some(inner) = self.hooked() else { return Watching(None) };
        inner.input(|machine| {
            machine.local(&arguments.canonical, |watched| {
                watched.holders += 1;
                watched.value.get_or_insert_with(|| arguments.filter.clone());
            });
        });
        Watching(Some((inner.clone(), arguments.canonical.clone())))
    }

    /// Counts a poll for a while.
    ///
    /// # Errors
    ///
    /// If there are too many different arguments: each makes the author's code begin something.
    pub(crate) fn lease(
        &self,
        arguments: &WatchedArguments,
        time: Duration,
    ) -> Result<(), EventError> {
        let Some(inner) = self.hooked() else { return Ok(()) };
        let until = Instant::now() + time;
        inner.input(|machine| {
            let canonical = &arguments.canonical;
            if machine.wanted() >= MAX_LEASED && !machine.is_wanted(canonical) {
                let limit = "arguments".to_owned();
                return Err(EventError::Exhausted { limit, max: MAX_LEASED });
            }
            machine.local(canonical, |watched| {
                watched.leased = Some(until);
                watched.value.get_or_insert_with(|| arguments.filter.clone());
            });
            Ok(())
        })
    }

    /// Ends the leases that are over.
    pub(crate) fn expire(&self, now: Instant) {
        self.0.input(|machine| {
            machine.local_all(
                |watched| watched.leased.is_some_and(|until| until <= now),
                |watched| watched.leased = None,
            );
        });
    }

    /// Ends all that has begun. Nothing begins any more.
    pub(crate) fn close(&self) {
        self.0.input(Machine::close);
        self.0.input(|machine| machine.local_all(|_| true, |watched| watched.leased = None));
    }

    /// Other nodes that have the type with hooks have come or gone.
    pub(crate) fn members(&self, members: Members) {
        self.0.input(|machine| machine.members(members));
    }

    /// What another node says.
    pub(crate) fn said(&self, from: &NodeId, canonical: &Arc<str>, said: Said) {
        self.0.input(|machine| machine.said(from, canonical, said));
    }

    /// Another node says nothing of any arguments but these. With none of them, it is gone.
    pub(crate) fn says_no_more(&self, from: &NodeId, but: impl Fn(&str) -> bool) {
        self.0.input(|machine| machine.says_no_more(from, but));
    }

    /// All of which this node says something.
    pub(crate) fn says_all(&self) -> Vec<(Arc<str>, Said)> {
        let machine = self.0.machine.lock();
        machine.says_all().map(|(canonical, said)| (canonical.clone(), said)).collect()
    }
}

/// Watches whose type may have ended.
#[derive(Debug)]
pub(crate) struct WeakWatches(Weak<Inner>);

impl WeakWatches {
    /// What this node says of some arguments.
    pub(crate) fn says(&self, canonical: &str) -> Said {
        self.0.upgrade().map(|inner| inner.machine.lock().says(canonical)).unwrap_or_default()
    }
}

impl Inner {
    fn input<R>(self: &Arc<Self>, input: impl FnOnce(&mut Machine<Filter>) -> R) -> R {
        let mut machine = self.machine.lock();
        let result = input(&mut machine);
        for output in machine.outputs() {
            match output {
                Output::Run(hook, canonical) => self.run(&mut machine, hook, canonical),
                Output::Tell(canonical) => {
                    let name = self.definition.load().name.clone();
                    let weak = || WeakWatches(Arc::downgrade(self));
                    self.peers.tell_watch(&name, &canonical, weak);
                }
            }
        }
        result
    }

    fn run(self: &Arc<Self>, machine: &mut Machine<Filter>, hook: Hook, canonical: Arc<str>) {
        // Without a runtime there is nothing any more that a hook could end.
        let Ok(runtime) = Handle::try_current() else { return machine.not_run(&canonical) };
        let definition = self.definition.load_full();
        let hook = match hook {
            Hook::Begin => definition.on_subscribe.clone(),
            Hook::End => definition.on_unsubscribe.clone(),
        };
        let inner = self.clone();
        runtime.spawn(async move {
            let (this, of) = (inner.clone(), canonical.clone());
            let running = async move {
                if let Some(hook) = hook
                    && let Some(filter) = this.filter(&definition, &of)
                {
                    hook(&filter).await;
                }
            };
            if tokio::spawn(running).await.is_err() {
                tracing::error!("a hook of an event type panicked");
            }
            inner.input(|machine| machine.finished(&canonical));
        });
    }

    /// The arguments as the author knows them: as a client of this node gave them, or another node.
    fn filter(&self, definition: &Definition, canonical: &str) -> Option<Filter> {
        let known = self.machine.lock().value(canonical)?.clone();
        if known.is_some() {
            return known;
        }
        let read = serde_json::from_str(canonical).ok();
        let read = read.and_then(|arguments| definition.arguments(Some(arguments)).ok());
        let Some(read) = read else {
            tracing::error!(name = %definition.name, "arguments of another node are not understood");
            return None;
        };
        *self.machine.lock().value(canonical)? = Some(read.filter.clone());
        Some(read.filter)
    }
}
