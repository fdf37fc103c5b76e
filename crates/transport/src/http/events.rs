//! The frames of a stream as Server-Sent Events.

use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use stentor_engine::outlet::{Delivered, Inlet, WriteNow};
use stentor_engine::{Seq, StreamId};

/// What says that a quiet stream is alive: a comment.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// How often a client that may be gone is written to: the kernel of one that is says so.
pub(super) const PROBE: Duration = Duration::from_millis(250);

/// What most events take at most, in bytes.
pub(super) const USUAL: usize = 192;

/// Whether events have ids, by which a client that lost its connection says how far it read
/// (2025-11-25, basic/transports, "Resumability and Redelivery").
#[derive(Clone, Copy, Debug)]
pub(super) enum EventIds {
    /// They have none.
    None,
    /// Each has one.
    Each,
    /// Each has one, and the stream begins with an empty event, so that a client can come
    /// back before anything was said: to this frame, and after this time.
    Primed { next: Seq, retry: Duration },
}

/// Names a stream and the frame that follows there.
fn put_event_id(out: &mut BytesMut, stream: StreamId, next: Seq) {
    let mut digits = itoa::Buffer::new();
    out.put_slice(b"id: ");
    out.put_slice(digits.format(stream.0).as_bytes());
    out.put_u8(b'-');
    out.put_slice(digits.format(next.0).as_bytes());
    out.put_u8(b'\n');
}

/// Reads what [`put_event_id`] wrote.
pub(super) fn parse_event_id(id: &str) -> Option<(StreamId, Seq)> {
    let (stream, next) = id.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), Seq(next.parse().ok()?)))
}

/// A stream of frames, to be written as events.
#[derive(Debug)]
pub(super) struct Events {
    inlet: Inlet,
    /// What was read from the inlet and is not written yet.
    batch: Vec<Delivered>,
    ids: EventIds,
}

impl Events {
    /// A stream that begins with `batch`.
    pub(super) fn new(inlet: Inlet, batch: Vec<Delivered>, ids: EventIds) -> Self {
        Self { inlet, batch, ids }
    }

    /// Waits until there is something to write. `Ready(false)` when the stream has ended.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.has_some() {
            true => Poll::Ready(true),
            false => self.inlet.poll_next(cx, &mut self.batch),
        }
    }

    /// Takes what waits; `false` if nothing does.
    pub(super) fn take_ready(&mut self) -> bool {
        self.has_some() || self.inlet.try_next(&mut self.batch)
    }

    /// From here on `writer` may be asked to write what waits.
    pub(super) fn written_by(&self, writer: Weak<dyn WriteNow>) {
        self.inlet.written_by(writer);
    }

    /// Appends all events that are ready.
    pub(super) fn write(&mut self, out: &mut BytesMut) {
        let batch = std::mem::take(&mut self.batch);
        out.reserve(batch.len() * USUAL);
        if let EventIds::Primed { next, retry } = self.ids {
            self.ids = EventIds::Each;
            put_event_id(out, self.inlet.stream(), next);
            out.put_slice(b"retry: ");
            out.put_slice(itoa::Buffer::new().format(retry.as_millis()).as_bytes());
            out.put_slice(b"\ndata:\n\n");
        }
        for (seq, _, frame) in batch {
            if !matches!(self.ids, EventIds::None) {
                put_event_id(out, self.inlet.stream(), Seq(seq.0 + 1));
            }
            out.put_slice(b"data: ");
            frame.write(out);
            out.put_slice(b"\n\n");
        }
    }

    fn has_some(&self) -> bool {
        !self.batch.is_empty() || matches!(self.ids, EventIds::Primed { .. })
    }

    /// Whether everything was written.
    pub(super) fn is_over(&self) -> bool {
        !self.has_some() && self.inlet.is_drained()
    }

    /// The client has stopped reading, and its connection is closed for it.
    pub(super) fn stalled(&self) {
        self.inlet.stalled();
    }
}
