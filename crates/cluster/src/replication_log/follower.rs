//! The receiver of a replication log.

use std::collections::{BTreeMap, BTreeSet};

use stentor_engine::remote::{Definition, Fact};

use super::update::{Key, Position, Update, key};

/// An update that does not start at the follower's position. The follower must ask for an update
/// from [`Follower::position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update does not begin where the follower is")]
pub(crate) struct Gap;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Applied {
    /// The definitions have changed.
    pub(crate) catalog: bool,
    /// Some notices were dropped: everything may have changed.
    pub(crate) missed: bool,
    /// There is more to ask for.
    pub(crate) more: bool,
    /// The changes of topics and the notifications, in order.
    pub(crate) notices: Vec<Fact>,
}

/// What is known of the log of another node.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    position: Option<Position>,
    definitions: BTreeMap<Key, Definition>,
    /// Definitions from before a whole update that the update has not contained yet.
    unconfirmed: BTreeSet<Key>,
}

impl Follower {
    /// How far it has read the log, if it has read anything.
    pub(crate) const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Applies an update.
    ///
    /// # Errors
    ///
    /// [`Gap`], and then nothing has changed.
    pub(crate) fn apply(&mut self, update: Update) -> Result<Applied, Gap> {
        if update.from != self.position {
            return Err(Gap);
        }
        self.position = Some(update.to);
        let Update { whole, missed, more, facts, .. } = update;
        let mut applied = Applied { missed, more, ..Applied::default() };
        if whole {
            // A whole update may have several parts. Old definitions stay until the last part, so
            // that no offered definition disappears for a moment.
            self.unconfirmed = self.definitions.keys().cloned().collect();
        }
        for fact in facts {
            match fact {
                Fact::Put(definition) => {
                    let key = key(&definition);
                    self.unconfirmed.remove(&key);
                    let same = self.definitions.get(&key) == Some(&definition);
                    applied.catalog |= !same;
                    self.definitions.insert(key, definition);
                }
                Fact::Remove(kind, key) => applied.catalog |= self.forget(&(kind, key)),
                Fact::Changed(_) | Fact::Notify { .. } => applied.notices.push(fact),
            }
        }
        if !more {
            for key in std::mem::take(&mut self.unconfirmed) {
                applied.catalog |= self.forget(&key);
            }
        }
        Ok(applied)
    }

    /// The definitions that the other node offers, ordered by item kind and key.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values()
    }

    fn forget(&mut self, key: &Key) -> bool {
        self.unconfirmed.remove(key);
        self.definitions.remove(key).is_some()
    }
}
