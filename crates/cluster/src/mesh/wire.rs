//! What goes from one relay to another, as bytes.
//!
//! A version, a kind, the number by which the receiver knows the link, how much of what came
//! over the link was handled, and then the frame, if it is one. Integers are big endian.

use bytes::{Buf as _, BufMut as _, Bytes};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 1 + 8 + 8;

/// One message between relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// The number that the receiver gave this link. It cannot be guessed, so it says who sent.
    pub(crate) link: u64,
    /// What the sender handled of what it was sent over this link.
    pub(crate) handled: u64,
    /// Nothing, where it only tells what was handled.
    pub(crate) frame: Option<Bytes>,
}

impl Parcel {
    pub(crate) fn encode(link: u64, handled: u64, frame: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + frame.map_or(0, <[u8]>::len));
        bytes.put_u8(VERSION);
        bytes.put_u8(frame.is_some().into());
        bytes.put_u64(link);
        bytes.put_u64(handled);
        bytes.extend_from_slice(frame.unwrap_or_default());
        bytes
    }

    /// Nothing, if it is of another version or makes no sense.
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
        fn what_was_sent_is_what_comes(
            link: u64,
            handled: u64,
            frame: Option<Vec<u8>>,
        ) {
            let bytes = Parcel::encode(link, handled, frame.as_deref());
            let parcel = Parcel { link, handled, frame: frame.map(Bytes::from) };
            prop_assert_eq!(Parcel::decode(bytes.into()), Some(parcel));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Parcel::decode(bytes.into());
        }
    }

    #[test]
    fn another_version_is_not_understood() {
        let mut bytes = Parcel::encode(1, 2, None);
        bytes[0] = 2;
        assert_eq!(Parcel::decode(bytes.into()), None);
    }
}
