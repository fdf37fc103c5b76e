//! The receiver of a replication log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stentor_engine::remote::{Definition, Fact, WatchState};

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
    /// The watched URIs that have changed.
    pub(crate) watches: Vec<(Arc<str>, WatchState)>,
    /// The changes of topics and the notifications, in order.
    pub(crate) notices: Vec<Fact>,
}

/// What is known of the log of another node.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    position: Option<Position>,
    definitions: BTreeMap<Key, Definition>,
    watches: BTreeMap<Arc<str>, WatchState>,
    /// Definitions and watched URIs from before a whole update that the update has not contained yet.
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
            // A whole update may have several parts. What is old stays until the last part, so that
            // nothing that still holds disappears for a moment.
            let watches = self.watches.keys().cloned().map(Key::Watch);
            self.unconfirmed = self.definitions.keys().cloned().chain(watches).collect();
        }
        for fact in facts {
            match fact {
                Fact::Put(definition) | Fact::PutRestricted(definition) => {
                    let key = key(&definition);
                    self.unconfirmed.remove(&key);
                    let same = self.definitions.get(&key) == Some(&definition);
                    applied.catalog |= !same;
                    self.definitions.insert(key, definition);
                }
                Fact::Remove(kind, key) => self.forget(&Key::Item(kind, key), &mut applied),
                Fact::Watch(uri, state) if state == WatchState::default() => {
                    self.forget(&Key::Watch(uri), &mut applied);
                }
                Fact::Watch(uri, state) => {
                    self.unconfirmed.remove(&Key::Watch(uri.clone()));
                    if self.watches.insert(uri.clone(), state) != Some(state) {
                        applied.watches.push((uri, state));
                    }
                }
                // It ends by itself.
                Fact::Revoked(_, None) => {}
                Fact::Changed(_) | Fact::Notify { .. } | Fact::Refresh(_) | Fact::Revoked(..) => {
                    applied.notices.push(fact)
                }
            }
        }
        if !more {
            for key in std::mem::take(&mut self.unconfirmed) {
                self.forget(&key, &mut applied);
            }
        }
        Ok(applied)
    }

    /// The definitions that the other node offers, ordered by item kind and key.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values()
    }

    /// The URIs that the other node reports.
    pub(crate) fn watches(&self) -> Vec<(Arc<str>, WatchState)> {
        self.watches.iter().map(|(uri, state)| (uri.clone(), *state)).collect()
    }

    fn forget(&mut self, key: &Key, applied: &mut Applied) {
        self.unconfirmed.remove(key);
        match key {
            Key::Revoked(_) => {}
            Key::Item(..) => applied.catalog |= self.definitions.remove(key).is_some(),
            Key::Watch(uri) => {
                if self.watches.remove(uri).is_some() {
                    applied.watches.push((uri.clone(), WatchState::default()));
                }
            }
        }
    }
}
