//! Saves sessions in the store from which other nodes take them over.
//!
//! Code that changes a session marks it, and does not wait. One task saves the marked sessions, in
//! the state that they have then: one save of a session at a time, however often it changes
//! meanwhile.

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

use super::entry::SessionEntry;
use super::sessions::{SessionConfig, Sessions};
use super::store::{SessionStore, SessionStoreError};
use crate::ids::{NodeId, SessionId};
use crate::lifecycle::CANCEL_GRACE;
use crate::reasons::{EndReason, SessionKind};

const BATCH_SIZE: usize = 64;

const RETRY_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Saver {
    pub(crate) store: Arc<dyn SessionStore>,
    node: NodeId,
    marked: Mutex<Marked>,
    wake: Notify,
    /// The most sessions that may be marked: as many as may be open. A session that is not marked
    /// is saved with all others later, or expires in the store.
    max_marked: usize,
    keep_for: Duration,
}

#[derive(Debug, Default)]
struct Marked {
    waiting: IndexMap<SessionId, Change>,
    being_written: HashMap<SessionId, Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Saved(Weak<SessionEntry>),
    Ended,
}

impl Saver {
    pub(crate) fn new(config: &SessionConfig, node: &NodeId) -> Option<Self> {
        Some(Self {
            store: config.store.clone()?,
            node: node.clone(),
            marked: Mutex::default(),
            wake: Notify::new(),
            max_marked: config.max_sessions,
            keep_for: config.idle_timeout.saturating_mul(2),
        })
    }

    /// Marks a session to be saved, in the state that it has when it is written.
    pub(crate) fn changed(&self, entry: &Arc<SessionEntry>) {
        if entry.kind() == SessionKind::Http {
            self.mark(entry.id(), Change::Saved(Arc::downgrade(entry)));
            if entry.is_closed() {
                // The session closed just now, and its mark from that is overwritten.
                self.closed(entry, entry.ending().unwrap_or(EndReason::Shutdown));
            }
        }
    }

    /// Marks a session that is not on this node any more.
    pub(crate) fn closed(&self, entry: &SessionEntry, reason: EndReason) {
        if entry.kind() != SessionKind::Http || entry.version().is_none() {
            return;
        }
        match reason {
            // Another node continues it.
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
            if marked.waiting.len() >= self.max_marked && !marked.waiting.contains_key(id) {
                return;
            }
            marked.waiting.insert(id.clone(), change);
        }
        self.wake.notify_one();
    }

    /// Whether a session has ended on this node while the store still has it.
    pub(crate) fn has_ended(&self, id: &SessionId) -> bool {
        let marked = self.marked.lock();
        let change = marked.waiting.get(id).or_else(|| marked.being_written.get(id));
        matches!(change, Some(Change::Ended))
    }

    pub(crate) async fn run(sessions: Weak<Sessions>, ending: CancellationToken) {
        let Some(first) = sessions.upgrade() else { return };
        let Some(saver) = first.saver.clone() else { return };
        drop(first);
        // All sessions are saved again well before the store may expire them.
        let interval = saver.keep_for / 4;
        let mut next_round = Instant::now() + interval;
        let mut failed = false;
        loop {
            tokio::select! {
                () = saver.wake.notified() => {}
                () = sleep_until(next_round) => {
                    next_round = Instant::now() + interval;
                    let Some(sessions) = sessions.upgrade() else { return };
                    for entry in sessions.directory.all() {
                        if entry.version().is_some() {
                            saver.changed(&entry);
                        }
                    }
                }
                () = ending.cancelled() => {
                    // What takes longer than this is not saved.
                    let _ = timeout(CANCEL_GRACE, saver.save_marked(&sessions)).await;
                    return;
                }
            }
            match saver.save_marked(&sessions).await {
                Ok(()) if failed => {
                    failed = false;
                    // The store may have lost its content, so all sessions are saved again.
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
                        () = sleep(RETRY_DELAY) => saver.wake.notify_one(),
                        () = ending.cancelled() => {}
                    }
                }
            }
        }
    }

    async fn save_marked(&self, sessions: &Weak<Sessions>) -> Result<(), SessionStoreError> {
        loop {
            let batch: Vec<_> = {
                let mut marked = self.marked.lock();
                let count = marked.waiting.len().min(BATCH_SIZE);
                let batch: Vec<_> = marked.waiting.drain(..count).collect();
                marked.being_written = batch.iter().cloned().collect();
                batch
            };
            if batch.is_empty() {
                return Ok(());
            }
            let done =
                join_all(batch.iter().map(|(id, change)| self.write(sessions, id, change))).await;
            let mut result = Ok(());
            let mut marked = self.marked.lock();
            marked.being_written.clear();
            for ((id, change), done) in batch.into_iter().zip(done) {
                if let Err(error) = done {
                    result = Err(error);
                    // Marked again, unless the session has changed meanwhile.
                    marked.waiting.entry(id).or_insert(change);
                }
            }
            drop(marked);
            result?;
        }
    }

    async fn write(
        &self,
        sessions: &Weak<Sessions>,
        id: &SessionId,
        change: &Change,
    ) -> Result<(), SessionStoreError> {
        let Change::Saved(entry) = change else { return self.store.remove(&self.node, id).await };
        let Some(entry) = entry.upgrade() else { return Ok(()) };
        let Some(record) = entry.record() else { return Ok(()) };
        if !self.store.save(&self.node, &record, self.keep_for).await? {
            crate::log!(warn, session = ?id, "another node has taken a session");
            if let Some(sessions) = sessions.upgrade() {
                entry.end(&sessions, EndReason::Moved);
            }
        }
        Ok(())
    }
}
