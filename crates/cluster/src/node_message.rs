//! The messages between nodes, as JSON. A newer release may add to them, and the protocol's own
//! JSON is embedded as it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::remote::{PeerEvent, PeerRequest};
use stentor_wire::raw_json;

use crate::replication_log::{Position, Update};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeMessage {
    /// How far the sender has read the receiver's replication log.
    Position(Option<Position>),
    /// New facts of the sender's replication log.
    Update(Update),
    /// The sender shows what the receiver offers, up to this number.
    Shown(u64),
    /// All nodes show what the sender offers, up to this number.
    Announce(u64),
    /// A peer request of the sender, with the sender's number for it.
    Request(u64, PeerRequest),
    /// An event of a peer request of the receiver, with the receiver's number for it.
    Event(u64, PeerEvent),
    /// The sender has read this many events of the peer request with this number.
    Acknowledge(u64, usize),
    /// A client's answer to a question of the peer request with this number: the message.
    Answer(u64, #[serde(with = "raw_json")] Bytes),
    /// The sender cancels the peer request with this number.
    Cancel(u64),
}

impl NodeMessage {
    /// `None` if the message cannot be encoded.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }

    /// # Errors
    ///
    /// The bytes are of a newer release, or not a message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// A message of a newer release for which another node waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnknownMessage {
    /// A peer request with this number.
    Request(u64),
    /// An event of this node's peer request with this number.
    Event(u64),
}

impl UnknownMessage {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let frame: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let number = |kind: &str| frame.get(kind)?.get(0)?.as_u64();
        number("request").map(Self::Request).or_else(|| number("event").map(Self::Event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_messages_that_need_an_answer_are_recognized() {
        let asked = br#"{"request":[7,{"dance":{"how":"fast"}}]}"#;
        assert!(NodeMessage::decode(asked).is_err());
        assert_eq!(UnknownMessage::decode(asked), Some(UnknownMessage::Request(7)));
        assert_eq!(
            UnknownMessage::decode(br#"{"event":[8,"hm"]}"#),
            Some(UnknownMessage::Event(8))
        );
        assert_eq!(UnknownMessage::decode(br#"{"sung":[9]}"#), None);
        // A new member in a known message changes nothing.
        let known = NodeMessage::decode(
            br#"{"event":[8,{"started":{"stream":1,"version":null,"key":"c"}}]}"#,
        );
        assert!(matches!(
            known,
            Ok(NodeMessage::Event(8, PeerEvent::Started { stream: 1, version: None, .. }))
        ));
    }
}
