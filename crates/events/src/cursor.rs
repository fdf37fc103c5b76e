//! Positions in the log of an event type, as clients keep them. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stentor_engine::NodeId;

/// Longer cursors are no cursors, in bytes.
pub(crate) const MAX_CURSOR: usize = 16 << 10;

/// Who numbers occurrences: one node, from its start or from the creation of its store on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}@{}", self.epoch, self.node)
    }
}

/// For each origin the number of the last occurrence that was looked at.
///
/// Each node has the occurrences of all nodes, in an order of its own; those of one origin come in
/// order everywhere. So a cursor from one node names the same occurrences on another.
///
/// Sorted by origins, of which there are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    numbers: Vec<(Arc<Origin>, u64)>,
    /// What clients get instead of the numbers: where the upstream stands, of a type with `check`.
    pub(crate) upstream: Option<Arc<str>>,
}

/// Where the upstream stands says nothing about what was looked at.
impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Cursor {}

impl Cursor {
    /// Reads a cursor that [`Display`](fmt::Display) wrote; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR {
            return None;
        }
        let part = |part: &str| {
            let (seq, origin) = part.split_once('.')?;
            let (epoch, node) = origin.split_once('@')?;
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            let origin = Origin { node: NodeId::new(node).ok()?, epoch };
            Some((Arc::new(origin), seq.parse().ok()?))
        };
        let parts = text.split(',').map(part).collect::<Option<BTreeMap<_, _>>>();
        parts.map(|parts| Self { numbers: parts.into_iter().collect(), upstream: None })
    }

    pub(crate) fn get(&self, origin: &Origin) -> Option<u64> {
        self.numbers.iter().find(|(it, _)| **it == *origin).map(|(_, last)| *last)
    }

    /// Looks at an occurrence; `false` if it is before the cursor.
    pub(crate) fn pass(&mut self, origin: &Arc<Origin>, seq: u64) -> bool {
        match self.numbers.binary_search_by(|(it, _)| it.cmp(origin)) {
            Ok(at) if self.numbers[at].1 >= seq => false,
            Ok(at) => {
                self.numbers[at].1 = seq;
                true
            }
            Err(at) => {
                self.numbers.insert(at, (origin.clone(), seq));
                true
            }
        }
    }

    pub(crate) fn origins(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.numbers.iter().map(|(origin, _)| origin)
    }

    /// As a JSON string.
    pub(crate) fn json(&self) -> String {
        match &self.upstream {
            Some(upstream) => serde_json::to_string(&**upstream).unwrap_or_default(),
            // Nothing in it has to be escaped.
            None => format!("\"{self}\""),
        }
    }

    /// Forgets an origin.
    pub(crate) fn remove(&mut self, origin: &Origin) {
        self.numbers.retain(|(it, _)| **it != *origin);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(upstream) = &self.upstream {
            return f.write_str(upstream);
        }
        for (index, (origin, seq)) in self.numbers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{seq}.{origin}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn origin(node: &str, epoch: u64) -> Arc<Origin> {
        Arc::new(Origin { node: NodeId::new(node).unwrap(), epoch })
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(
            parts in prop::collection::btree_map(("[a-z][a-z0-9-]{0,8}", any::<u64>()), any::<u64>(), 1..5),
        ) {
            let mut cursor = Cursor::default();
            for ((node, epoch), seq) in parts {
                cursor.pass(&origin(&node, epoch), seq);
            }
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_none(text in ".*") {
            let _ = Cursor::parse(&text);
        }
    }

    #[test]
    fn what_is_no_cursor() {
        for text in ["", ",", "7", "7.@a", "7.zz@a", "x.1@a", "7.1@", "judge/%%% not a cursor"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
        assert_eq!(Cursor::parse(&"1.1@a,".repeat(4_000)), None);
    }
}
