//! What one node says to another, as bytes: JSON, so that a node of a newer release may say more,
//! and what it says to others in JSON needs no other form.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::peers::{Errand, Said, raw_json};

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
    Answer(u64, #[serde(with = "raw_json")] Bytes),
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

/// A frame of a newer release that somebody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It sends this node on an errand of this number.
    Ask(u64),
    /// It says something on an errand of this node.
    Said(u64),
}

impl Foreign {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let frame: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let number = |kind: &str| frame.get(kind)?.get(0)?.as_u64();
        number("ask").map(Self::Ask).or_else(|| number("said").map(Self::Said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_node_says_is_answered_where_somebody_waits() {
        let asked = br#"{"ask":[7,{"dance":{"how":"fast"}}]}"#;
        assert!(Frame::decode(asked).is_err());
        assert_eq!(Foreign::decode(asked), Some(Foreign::Ask(7)));
        assert_eq!(Foreign::decode(br#"{"said":[8,"hm"]}"#), Some(Foreign::Said(8)));
        assert_eq!(Foreign::decode(br#"{"sung":[9]}"#), None);
        // A member that is new in something known changes nothing.
        let known =
            Frame::decode(br#"{"said":[8,{"began":{"stream":1,"version":null,"key":"c"}}]}"#);
        assert!(matches!(known, Ok(Frame::Said(8, Said::Began { stream: 1, version: None, .. }))));
    }
}
