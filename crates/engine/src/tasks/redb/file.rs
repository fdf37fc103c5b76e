//! The open file: reads one after the other, changes in batches. All functions here block.

use parking_lot::RwLock;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use tokio::sync::oneshot;

use super::open::{Opener, TaskFileError, claim};
use super::tables::{Bounds, Entry, TASKS, Tables, UNFINISHED};
use crate::ids::TaskId;
use crate::tasks::{TaskRecord, TaskStoreError};

pub(super) type Reply<A> = oneshot::Sender<Result<A, TaskStoreError>>;

#[derive(Debug)]
pub(super) enum Write {
    Put(Entry, Reply<()>),
    Forget(TaskId, Reply<()>),
    /// Forgets at most [`SWEEP`](super::tables::SWEEP) tasks that have expired at this time, in
    /// milliseconds since 1970.
    Sweep(u64, Reply<usize>),
}

#[derive(Debug)]
pub(super) enum Read {
    Get(TaskId, Reply<Option<Vec<u8>>>),
    Unfinished(Reply<Vec<TaskRecord>>),
}

pub(super) fn decode(json: &[u8]) -> Result<TaskRecord, TaskStoreError> {
    serde_json::from_slice(json).map_err(|error| TaskStoreError::Failed(error.into()))
}

fn failed(error: &redb::Error) -> TaskStoreError {
    TaskStoreError::Failed(error.to_string().into())
}

pub(super) struct File {
    opener: Opener,
    bounds: Bounds,
    /// Locked for writing only to open it again; `None` if that has failed.
    db: RwLock<Option<Database>>,
}

impl File {
    pub(super) fn open(opener: Opener, bounds: Bounds) -> Result<Self, TaskFileError> {
        let db = opener()?;
        claim(&db)?;
        Ok(Self { opener, bounds, db: RwLock::new(Some(db)) })
    }

    /// Makes all changes of a batch in one commit, then replies.
    pub(super) fn write(&self, batch: Vec<Write>) {
        let done = self.commit(&batch);
        if let Err(error) = &done {
            crate::log!(error, %error, "a commit of tasks failed");
            self.open_again();
        }
        let mut done = done.map(Vec::into_iter);
        for job in batch {
            let outcome = match &mut done {
                Ok(outcomes) => outcomes.next().unwrap_or(Err(TaskStoreError::Full)),
                Err(error) => Err(failed(error)),
            };
            // Fails if the caller no longer waits.
            match job {
                Write::Put(_, reply) | Write::Forget(_, reply) => {
                    drop(reply.send(outcome.map(drop)))
                }
                Write::Sweep(_, reply) => drop(reply.send(outcome)),
            }
        }
    }

    fn commit(&self, batch: &[Write]) -> Result<Vec<Result<usize, TaskStoreError>>, redb::Error> {
        let db = self.db.read();
        let db = db.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let transaction = db.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        let outcomes = batch.iter().map(|job| match job {
            Write::Put(entry, _) => tables.put(entry, self.bounds),
            Write::Forget(id, _) => tables.forget(id).map(Ok),
            Write::Sweep(now, _) => tables.sweep(*now).map(Ok),
        });
        let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
        // A sweep that finds nothing costs no fsync.
        match tables.close()? {
            true => transaction.commit()?,
            false => transaction.abort()?,
        }
        Ok(outcomes)
    }

    /// After an error, such as a full disk, a database refuses everything until it is opened again.
    fn open_again(&self) {
        let mut db = self.db.write();
        *db = None;
        match (self.opener)() {
            Ok(opened) => *db = Some(opened),
            Err(error) => crate::log!(error, %error, "the file of tasks could not be opened again"),
        }
    }

    pub(super) fn read(&self, job: Read) {
        // Fails if the caller no longer waits.
        match job {
            Read::Get(id, reply) => {
                drop(reply.send(self.get(&id).map_err(|error| failed(&error))));
            }
            Read::Unfinished(reply) => {
                let found = self.unfinished().map_err(|error| failed(&error));
                let decode = |found: Vec<Vec<u8>>| found.iter().map(|json| decode(json)).collect();
                drop(reply.send(found.and_then(decode)));
            }
        }
    }

    fn get(&self, id: &TaskId) -> Result<Option<Vec<u8>>, redb::Error> {
        let db = self.db.read();
        let db = db.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let tasks = db.begin_read()?.open_table(TASKS)?;
        Ok(tasks.get(id.as_str())?.map(|found| found.value().2.to_vec()))
    }

    fn unfinished(&self) -> Result<Vec<Vec<u8>>, redb::Error> {
        let db = self.db.read();
        let db = db.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let transaction = db.begin_read()?;
        let tasks = transaction.open_table(TASKS)?;
        let mut all = Vec::new();
        for id in transaction.open_table(UNFINISHED)?.iter()? {
            let task = tasks.get(id?.0.value())?;
            all.extend(task.map(|found| found.value().2.to_vec()));
        }
        Ok(all)
    }
}
