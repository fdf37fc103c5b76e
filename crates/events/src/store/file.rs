//! Webhooks and logs in a file, which survive the process.
//!
//! One thread serves the file, with a bounded queue. It puts all changes that gathered during one
//! commit into the next one, so that many share one fsync.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::HashMap;
use futures::future::{BoxFuture, FutureExt as _};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::sealed::StoreKey;
use super::{EventsStore, StoreError, StoredOccurrence, StoredWebhook};

const WEBHOOKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhooks");
const LOGS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("logs");

/// How many bytes of the file are cached in memory.
const CACHE: usize = 8 << 20;
/// Changes that may wait for the thread.
const QUEUE: usize = 1_024;

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsFileError {
    /// The file is open already, is damaged, or is another kind of file.
    #[error("the file of events could not be opened: {0}")]
    File(String),
    /// The operating system refused to open the file.
    #[error("the file of events could not be opened: {0}")]
    Io(#[from] io::Error),
}

enum Job {
    Put(Vec<(String, Vec<u8>)>, Reply<()>),
    Remove(Vec<String>, Reply<()>),
    Append(Arc<str>, Vec<u8>, usize, Reply<()>),
    Load(Reply<Vec<(String, Vec<u8>)>>),
    Read(String, Reply<Vec<Vec<u8>>>),
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Keeps webhooks and logs in a file, with [`redb`](https://docs.rs/redb). They survive the process, in
/// whatever way it ends, and a crash of the machine. Webhooks are encrypted, logs are not. On Unix only
/// the user of the process may read the file.
#[derive(Debug)]
pub struct RedbEventsStore {
    jobs: mpsc::Sender<Job>,
    key: StoreKey,
}

impl RedbEventsStore {
    /// Opens or creates a file.
    ///
    /// # Errors
    ///
    /// [`EventsFileError`]; a file can be open in one process at a time.
    pub async fn open(path: impl Into<PathBuf>, key: StoreKey) -> Result<Self, EventsFileError> {
        let (path, (opened, is_open)) = (path.into(), oneshot::channel());
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("stentor-events".to_owned()).spawn(move || {
            let mut file = match File::open(path) {
                Ok(file) => file,
                Err(error) => {
                    // Nobody may wait any more.
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let _ = opened.send(Ok(()));
            let mut batch = Vec::new();
            while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
                file.serve(std::mem::take(&mut batch));
            }
        })?;
        let damaged = |_| EventsFileError::File("opening it panics".to_owned());
        is_open.await.map_err(damaged)??;
        Ok(Self { jobs, key })
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError("the thread of the file has ended".to_owned());
        self.jobs.send(job(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl EventsStore for RedbEventsStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let sealed = self.key.seal_all(&webhooks)?;
            self.ask(|reply| Job::Put(sealed, reply)).await
        }
        .boxed()
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|reply| Job::Remove(ids, reply)).boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>> {
        async move {
            let sealed = self.ask(Job::Load).await?;
            sealed.iter().map(|(id, sealed)| self.key.open_webhook(id, sealed)).collect()
        }
        .boxed()
    }

    fn append(
        &self,
        occurrence: StoredOccurrence,
        keep: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let json = serde_json::to_vec(&occurrence);
            let json = json.map_err(|error| StoreError(error.to_string()))?;
            let name = occurrence.event_type().into();
            self.ask(|reply| Job::Append(name, json, keep, reply)).await
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        event_type: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredOccurrence>, StoreError>> {
        async move {
            let log = self.ask(|reply| Job::Read(event_type.to_owned(), reply)).await?;
            let read = log.iter().map(|json| serde_json::from_slice(json));
            read.collect::<Result<_, _>>().map_err(|error| StoreError(error.to_string()))
        }
        .boxed()
    }
}

/// The file, for its thread.
struct File {
    database: Database,
    /// By type: the number after the last occurrence, and how many are kept.
    logs: HashMap<Arc<str>, (u64, usize)>,
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError(error.into().to_string())
}

impl File {
    fn open(path: PathBuf) -> Result<Self, EventsFileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let other = |error: redb::Error| EventsFileError::File(error.to_string());
        let backend = FileBackend::new(file).map_err(|error| other(error.into()))?;
        let mut builder = Database::builder();
        // Without this check, a damaged file causes a panic later.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(backend).map_err(|error| other(error.into()))?;
        let mut file = Self { database, logs: HashMap::default() };
        file.count().map_err(|error| EventsFileError::File(error.0))?;
        Ok(file)
    }

    /// Creates the tables, and counts what is in the logs.
    fn count(&mut self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        {
            write.open_table(WEBHOOKS).map_err(failed)?;
            let logs = write.open_table(LOGS).map_err(failed)?;
            for entry in logs.iter().map_err(failed)? {
                let (key, _) = entry.map_err(failed)?;
                let (name, number) = key.value();
                let (next, count) = self.logs.entry(name.into()).or_default();
                (*next, *count) = (number + 1, *count + 1);
            }
        }
        write.commit().map_err(failed)
    }

    /// Does all these jobs with one commit.
    fn serve(&mut self, jobs: Vec<Job>) {
        let (mut changes, mut replies) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Load(reply) => {
                    let _ = reply.send(self.load());
                }
                Job::Read(name, reply) => {
                    let _ = reply.send(self.read(&name));
                }
                Job::Put(webhooks, reply) => {
                    changes.push(Change::Put(webhooks));
                    replies.push(reply);
                }
                Job::Remove(ids, reply) => {
                    changes.push(Change::Remove(ids));
                    replies.push(reply);
                }
                Job::Append(name, json, keep, reply) => {
                    changes.push(Change::Append(name, json, keep));
                    replies.push(reply);
                }
            }
        }
        if replies.is_empty() {
            return;
        }
        let before = self.logs.clone();
        let written = self.write(changes);
        if written.is_err() {
            self.logs = before;
        }
        for reply in replies {
            let _ = reply.send(written.clone());
        }
    }

    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut webhooks = write.open_table(WEBHOOKS).map_err(failed)?;
            let mut logs = write.open_table(LOGS).map_err(failed)?;
            for change in changes {
                match change {
                    Change::Put(put) => {
                        for (id, sealed) in put {
                            webhooks.insert(&*id, &*sealed).map_err(failed)?;
                        }
                    }
                    Change::Remove(ids) => {
                        for id in ids {
                            webhooks.remove(&*id).map_err(failed)?;
                        }
                    }
                    Change::Append(name, json, keep) => {
                        let (next, count) = self.logs.entry(name.clone()).or_default();
                        logs.insert((&*name, *next), &*json).map_err(failed)?;
                        (*next, *count) = (*next + 1, *count + 1);
                        while *count > keep.max(1) {
                            let oldest = *next - *count as u64;
                            logs.remove((&*name, oldest)).map_err(failed)?;
                            *count -= 1;
                        }
                    }
                }
            }
        }
        write.commit().map_err(failed)
    }

    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(WEBHOOKS).map_err(failed)?;
        let mut all = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (id, sealed) = entry.map_err(failed)?;
            all.push((id.value().to_owned(), sealed.value().to_vec()));
        }
        Ok(all)
    }

    fn read(&self, name: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(LOGS).map_err(failed)?;
        let mut log = Vec::new();
        for entry in table.range((name, 0)..=(name, u64::MAX)).map_err(failed)? {
            let (_, json) = entry.map_err(failed)?;
            log.push(json.value().to_vec());
        }
        Ok(log)
    }
}

