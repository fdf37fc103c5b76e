//! Labels of users, which change at run time. A real server keeps them in its database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use stentor::identity::{Identity, Labels};

type Table = BTreeMap<String, BTreeSet<String>>;

/// The labels of each principal. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Grants(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    table: Mutex<Table>,
    /// Where several processes keep them.
    file: Option<PathBuf>,
}

impl Grants {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self(Arc::new(Parts { table: Mutex::default(), file }))
    }

    /// The labels of a user: the scopes of the token, and what was granted.
    pub(crate) fn labels(&self, user: &Identity) -> Labels {
        let granted = self.read().remove(user.principal()).unwrap_or_default();
        user.granted_scopes().map(str::to_owned).chain(granted).collect()
    }

    /// Changes what was granted to a principal.
    pub(crate) fn change(&self, principal: &str, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut table = self.read();
        change(table.entry(principal.to_owned()).or_default());
        if let Some(file) = &self.0.file {
            // Written whole, so that another process never reads half of it.
            let new = file.with_extension("new");
            let text = serde_json::to_string(&table).unwrap_or_default();
            let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file));
            if let Err(error) = written {
                tracing::error!(%error, "the grants cannot be saved");
            }
        }
        *self.0.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn read(&self) -> Table {
        let in_file = self.0.file.as_ref().and_then(|file| std::fs::read(file).ok());
        let in_file = in_file.and_then(|text| serde_json::from_slice(&text).ok());
        in_file
            .unwrap_or_else(|| self.0.table.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
