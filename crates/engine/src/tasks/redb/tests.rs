use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, io};

use futures::future::{join_all, try_join_all};
use redb::backends::FileBackend;
use redb::{Database, StorageBackend, TableDefinition};
use stentor_wire::{ErrorObject, TaskStatus};

use super::tables::{ABOUT, FORMAT};
use super::*;
use crate::testing::{task_record, task_store_keeps_its_contract};

/// A directory that is removed after its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("stentor-{}", TaskId::random(&crate::NodeId::random()).as_str());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("tasks.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn json(task: &TaskRecord) -> String {
    serde_json::to_string(task).unwrap()
}

fn failed(task: &TaskRecord) -> TaskRecord {
    let error = ErrorObject::internal("no");
    TaskRecord { status: TaskStatus::Failed { error }, ..task.clone() }
}

async fn found(store: &RedbTaskStore, id: &str) -> Option<TaskRecord> {
    store.get(&TaskId::new(id)).await.unwrap()
}

/// A disk that counts syncs, and can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    state: Arc<DiskState>,
}

#[derive(Debug, Default)]
struct DiskState {
    full: AtomicBool,
    syncs: AtomicUsize,
}

impl DiskState {
    fn check(&self) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.syncs.fetch_add(1, Ordering::Relaxed);
        self.state.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.check()?;
        self.file.write(offset, data)
    }
}

async fn on_disk(scratch: &Scratch) -> (RedbTaskStore, Arc<DiskState>) {
    let (path, state) = (scratch.file(), Arc::new(DiskState::default()));
    let disk = state.clone();
    let opener: open::Opener = Box::new(move || {
        let options = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let disk = Disk { file: FileBackend::new(options)?, state: disk.clone() };
        Ok(Database::builder().create_with_backend(disk)?)
    });
    let bounds = Bounds { count: 1_000, bytes: 1 << 30 };
    (RedbTaskStore::start(move || File::open(opener, bounds)).await.unwrap(), state)
}

#[cfg(unix)]
#[tokio::test]
async fn other_users_cannot_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let mode = || fs::metadata(scratch.file()).unwrap().permissions().mode() & 0o7777;
    let set = |mode| fs::set_permissions(scratch.file(), fs::Permissions::from_mode(mode)).unwrap();
    let task = task_record("a");
    let store = RedbTaskStore::open(scratch.file()).await.unwrap();
    store.put(task.clone()).await.unwrap();
    assert_eq!(mode(), 0o600, "as it is made");
    drop(store);
    // Modes that earlier releases or other programs may have left.
    for (before, after) in [(0o644, 0o600), (0o666, 0o600), (0o640, 0o600), (0o700, 0o700)] {
        set(before);
        let store = RedbTaskStore::open(scratch.file()).await.unwrap();
        assert_eq!(mode(), after, "{before:o}");
        assert_eq!(json(&found(&store, "a").await.unwrap()), json(&task));
    }
    // A file without tasks belongs to another program, and stays as it is.
    fs::write(scratch.file(), "dear diary").unwrap();
    set(0o644);
    RedbTaskStore::open(scratch.file()).await.unwrap_err();
    assert_eq!(mode(), 0o644);
}

#[tokio::test]
async fn the_file_store_keeps_its_contract() {
    let scratch = Scratch::new();
    task_store_keeps_its_contract(&RedbTaskStore::open(scratch.file()).await.unwrap()).await;
}

#[tokio::test]
async fn tasks_and_their_counted_bytes_survive_reopening() {
    let scratch = Scratch::new();
    let (one, other) = (task_record("a"), task_record("b"));
    {
        let store = RedbTaskStore::open_with(scratch.file(), 2, 1 << 20).await.unwrap();
        store.put(one.clone()).await.unwrap();
        store.put(failed(&other)).await.unwrap();
    }
    let store = RedbTaskStore::open_with(scratch.file(), 2, 1 << 20).await.unwrap();
    assert_eq!(json(&found(&store, "a").await.unwrap()), json(&one));
    assert_eq!(json(&found(&store, "b").await.unwrap()), json(&failed(&other)));
    assert_eq!(
        store.unfinished().await.unwrap().iter().map(json).collect::<Vec<_>>(),
        [json(&one)]
    );
    let third = task_record("c");
    assert!(matches!(store.put(third.clone()).await, Err(TaskStoreError::Full)));
    store.put(failed(&one)).await.unwrap();
    assert_eq!(store.sweep(11_000).await.unwrap(), 2);
    store.put(third).await.unwrap();
    drop(store);
    let weight = task_record("c").weight();
    let store = RedbTaskStore::open_with(scratch.file(), 2, weight).await.unwrap();
    assert!(matches!(store.put(one).await, Err(TaskStoreError::Full)), "bytes are still counted");
}

#[tokio::test]
async fn the_store_is_bounded_by_bytes_and_a_stored_task_can_still_end() {
    let scratch = Scratch::new();
    let one = task_record("a");
    let store = RedbTaskStore::open_with(scratch.file(), 9, one.weight()).await.unwrap();
    store.put(one.clone()).await.unwrap();
    assert!(matches!(store.put(task_record("b")).await, Err(TaskStoreError::Full)));
    let large = TaskRecord { checkpoint: Some("x".repeat(9_000).into()), ..one.clone() };
    assert!(matches!(store.put(large).await, Err(TaskStoreError::Full)));
    store.put(failed(&one)).await.unwrap();
    assert!(found(&store, "a").await.unwrap().status.is_terminal());
}

