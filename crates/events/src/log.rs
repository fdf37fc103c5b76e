//! The bounded log of one event type. Pure: it is told the time.
//!
//! Everybody reads the log: streams, polls and deliveries each have a [`Position`] in it. Nobody is
//! waited for. Who is slower than the log's bounds is told that something was skipped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::cursor::{Cursor, Origin};
use crate::occurrence::Occurrence;

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) count: usize,
    pub(crate) age: Duration,
    pub(crate) bytes: usize,
}

/// Origins that have ended, but are remembered, so that their cursors are not lost positions.
const REMEMBERED: usize = 64;

/// Who was heard of within this time is not forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub(crate) struct Log {
    bounds: Bounds,
    own: Arc<Origin>,
    entries: VecDeque<Entry>,
    /// The index of the first entry.
    first: u64,
    bytes: usize,
    origins: BTreeMap<Arc<Origin>, Numbers>,
    upstream: Option<Upstream>,
}

/// Where the upstream stands, in the log of a branch.
#[derive(Debug)]
struct Upstream {
    /// Before the first entry.
    first: Arc<str>,
    /// Behind the last entry, and behind what it had to say since.
    end: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// Of the last occurrence.
    last: u64,
    /// Of the last occurrence that is not kept any more.
    dropped: u64,
    /// When the origin was last heard of.
    heard: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) origin: Arc<Origin>,
    pub(crate) seq: u64,
    at: Instant,
    pub(crate) occurrence: Arc<Occurrence>,
    /// Where the upstream stands after it, in the log of a branch.
    upstream: Option<Arc<str>>,
}

/// Where somebody reads: the index of the next entry, and what was looked at before.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) seen: Cursor,
}

/// One step of a reader.
#[derive(Debug)]
pub(crate) enum Step {
    Entry(Entry),
    /// Something was dropped before the reader came to it. The position is after that.
    Gap,
    End,
}

impl Log {
    /// An empty log, in which this origin has numbered occurrences up to `last`.
    pub(crate) fn new(bounds: Bounds, own: Arc<Origin>, last: u64) -> Self {
        let numbers = Numbers { last, dropped: last, heard: Instant::now() };
        Self {
            bounds,
            own: own.clone(),
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            origins: BTreeMap::from([(own, numbers)]),
            upstream: None,
        }
    }

    /// The upstream stands here now, behind all entries.
    pub(crate) fn reach(&mut self, cursor: Arc<str>) {
        match &mut self.upstream {
            Some(upstream) => upstream.end = cursor,
            None => self.upstream = Some(Upstream { first: cursor.clone(), end: cursor }),
        }
    }

    /// Adds an occurrence that the upstream told, and which stands at this cursor after it.
    pub(crate) fn append_checked(
        &mut self,
        now: Instant,
        occurrence: Arc<Occurrence>,
        after: Arc<str>,
    ) {
        self.expire(now);
        if self.entries.is_empty()
            && let Some(upstream) = &mut self.upstream
        {
            upstream.first = upstream.end.clone();
        }
        let own = self.own.clone();
        let seq = self.last(&own) + 1;
        self.push(&own, seq, now, occurrence, Some(after.clone()));
        self.reach(after);
    }

    /// Where the upstream stands, behind all entries.
    pub(crate) fn upstream_end(&self) -> Option<Arc<str>> {
        self.upstream.as_ref().map(|upstream| upstream.end.clone())
    }

    /// Where the upstream stands for who has looked at everything before this index.
    fn upstream_at(&self, index: u64) -> Option<Arc<str>> {
        let upstream = self.upstream.as_ref()?;
        if index >= self.end_index() {
            return Some(upstream.end.clone());
        }
        let before = usize::try_from(index.checked_sub(self.first + 1).unwrap_or(u64::MAX));
        let entry = before.ok().and_then(|before| self.entries.get(before));
        Some(entry.and_then(|it| it.upstream.clone()).unwrap_or_else(|| upstream.first.clone()))
    }

    /// Where the entries after a cursor of the upstream begin, of those that did not happen before
    /// `oldest`; and whether something in between is left out. `None` if the log does not reach it.
    pub(crate) fn find_upstream(
        &self,
        cursor: &str,
        oldest: Option<SystemTime>,
    ) -> Option<(Position, bool)> {
        let mut indices = (self.first..=self.end_index()).rev();
        let found = indices.find(|index| self.upstream_at(*index).as_deref() == Some(cursor))?;
        let skipped = usize::try_from(found - self.first).unwrap_or(usize::MAX);
        let is_old = |it: &&Entry| oldest.is_some_and(|oldest| it.occurrence.at < oldest);
        let old = self.entries.iter().skip(skipped).take_while(is_old).count() as u64;
        let index = found + old;
        Some((Position { index, seen: self.cursor_at(index) }, old > 0))
    }

