//! The form in which nodes send each other the items that they offer.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_wire::raw_json;

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
}