#[tokio::test]
async fn a_task_expires_at_the_time_that_was_stored_last() {
    let scratch = Scratch::new();
    let store = RedbTaskStore::open(scratch.file()).await.unwrap();
    let later = TaskRecord { ttl_ms: Some(20_000), ..task_record("a") };
    store.put(task_record("a")).await.unwrap();
    store.put(later).await.unwrap();
    assert_eq!(store.sweep(11_000).await.unwrap(), 0);
    assert_eq!(store.sweep(21_000).await.unwrap(), 1);
}

#[tokio::test]
async fn a_sweep_forgets_more_than_fits_in_a_commit() {
    let scratch = Scratch::new();
    let store = RedbTaskStore::open(scratch.file()).await.unwrap();
    let count = 2 * SWEEP + 1;
    try_join_all((0..count).map(|n| store.put(task_record(&n.to_string())))).await.unwrap();
    store.put(TaskRecord { ttl_ms: None, ..task_record("forever") }).await.unwrap();
    assert_eq!(store.sweep(u64::MAX).await.unwrap(), count);
    let left = store.unfinished().await.unwrap();
    assert_eq!(left.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["forever"]);
}

#[tokio::test]
async fn many_puts_share_a_commit_and_an_empty_sweep_needs_none() {
    let scratch = Scratch::new();
    let (store, disk) = on_disk(&scratch).await;
    let syncs = || disk.syncs.swap(0, Ordering::Relaxed);
    syncs();
    store.put(task_record("alone")).await.unwrap();
    let of_one = syncs();
    assert!(of_one > 0, "it is on the disk");
    try_join_all((0..100).map(|n| store.put(task_record(&n.to_string())))).await.unwrap();
    assert!(syncs() <= 5 * of_one, "a few commits at most");
    store.sweep(0).await.unwrap();
    assert_eq!(syncs(), 0);
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_each_put_until_there_is_space() {
    let scratch = Scratch::new();
    let (store, disk) = on_disk(&scratch).await;
    store.put(task_record("before")).await.unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let puts = (0..10).map(|n| store.put(task_record(&n.to_string())));
    for outcome in join_all(puts).await {
        assert!(matches!(outcome, Err(TaskStoreError::Failed(_))), "{outcome:?}");
    }
    disk.full.store(false, Ordering::Relaxed);
    // The first put that fails makes the store open the file again.
    let _ = store.put(task_record("after")).await;
    store.put(task_record("after")).await.unwrap();
    assert!(found(&store, "before").await.is_some());
    assert!(found(&store, "after").await.is_some());
    assert!(found(&store, "3").await.is_none(), "what was refused is not there");
}

#[tokio::test]
async fn a_file_can_be_open_only_once() {
    let scratch = Scratch::new();
    let store = RedbTaskStore::open(scratch.file()).await.unwrap();
    let again = RedbTaskStore::open(scratch.file()).await;
    assert!(matches!(again, Err(TaskFileError::InUse)), "{again:?}");
    drop(store);
    RedbTaskStore::open(scratch.file()).await.unwrap();
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_not_changed() {
    let scratch = Scratch::new();
    for text in ["notes".to_owned(), "notes ".repeat(100_000)] {
        fs::write(scratch.file(), &text).unwrap();
        let opened = RedbTaskStore::open(scratch.file()).await;
        assert!(matches!(opened, Err(TaskFileError::NotATaskFile(_))), "{opened:?}");
        assert_eq!(fs::read_to_string(scratch.file()).unwrap(), text);
    }
    let opened = RedbTaskStore::open(scratch.0.join("missing/tasks.redb")).await;
    assert!(matches!(opened, Err(TaskFileError::Io(_))), "{opened:?}");
}

#[tokio::test]
async fn a_database_of_another_program_or_version_is_refused() {
    for (table, key) in [(TableDefinition::<&str, u64>::new("theirs"), "key"), (ABOUT, FORMAT)] {
        let scratch = Scratch::new();
        let db = Database::create(scratch.file()).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert(key, 2).unwrap();
        transaction.commit().unwrap();
        drop(db);
        let opened = RedbTaskStore::open(scratch.file()).await;
        assert!(matches!(opened, Err(TaskFileError::NotATaskFile(_))), "{opened:?}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_an_error() {
    let scratch = Scratch::new();
    let store = RedbTaskStore::open(scratch.file()).await.unwrap();
    try_join_all((0..300).map(|n| store.put(task_record(&n.to_string())))).await.unwrap();
    drop(store);
    let whole = fs::read(scratch.file()).unwrap();

    fs::write(scratch.file(), &whole[..whole.len() / 2]).unwrap();
    let opened = RedbTaskStore::open(scratch.file()).await;
    assert!(matches!(opened, Err(TaskFileError::Damaged(_))), "{opened:?}");

    let mut noticed = 0;
    for page in (0..whole.len()).step_by(4_096) {
        let mut damaged = whole.clone();
        damaged[page..][..64].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(scratch.file(), &damaged).unwrap();
        match RedbTaskStore::open(scratch.file()).await {
            // The damaged page was unused.
            Ok(store) => assert_eq!(store.unfinished().await.unwrap().len(), 300),
            Err(TaskFileError::Damaged(_) | TaskFileError::NotATaskFile(_)) => noticed += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(noticed > 10, "{noticed}");
}
