//! The frames of a stream as Server-Sent Events.

use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use stentor_delivery::{Delivered, DirectWrite, StreamReceiver};
use stentor_engine::{Seq, StreamId};
use tokio::time::Instant;

/// The keep-alive of a quiet stream: a comment.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// The intervals between comments to a client that may have disconnected: if it has disconnected, its
/// kernel answers a write with a reset, so that a later write fails. They double, because most resets
/// come at once, and a client that is still there should not receive many comments.
const PROBES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(250));

/// The interval after this one; the first one after `None`.
pub(super) fn next_probe(probe: Option<Duration>) -> Duration {
    let (first, last) = PROBES;
    probe.map_or(first, |probe| (2 * probe).min(last))
}

/// In place of a moment that is too far away.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The usual upper size of an event, in bytes.
pub(super) const USUAL: usize = 192;

/// Whether events have ids. A client that lost its connection sends the id of the last event it
/// read (2025-11-25, basic/transports, "Resumability and Redelivery").
#[derive(Clone, Copy, Debug)]
pub(super) enum EventIds {
    None,
    Each,
    /// Each event has an id, and the stream begins with an empty event. So a client can reconnect
    /// even before the first frame was sent. `next` is the frame to resume from, and `retry` is how
    /// long the client waits first.
    Primed {
        next: Seq,
        retry: Duration,
    },
}

/// Writes an event id: the stream, and the number of the frame that follows.
fn put_event_id(out: &mut BytesMut, stream: StreamId, next: Seq) {
    let mut digits = itoa::Buffer::new();
    out.put_slice(b"id: ");
    out.put_slice(digits.format(stream.0).as_bytes());
    out.put_u8(b'-');
    out.put_slice(digits.format(next.0).as_bytes());
    out.put_u8(b'\n');
}

/// Parses an id that [`put_event_id`] wrote.
pub(super) fn parse_event_id(id: &str) -> Option<(StreamId, Seq)> {
    let (stream, next) = id.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), Seq(next.parse().ok()?)))
}

/// A stream of frames, to be written as events.
#[derive(Debug)]
pub(super) struct Events {
    receiver: StreamReceiver,
    /// Frames that were read from the stream receiver and are not written yet.
    batch: Vec<Delivered>,
    ids: EventIds,
    /// When the stream is closed, even if it has not ended: its client's credential is good no more.
    until: Option<Instant>,
}

impl Events {
    pub(super) fn new(
        receiver: StreamReceiver,
        batch: Vec<Delivered>,
        ids: EventIds,
        until: Option<Instant>,
    ) -> Self {
        Self { receiver, batch, ids, until }
    }

    /// Waits until there is something to write. `Ready(false)` when the stream has ended, or when it
    /// has [to be closed](Self::due); nothing wakes the task for the latter.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.has_some() {
            return Poll::Ready(true);
        }
        if self.is_late() {
            return Poll::Ready(false);
        }
        self.receiver.poll_next(cx, &mut self.batch)
    }

    /// Whether the stream has to be closed.
    pub(super) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// The pause after which a comment is written; none comes soon on a stream with heartbeats.
    pub(super) fn keep_alive(&self, configured: Duration) -> Duration {
        if self.receiver.has_heartbeats() { FAR } else { configured }
    }

    /// When to look at the stream next, if it is quiet for `pause` from `since` on.
    pub(super) fn due(&self, since: Instant, pause: Duration) -> Instant {
        let due = since.checked_add(pause).unwrap_or_else(|| since + FAR);
        self.until.map_or(due, |until| until.min(due))
    }

    /// Takes the waiting frames; `false` if there are none.
    pub(super) fn take_ready(&mut self) -> bool {
        self.has_some() || self.receiver.try_next(&mut self.batch)
    }

    /// From now on the hub may call `writer` to write waiting frames.
    pub(super) fn written_by(&self, writer: Weak<dyn DirectWrite>) {
        self.receiver.written_by(writer);
    }

    pub(super) fn write(&mut self, out: &mut BytesMut) {
        let batch = std::mem::take(&mut self.batch);
        out.reserve(batch.len() * USUAL);
        if let EventIds::Primed { next, retry } = self.ids {
            self.ids = EventIds::Each;
            put_event_id(out, self.receiver.stream_id(), next);
            out.put_slice(b"retry: ");
            out.put_slice(itoa::Buffer::new().format(retry.as_millis()).as_bytes());
            out.put_slice(b"\ndata:\n\n");
        }
        for Delivered { seq, frame, .. } in batch {
            if !matches!(self.ids, EventIds::None) {
                put_event_id(out, self.receiver.stream_id(), Seq(seq.0 + 1));
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
        !self.has_some() && self.receiver.is_drained()
    }

    /// Reports that the client has stopped reading, and that its connection is closed for this
    /// reason.
    pub(super) fn stalled(&self) {
        self.receiver.stalled();
    }
}
