//! The facts that a node sends to all others, so that each node receives each fact once, whatever
//! is lost on the way.
//!
//! A node has one [`ReplicationLog`], from which outdated facts are removed. Each other node has a
//! [`Follower`] of it, reports its position from time to time, and receives the facts after that
//! position. Nothing here waits, sends or reads a clock.
//!
//! ```text
//!   offer, add_fact -> ReplicationLog -- since(follower.position()) --> Update -> Follower
//!                        ^                                                           |
//!                        +------------------------- position ------------------------+
//! ```

mod follower;
mod latest;
mod update;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use stentor_engine::Topic;
use stentor_engine::remote::{Definition, Fact, WatchState};

pub(crate) use follower::Follower;
use latest::Latest;
use update::{Key, key};
pub(crate) use update::{Position, Update};

/// The size of a fact in an update beside its texts, in bytes.
const FACT_BYTES: usize = 64;

/// How much of the past a log keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplicationLimits {
    /// The most removals. A follower that has missed more receives all definitions.
    pub(crate) removals: usize,
    /// The most topics. A follower that has missed changes of more is notified that it missed some.
    pub(crate) topics: usize,
    pub(crate) notes: usize,
    /// The most bytes of notifications. The last notification is kept whatever its size.
    pub(crate) note_bytes: usize,
}

impl Default for ReplicationLimits {
    fn default() -> Self {
        Self { removals: 4096, topics: 4096, notes: 1024, note_bytes: 1 << 20 }
    }
}

/// A fact that holds until it is taken back: a definition, a watched URI, or a revoked principal.
#[derive(Debug)]
struct Lasting {
    seq: u64,
    /// The last round in which a definition was offered.
    round: u64,
    fact: Fact,
}

/// A notification, and its size as JSON in bytes.
#[derive(Debug)]
struct Note {
    fact: Fact,
    bytes: usize,
}

/// All facts of a node. Each has a number, from 1. Only the last fact of each definition, each watched
/// URI and each topic is kept.
#[derive(Debug)]
pub(crate) struct ReplicationLog {
    life: u64,
    limits: ReplicationLimits,
    seq: u64,
    /// Counts the calls of `offer` and the single definitions.
    round: u64,
    lasting: HashMap<Key, Lasting>,
    /// The same facts, by number.
    puts: BTreeMap<u64, Fact>,
    removals: Latest<Key>,
    topics: Latest<Topic>,
    notes: BTreeMap<u64, Note>,
    /// The total size of `notes`, in bytes.
    note_bytes: usize,
    /// The number of the last notification that was dropped.
    notes_floor: u64,
}

impl ReplicationLog {
    pub(crate) fn new(life: u64, limits: ReplicationLimits) -> Self {
        Self {
            life,
            limits,
            seq: 0,
            round: 0,
            lasting: HashMap::new(),
            puts: BTreeMap::new(),
            removals: Latest::default(),
            topics: Latest::default(),
            notes: BTreeMap::new(),
            note_bytes: 0,
            notes_floor: 0,
        }
    }

