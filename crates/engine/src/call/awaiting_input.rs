//! Calls that await input: each waits for its client to retry, under a handle that can be used
//! once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::responder::Responder;
use super::state_token::StateError;
use crate::handler::{CallOutput, Cancel};
use crate::reasons::CancelReason;
use crate::shares::{Share, Shares, Ticket};

/// The handles of so many calls that gave way are kept, so that their clients receive that reason.
const MAX_REMEMBERED: usize = 1_024;

type Handle = [u8; 16];

#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) output: CallOutput,
    pub(crate) responder: Responder,
    pub(crate) answers: Map<String, Value>,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) cancel: Cancel,
    /// What its sender had to have so far.
    pub(crate) needs: Vec<Arc<str>>,
    pub(crate) resume: oneshot::Sender<Resume>,
}

/// All waiting calls of an engine, bounded in number and in bytes. When a bound is exceeded, the
/// oldest call of the largest share gives way.
#[derive(Clone, Debug)]
pub(crate) struct AwaitingInput(Arc<Table>);

#[derive(Debug)]
struct Table {
    entries: Mutex<Entries>,
    max: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Entries {
    shares: Shares<(Handle, Waiting)>,
    tickets: HashMap<Handle, Ticket>,
    gave_way: VecDeque<Handle>,
}

impl Entries {
    fn remove(&mut self, handle: &Handle) -> Option<Waiting> {
        let ticket = self.tickets.remove(handle)?;
        self.shares.remove(ticket).map(|(_, waiting)| waiting)
    }

    fn remember(&mut self, gave_way: Handle) {
        if self.gave_way.len() == MAX_REMEMBERED {
            self.gave_way.pop_front();
        }
        self.gave_way.push_back(gave_way);
    }
}

/// A call's place in the table. Dropping it removes the call.
pub(crate) struct AwaitingPermit {
    table: AwaitingInput,
    handle: Handle,
}

impl AwaitingInput {
    pub(crate) fn new(max: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Table { entries: Mutex::default(), max, max_bytes }))
    }

    /// Adds a call of so many bytes under a new handle. `None` if there is no space for it, even
    /// when others give way.
    pub(crate) fn insert(
        &self,
        share: &Share,
        bytes: usize,
        waiting: Waiting,
    ) -> Option<AwaitingPermit> {
        let mut handle = [0; 16];
        getrandom::fill(&mut handle).ok()?;
        let Table { max, max_bytes, .. } = *self.0;
        let (evicted, inserted) = {
            let mut entries = self.0.entries.lock();
            let ticket = entries.shares.insert(share.clone(), bytes, false, (handle, waiting));
            entries.tickets.insert(handle, ticket);
            let mut evicted = Vec::new();
            while entries.shares.len() > max || entries.shares.cost() > max_bytes {
                let Some(target) = entries.shares.gives_way(share) else { break };
                let Some((target, waiting)) = entries.shares.remove(target.ticket) else { break };
                entries.tickets.remove(&target);
                if target != handle {
                    entries.remember(target);
                    evicted.push(waiting.cancel);
                }
            }
            (evicted, entries.tickets.contains_key(&handle))
        };
        // After the lock: a call that is cancelled removes its own place.
        for cancel in evicted {
            cancel.cancel(CancelReason::GaveWay);
        }
        inserted.then(|| AwaitingPermit { table: self.clone(), handle })
    }

    /// Makes one call give way to a caller with a smaller share, or to its own caller. Returns the
    /// bytes of that call.
    pub(crate) fn give_way(&self, newcomer: &Share) -> Option<usize> {
        let (cost, waiting) = {
            let mut entries = self.0.entries.lock();
            let target = entries.shares.gives_way(newcomer).filter(|it| it.own || it.more)?;
            let (handle, waiting) = entries.shares.remove(target.ticket)?;
            entries.tickets.remove(&handle);
            entries.remember(handle);
            (target.cost, waiting)
        };
        waiting.cancel.cancel(CancelReason::GaveWay);
        Some(cost)
    }

    /// What the sender of the call under a handle had to have so far; none if there is no such call.
    pub(crate) fn needs(&self, handle: &Handle) -> Vec<Arc<str>> {
        let entries = self.0.entries.lock();
        let waiting = entries.tickets.get(handle).and_then(|ticket| entries.shares.get(*ticket));
        waiting.map(|(_, waiting)| waiting.needs.clone()).unwrap_or_default()
    }

    /// Removes the call that waits under a handle; the handle cannot be used again.
    pub(crate) fn take(&self, handle: &Handle) -> Result<Waiting, StateError> {
        let mut entries = self.0.entries.lock();
        entries.remove(handle).ok_or_else(|| match entries.gave_way.contains(handle) {
            true => StateError::GaveWay,
            false => StateError::Expired,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.entries.lock().shares.len()
    }
}

impl AwaitingPermit {
    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for AwaitingPermit {
    fn drop(&mut self) {
        // Dropped after the lock is released: it may be the last part of the call.
        let _waiting = self.table.0.entries.lock().remove(&self.handle);
    }
}
