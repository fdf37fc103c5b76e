//! The notices that a listen is about.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::read::check_length;
use crate::topic::{KeyKind, ListKind};

/// The notices that a `subscriptions/listen` asks for, or that its acknowledgment grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoticeFilter {
    lists: [bool; ListKind::ALL.len()],
    keys: [Vec<Arc<str>>; KeyKind::ALL.len()],
    /// Notifications of other extensions, by the member that asks for them with `true`; see
    /// [`Listen::asked_members`](super::Listen::asked_members).
    pub members: Vec<Arc<str>>,
}

impl NoticeFilter {
    /// For each list, by its number, whether its changes are among the notices.
    #[must_use]
    pub const fn lists(&self) -> [bool; ListKind::ALL.len()] {
        self.lists
    }

    /// The topics of a kind whose notices are among these, by their keys.
    #[must_use]
    pub fn keys(&self, kind: KeyKind) -> &[Arc<str>] {
        &self.keys[kind as usize]
    }

    /// The same keys, to change them.
    pub fn keys_mut(&mut self, kind: KeyKind) -> &mut Vec<Arc<str>> {
        &mut self.keys[kind as usize]
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes out the topics that extensions own.
    #[must_use]
    pub fn take_owned(&mut self) -> Self {
        let mut owned = Self::default();
        for kind in KeyKind::ALL.into_iter().filter(|kind| kind.is_owned()) {
            *owned.keys_mut(kind) = std::mem::take(self.keys_mut(kind));
        }
        owned
    }
}

impl Serialize for NoticeFilter {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut members = output.serialize_map(None)?;
        for kind in ListKind::ALL.into_iter().filter(|kind| self.lists[*kind as usize]) {
            members.serialize_entry(kind.member(), &true)?;
        }
        for kind in KeyKind::ALL.into_iter().filter(|kind| !self.keys(*kind).is_empty()) {
            members.serialize_entry(kind.rules().member, self.keys(kind))?;
        }
        for member in &self.members {
            members.serialize_entry(member, &true)?;
        }
        members.end()
    }
}

impl<'de> Deserialize<'de> for NoticeFilter {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(FilterVisitor)
    }
}

struct FilterVisitor;

impl<'de> Visitor<'de> for FilterVisitor {
    type Value = NoticeFilter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the notices of a listen")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NoticeFilter, A::Error> {
        let mut filter = NoticeFilter::default();
        let (mut lists, mut kinds) = (ListKind::ALL.to_vec(), KeyKind::ALL.to_vec());
        while let Some(name) = map.next_key::<String>()? {
            let is_list = |kind: &ListKind| kind.member() == name;
            let has_keys = |kind: &KeyKind| kind.rules().member == name;
            // An optional member may be `null`, too.
            if let Some(at) = lists.iter().position(is_list) {
                let asked = map.next_value::<Option<bool>>()?.unwrap_or_default();
                filter.lists[lists.swap_remove(at) as usize] = asked;
            } else if let Some(at) = kinds.iter().position(has_keys) {
                let (kind, keys) = (kinds.swap_remove(at), map.next_value::<Option<Vec<_>>>()?);
                let keys: Vec<Arc<str>> = keys.unwrap_or_default();
                let rules = kind.rules();
                let check = |key: &Arc<str>| check_length(key, rules.key, rules.max_len);
                keys.iter().try_for_each(check).map_err(A::Error::custom)?;
                *filter.keys_mut(kind) = keys;
            } else if ListKind::ALL.iter().any(is_list) || KeyKind::ALL.iter().any(has_keys) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_repeated_member_is_refused() {
        let text = r#"{"toolsListChanged":true,"resourceSubscriptions":["a:1"],"taskIds":["t"]}"#;
        let filter: NoticeFilter = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&filter).unwrap(), text);
        let rest = r#"{"taskIds":null,"promptsListChanged":null,"moonPhasesChanged":[1]}"#;
        assert!(serde_json::from_str::<NoticeFilter>(rest).unwrap().is_empty());
        for twice in [r#"{"taskIds":null,"taskIds":[]}"#, r#"{"taskIds":["t"],"taskIds":["u"]}"#] {
            assert!(serde_json::from_str::<NoticeFilter>(twice).is_err());
        }
    }

    #[test]
    fn what_extensions_own_can_be_taken_out() {
        let text = r#"{"resourceSubscriptions":["a:1"],"taskIds":["t"]}"#;
        let mut filter: NoticeFilter = serde_json::from_str(text).unwrap();
        assert_eq!(filter.take_owned().keys(KeyKind::Task), ["t".into()]);
        assert_eq!(filter.keys(KeyKind::Resource), ["a:1".into()]);
        assert!(filter.keys(KeyKind::Task).is_empty());
    }
}
