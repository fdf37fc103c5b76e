//! Tasks in a file, which survive the process.
//!
//! Two threads serve the file, each with a bounded queue. The writer puts all changes that gathered
//! during one commit into the next commit, so that many puts share one fsync. The reader reads from
//! the last commit, and so does not wait for the disk. Neither is a thread of the runtime, whose
//! queue for blocking work has no bound.

mod file;
mod open;
mod tables;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::store::{TaskRecord, TaskStore, TaskStoreError};
use crate::ids::TaskId;
use file::{File, Read, Write};
pub use open::TaskFileError;
use tables::{Bounds, Entry, SWEEP};
use worker::Worker;

/// Keeps tasks in a file, with [`redb`](https://docs.rs/redb). They survive the process, in
/// whatever way it ends, and a crash of the machine.
///
/// On Unix only the user of the process may read the file: it is created with mode 0600, and a file
/// that others may read or write loses these rights when it is opened. The tasks in the file are
/// not encrypted.
///
/// A task that was put is on the disk. Dropping the store closes the file, and waits until the last
/// commit is done.
#[derive(Debug)]
pub struct RedbTaskStore {
    writer: Worker<Write>,
    reader: Worker<Read>,
}

impl RedbTaskStore {
    /// Opens or creates a file, for at most 100,000 tasks and 1 GiB of them.
    ///
    /// The whole file is read once, to check that it is not damaged.
    ///
    /// # Errors
    ///
    /// [`TaskFileError`]; a file can be open in one process at a time.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, TaskFileError> {
        Self::open_with(path, 100_000, 1024 * 1024 * 1024).await
    }

    /// As [`open`](Self::open), for at most so many tasks, and bytes of them. A stored task may
    /// always be replaced by one that takes no more space. The file itself takes up to a few times
    /// as much.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with(
        path: impl Into<PathBuf>,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Self, TaskFileError> {
        let bound = |max: usize| u64::try_from(max).unwrap_or(u64::MAX);
        let bounds = Bounds { count: bound(max_count), bytes: bound(max_bytes) };
        let path = path.into();
        let opener = open::opener(path.clone());
        Self::start(move || {
            let file = File::open(opener, bounds)?;
            open::keep_private(&path);
            Ok(file)
        })
        .await
    }

    async fn start(
        open: impl FnOnce() -> Result<File, TaskFileError> + Send + 'static,
    ) -> Result<Self, TaskFileError> {
        let (ready, opened) = oneshot::channel();
        let writer = Worker::start("stentor-tasks-w", move |mut jobs| {
            let file = open().map(Arc::new);
            let own = file.as_ref().ok().cloned();
            // If nobody waits for the file any more, nobody sends jobs either.
            let _ = ready.send(file);
            let Some(file) = own else { return };
            let mut batch = Vec::new();
            while jobs.blocking_recv_many(&mut batch, worker::QUEUE) > 0 {
                file.write(std::mem::take(&mut batch));
            }
        })?;
        // The sender is dropped without a result if the thread has panicked.
        let damaged = |_| TaskFileError::Damaged("opening it panics".to_owned());
        let file = opened.await.map_err(damaged)??;
        let reader = Worker::start("stentor-tasks-r", move |mut jobs| {
            while let Some(job) = jobs.blocking_recv() {
                file.read(job);
            }
        })?;
        Ok(Self { writer, reader })
    }
}

impl TaskStore for RedbTaskStore {
    fn put(&self, task: TaskRecord) -> BoxFuture<'_, Result<(), TaskStoreError>> {
        async move {
            let entry = Entry::new(&task).map_err(|error| TaskStoreError::Failed(error.into()))?;
            self.writer.ask(|reply| Write::Put(entry, reply)).await
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<TaskRecord>, TaskStoreError>> {
        async move {
            let json = self.reader.ask(|reply| Read::Get(id.clone(), reply)).await?;
            json.map(|json| file::decode(&json)).transpose()
        }
        .boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskRecord>, TaskStoreError>> {
        self.reader.ask(Read::Unfinished).boxed()
    }

    fn forget<'a>(&'a self, id: &'a TaskId) -> BoxFuture<'a, Result<(), TaskStoreError>> {
        self.writer.ask(|reply| Write::Forget(id.clone(), reply)).boxed()
    }

    fn sweep(&self, now: u64) -> BoxFuture<'_, Result<usize, TaskStoreError>> {
        async move {
            let mut forgotten = 0;
            loop {
                // Some tasks at a time, so that puts are served in between.
                let count = self.writer.ask(|reply| Write::Sweep(now, reply)).await?;
                forgotten += count;
                if count < SWEEP {
                    return Ok(forgotten);
                }
            }
        }
        .boxed()
    }
}
