//! What the engines of several nodes tell and ask each other.
//!
//! The engine knows that there may be other nodes, and no more: how they are found and reached is
//! up to who joins them, as `stentor-cluster` does. Everything here is plain data that can be
//! written down, and one trait.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::embed::Audience;
use crate::registry::{Shelf, Topic};

/// What clients see of one item of a node's catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Where it is.
    pub shelf: Shelf,
    /// Its name or URI.
    pub key: Arc<str>,
    /// Its place in the list of its node: it grows with each addition.
    pub ordinal: u64,
    /// Its descriptor, as the JSON that clients read.
    #[serde(with = "raw_json")]
    pub json: Bytes,
}

/// One thing that a node tells all others. What it tells later of the same subject takes the
/// place of what it told before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// It offers this.
    Put(Definition),
    /// It does not offer this any more.
    Remove(Shelf, Arc<str>),
    /// Its application announced a change of this, to all who listen for it.
    Changed(Topic),
    /// Its application sent a notification of its own.
    Notify {
        /// To whom.
        audience: Audience,
        /// The method.
        method: Arc<str>,
        /// The parameters, an object, if there are any.
        params: Option<Value>,
    },
}

/// JSON that stands in other JSON as it is.
pub(crate) mod raw_json {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    pub(crate) fn serialize<S: Serializer>(json: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(json).map_err(ser::Error::custom)?;
        raw.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(from).map_err(de::Error::custom)?;
        Ok(Bytes::from(Box::<str>::from(raw).into_string()))
    }
}