enum Change {
    Put(Vec<(String, Vec<u8>)>),
    Remove(Vec<String>),
    Append(Arc<str>, Vec<u8>, usize),
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::cursor::tests::origin;
    use crate::error::Numbers;
    use crate::occurrence::Occurrence;
    use crate::webhook::SubscriptionKey;

    fn webhook(name: &str) -> StoredWebhook {
        let key = SubscriptionKey::new("ann".into(), "https://a.example/h", name.into(), None);
        StoredWebhook {
            key: key.unwrap(),
            identity: None,
            numbers: Numbers::Draft,
            secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            previous: None,
            expires: None,
            watermark: String::new(),
            paused: false,
        }
    }

    fn occurrence(seq: u64) -> StoredOccurrence {
        let data = Bytes::from_static(br#"{"a":1}"#);
        let it = Occurrence::new(seq.to_string().into(), "t".into(), SystemTime::now(), data);
        StoredOccurrence::of(&origin("a", 1), seq, &it).unwrap()
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart_and_only_with_the_key() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("stentor-events-{}.redb", crate::token()));
        {
            let store = RedbEventsStore::open(&path, StoreKey::new([7; 32])).await.unwrap();
            store.put(vec![webhook("one"), webhook("two")]).await.unwrap();
            store.remove(vec![webhook("two").id()]).await.unwrap();
            for seq in 1..=5 {
                store.append(occurrence(seq), 3).await.unwrap();
            }
        }
        let file = std::fs::read(&path).unwrap();
        let has = |text: &str| file.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(!has("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") && !has("https://a.example"));
        let reopened = async |key| loop {
            // The thread of the last store may still close the file.
            match RedbEventsStore::open(&path, StoreKey::new(key)).await {
                Ok(store) => return store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        {
            let store = reopened([7; 32]).await;
            let webhooks = store.load().await.unwrap();
            assert_eq!(
                webhooks.iter().map(StoredWebhook::id).collect::<Vec<_>>(),
                [webhook("one").id()]
            );
            assert_eq!(webhooks[0].secret, webhook("one").secret);
            let log = store.read("t").await.unwrap();
            let numbers: Vec<_> = log.into_iter().map(|it| it.into_parts().1).collect();
            assert_eq!(numbers, [3, 4, 5]);
            store.append(occurrence(6), 3).await.unwrap();
            assert_eq!(store.read("t").await.unwrap().len(), 3);
            assert_eq!(store.read("u").await.unwrap().len(), 0);
        }
        assert!(reopened([8; 32]).await.load().await.is_err());
        std::fs::remove_file(path).unwrap();
    }
}
