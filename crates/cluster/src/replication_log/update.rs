//! What goes between a replication log and its followers: positions and updates.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use stentor_engine::ItemKind;
use stentor_engine::remote::{Definition, Fact, WatchState};

/// What a fact is about that holds until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// An item, by its kind and its name or URI.
    Item(ItemKind, Arc<str>),
    /// A URI that is watched.
    Watch(Arc<str>),
    /// A principal that is locked out.
    Revoked(Arc<str>),
}

impl Key {
    /// The fact that takes it back.
    pub(super) fn removal(&self) -> Fact {
        match self {
            Self::Item(kind, key) => Fact::Remove(*kind, key.clone()),
            Self::Watch(uri) => Fact::Watch(uri.clone(), WatchState::default()),
            Self::Revoked(principal) => Fact::Revoked(principal.clone(), None),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Item(_, text) | Self::Watch(text) | Self::Revoked(text) => text,
        }
    }
}

/// How far a follower has read a log.
///
/// A follower that has everything has the same number in all fields. One that starts again reads
/// the definitions from the beginning, but must not receive notices twice, nor removals that it
/// does not need: so those fields are ahead of `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Position {
    /// A random number for one run of the node.
    pub(crate) life: u64,
    /// All facts up to this number are known.
    pub(crate) seq: u64,
    /// No removal up to this number needs to be sent.
    pub(super) removals: u64,
    /// No change of a topic up to this number needs to be sent.
    pub(super) topics: u64,
    /// No notification up to this number needs to be sent.
    pub(super) notes: u64,
}

impl Position {
    pub(super) const fn up_to(life: u64, seq: u64) -> Self {
        Self { life, seq, removals: seq, topics: seq, notes: seq }
    }

    pub(super) fn max_seq(self) -> u64 {
        self.seq.max(self.removals).max(self.topics).max(self.notes)
    }

    /// The same position, but with all facts up to `seq`.
    pub(super) fn advanced_to(self, seq: u64) -> Self {
        Self {
            life: self.life,
            seq,
            removals: self.removals.max(seq),
            topics: self.topics.max(seq),
            notes: self.notes.max(seq),
        }
    }
}

/// The facts that take a follower from one position to a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Update {
    /// Where the follower must be.
    pub(crate) from: Option<Position>,
    /// Where the follower is afterwards.
    pub(crate) to: Position,
    /// The update starts from the beginning: it replaces all definitions.
    pub(crate) whole: bool,
    /// Some notices were dropped: everything may have changed.
    pub(crate) missed: bool,
    /// The update ends before the head of the log: the follower has to ask again.
    pub(crate) more: bool,
    /// The facts, oldest first. Those of a newer release, which this one cannot read, are left out.
    #[serde(deserialize_with = "known_facts")]
    pub(crate) facts: Vec<Fact>,
}

fn known_facts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fact>, D::Error> {
    let facts = Vec::<Box<RawValue>>::deserialize(deserializer)?;
    let known = facts.into_iter().filter_map(|fact| match serde_json::from_str(fact.get()) {
        Ok(fact) => Some(fact),
        Err(error) => {
            stentor_engine::log!(warn, %error, "a node reports what is not understood");
            None
        }
    });
    Ok(known.collect())
}

pub(super) fn key(definition: &Definition) -> Key {
    Key::Item(definition.kind, definition.key.clone())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn facts_of_a_newer_release_are_left_out_and_stop_nothing() -> Result<(), Box<dyn Error>> {
        let known = Fact::Remove(ItemKind::Tools, "a".into());
        let update = Update {
            from: None,
            to: Position::up_to(1, 3),
            whole: true,
            missed: false,
            more: false,
            facts: vec![known.clone(), known],
        };
        let mut newer = serde_json::to_value(&update)?;
        newer["facts"][0] = serde_json::json!({"shout": ["new", {"to": "all"}]});
        newer["facts"][1]["remove"][1] = "b".into();
        let read: Update = serde_json::from_str(&newer.to_string())?;
        assert_eq!(read.facts, [Fact::Remove(ItemKind::Tools, "b".into())]);
        assert_eq!(read.to, update.to);
        Ok(())
    }
}
