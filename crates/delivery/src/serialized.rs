//! Frames on their way to another node.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use stentor_wire::{ErrorObject, Id, LogLevel, encode, raw_json};

use crate::frame::{Delivered, Frame};
use crate::ids::Seq;
use crate::policy::Class;

/// A frame of a stream, serialized for another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct SerializedFrame {
    /// Its number in the stream.
    pub seq: u64,
    /// Its class.
    pub class: Class,
    /// The message.
    pub body: FrameBody,
}

/// The message of a serialized frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameBody {
    /// A response, and its error code if it is an error.
    Reply(#[serde(with = "raw_json")] Bytes, Option<i32>),
    /// A complete message.
    Message(#[serde(with = "raw_json")] Bytes),
    /// A log message and its level.
    Log(LogLevel, #[serde(with = "raw_json")] Bytes),
    /// A progress value, its total and its message. Its receiver knows the token.
    Progress(f64, Option<f64>, String),
}

impl SerializedFrame {
    /// Serializes a frame.
    #[must_use]
    pub fn of(Delivered { seq, class, frame }: &Delivered) -> Self {
        let body = match frame {
            Frame::Reply(json, code) => FrameBody::Reply(json.clone(), *code),
            Frame::Message(json) => FrameBody::Message(json.clone()),
            Frame::Log(level, json) => FrameBody::Log(*level, json.clone()),
            Frame::Progress(value) => {
                FrameBody::Progress(value.progress, value.total, value.message.to_string())
            }
            Frame::Dropped(level, _) => FrameBody::Log(*level, written(frame)),
            Frame::Notice(..) => FrameBody::Message(written(frame)),
        };
        Self { seq: seq.0, class: *class, body }
    }

    /// Like [`of`](Self::of), but with progress as a message, which it is on a session's stream.
    #[must_use]
    pub fn written(delivered: &Delivered) -> Self {
        match delivered {
            Delivered { seq, class, frame: frame @ Frame::Progress(_) } => {
                Self { seq: seq.0, class: *class, body: FrameBody::Message(written(frame)) }
            }
            other => Self::of(other),
        }
    }

    /// Reads a frame of a session's stream, where progress is a message.
    #[must_use]
    pub fn into_delivered(self) -> Option<Delivered> {
        let frame = match self.body {
            FrameBody::Reply(json, code) => Frame::Reply(json, code),
            FrameBody::Message(json) => Frame::Message(json),
            FrameBody::Log(level, json) => Frame::Log(level, json),
            FrameBody::Progress(..) => return None,
        };
        Some(Delivered { seq: Seq(self.seq), class: self.class, frame })
    }
}

/// Encodes a frame as its client reads it.
#[must_use]
pub fn written(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.write(&mut out);
    out.freeze()
}

/// Makes frames smaller that are too large to be sent. The largest one becomes an error if it is a
/// reply, and is removed otherwise. Returns its length in bytes, or `None` if no frame is left.
pub fn leave_out_largest(frames: &mut Vec<SerializedFrame>) -> Option<usize> {
    let largest = (0..frames.len()).max_by_key(|index| frames[*index].body.len());
    let largest = largest?;
    let body = &mut frames[largest].body;
    let len = body.len();
    match body.too_large() {
        Some(error) if error.len() < len => *body = error,
        _ => drop(frames.remove(largest)),
    }
    Some(len)
}

impl SerializedFrame {
    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len()
    }
}

impl FrameBody {
    /// The error that replaces a reply that is too large.
    fn too_large(&self) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answered {
            id: Id,
        }
        let Self::Reply(json, _) = self else { return None };
        let Answered { id } = serde_json::from_slice(json).ok()?;
        let error = "the answer is too large to be sent from one node to another";
        let error = ErrorObject::internal(error);
        Some(Self::Reply(encode::error(Some(&id), &error), Some(error.code)))
    }

    /// Its length in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Reply(json, _) | Self::Message(json) | Self::Log(_, json) => json.len(),
            Self::Progress(_, _, message) => message.len(),
        }
    }
}
