//! Calls that wait for their client to retry, by a handle that is good once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::lane::Lane;
use super::{Cancel, Responder};

/// A retry of the client, as the waiting call gets it.
pub(crate) struct Resume {
    pub(crate) lane: Lane,
    pub(crate) responder: Responder,
    pub(crate) answers: Map<String, Value>,
}

/// What the table knows of a waiting call.
pub(crate) struct Waiting {
    pub(crate) cancel: Cancel,
    pub(crate) resume: oneshot::Sender<Resume>,
}

/// All waiting calls of an engine; at most so many.
#[derive(Clone)]
pub(crate) struct Suspended(Arc<Table>);

struct Table {
    calls: DashMap<[u8; 16], Waiting>,
    count: AtomicUsize,
    max: usize,
}

/// A call's place in the table; dropping it takes the call out.
pub(crate) struct Place {
    table: Suspended,
    handle: [u8; 16],
}

impl Suspended {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Table { calls: DashMap::new(), count: AtomicUsize::new(0), max }))
    }

    /// A place under a new handle; `None` if there is no room.
    pub(crate) fn insert(&self, waiting: Waiting) -> Option<Place> {
        // Taken first and given back by the drop, so that two cannot take the last one.
        if self.0.count.fetch_add(1, Ordering::AcqRel) >= self.0.max {
            self.0.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let mut handle = [0; 16];
        if getrandom::fill(&mut handle).is_err() {
            self.0.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.0.calls.insert(handle, waiting);
        Some(Place { table: self.clone(), handle })
    }

    /// The call that waits under a handle, which is used up by this.
    pub(crate) fn take(&self, handle: &[u8; 16]) -> Option<Waiting> {
        self.0.calls.remove(handle).map(|(_, waiting)| waiting)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }
}

impl Place {
    pub(crate) fn handle(&self) -> [u8; 16] {
        self.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.0.calls.remove(&self.handle);
        self.table.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}
