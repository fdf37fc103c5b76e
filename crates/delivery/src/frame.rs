//! One message in a stream.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use compact_str::CompactString;
use stentor_wire::{EncodedNotice, LogLevel, Notice, SubscriptionId, Topic, encode};

use crate::ids::Seq;
use crate::policy::Class;
use crate::progress_gate::ProgressGate;

/// A frame that was taken from its stream.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Its number in the stream.
    pub seq: Seq,
    /// Its class, which decides what happens when the client falls behind.
    pub class: Class,
    /// The message.
    pub frame: Frame,
}

/// One message to a client: encoded, or one cheap step before.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The response to a request, and the error code if it is an error.
    Reply(Bytes, Option<i32>),
    /// A complete message.
    Message(Bytes),
    /// A log message and its level.
    Log(LogLevel, Bytes),
    /// Reports to the client that this many log messages were dropped here, with the level of the
    /// last of them.
    Dropped(LogLevel, u64),
    /// A notice that many streams share, and the subscription id to splice into it.
    Notice(Arc<EncodedNotice>, Option<SubscriptionId>),
    /// A progress value, encoded only when it is read: most values are replaced before.
    Progress(ProgressValue),
}

/// A progress value that a call reported.
#[derive(Clone, Debug)]
pub struct ProgressValue {
    /// The gate of the call.
    pub gate: Arc<ProgressGate>,
    /// The progress so far.
    pub progress: f64,
    /// The total, if it is known.
    pub total: Option<f64>,
    /// The message. Stored inline if it is short.
    pub message: CompactString,
}

impl Frame {
    /// Appends the message as JSON, without a line break.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Reply(bytes, _) | Self::Message(bytes) | Self::Log(_, bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Dropped(level, count) => {
                let data = serde_json::json!({
                    "dropped": count, "reason": "the client fell behind",
                });
                out.extend_from_slice(&encode::log(*level, Some("stentor"), &data));
            }
            Self::Notice(notice, subscription) => notice.write(out, subscription.as_ref()),
            Self::Progress(value) => {
                if let Some(token) = value.gate.token() {
                    encode::progress(out, token, value.progress, value.total, &value.message);
                }
            }
        }
    }

    /// The memory that the frame takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        FRAME_COST
            + match self {
                Self::Reply(bytes, _) | Self::Message(bytes) | Self::Log(_, bytes) => bytes.len(),
                Self::Notice(notice, _) => match notice.notice() {
                    Notice::Custom { .. } | Notice::State { .. } => notice.len_hint(None),
                    // At most one of each list waits for a subscription, and all sessions get
                    // theirs at once: adding to the shared total would cost more than these frames
                    // do.
                    Notice::Changed(Topic::List(_)) => return 0,
                    // Few of these exist, and all sessions share them: only the entry takes memory.
                    Notice::Changed(_) => 0,
                },
                Self::Dropped(..) => 0,
                Self::Progress(value) => {
                    value.message.len() + value.gate.token().map_or(0, |token| token.text_len())
                }
            }
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    /// `None` once the frame was dropped.
    pub(crate) held: Option<QueuedFrame>,
}

#[derive(Debug)]
pub(crate) struct QueuedFrame {
    pub(crate) class: Class,
    pub(crate) frame: Frame,
    pub(crate) weight: usize,
}

impl QueuedFrame {
    pub(crate) fn new(class: Class, frame: Frame) -> Self {
        Self { class, weight: frame.weight(), frame }
    }
}

/// Bytes that a frame costs beside its text: its entry, in a queue that may have capacity for as
/// many more, and the allocator's overhead for the text.
const FRAME_COST: usize = 2 * size_of::<Entry>() + 32;
