//! What one node says to another, as bytes: JSON, so that a node of a newer release may say more,
//! and what it says to others in JSON needs no other form.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::peers::{Errand, Said};

use crate::feed::{Position, Update};

/// What one node says to another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    /// How far the sender is with the receiver's feed.
    Have(Option<Position>),
    /// What is new in the sender's feed.
    News(Update),
    /// The sender shows what the receiver offers as of this number.
    Shown(u64),
    /// All nodes show what the sender offers as of this number.
    Settled(u64),
    /// Sends the receiver on an errand, which has this number among those of the sender.
    Ask(u64, Errand),
    /// What is said on an errand of the receiver.
    Said(u64, Said),
    /// So many things that were said on an errand were taken in.
    Took(u64, usize),
    /// A client answers a question that was asked on an errand: its message.
    Answer(u64, #[serde(with = "raw")] Bytes),
    /// The errand is called off.
    HangUp(u64),
}

impl Frame {
    /// `None` if it is more than can be written.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }

    /// # Errors
    ///
    /// Of a newer release, or no frame at all.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// JSON that stands in other JSON as it is.
mod raw {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(json: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(json).map_err(ser::Error::custom)?;
        raw.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Ok(Bytes::from(Box::<str>::from(raw).into_string()))
    }
}
