//! The way of sessions into the store that other nodes claim them from.
//!
//! Who changes a session marks it, and goes on. One task saves what is marked, as it is then: a
//! session is saved once at a time, however often it changes meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use indexmap::IndexMap;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::entry::{EndReason, SessionEntry, SessionKind};
use super::store::{SessionStore, SessionStoreError};
use crate::config::Config;
use crate::core::Core;
use crate::engine::LAST_MOMENT;
use crate::ids::{NodeId, SessionId};

/// Sessions that are saved at once.
const AT_ONCE: usize = 64;

/// How long a store that failed is left alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Saves sessions where other nodes find them.
#[derive(Debug)]
pub(crate) struct Saver {
    pub(crate) store: Arc<dyn SessionStore>,
    node: NodeId,
    marked: Mutex<Marked>,
    news: Notify,
    /// The most that may be marked: as many as may be open. What is not is saved with all others
    /// later, or forgotten by the store in time.
    most: usize,
    keep_for: Duration,
}

#[derive(Debug, Default)]
struct Marked {
    /// In the order in which they were marked.
    waiting: IndexMap<SessionId, Change>,
    /// What is being done to the store now.
    under_way: HashMap<SessionId, Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Saved(Weak<SessionEntry>),
    Ended,
}

impl Saver {
    pub(crate) fn new(config: &Config) -> Option<Self> {
        Some(Self {
            store: config.session_store.clone()?,
            node: config.node.clone(),
            marked: Mutex::default(),
            news: Notify::new(),
            most: config.max_sessions,
            keep_for: config.session_idle_timeout.saturating_mul(2),
        })
    }

    /// A session is to be saved as it is now, or as it will be until then.
    pub(crate) fn changed(&self, entry: &Arc<SessionEntry>) {
        if entry.kind() == SessionKind::Http {
            self.mark(entry.id(), Change::Saved(Arc::downgrade(entry)));
            if entry.is_closed() {
                // It was closed just now, and what that marked is overwritten.
                self.closed(entry, entry.ending().unwrap_or(EndReason::Shutdown));
            }
        }
    }

    /// A session is not here any more.
    pub(crate) fn closed(&self, entry: &SessionEntry, reason: EndReason) {
        if entry.kind() != SessionKind::Http || entry.version().is_none() {
            return;
        }
        match reason {
            // Another node carries it on.
            EndReason::Moved => {
                self.marked.lock().waiting.shift_remove(entry.id());
            }
            EndReason::Shutdown => {}
            _ => self.mark(entry.id(), Change::Ended),
        }
    }

    fn mark(&self, id: &SessionId, change: Change) {
        {
            let mut marked = self.marked.lock();
            if marked.waiting.len() >= self.most && !marked.waiting.contains_key(id) {
                return;
            }
            marked.waiting.insert(id.clone(), change);
        }
        self.news.notify_one();
    }

    /// Whether a session has ended here that the store still has.
    pub(crate) fn has_ended(&self, id: &SessionId) -> bool {
        let marked = self.marked.lock();
        let change = marked.waiting.get(id).or_else(|| marked.under_way.get(id));
        matches!(change, Some(Change::Ended))
    }

    /// Saves what is marked until the engine ends.
    pub(crate) async fn run(core: Weak<Core>, ending: CancellationToken) {
        let Some(first) = core.upgrade() else { return };
        let Some(saver) = first.saver.clone() else { return };
        drop(first);
        // All of them, well before the store may forget them.
        let every = saver.keep_for / 4;
        let mut next_round = Instant::now() + every;
        let mut failed = false;
        loop {
            tokio::select! {
                () = saver.news.notified() => {}
                () = sleep_until(next_round) => {
                    next_round = Instant::now() + every;
                    let Some(core) = core.upgrade() else { return };
                    for entry in core.directory.all() {
                        if entry.version().is_some() {
                            saver.changed(&entry);
                        }
                    }
                }
                () = ending.cancelled() => {
                    // What it takes longer for is saved no more.
                    let _ = timeout(LAST_MOMENT, saver.save_marked(&core)).await;
                    return;
                }
            }
            match saver.save_marked(&core).await {
                Ok(()) if failed => {
                    failed = false;
                    // It may have lost what it had.
                    next_round = Instant::now();
                    crate::log!(info, "sessions are saved again");
                }
                Ok(()) => {}
                Err(error) => {
                    counter!("stentor.session_store.errors").increment(1);
                    if !std::mem::replace(&mut failed, true) {
                        crate::log!(error, %error, "sessions are not saved, and go on without");
                    }
                    tokio::select! {
                        () = sleep(PATIENCE) => saver.news.notify_one(),
                        () = ending.cancelled() => {}
                    }
                }
            }
        }
    }

    async fn save_marked(&self, core: &Weak<Core>) -> Result<(), SessionStoreError> {
        loop {
            let some: Vec<_> = {
                let mut marked = self.marked.lock();
                let count = marked.waiting.len().min(AT_ONCE);
                let some: Vec<_> = marked.waiting.drain(..count).collect();
                marked.under_way = some.iter().cloned().collect();
                some
            };
            if some.is_empty() {
                return Ok(());
            }
            let done = join_all(some.iter().map(|(id, change)| self.write(core, id, change))).await;
            let mut result = Ok(());
            let mut marked = self.marked.lock();
            marked.under_way.clear();
            for ((id, change), done) in some.into_iter().zip(done) {
                if let Err(error) = done {
                    result = Err(error);
                    // Again, unless it has changed meanwhile.
                    marked.waiting.entry(id).or_insert(change);
                }
            }
            drop(marked);
            result?;
        }
    }

    async fn write(
        &self,
        core: &Weak<Core>,
        id: &SessionId,
        change: &Change,
    ) -> Result<(), SessionStoreError> {
        let Change::Saved(entry) = change else { return self.store.remove(&self.node, id).await };
        let Some(entry) = entry.upgrade() else { return Ok(()) };
        let Some(record) = entry.record() else { return Ok(()) };
        if !self.store.save(&self.node, &record, self.keep_for).await? {
            crate::log!(warn, session = ?id, "another node has taken a session");
            if let Some(core) = core.upgrade() {
                entry.end(&core, EndReason::Moved);
            }
        }
        Ok(())
    }
}
