//! The map in which transports and the supervisor find sessions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use ractor::ActorId;

use crate::ids::SessionId;
use crate::principal_limits::PrincipalPermit;
use crate::reasons::{EndReason, SessionKind};
use crate::session::{SessionEntry, SessionView};

/// Outdated entries that the list of left sessions may contain before it is cleaned.
const MAX_OUTDATED: usize = 64;

#[derive(Debug)]
pub(crate) struct Directory {
    sessions: DashMap<SessionId, Arc<SessionEntry>, RandomState>,
    /// Sessions whose clients disconnected before they used them, oldest first. Some entries are
    /// outdated.
    left: Mutex<VecDeque<SessionId>>,
    /// The number of entries that are not outdated.
    unused: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    max: usize,
}

/// One of the sessions that may be open at once, or one of those that count as left.
#[derive(Debug)]
pub(crate) struct SessionPermit {
    open: Arc<AtomicUsize>,
    /// What it is of its principal's limit.
    #[expect(dead_code, reason = "held for its drop")]
    of_principal: PrincipalPermit,
}

impl SessionPermit {
    fn new(open: Arc<AtomicUsize>) -> Self {
        Self { open, of_principal: PrincipalPermit::default() }
    }

    /// Counts it for its principal, too.
    pub(crate) fn of(self, of_principal: PrincipalPermit) -> Self {
        // Taken apart by hand, because it has a destructor.
        let open = self.open.clone();
        open.fetch_add(1, Ordering::AcqRel);
        Self { open, of_principal }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
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

    pub(crate) fn permit(&self) -> Option<SessionPermit> {
        let permit = SessionPermit::new(self.open.clone());
        // Added first and given back by the drop, so that two callers cannot take the last one.
        (self.open.fetch_add(1, Ordering::AcqRel) < self.max).then_some(permit)
    }

    pub(crate) fn insert(&self, entry: Arc<SessionEntry>) {
        self.sessions.insert(entry.id().clone(), entry);
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        self.sessions.remove(id);
    }

    /// The session with that id, unless it is about to end.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<SessionEntry>> {
        let found = self.sessions.get(id).map(|entry| entry.value().clone());
        found.filter(|entry| entry.ending().is_none())
    }

    /// Whether a session with that id is about to end, and does not continue on another node.
    pub(crate) fn is_ending(&self, id: &str) -> bool {
        let ending = self.sessions.get(id).and_then(|entry| entry.ending());
        ending.is_some_and(|reason| reason != EndReason::Moved)
    }

    /// The session that has, or had, this actor. Searches all sessions.
    pub(crate) fn of_actor(&self, id: ActorId) -> Option<Arc<SessionEntry>> {
        let found = self.sessions.iter().find(|entry| entry.is_actor(id));
        found.map(|entry| entry.value().clone())
    }

    /// All sessions now, except those that are about to end.
    pub(crate) fn views(&self) -> Vec<SessionView> {
        let mut sessions = self.all();
        sessions.retain(|session| session.ending().is_none());
        sessions.iter().map(|session| session.view()).collect()
    }

    /// All sessions now. Collected first, so that no other code runs under the locks of the map.
    pub(crate) fn all(&self) -> Vec<Arc<SessionEntry>> {
        self.sessions.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Counts a session as left by its client. Returns the session that was left first, if there
    /// are more than `kept` of them.
    pub(crate) fn leave(&self, entry: &SessionEntry, kept: usize) -> Option<Arc<SessionEntry>> {
        self.unused.fetch_add(1, Ordering::AcqRel);
        entry.count_left(SessionPermit::new(self.unused.clone()));
        let mut left = self.left.lock();
        left.push_back(entry.id().clone());
        let unused = || self.unused.load(Ordering::Acquire);
        if left.len() > 2 * unused() + MAX_OUTDATED {
            left.retain(|id| self.get(id.as_str()).is_some_and(|entry| entry.is_left()));
        }
        while unused() > kept {
            let oldest = self.get(left.pop_front()?.as_str());
            if let Some(oldest) = oldest.filter(|oldest| oldest.uncount_left()) {
                return Some(oldest);
            }
        }
        None
    }

    /// How many sessions of each kind there are, without those that are about to end.
    pub(crate) fn by_kind(&self) -> [(SessionKind, usize); 3] {
        let kinds = [SessionKind::Pipe, SessionKind::Http, SessionKind::Listen];
        let mut counts = kinds.map(|kind| (kind, 0));
        for entry in self.sessions.iter().filter(|entry| entry.ending().is_none()) {
            let count = counts.iter_mut().find(|(kind, _)| *kind == entry.kind());
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        counts
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}
