//! One list, in the order in which its entries were added.

use std::cmp::Ordering;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use stentor_wire::Era;

/// A cursor that this server did not give out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub(crate) struct InvalidCursor;

pub(super) trait Json {
    /// The JSON for clients of an era. What differs between the eras follows from the modern form.
    fn json(&self, era: Era) -> &Bytes;
}

/// Entries by name, in the order of their ordinals.
///
/// A cursor contains the ordinal and the name of the last entry of a page. So it stays good
/// whatever is added or removed meanwhile, and on every node. The name is needed for items of
/// several nodes, because each node has ordinals of its own.
#[derive(Clone, Debug)]
pub(super) struct List<E>(IndexMap<Arc<str>, (u64, E), RandomState>);

impl<E> Default for List<E> {
    fn default() -> Self {
        Self(IndexMap::default())
    }
}

impl<E> List<E> {
    pub(super) fn of(entries: impl IntoIterator<Item = (Arc<str>, u64, E)>) -> Self {
        let entry = |(key, ordinal, entry)| (key, (ordinal, entry));
        let mut list: IndexMap<Arc<str>, (u64, E), RandomState> =
            entries.into_iter().map(entry).collect();
        list.sort_by(Self::order);
        Self(list)
    }

    pub(super) fn get(&self, key: &str) -> Option<&E> {
        self.0.get(key).map(|(_, entry)| entry)
    }

    /// An entry with its ordinal.
    pub(super) fn get_placed(&self, key: &str) -> Option<(u64, &E)> {
        self.0.get(key).map(|(ordinal, entry)| (*ordinal, entry))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|key| &**key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.0.values().map(|(_, entry)| entry)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, u64, &E)> {
        self.0.iter().map(|(key, (ordinal, entry))| (key, *ordinal, entry))
    }

    /// Adds an entry, which has the largest ordinal, or replaces the entry with its name. `false`
    /// if the name is taken and `replace` is not set.
    pub(super) fn put(&mut self, key: &str, ordinal: u64, entry: E, replace: bool) -> bool {
        match self.0.get_mut(key) {
            Some((_, held)) if replace => *held = entry,
            Some(_) => return false,
            None => {
                self.0.insert(key.into(), (ordinal, entry));
            }
        }
        true
    }

    /// Removes an entry. The others are out of order until the list is [settled](Self::settle), so
    /// that many removals cost one pass over the list.
    pub(super) fn remove(&mut self, key: &str) {
        self.0.swap_remove(key);
    }

    pub(super) fn settle(&mut self) {
        let in_order = |(key, held): &(&Arc<str>, &(u64, E)),
                        (other, others): &(&Arc<str>, &(u64, E))| {
            Self::order(key, held, other, others).is_le()
        };
        if !self.0.iter().is_sorted_by(in_order) {
            self.0.sort_by(Self::order);
        }
    }

    fn order(
        key: &Arc<str>,
        (ordinal, _): &(u64, E),
        other: &Arc<str>,
        (others, _): &(u64, E),
    ) -> Ordering {
        (ordinal, key).cmp(&(others, other))
    }
}

impl<E: Json> List<E> {
    /// Whether clients see another list. Code may change behind an unchanged descriptor.
    pub(super) fn differs(&self, other: &Self) -> bool {
        fn same(a: &Bytes, b: &Bytes) -> bool {
            // Usually both share one allocation.
            (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b
        }
        self.0.len() != other.0.len()
            || self
                .iter()
                .zip(other.iter())
                .any(|(a, b)| !same(a.json(Era::Modern), b.json(Era::Modern)))
    }

    pub(super) fn page(
        &self,
        member: &str,
        era: Era,
        cursor: Option<&str>,
        size: usize,
        is_seen: impl Fn(&str) -> bool,
    ) -> Result<Bytes, InvalidCursor> {
        let start = match cursor {
            None => 0,
            Some(cursor) => {
                let decoded = decode_cursor(member, cursor)?;
                let (after, name) = parse(&decoded)?;
                self.0.partition_point(|key, (ordinal, _)| (*ordinal, &**key) <= (after, name))
            }
        };
        let rest = self.0.get_range(start..).ok_or(InvalidCursor)?;
        let mut seen = rest.iter().filter(|(key, _)| is_seen(key));
        let page: Vec<_> = seen.by_ref().take(size.max(1)).collect();
        let length: usize = page.iter().map(|(_, (_, entry))| entry.json(era).len() + 1).sum();
        let mut out = String::with_capacity(length + 64).into_bytes();
        out.extend_from_slice(format!("{{\"{member}\":[").as_bytes());
        for (index, (_, (_, entry))) in page.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(entry.json(era));
        }
        out.push(b']');
        if let (Some((key, (last, _))), Some(_)) = (page.last(), seen.next()) {
            let cursor = encode_cursor(member, *last, key);
            out.extend_from_slice(format!(",\"nextCursor\":\"{cursor}\"").as_bytes());
        }
        out.push(b'}');
        Ok(out.into())
    }
}

pub(super) fn encode_cursor(member: &str, ordinal: u64, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{member}:{ordinal}:{key}"))
}

fn decode_cursor(member: &str, cursor: &str) -> Result<String, InvalidCursor> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
    let decoded = String::from_utf8(decoded).map_err(|_| InvalidCursor)?;
    let place = decoded.strip_prefix(member).and_then(|rest| rest.strip_prefix(':'));
    place.map(str::to_owned).ok_or(InvalidCursor)
}

fn parse(place: &str) -> Result<(u64, &str), InvalidCursor> {
    let (ordinal, key) = place.split_once(':').ok_or(InvalidCursor)?;
    Ok((ordinal.parse().map_err(|_| InvalidCursor)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: u64) -> List<u64> {
        List::of((0..count).map(|n| (format!("t{n}").into(), n, n)))
    }

    fn entries(list: &List<u64>) -> Vec<u64> {
        list.iter().copied().collect()
    }

    #[test]
    fn a_removal_moves_one_entry_however_long_the_list_is() {
        let mut list = list(1_000);
        let before = entries(&list);
        list.remove("t10");
        let moved =
            entries(&list).iter().zip(&before).filter(|(now, before)| now != before).count();
        assert_eq!(moved, 1);
    }

    #[test]
    fn the_remaining_entries_are_in_order_after_settling() {
        let mut list = list(100);
        for n in (0..100).step_by(3) {
            list.remove(&format!("t{n}"));
        }
        assert!(list.put("t0", 100, 100, false));
        list.settle();
        let expected: Vec<_> = (0..100).filter(|n| n % 3 != 0).chain([100]).collect();
        assert_eq!(entries(&list), expected);
    }
}
