//! The receiver's side of a feed.

use std::collections::{BTreeMap, BTreeSet};

use stentor_engine::peers::{Definition, Fact};

use super::{Key, Position, Update, key};

/// An update that does not begin where the mirror is. What it needs is to be asked for from
/// [`Mirror::position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update does not begin where the mirror is")]
pub(crate) struct Gap;

/// What came of an update.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Applied {
    /// The definitions are different.
    pub(crate) catalog: bool,
    /// Notices are gone: everything may have changed.
    pub(crate) missed: bool,
    /// There is more to ask for.
    pub(crate) more: bool,
    /// The changes of topics and the notifications, in order.
    pub(crate) notices: Vec<Fact>,
}

/// What is known of the feed of another node.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    position: Option<Position>,
    definitions: BTreeMap<Key, Definition>,
    /// Those from before a whole update that did not come again yet.
    doubtful: BTreeSet<Key>,
}

impl Mirror {
    /// How far it is, if it has anything.
    pub(crate) const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Takes an update.
    ///
    /// # Errors
    ///
    /// [`Gap`], and nothing is different then.
    pub(crate) fn apply(&mut self, update: Update) -> Result<Applied, Gap> {
        if update.from != self.position {
            return Err(Gap);
        }
        self.position = Some(update.to);
        let Update { whole, missed, more, facts, .. } = update;
        let mut applied = Applied { missed, more, ..Applied::default() };
        if whole {
            // What is still offered is not to be gone for a moment only because the update has
            // several parts. So the old ones go when the last part is there.
            self.doubtful = self.definitions.keys().cloned().collect();
        }
        for fact in facts {
            match fact {
                Fact::Put(definition) => {
                    let key = key(&definition);
                    self.doubtful.remove(&key);
                    let same = self.definitions.get(&key) == Some(&definition);
                    applied.catalog |= !same;
                    self.definitions.insert(key, definition);
                }
                Fact::Remove(shelf, key) => applied.catalog |= self.forget(&(shelf, key)),
                Fact::Changed(_) | Fact::Notify { .. } => applied.notices.push(fact),
            }
        }
        if !more {
            for key in std::mem::take(&mut self.doubtful) {
                applied.catalog |= self.forget(&key);
            }
        }
        Ok(applied)
    }

    /// What the other node offers, ordered by shelf and key.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values()
    }

    fn forget(&mut self, key: &Key) -> bool {
        self.doubtful.remove(key);
        self.definitions.remove(key).is_some()
    }
}
