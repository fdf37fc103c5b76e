//! Calls that wait for their client to retry, by a handle that is good once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::lane::Lane;
use super::seal::StateError;
use super::{Cancel, CancelReason, Responder};
use crate::shares::{Share, Shares, Ticket};

/// Of so many calls that gave way it is known, so that their clients are told.
const REMEMBERED: usize = 1_024;

type Handle = [u8; 16];

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

/// All waiting calls of an engine: at most so many, and bytes of them. For one more the oldest of
/// whoever has the most gives way.
#[derive(Clone)]
pub(crate) struct Suspended(Arc<Table>);

struct Table {
    calls: Mutex<Calls>,
    max: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Calls {
    shares: Shares<(Handle, Waiting)>,
    tickets: HashMap<Handle, Ticket>,
    gave_way: VecDeque<Handle>,
}

impl Calls {
    fn remove(&mut self, handle: &Handle) -> Option<Waiting> {
        let ticket = self.tickets.remove(handle)?;
        self.shares.remove(ticket).map(|(_, waiting)| waiting)
    }

    fn remember(&mut self, gave_way: Handle) {
        if self.gave_way.len() == REMEMBERED {
            self.gave_way.pop_front();
        }
        self.gave_way.push_back(gave_way);
    }
}

/// A call's place in the table; dropping it takes the call out.
pub(crate) struct Place {
    table: Suspended,
    handle: Handle,
}

impl Suspended {
    pub(crate) fn new(max: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Table { calls: Mutex::default(), max, max_bytes }))
    }

    /// A place under a new handle, for a call that takes so many bytes. `None` if there is no
    /// room, also when others give way.
    pub(crate) fn insert(&self, share: &Share, bytes: usize, waiting: Waiting) -> Option<Place> {
        let mut handle = [0; 16];
        getrandom::fill(&mut handle).ok()?;
        let Table { max, max_bytes, .. } = *self.0;
        let (gone, entered) = {
            let mut calls = self.0.calls.lock();
            let ticket = calls.shares.insert(share.clone(), bytes, false, (handle, waiting));
            calls.tickets.insert(handle, ticket);
            let mut gone = Vec::new();
            while calls.shares.len() > max || calls.shares.cost() > max_bytes {
                let Some(victim) = calls.shares.gives_way(share) else { break };
                let Some((victim, waiting)) = calls.shares.remove(victim.ticket) else { break };
                calls.tickets.remove(&victim);
                if victim != handle {
                    calls.remember(victim);
                    gone.push(waiting.cancel);
                }
            }
            (gone, calls.tickets.contains_key(&handle))
        };
        // Not while it is locked: who is told takes its place out.
        for cancel in gone {
            cancel.cancel(CancelReason::GaveWay);
        }
        entered.then(|| Place { table: self.clone(), handle })
    }

    /// One call gives way to a caller who has less, or is his own; returns how many bytes it takes.
    pub(crate) fn give_way(&self, newcomer: &Share) -> Option<usize> {
        let (cost, waiting) = {
            let mut calls = self.0.calls.lock();
            let victim = calls.shares.gives_way(newcomer).filter(|it| it.own || it.more)?;
            let (handle, waiting) = calls.shares.remove(victim.ticket)?;
            calls.tickets.remove(&handle);
            calls.remember(handle);
            (victim.cost, waiting)
        };
        waiting.cancel.cancel(CancelReason::GaveWay);
        Some(cost)
    }

    /// The call that waits under a handle, which is used up by this.
    pub(crate) fn take(&self, handle: &Handle) -> Result<Waiting, StateError> {
        let mut calls = self.0.calls.lock();
        calls.remove(handle).ok_or_else(|| match calls.gave_way.contains(handle) {
            true => StateError::GaveWay,
            false => StateError::Expired,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.calls.lock().shares.len()
    }
}

impl Place {
    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Dropped after the lock: it may be all that is left of the call.
        let _waiting = self.table.0.calls.lock().remove(&self.handle);
    }
}
