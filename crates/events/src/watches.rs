//! Which arguments of a type are subscribed to, and the hooks of its author.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::error::EventError;
use crate::event_type::{Definition, Filter, WatchedArguments};

/// Polls with so many different arguments are watched at once, of one type with hooks.
const MAX_LEASED: usize = 1_000;

/// The watched arguments of one type.
#[derive(Clone, Debug)]
pub(crate) struct Watches(Arc<Inner>);

struct Inner {
    definition: ArcSwap<Definition>,
    watched: Mutex<HashMap<Arc<str>, Watched>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watches")
    }
}

struct Watched {
    filter: Filter,
    /// Streams and webhooks.
    holders: usize,
    /// Until when polls count.
    leased: Option<Instant>,
    /// Whether `on_subscribe` has run, and `on_unsubscribe` has not.
    begun: bool,
    /// Whether a task runs the hooks.
    in_turn: bool,
}

impl Watched {
    fn is_wanted(&self) -> bool {
        self.holders > 0 || self.leased.is_some()
    }
}

/// A stream or a webhook that watches some arguments. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Watching(Option<(Arc<Inner>, Arc<str>)>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some((inner, canonical)) = self.0.take() {
            inner.change(&canonical, |watched| watched.holders -= 1);
        }
    }
}

impl Watches {
    pub(crate) fn new(definition: &Definition) -> Self {
        let definition = ArcSwap::from_pointee(definition.clone());
        Self(Arc::new(Inner { definition, watched: Mutex::default() }))
    }

    /// Uses the hooks of this definition from now on. What is watched with those of the one before
    /// ends with the new ones.
    pub(crate) fn redefine(&self, definition: &Definition) {
        self.0.definition.store(Arc::new(definition.clone()));
    }

    /// What is watched, if there are hooks.
    fn hooked(&self) -> Option<&Arc<Inner>> {
        let definition = self.0.definition.load();
        let has_hooks = definition.on_subscribe.is_some() || definition.on_unsubscribe.is_some();
        has_hooks.then_some(&self.0)
    }

    /// Counts a stream or a webhook.
    pub(crate) fn watch(&self, arguments: &WatchedArguments) -> Watching {
        let Some(inner) = self.hooked() else { return Watching(None) };
        inner.begin(arguments, |watched| watched.holders += 1);
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
        let watched = inner.watched.lock();
        if watched.len() >= MAX_LEASED && !watched.contains_key(&arguments.canonical) {
            let limit = "arguments".to_owned();
            return Err(EventError::Exhausted { limit, max: MAX_LEASED });
        }
        drop(watched);
        let until = Instant::now() + time;
        inner.begin(arguments, |watched| watched.leased = Some(until));
        Ok(())
    }

    /// Ends the leases that are over, or all of them.
    pub(crate) fn expire(&self, now: Option<Instant>) {
        let inner = &self.0;
        let is_over =
            |it: &Watched| it.leased.is_some_and(|until| now.is_none_or(|now| until <= now));
        let watched = inner.watched.lock();
        let over: Vec<_> =
            watched.iter().filter(|(_, it)| is_over(it)).map(|(it, _)| it.clone()).collect();
        drop(watched);
        for canonical in over {
            inner.change(&canonical, |watched| {
                watched.leased = watched.leased.filter(|_| !is_over(watched));
            });
        }
    }
}

impl Inner {
    /// Changes what is watched, which may be new.
    fn begin(self: &Arc<Self>, arguments: &WatchedArguments, change: impl FnOnce(&mut Watched)) {
        let mut all = self.watched.lock();
        all.entry(arguments.canonical.clone()).or_insert_with(|| Watched {
            filter: arguments.filter.clone(),
            holders: 0,
            leased: None,
            begun: false,
            in_turn: false,
        });
        self.turn(&mut all, &arguments.canonical, change);
    }

    /// Changes what is watched, if it is.
    fn change(self: &Arc<Self>, canonical: &Arc<str>, change: impl FnOnce(&mut Watched)) {
        self.turn(&mut self.watched.lock(), canonical, change);
    }

    /// Changes what is watched, and runs a hook if it has to.
    fn turn(
        self: &Arc<Self>,
        all: &mut HashMap<Arc<str>, Watched>,
        canonical: &Arc<str>,
        change: impl FnOnce(&mut Watched),
    ) {
        let Some(watched) = all.get_mut(canonical) else { return };
        change(watched);
        if watched.in_turn {
            return;
        }
        if watched.is_wanted() == watched.begun {
            if !watched.begun {
                all.remove(canonical);
            }
            return;
        }
        // Without a runtime there is nothing any more that a hook could end.
        let Ok(runtime) = Handle::try_current() else { return };
        watched.in_turn = true;
        let (inner, canonical) = (self.clone(), canonical.clone());
        runtime.spawn(async move { inner.run(&canonical).await });
    }

    /// Runs hooks until what was begun is what is wanted.
    async fn run(&self, canonical: &Arc<str>) {
        loop {
            let hook = {
                let mut all = self.watched.lock();
                let Some(watched) = all.get_mut(canonical) else { return };
                if watched.is_wanted() == watched.begun {
                    watched.in_turn = false;
                    if !watched.begun {
                        all.remove(canonical);
                    }
                    return;
                }
                watched.begun = !watched.begun;
                let definition = self.definition.load();
                let hook = match watched.begun {
                    true => &definition.on_subscribe,
                    false => &definition.on_unsubscribe,
                };
                hook.clone().map(|hook| (hook, watched.filter.clone()))
            };
            // The author's code runs without the lock.
            if let Some((hook, filter)) = hook
                && tokio::spawn(async move { hook(&filter).await }).await.is_err()
            {
                tracing::error!("a hook of an event type panicked");
            }
        }
    }
}
