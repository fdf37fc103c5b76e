//! Opens the file, and reports what is wrong with it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, StorageError, TableError, TableHandle as _,
};

use super::tables::{ABOUT, FORMAT, THIS_FORMAT, Tables};

/// How many bytes of the file are cached in memory.
const CACHE: usize = 32 * 1024 * 1024;
/// Why a file of tasks could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFileError {
    /// The file is open already, here or in another process.
    #[error("the file of tasks is open already")]
    InUse,
    /// The file is not one of tasks, or is of another version.
    #[error("not a file of tasks: {0}")]
    NotATaskFile(String),
    /// The file contains tasks, but is damaged.
    #[error("the file of tasks is damaged: {0}")]
    Damaged(String),
    /// The operating system refused to open the file.
    #[error("the file of tasks could not be opened: {0}")]
    Io(#[from] io::Error),
}

impl TaskFileError {
    fn of_storage(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => match error.kind() {
                io::ErrorKind::InvalidData => Self::NotATaskFile(error.to_string()),
                io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
                _ => Self::Io(error),
            },
            StorageError::Corrupted(what) => Self::Damaged(what),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<redb::Error> for TaskFileError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::Io(error) => Self::of_storage(StorageError::Io(error)),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<DatabaseError> for TaskFileError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(error) => Self::of_storage(error),
            other => Self::NotATaskFile(other.to_string()),
        }
    }
}

/// Opens the database, the first time and again after an error.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, TaskFileError> + Send + Sync>;

pub(super) fn opener(path: PathBuf) -> Opener {
    Box::new(move || {
        let mut builder = Database::builder();
        // Without this check, a damaged file causes a panic later.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let db = builder.create_with_backend(FileBackend::new(open_file(&path)?)?)?;
        sync_directory(&path)?;
        Ok(db)
    })
}

/// Opens or creates the file. Nobody else may read the requests and results of clients.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Removes the rights of others from a file that is known to contain tasks. Another program, or an
/// earlier release, may have given them.
#[cfg(unix)]
pub(super) fn keep_private(path: &Path) {
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    let remove_rights = || -> io::Result<()> {
        let mode = metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            set_permissions(path, Permissions::from_mode(mode & 0o7700))?;
            tracing::info!(file = %path.display(), "only its owner may read the file of tasks now");
        }
        Ok(())
    };
    if let Err(error) = remove_rights() {
        tracing::warn!(
            file = %path.display(), %error,
            "the file of tasks can be read by others, which cannot be changed"
        );
    }
}

#[cfg(not(unix))]
pub(super) fn keep_private(_path: &Path) {}

/// A new file survives a power failure only if its directory was synced.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(parent) = path.parent()
    {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Prepares a new database for tasks, and checks that an existing one is for tasks.
pub(super) fn claim(db: &Database) -> Result<(), TaskFileError> {
    let is_new = {
        let transaction = db.begin_read().map_err(redb::Error::from)?;
        let mut tables = transaction.list_tables().map_err(redb::Error::from)?;
        match transaction.open_table(ABOUT) {
            Ok(about) => {
                let format = about.get(FORMAT).map_err(redb::Error::from)?;
                let format = format.map(|format| format.value());
                if format != Some(THIS_FORMAT) {
                    let what = format!("its format is {}", format.unwrap_or_default());
                    return Err(TaskFileError::NotATaskFile(what));
                }
                false
            }
            Err(TableError::TableDoesNotExist(_)) => match tables.next() {
                None => true,
                Some(other) => {
                    let what = format!("it has a table '{}'", other.name());
                    return Err(TaskFileError::NotATaskFile(what));
                }
            },
            Err(error) => return Err(TaskFileError::NotATaskFile(error.to_string())),
        }
    };
    if is_new {
        make(db)?;
    }
    Ok(())
}

fn make(db: &Database) -> Result<(), redb::Error> {
    let transaction = db.begin_write()?;
    // Opening a table creates it.
    Tables::open(&transaction)?.about.insert(FORMAT, THIS_FORMAT)?;
    transaction.commit()?;
    Ok(())
}
