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

/// So many sessions may be on the list of those that were left although they no longer are.
const STALE: usize = 64;

/// All sessions of one engine.
#[derive(Debug)]
pub(crate) struct Directory {
    sessions: DashMap<SessionId, Arc<SessionEntry>, RandomState>,
    /// Sessions whose clients went away before they used them, in this order, and some for which
    /// that is no longer so.
    left: Mutex<VecDeque<SessionId>>,
    /// For how many it still is.
    unused: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    max: usize,
}

/// A place among the sessions that may be open at once, or among those that nobody uses.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Directory {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            sessions: DashMap::default(),
            left: Mutex::default(),
            unused: Arc::default(),
            open: Arc::default(),
            max,
        }
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
    pub(crate) fn leave(&self, entry: &SessionEntry, kept: usize) -> Option<Arc<SessionEntry>> {
        self.unused.fetch_add(1, Ordering::AcqRel);
        entry.unused(Seat(self.unused.clone()));
        let mut left = self.left.lock();
        left.push_back(entry.id().clone());
        let unused = || self.unused.load(Ordering::Acquire);
        if left.len() > 2 * unused() + STALE {
            left.retain(|id| self.get(id.as_str()).is_some_and(|entry| entry.is_left()));
        }
        while unused() > kept {
            let oldest = self.get(left.pop_front()?.as_str());
            if let Some(oldest) = oldest.filter(|oldest| oldest.count_out()) {
                return Some(oldest);
            }
        }
        None
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}
