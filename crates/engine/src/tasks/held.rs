//! Who holds which of the tasks that are kept, and who gives way when the store is full.

use std::sync::Arc;

use parking_lot::Mutex;

use super::store::{TaskRecord, TaskStoreError};
use crate::core::Core;
use crate::ids::TaskId;
use crate::request_budget::CALL_COST;
use crate::shares::{GivesWay, Share, Shares, Ticket};

/// What a task costs beside its bytes: a store is as full with many that are small.
const TASK: usize = 4 * 1024;

/// For a task at most so many times as much gives way as it takes itself: if that is of no use, the
/// store is full of something else.
const ENOUGH: usize = 4;

/// All tasks of this engine that are kept, whether they run or have ended. Those of an engine before
/// it that had ended then are not among them, and stay until they expire.
#[derive(Debug, Default)]
pub(super) struct HeldTasks(Mutex<Shares<Held>>);

#[derive(Debug)]
struct Held {
    id: TaskId,
    expires: Option<u64>,
}

fn cost(record: &TaskRecord) -> usize {
    record.weight().saturating_add(TASK)
}

impl HeldTasks {
    /// A task that runs.
    pub(super) fn enter(&self, share: &Share, record: &TaskRecord) -> Ticket {
        let held = Held { id: record.id.clone(), expires: record.expires_at() };
        self.0.lock().insert(share.clone(), cost(record), true, held)
    }

    /// It takes as much as this from now on, and runs or has ended.
    pub(super) fn change(&self, ticket: Ticket, record: &TaskRecord, runs: bool) {
        self.0.lock().change(ticket, cost(record), runs);
    }

    /// It is not kept.
    pub(super) fn leave(&self, ticket: Ticket) {
        self.0.lock().remove(ticket);
    }

    /// The store has forgotten what has expired by now.
    pub(super) fn sweep(&self, now: u64) {
        self.0.lock().retain(|held| held.expires.is_none_or(|expires| now < expires));
    }

    /// Puts a task into the store. If that is full, tasks of whoever holds the most are forgotten: those
    /// that have ended first, of these the oldest. None that runs is ended for a caller's own task, nor for
    /// one who has no less.
    pub(super) async fn put(
        &self,
        core: &Core,
        share: &Share,
        record: impl Fn() -> TaskRecord,
    ) -> Result<(), TaskStoreError> {
        let store = &core.config.tasks.store;
        let (mut given, mut enough) = (0, None);
        loop {
            let Err(error) = store.put(record()).await else { return Ok(()) };
            if !matches!(error, TaskStoreError::Full) {
                return Err(error);
            }
            let enough = *enough.get_or_insert_with(|| cost(&record()).saturating_mul(ENOUGH));
            let victim = if given < enough { self.take_victim(share) } else { None };
            let Some((id, cost)) = victim else { return Err(error) };
            given += cost;
            let live = core.tasks.live.get(&id).map(|task| task.value().clone());
            if let Some(live) = live {
                live.give_way();
            }
            store.forget(&id).await?;
        }
    }

    /// A task that runs gives way to a caller who has less; returns how many bytes it takes at least.
    pub(super) fn give_way(&self, core: &Arc<Core>, newcomer: &Share) -> Option<usize> {
        let Held { id, .. } = {
            let mut shares = self.0.lock();
            let victim = shares.busy_gives_way(newcomer)?;
            shares.remove(victim.ticket)?
        };
        let live = core.tasks.live.get(&id).map(|task| task.value().clone());
        if let Some(live) = live {
            live.give_way();
        }
        let core = core.clone();
        tokio::spawn(async move {
            if let Err(error) = core.config.tasks.store.forget(&id).await {
                crate::log!(error, %error, "a task that gave way could not be forgotten");
            }
        });
        Some(CALL_COST)
    }

    /// The task that gives way, and what it costs.
    fn take_victim(&self, newcomer: &Share) -> Option<(TaskId, usize)> {
        let mut shares = self.0.lock();
        let GivesWay { ticket, cost, busy, own, more } = shares.gives_way(newcomer)?;
        if busy && (own || !more) {
            return None;
        }
        shares.remove(ticket).map(|held| (held.id, cost))
    }
}
