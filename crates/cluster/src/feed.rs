//! What a node tells all others, so that each of them hears it once, whatever is lost on the way.
//!
//! A node has one [`Feed`], a log from which what is out of date is left out. Each other node
//! has a [`Mirror`] of it, says from time to time where that is, and gets what it needs from
//! there on. Nothing here waits, sends or reads a clock.
//!
//! ```text
//!   offer, tell -> Feed -- since(mirror.position()) --> Update -> Mirror -> Applied
//!                   ^                                               |
//!                   +---------------- position ---------------------+
//! ```

mod latest;
mod mirror;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stentor_engine::peers::{Definition, Fact};
use stentor_engine::{Shelf, Topic};

use latest::Latest;
pub(crate) use mirror::Mirror;

/// What a fact of its own stands for in an update, apart from its texts.
const FACT_BYTES: usize = 64;

/// Which definition something is about.
type Key = (Shelf, Arc<str>);

/// How far somebody is with a feed.
///
/// Who has everything has the same number everywhere. Who begins anew goes through the
/// definitions from the start, but is not told once more what it heard before, nor what it does
/// not need to hear: there it is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Position {
    /// A random number of this run of the node.
    pub(crate) life: u64,
    /// Everything up to here is known.
    pub(crate) seq: u64,
    /// No removal up to here needs to be told.
    removals: u64,
    /// No change of a topic up to here needs to be told.
    topics: u64,
    /// No notification up to here needs to be told.
    notes: u64,
}

impl Position {
    const fn even(life: u64, seq: u64) -> Self {
        Self { life, seq, removals: seq, topics: seq, notes: seq }
    }

    /// The highest number in it.
    fn furthest(self) -> u64 {
        self.seq.max(self.removals).max(self.topics).max(self.notes)
    }

    /// With everything up to `seq`.
    fn forward(self, seq: u64) -> Self {
        Self {
            life: self.life,
            seq,
            removals: self.removals.max(seq),
            topics: self.topics.max(seq),
            notes: self.notes.max(seq),
        }
    }
}

/// How much of the past a feed keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedLimits {
    /// The most removals. Who was away for more gets all definitions.
    pub(crate) removals: usize,
    /// The most topics. Who was away for changes of more is told that it missed some.
    pub(crate) topics: usize,
    /// The most notifications.
    pub(crate) notes: usize,
    /// The most bytes of notifications. The last one is kept however large it is.
    pub(crate) note_bytes: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { removals: 4096, topics: 4096, notes: 1024, note_bytes: 1 << 20 }
    }
}

/// What brings a [`Mirror`] from one position to a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Update {
    /// Where the mirror must be.
    pub(crate) from: Option<Position>,
    /// Where it is then.
    pub(crate) to: Position,
    /// It begins anew: what was known of definitions counts no more.
    pub(crate) whole: bool,
    /// Notices in between are gone: everything may have changed.
    pub(crate) missed: bool,
    /// It ends before the head, and the mirror is to ask again.
    pub(crate) more: bool,
    /// The news, the oldest first.
    pub(crate) facts: Vec<Fact>,
}

/// What is offered under a key.
#[derive(Debug)]
struct Offered {
    seq: u64,
    /// The last round in which it was offered.
    round: u64,
    definition: Definition,
}

/// A notification, and how long it is when written.
#[derive(Debug)]
struct Note {
    fact: Fact,
    bytes: usize,
}

/// All that a node tells the others. Each fact has a number, from 1, and the last one of each
/// subject is kept.
#[derive(Debug)]
pub(crate) struct Feed {
    life: u64,
    limits: FeedLimits,
    /// The number of the last fact.
    seq: u64,
    /// The number of the last offer.
    round: u64,
    offered: HashMap<Key, Offered>,
    /// The same by number.
    puts: BTreeMap<u64, Definition>,
    removals: Latest<Key>,
    topics: Latest<Topic>,
    notes: BTreeMap<u64, Note>,
    /// The bytes of `notes`.
    note_bytes: usize,
    /// The number of the last notification that is gone.
    notes_floor: u64,
}

impl Feed {
    /// An empty one.
    pub(crate) fn new(life: u64, limits: FeedLimits) -> Self {
        Self {
            life,
            limits,
            seq: 0,
            round: 0,
            offered: HashMap::new(),
            puts: BTreeMap::new(),
            removals: Latest::default(),
            topics: Latest::default(),
            notes: BTreeMap::new(),
            note_bytes: 0,
            notes_floor: 0,
        }
    }

