//! The tables of the file.

use redb::{
    ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction,
};

use crate::ids::TaskId;
use crate::tasks::{TaskRecord, TaskStoreError};

/// By id: the time of expiry, the counted bytes, and the JSON.
pub(super) const TASKS: TableDefinition<'_, &str, (Option<u64>, u64, &[u8])> =
    TableDefinition::new("tasks");
/// The ids of tasks that have not ended, so that a start need not read all tasks.
pub(super) const UNFINISHED: TableDefinition<'_, &str, ()> = TableDefinition::new("unfinished");
/// The times of expiry in order, with the ids, so that a sweep need not read all tasks.
const EXPIRY: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiry");
/// Values for the file as a whole.
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("stentor");

/// In [`ABOUT`]: the version of the tables.
pub(super) const FORMAT: &str = "format";
pub(super) const THIS_FORMAT: u64 = 1;
/// In [`ABOUT`]: the counted bytes of all tasks. Their number is the length of the table.
const BYTES: &str = "bytes";

/// How many tasks one commit forgets at most.
pub(super) const SWEEP: usize = 1_000;

#[derive(Debug)]
pub(super) struct Entry {
    id: TaskId,
    expires: Option<u64>,
    weight: u64,
    ended: bool,
    json: Vec<u8>,
}

impl Entry {
    pub(super) fn new(task: &TaskRecord) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: task.id.clone(),
            expires: task.expires_at(),
            weight: u64::try_from(task.weight()).unwrap_or(u64::MAX),
            ended: task.status.is_terminal(),
            json: serde_json::to_vec(task)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

pub(super) struct Tables<'t> {
    tasks: Table<'t, &'static str, (Option<u64>, u64, &'static [u8])>,
    unfinished: Table<'t, &'static str, ()>,
    expiry: Table<'t, (u64, &'static str), ()>,
    pub(super) about: Table<'t, &'static str, u64>,
    bytes: u64,
    changed: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let about = transaction.open_table(ABOUT)?;
        let bytes = about.get(BYTES)?.map_or(0, |bytes| bytes.value());
        Ok(Self {
            tasks: transaction.open_table(TASKS)?,
            unfinished: transaction.open_table(UNFINISHED)?,
            expiry: transaction.open_table(EXPIRY)?,
            about,
            bytes,
            changed: false,
        })
    }

    /// Ends the changes. Returns whether there is something to commit.
    pub(super) fn close(mut self) -> Result<bool, redb::Error> {
        if self.changed {
            self.about.insert(BYTES, self.bytes)?;
        }
        Ok(self.changed)
    }

    pub(super) fn put(
        &mut self,
        entry: &Entry,
        bounds: Bounds,
    ) -> Result<Result<usize, TaskStoreError>, redb::Error> {
        let id = entry.id.as_str();
        let before = self.tasks.get(id)?.map(|found| (found.value().0, found.value().1));
        let bytes = self.bytes.saturating_sub(before.map_or(0, |(_, weight)| weight));
        let bytes = bytes.saturating_add(entry.weight);
        let too_many = before.is_none() && self.tasks.len()? >= bounds.count;
        if too_many || (bytes > self.bytes && bytes > bounds.bytes) {
            return Ok(Err(TaskStoreError::Full));
        }
        self.tasks.insert(id, (entry.expires, entry.weight, &*entry.json))?;
        match entry.ended {
            true => drop(self.unfinished.remove(id)?),
            false => drop(self.unfinished.insert(id, ())?),
        }
        let expired = before.and_then(|(expires, _)| expires);
        if expired != entry.expires
            && let Some(expires) = expired
        {
            self.expiry.remove((expires, id))?;
        }
        if let Some(expires) = entry.expires {
            self.expiry.insert((expires, id), ())?;
        }
        self.bytes = bytes;
        self.changed = true;
        Ok(Ok(1))
    }

    pub(super) fn forget(&mut self, id: &TaskId) -> Result<usize, redb::Error> {
        let id = id.as_str();
        let Some((expires, weight)) = self.tasks.remove(id)?.map(|found| {
            let (expires, weight, _) = found.value();
            (expires, weight)
        }) else {
            return Ok(0);
        };
        self.unfinished.remove(id)?;
        if let Some(expires) = expires {
            self.expiry.remove((expires, id))?;
        }
        self.bytes = self.bytes.saturating_sub(weight);
        self.changed = true;
        Ok(1)
    }

    pub(super) fn sweep(&mut self, now: u64) -> Result<usize, redb::Error> {
        let mut expired = Vec::new();
        for entry in self.expiry.iter()?.take(SWEEP) {
            let entry = entry?.0;
            let (expires, id) = entry.value();
            if expires > now {
                break;
            }
            expired.push((expires, id.to_owned()));
        }
        for (expires, id) in &expired {
            self.expiry.remove((*expires, &**id))?;
            self.unfinished.remove(&**id)?;
            if let Some(task) = self.tasks.remove(&**id)? {
                self.bytes = self.bytes.saturating_sub(task.value().1);
            }
        }
        self.changed |= !expired.is_empty();
        Ok(expired.len())
    }
}
