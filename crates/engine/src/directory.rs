//! Where sessions are found, by transports and by the root: a map of current references.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use ractor::ActorId;

use crate::ids::SessionId;
use crate::session::{EndReason, SessionEntry, SessionView};

/// All sessions of one engine.
#[derive(Debug)]
pub(crate) struct Directory {
    sessions: DashMap<SessionId, Arc<SessionEntry>, RandomState>,
    /// Sessions whose clients went away before they used them, in this order.
    left: Mutex<VecDeque<SessionId>>,
    open: Arc<AtomicUsize>,
    max: usize,
}

/// The right to be one of the sessions that may be open at once.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Directory {
    pub(crate) fn new(max: usize) -> Self {
        Self { sessions: DashMap::default(), left: Mutex::default(), open: Arc::default(), max }
    }

    /// A seat, if one is free.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let seat = Seat(self.open.clone());
        // Taken first and given back by the drop, so that two cannot take the last one.
        (self.open.fetch_add(1, Ordering::AcqRel) < self.max).then_some(seat)
    }

    pub(crate) fn insert(&self, entry: Arc<SessionEntry>) {
        self.sessions.insert(entry.id().clone(), entry);
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        self.sessions.remove(id);
    }

    /// The session with that name, unless it is to end.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<SessionEntry>> {
        let found = self.sessions.get(id).map(|entry| entry.value().clone());
        found.filter(|entry| entry.ending().is_none())
    }

    /// Whether a session of that name is about to go, and does not go on on another node.
    pub(crate) fn is_ending(&self, id: &str) -> bool {
        let ending = self.sessions.get(id).and_then(|entry| entry.ending());
        ending.is_some_and(|reason| reason != EndReason::Moved)
    }

    /// The session whose actor this is, or was. Looks at all of them.
    pub(crate) fn of_actor(&self, id: ActorId) -> Option<Arc<SessionEntry>> {
        let found = self.sessions.iter().find(|entry| entry.is_actor(id));
        found.map(|entry| entry.value().clone())
    }

    /// All sessions as they are now, without those that are to end.
    pub(crate) fn views(&self) -> Vec<SessionView> {
        let mut sessions = self.all();
        sessions.retain(|session| session.ending().is_none());
        sessions.iter().map(|session| session.view()).collect()
    }

    /// All sessions now. Collected first: nobody is called under the map's locks.
    pub(crate) fn all(&self) -> Vec<Arc<SessionEntry>> {
        self.sessions.iter().map(|entry| entry.value().clone()).collect()
    }

    /// A client went away that did not use its session. Returns the one that did so first, if more
    /// than `kept` have.
    pub(crate) fn leave(&self, id: SessionId, kept: usize) -> Option<Arc<SessionEntry>> {
        let oldest = {
            let mut left = self.left.lock();
            left.push_back(id);
            if left.len() > kept { left.pop_front() } else { None }
        };
        self.get(oldest?.as_str())
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}