    /// The number of the last occurrence of an origin.
    pub(crate) fn last(&self, origin: &Origin) -> u64 {
        self.origins.get(origin).map_or(0, |numbers| numbers.last)
    }

    /// Notes that there is an origin, which keeps nothing up to this number any more.
    pub(crate) fn learn(&mut self, origin: Arc<Origin>, dropped: u64) {
        let heard = Instant::now();
        let fresh = Numbers { last: dropped, dropped, heard };
        self.origins.entry(origin).or_insert(fresh).heard = heard;
    }

    /// All origins, each with the number of its last occurrence, and of the last that is not kept.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (&Arc<Origin>, u64, u64)> {
        self.origins.iter().map(|(origin, it)| (origin, it.last, it.dropped))
    }

    /// Whether all origins of a cursor are known.
    pub(crate) fn knows(&self, cursor: &Cursor) -> bool {
        cursor.origins().all(|origin| self.origins.contains_key(origin))
    }

    /// Whether the occurrence before this one is not kept any more.
    pub(crate) fn is_first_kept(&self, origin: &Origin, seq: u64) -> bool {
        self.origins.get(origin).is_some_and(|numbers| seq == numbers.dropped + 1)
    }

    /// Adds an occurrence. `false` if it is there, or comes too late.
    pub(crate) fn append(
        &mut self,
        origin: &Arc<Origin>,
        seq: u64,
        at: Instant,
        occurrence: Arc<Occurrence>,
    ) -> bool {
        self.push(origin, seq, at, occurrence, None)
    }

    fn push(
        &mut self,
        origin: &Arc<Origin>,
        seq: u64,
        at: Instant,
        occurrence: Arc<Occurrence>,
        upstream: Option<Arc<str>>,
    ) -> bool {
        let fresh = Numbers { last: 0, dropped: 0, heard: at };
        let numbers = self.origins.entry(origin.clone()).or_insert(fresh);
        numbers.heard = at;
        if seq <= numbers.last {
            return false;
        }
        if numbers.last == 0 && numbers.dropped == 0 {
            // The first one here: those before it are kept nowhere.
            numbers.dropped = seq - 1;
        }
        numbers.last = seq;
        self.bytes += occurrence.weight();
        self.entries.push_back(Entry { origin: origin.clone(), seq, at, occurrence, upstream });
        while self.entries.len() > self.bounds.count
            || (self.bytes > self.bounds.bytes && self.entries.len() > 1)
        {
            self.drop_first();
        }
        true
    }

    fn drop_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first += 1;
        self.bytes -= entry.occurrence.weight();
        if let Some(numbers) = self.origins.get_mut(&entry.origin) {
            numbers.dropped = entry.seq;
        }
        if let (Some(upstream), Some(after)) = (&mut self.upstream, entry.upstream) {
            upstream.first = after;
        }
    }

    /// Drops what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|it| now - it.at > self.bounds.age) {
            self.drop_first();
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries.shrink_to(64);
        }
        while self.origins.len() > REMEMBERED
            && let Some(oldest) = self.silent_for_longest(now)
        {
            self.origins.remove(&oldest);
        }
    }

    /// The origin, of which nothing is kept, that was not heard of for the longest time. Nodes that
    /// exist are heard of every few seconds.
    fn silent_for_longest(&self, now: Instant) -> Option<Arc<Origin>> {
        let is_over = |origin: &Arc<Origin>, it: &Numbers| {
            *origin != self.own && it.dropped == it.last && now - it.heard > FORGOTTEN_AFTER
        };
        let over = self.origins.iter().filter(|(origin, it)| is_over(origin, it));
        over.min_by_key(|(_, it)| it.heard).map(|(origin, _)| origin.clone())
    }

    /// Behind the last entry.
    pub(crate) fn end(&self) -> Position {
        let seen = self.origins.iter().map(|(origin, it)| (origin, it.last));
        let mut seen = cursor_of(seen);
        seen.upstream = self.upstream_at(self.end_index());
        Position { index: self.end_index(), seen }
    }

    /// Where the entries after a cursor begin, of those that are not older than `oldest`; and whether
    /// something in between is left out.
    ///
    /// A cursor that names no node of this log is lost: reading begins at the end.
    pub(crate) fn start(&self, cursor: &Cursor, oldest: Option<Instant>) -> (Position, bool) {
        let is_known = |it: &Origin| self.origins.keys().any(|known| known.node == it.node);
        if !cursor.origins().any(|origin| is_known(origin)) {
            return (self.end(), true);
        }
        let mut truncated = cursor.origins().any(|origin| !self.origins.contains_key(origin));
        let mut seen = cursor.clone();
        for origin in cursor.origins().filter(|it| !self.origins.contains_key(*it)) {
            seen.remove(origin);
        }
        let last = self.last(&self.own);
        if cursor.get(&self.own).is_some_and(|named| named > last) {
            // Nobody was given it: whoever believed it would hear of nothing until then.
            truncated = true;
            seen.remove(&self.own);
            seen.pass(&self.own, last);
        }
        for (origin, numbers) in &self.origins {
            let was = cursor.get(origin);
            // An origin of whom the cursor knows nothing may have dropped something since.
            truncated |= was.unwrap_or(0) < numbers.dropped;
            seen.pass(origin, numbers.dropped);
        }
        let kept = |it: &&Numbers| it.dropped < it.last;
        let (mut index, mut open) = (self.end_index(), self.origins.values().filter(kept).count());
        let mut done = Vec::new();
        for entry in self.entries.iter().rev() {
            if open == 0 {
                break;
            }
            if seen.get(&entry.origin).is_some_and(|last| entry.seq <= last) {
                if !done.contains(&&entry.origin) {
                    done.push(&entry.origin);
                    open -= 1;
                }
            } else if oldest.is_some_and(|oldest| entry.at < oldest) {
                truncated = true;
                seen.pass(&entry.origin, entry.seq);
                // All before it are older.
                for entry in self.entries.iter().take_while(|it| it.at <= entry.at) {
                    seen.pass(&entry.origin, entry.seq);
                }
                break;
            }
            index -= 1;
        }
        (Position { index, seen }, truncated)
    }

    /// The position of another log that ends with this cursor: what it lacks begins there.
    pub(crate) fn behind(&self, end: &Cursor) -> Position {
        let mut seen = Cursor::default();
        for (origin, numbers) in &self.origins {
            seen.pass(origin, end.get(origin).unwrap_or(0).max(numbers.dropped));
        }
        let lacks = |entry: &Entry| seen.get(&entry.origin).is_none_or(|last| entry.seq > last);
        let first = self.entries.iter().position(lacks).unwrap_or(self.entries.len());
        Position { index: self.first + first as u64, seen }
    }

    /// Takes the next step of a reader, which moves its position.
    pub(crate) fn step(&self, position: &mut Position) -> Step {
        if position.index < self.first {
            position.index = self.first;
            position.seen.upstream = self.upstream_at(self.first);
            let mut lost = false;
            for (origin, numbers) in &self.origins {
                lost |= position.seen.pass(origin, numbers.dropped) && numbers.dropped > 0;
            }
            if lost {
                return Step::Gap;
            }
        }
        loop {
            let at = usize::try_from(position.index - self.first).unwrap_or(usize::MAX);
            let Some(entry) = self.entries.get(at) else {
                position.seen.upstream = self.upstream_at(position.index);
                return Step::End;
            };
            let last = position.seen.get(&entry.origin).unwrap_or(0);
            if entry.seq > last + 1 {
                // It was dropped on its way from another node.
                position.seen.pass(&entry.origin, entry.seq - 1);
                return Step::Gap;
            }
            position.index += 1;
            position.seen.upstream.clone_from(&entry.upstream);
            if position.seen.pass(&entry.origin, entry.seq) {
                return Step::Entry(entry.clone());
            }
        }
    }

    /// The cursor of a reader that has looked at everything before this index.
    pub(crate) fn cursor_at(&self, index: u64) -> Cursor {
        let mut numbers: BTreeMap<_, _> =
            self.origins.iter().map(|(origin, it)| (origin.clone(), it.last)).collect();
        let after = usize::try_from(self.end_index().saturating_sub(index)).unwrap_or(usize::MAX);
        for entry in self.entries.iter().rev().take(after) {
            numbers.insert(entry.origin.clone(), entry.seq - 1);
        }
        let mut cursor = cursor_of(numbers.iter().map(|(origin, last)| (origin, *last)));
        cursor.upstream = self.upstream_at(index);
        cursor
    }

    /// The index behind the last entry.
    pub(crate) fn end_index(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// How many entries are kept, and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}

fn cursor_of<'a>(numbers: impl Iterator<Item = (&'a Arc<Origin>, u64)>) -> Cursor {
    let mut cursor = Cursor::default();
    for (origin, last) in numbers {
        cursor.pass(origin, last);
    }
    cursor
}

#[cfg(test)]
mod tests;