    /// Replaces everything that is offered. `true` if that changes anything.
    ///
    /// Of two definitions with the same key, the first one counts.
    pub(crate) fn offer(&mut self, definitions: impl IntoIterator<Item = Definition>) -> bool {
        let before = self.seq;
        self.round += 1;
        for definition in definitions {
            self.put(key(&definition), put(definition));
        }
        let gone = |(key, lasting): &(&Key, &Lasting)| {
            matches!(key, Key::Item(..)) && lasting.round != self.round
        };
        let mut removed: Vec<_> = self
            .lasting
            .iter()
            .filter(gone)
            .map(|(key, lasting)| (lasting.seq, key.clone()))
            .collect();
        // In the order of their offers, so that equal runs have equal logs.
        removed.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, key) in removed {
            self.remove(&key);
        }
        self.seq != before
    }

    /// Adds a fact. A change replaces an older change of the same topic; a notification never
    /// replaces another. A single definition is offered until the next [`offer`](Self::offer).
    pub(crate) fn add_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Put(definition) | Fact::PutRestricted(definition) => {
                self.round += 1;
                self.put(key(&definition), put(definition));
            }
            Fact::Remove(kind, key) => self.remove(&Key::Item(kind, key)),
            Fact::Watch(uri, state) if state == WatchState::default() => {
                self.remove(&Key::Watch(uri));
            }
            Fact::Watch(ref uri, _) => {
                self.round += 1;
                self.put(Key::Watch(uri.clone()), fact);
            }
            Fact::Changed(topic) => {
                self.seq += 1;
                self.topics.insert(topic, self.seq);
                self.topics.keep(self.limits.topics);
            }
            Fact::Revoked(principal, None) => self.remove(&Key::Revoked(principal)),
            Fact::Revoked(ref principal, Some(_)) => {
                self.round += 1;
                self.put(Key::Revoked(principal.clone()), fact);
            }
            Fact::Notify { .. } | Fact::Refresh(_) => self.notify(fact),
        }
    }

    /// The position of a follower that has everything.
    pub(crate) fn head(&self) -> Position {
        Position::up_to(self.life, self.seq)
    }

    /// The update for a follower at `from`.
    ///
    /// A follower without a position receives all current definitions and no past notices. The
    /// update is about `max_bytes` long at most, but contains at least one fact if there is any.
    pub(crate) fn since(&self, from: Option<Position>, max_bytes: usize) -> Update {
        let Start { mut at, whole, missed } = self.start(from);
        let (mut facts, mut bytes, mut more) = (Vec::new(), 0_usize, false);
        for (seq, fact, size) in self.after(at) {
            bytes = bytes.saturating_add(size);
            if bytes > max_bytes && !facts.is_empty() {
                more = true;
                break;
            }
            at = at.advanced_to(seq);
            facts.push(fact);
        }
        // Skips numbers whose facts no longer exist.
        let to = if more { at } else { at.advanced_to(self.seq) };
        Update { from, to, whole, missed, more, facts }
    }

    fn put(&mut self, key: Key, fact: Fact) {
        let round = self.round;
        // A node that cannot hide the item leaves this fact out, and must not show the item as it was
        // before. So the removal comes first.
        let is_hidden = matches!(fact, Fact::PutRestricted(_));
        match self.lasting.entry(key) {
            Entry::Occupied(mut entry) => {
                let lasting = entry.get_mut();
                if std::mem::replace(&mut lasting.round, round) == round || lasting.fact == fact {
                    return;
                }
                self.puts.remove(&lasting.seq);
                let was_open = matches!(lasting.fact, Fact::Put(_));
                if is_hidden && was_open {
                    self.seq += 1;
                    self.removals.insert(entry.key().clone(), self.seq);
                    self.removals.keep(self.limits.removals);
                }
                self.seq += 1;
                let lasting = entry.get_mut();
                (lasting.seq, lasting.fact) = (self.seq, fact.clone());
            }
            Entry::Vacant(entry) => {
                if !is_hidden {
                    self.removals.remove(entry.key());
                }
                self.seq += 1;
                entry.insert(Lasting { seq: self.seq, round, fact: fact.clone() });
            }
        }
        self.puts.insert(self.seq, fact);
    }

    fn remove(&mut self, key: &Key) {
        let Some(lasting) = self.lasting.remove(key) else { return };
        self.puts.remove(&lasting.seq);
        self.seq += 1;
        self.removals.insert(key.clone(), self.seq);
        self.removals.keep(self.limits.removals);
    }

    fn notify(&mut self, fact: Fact) {
        self.seq += 1;
        // A fact that cannot be encoded is never sent, so its size does not matter.
        let bytes = serde_json::to_vec(&fact).map_or(0, |text| text.len());
        self.note_bytes += bytes;
        self.notes.insert(self.seq, Note { fact, bytes });
        // The last one stays, for followers that keep up.
        while self.notes.len() > 1
            && (self.notes.len() > self.limits.notes || self.note_bytes > self.limits.note_bytes)
        {
            let Some((seq, note)) = self.notes.pop_first() else { break };
            self.note_bytes -= note.bytes;
            self.notes_floor = seq;
        }
    }

    /// The point from which a follower at `from` reads on.
    fn start(&self, from: Option<Position>) -> Start {
        let from_start = Position { seq: 0, ..self.head() };
        let Some(from) = from else { return Start { at: from_start, whole: true, missed: false } };
        if from.life != self.life || from.max_seq() > self.seq {
            // It is unknown whether the follower received the last notices of the earlier run. All
            // notices of this run are new to it.
            let at = Position { notes: self.notes_floor, ..from_start };
            return Start { at, whole: true, missed: true };
        }
        let mut at = from.advanced_to(from.seq);
        let whole = at.removals < self.removals.floor();
        if whole {
            // Notices do not start again: the follower would receive them twice.
            (at.seq, at.removals) = (0, self.seq);
        }
        let missed = at.topics < self.topics.floor() || at.notes < self.notes_floor;
        if missed {
            // `missed` is set once, and stands for all topics.
            (at.topics, at.notes) = (self.seq, at.notes.max(self.notes_floor));
        }
        Start { at, whole, missed }
    }

    /// All facts that a follower at `at` lacks, in order, with their approximate sizes.
    fn after(&self, at: Position) -> impl Iterator<Item = (u64, Fact, usize)> {
        let after = |seq: u64| (Bound::Excluded(seq), Bound::Unbounded);
        let mut puts = self.puts.range(after(at.seq)).peekable();
        let mut removals = self.removals.after(at.removals).peekable();
        let mut topics = self.topics.after(at.topics).peekable();
        let mut notes = self.notes.range(after(at.notes)).peekable();
        std::iter::from_fn(move || {
            let heads = [
                puts.peek().map(|(seq, _)| **seq),
                removals.peek().map(|(seq, _)| *seq),
                topics.peek().map(|(seq, _)| *seq),
                notes.peek().map(|(seq, _)| **seq),
            ];
            let next = heads.into_iter().flatten().min();
            let is_next = |head: Option<u64>| head.is_some() && head == next;
            if is_next(heads[0]) {
                let (seq, fact) = puts.next()?;
                let texts = match fact {
                    Fact::Put(definition) | Fact::PutRestricted(definition) => {
                        definition.key.len() + definition.json.len()
                    }
                    Fact::Watch(text, _) | Fact::Revoked(text, _) => text.len(),
                    _ => 0,
                };
                Some((*seq, fact.clone(), FACT_BYTES + texts))
            } else if is_next(heads[1]) {
                let (seq, key) = removals.next()?;
                Some((seq, key.removal(), FACT_BYTES + key.text().len()))
            } else if is_next(heads[2]) {
                let (seq, topic) = topics.next()?;
                let size = FACT_BYTES + topic.keyed().map_or(0, |(_, key)| key.len());
                Some((seq, Fact::Changed(topic.clone()), size))
            } else {
                let (seq, note) = notes.next()?;
                Some((*seq, note.fact.clone(), note.bytes))
            }
        })
    }
}

/// The fact that a node offers an item.
fn put(definition: Definition) -> Fact {
    match definition.is_restricted() {
        true => Fact::PutRestricted(definition),
        false => Fact::Put(definition),
    }
}

struct Start {
    at: Position,
    whole: bool,
    missed: bool,
}

#[cfg(test)]
mod tests;