    /// Takes these for all that is offered. `true` if anything is different from before.
    ///
    /// Of two with the same key the first one counts.
    pub(crate) fn offer(&mut self, definitions: impl IntoIterator<Item = Definition>) -> bool {
        let before = self.seq;
        self.round += 1;
        for definition in definitions {
            self.put(definition);
        }
        let gone = |offered: &Offered| offered.round != self.round;
        let mut removed: Vec<_> = self
            .offered
            .values()
            .filter(|offered| gone(offered))
            .map(|offered| (offered.seq, key(&offered.definition)))
            .collect();
        // As they came, so that two runs that are alike tell alike.
        removed.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, key) in removed {
            self.remove(key);
        }
        self.seq != before
    }

    /// Adds a fact. A change takes the place of an older one of the same topic, a notification
    /// never does. A definition counts as offered until the next [`offer`](Self::offer).
    pub(crate) fn tell(&mut self, fact: Fact) {
        match fact {
            Fact::Put(definition) => {
                self.round += 1;
                self.put(definition);
            }
            Fact::Remove(shelf, key) => self.remove((shelf, key)),
            Fact::Changed(topic) => {
                self.seq += 1;
                self.topics.insert(topic, self.seq);
                self.topics.keep(self.limits.topics);
            }
            Fact::Notify { .. } => self.notify(fact),
        }
    }

    /// Where somebody is who has everything.
    pub(crate) fn head(&self) -> Position {
        Position::even(self.life, self.seq)
    }

    /// What somebody needs who has everything up to `from`.
    ///
    /// Who has nothing gets all definitions as they are, and hears nothing of the past. It is at
    /// most about `max_bytes` long, but has a fact if there is any.
    pub(crate) fn since(&self, from: Option<Position>, max_bytes: usize) -> Update {
        let Start { mut at, whole, missed } = self.start(from);
        let (mut facts, mut bytes, mut more) = (Vec::new(), 0_usize, false);
        for (seq, fact, size) in self.after(at) {
            bytes = bytes.saturating_add(size);
            if bytes > max_bytes && !facts.is_empty() {
                more = true;
                break;
            }
            at = at.forward(seq);
            facts.push(fact);
        }
        // What has no fact any more is passed, too.
        let to = if more { at } else { at.forward(self.seq) };
        Update { from, to, whole, missed, more, facts }
    }

    fn put(&mut self, definition: Definition) {
        let (seq, round) = (self.seq + 1, self.round);
        match self.offered.entry(key(&definition)) {
            Entry::Occupied(mut entry) => {
                let offered = entry.get_mut();
                if std::mem::replace(&mut offered.round, round) == round
                    || offered.definition == definition
                {
                    return;
                }
                self.puts.remove(&offered.seq);
                (offered.seq, offered.definition) = (seq, definition.clone());
            }
            Entry::Vacant(entry) => {
                self.removals.remove(entry.key());
                entry.insert(Offered { seq, round, definition: definition.clone() });
            }
        }
        self.puts.insert(seq, definition);
        self.seq = seq;
    }

    fn remove(&mut self, key: Key) {
        let Some(offered) = self.offered.remove(&key) else { return };
        self.puts.remove(&offered.seq);
        self.seq += 1;
        self.removals.insert(key, self.seq);
        self.removals.keep(self.limits.removals);
    }

    fn notify(&mut self, fact: Fact) {
        self.seq += 1;
        // What cannot be written cannot be told either; then nobody asks how long it is.
        let bytes = serde_json::to_vec(&fact).map_or(0, |text| text.len());
        self.note_bytes += bytes;
        self.notes.insert(self.seq, Note { fact, bytes });
        // The last one stays: those who are not behind are to hear it.
        while self.notes.len() > 1
            && (self.notes.len() > self.limits.notes || self.note_bytes > self.limits.note_bytes)
        {
            let Some((seq, note)) = self.notes.pop_first() else { break };
            self.note_bytes -= note.bytes;
            self.notes_floor = seq;
        }
    }

    /// Where telling starts for somebody at `from`.
    fn start(&self, from: Option<Position>) -> Start {
        let anew = Position { seq: 0, ..self.head() };
        let Some(from) = from else { return Start { at: anew, whole: true, missed: false } };
        if from.life != self.life || from.furthest() > self.seq {
            // Nobody knows what was told at the end of the older life. What was sent in this one
            // is certainly new.
            let at = Position { notes: self.notes_floor, ..anew };
            return Start { at, whole: true, missed: true };
        }
        let mut at = from.forward(from.seq);
        let whole = at.removals < self.removals.floor();
        if whole {
            // Notices do not begin anew: they would be heard twice.
            (at.seq, at.removals) = (0, self.seq);
        }
        let missed = at.topics < self.topics.floor() || at.notes < self.notes_floor;
        if missed {
            // "Everything may have changed" is said once, and stands for all topics.
            (at.topics, at.notes) = (self.seq, at.notes.max(self.notes_floor));
        }
        Start { at, whole, missed }
    }

    /// All facts that somebody at `at` lacks, by number, and about how long they are.
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
                let (seq, definition) = puts.next()?;
                let size = FACT_BYTES + definition.key.len() + definition.json.len();
                Some((*seq, Fact::Put(definition.clone()), size))
            } else if is_next(heads[1]) {
                let (seq, (shelf, key)) = removals.next()?;
                Some((seq, Fact::Remove(*shelf, key.clone()), FACT_BYTES + key.len()))
            } else if is_next(heads[2]) {
                let (seq, topic) = topics.next()?;
                let size = match topic {
                    Topic::List(_) => FACT_BYTES,
                    Topic::Resource(uri) => FACT_BYTES + uri.len(),
                };
                Some((seq, Fact::Changed(topic.clone()), size))
            } else {
                let (seq, note) = notes.next()?;
                Some((*seq, note.fact.clone(), note.bytes))
            }
        })
    }
}

/// Where an update starts.
struct Start {
    at: Position,
    whole: bool,
    missed: bool,
}

fn key(definition: &Definition) -> Key {
    (definition.shelf, definition.key.clone())
}
