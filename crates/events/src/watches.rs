//! Which arguments of a type are subscribed to, and the hooks of its author.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::EventError;
use crate::event_type::{Definition, Filter, WatchedArguments};

/// Polls with so many different arguments are watched at once, of one type with hooks.
const MAX_LEASED: usize = 1_000;

/// The watched arguments of one type.
#[derive(Clone, Debug)]
pub(crate) struct Watches(Option<Arc<Inner>>);

struct Inner {
    definition: Definition,
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
        let has_hooks = definition.on_subscribe.is_some() || definition.on_unsubscribe.is_some();
        Self(
            has_hooks.then(|| {
                Arc::new(Inner { definition: definition.clone(), watched: Mutex::default() })
            }),
        )
    }

    /// Counts a stream or a webhook.
    pub(crate) fn watch(&self, arguments: &WatchedArguments) -> Watching {
        let Some(inner) = &self.0 else { return Watching(None) };
        inner.add(arguments);
        inner.change(&arguments.canonical, |watched| watched.holders += 1);
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
        let Some(inner) = &self.0 else { return Ok(()) };
        {
            let watched = inner.watched.lock();
            if watched.len() >= MAX_LEASED && !watched.contains_key(&arguments.canonical) {
                let limit = "arguments".to_owned();
                return Err(EventError::Exhausted { limit, max: MAX_LEASED });
            }
        }
        inner.add(arguments);
        let until = Instant::now() + time;
        inner.change(&arguments.canonical, |watched| watched.leased = Some(until));
        Ok(())
    }

    /// Ends the leases that are over.
    pub(crate) fn expire(&self, now: Instant) {
        let Some(inner) = &self.0 else { return };
        let is_over = |it: &Watched| it.leased.is_some_and(|until| until <= now);
        let watched = inner.watched.lock();
        let over: Vec<_> =
            watched.iter().filter(|(_, it)| is_over(it)).map(|(it, _)| it.clone()).collect();
        drop(watched);
        for canonical in over {
            inner.change(&canonical, |watched| {
                watched.leased = watched.leased.filter(|until| *until > now);
            });
        }
    }
}

impl Inner {
    fn add(&self, arguments: &WatchedArguments) {
        let mut watched = self.watched.lock();
        watched.entry(arguments.canonical.clone()).or_insert_with(|| Watched {
            filter: arguments.filter.clone(),
            holders: 0,
            leased: None,
            begun: false,
            in_turn: false,
        });
    }

    /// Changes what is watched, and runs a hook if it has to.
    fn change(self: &Arc<Self>, canonical: &Arc<str>, change: impl FnOnce(&mut Watched)) {
        let mut all = self.watched.lock();
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
        watched.in_turn = true;
        drop(all);
        let (inner, canonical) = (self.clone(), canonical.clone());
        tokio::spawn(async move { inner.run(&canonical).await });
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
                let hook = match watched.begun {
                    true => &self.definition.on_subscribe,
                    false => &self.definition.on_unsubscribe,
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
