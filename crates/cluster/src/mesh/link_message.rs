//! The messages between mesh actors, as bytes.
//!
//! A version, a kind, the receiver's number for the link, the number of handled bytes, and the
//! frame, if there is one. Integers are big endian.

use bytes::{Buf as _, BufMut as _, Bytes};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 1 + 8 + 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkMessage {
    /// The receiver's number for this link. It cannot be guessed, so it identifies the sender.
    pub(crate) link: u64,
    /// How much the sender has handled of everything that it received over this link.
    pub(crate) handled: u64,
    /// `None` in a message that only reports what was handled.
    pub(crate) frame: Option<Bytes>,
}

impl LinkMessage {
    pub(crate) fn encode(link: u64, handled: u64, frame: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + frame.map_or(0, <[u8]>::len));
        bytes.put_u8(VERSION);
        bytes.put_u8(frame.is_some().into());
        bytes.put_u64(link);
        bytes.put_u64(handled);
        bytes.extend_from_slice(frame.unwrap_or_default());
        bytes
    }

    /// `None` if the message is of another version or malformed.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEAD || bytes.get_u8() != VERSION {
            return None;
        }
        let kind = bytes.get_u8();
        let (link, handled) = (bytes.get_u64(), bytes.get_u64());
        let frame = match kind {
            0 => None,
            1 => Some(bytes),
            _ => return None,
        };
        Some(Self { link, handled, frame })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decoded_message_equals_the_encoded_one(
            link: u64,
            handled: u64,
            frame: Option<Vec<u8>>,
        ) {
            let bytes = LinkMessage::encode(link, handled, frame.as_deref());
            let message = LinkMessage { link, handled, frame: frame.map(Bytes::from) };
            prop_assert_eq!(LinkMessage::decode(bytes.into()), Some(message));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = LinkMessage::decode(bytes.into());
        }
    }

    #[test]
    fn a_message_of_another_version_is_ignored() {
        let mut bytes = LinkMessage::encode(1, 2, None);
        bytes[0] = 2;
        assert_eq!(LinkMessage::decode(bytes.into()), None);
    }
}
