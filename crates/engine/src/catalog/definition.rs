//! The form in which nodes send each other the items that they offer.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_wire::raw_json;

use crate::access::Access;
use crate::items::ItemKind;

/// One item of a node's catalog, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The kind of the item.
    pub kind: ItemKind,
    /// Its name or URI.
    pub key: Arc<str>,
    /// Its position in the list of its node. It grows with each addition.
    pub ordinal: u64,
    /// Its descriptor, as the JSON that clients read.
    #[serde(with = "raw_json")]
    pub json: Bytes,
    /// Whether the item has hooks, which one of its nodes runs while clients watch it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_hooks: bool,
    /// Who sees the item, and the scopes that its use needs.
    #[serde(default, skip_serializing_if = "Access::is_open")]
    pub(crate) access: Access,
}

impl Definition {
    /// An item without hooks that everybody may see and use.
    #[must_use]
    pub fn new(kind: ItemKind, key: impl Into<Arc<str>>, ordinal: u64, json: Bytes) -> Self {
        let access = Access::default();
        Self { kind, key: key.into(), ordinal, json, has_hooks: false, access }
    }

    /// Whether some clients must not see the item. A node of a release that does not know of this must
    /// not receive it.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.access.rule.is_empty()
    }

    /// Who sees the item, in words for people: whoever has something of each line. Without lines it is
    /// everybody.
    #[must_use]
    pub fn seen_by(&self) -> Vec<String> {
        self.access.rule.in_words()
    }

    /// The scopes that its use needs.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.access.scopes.iter().map(|scope| &**scope)
    }
}
