//! A stream of frames as the body of a response: Server-Sent Events.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use stentor_engine::outlet::{Delivered, Inlet};
use stentor_engine::{Seq, StreamId};
use tokio::time::{Instant, Sleep, sleep};

use super::stall::Stalled;

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
fn event_id(stream: StreamId, next: Seq) -> String {
    format!("{stream}-{}", next.0)
}

/// Reads what [`event_id`] wrote.
pub(super) fn parse_event_id(id: &str) -> Option<(StreamId, Seq)> {
    let (stream, next) = id.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), Seq(next.parse().ok()?)))
}

pin_project_lite::pin_project! {
    /// Writes as many events at once as are waiting, and a comment when it has been quiet.
    pub(super) struct EventStream {
        inlet: Inlet,
        batch: Vec<Delivered>,
        ids: EventIds,
        primed: bool,
        keep_alive: Duration,
        #[pin]
        quiet: Sleep,
        stalled: Option<Stalled>,
    }

    impl PinnedDrop for EventStream {
        fn drop(this: Pin<&mut Self>) {
            if this.stalled.as_ref().is_some_and(Stalled::get) {
                this.inlet.stalled();
            }
        }
    }
}

impl EventStream {
    pub(super) fn new(
        inlet: Inlet,
        batch: Vec<Delivered>,
        ids: EventIds,
        keep_alive: Duration,
        stalled: Option<Stalled>,
    ) -> Self {
        Self { inlet, batch, ids, primed: false, keep_alive, quiet: sleep(keep_alive), stalled }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut this = self.project();
        let prime = match this.ids {
            EventIds::Primed { next, retry } if !*this.primed => Some((*next, *retry)),
            _ => None,
        };
        *this.primed = true;
        if this.batch.is_empty() && prime.is_none() {
            match this.inlet.poll_next(cx, this.batch) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Pending => {
                    std::task::ready!(this.quiet.as_mut().poll(cx));
                    this.quiet.reset(Instant::now() + *this.keep_alive);
                    let comment = Bytes::from_static(b":\n\n");
                    return Poll::Ready(Some(Ok(Frame::data(comment))));
                }
            }
        }
        let mut out = BytesMut::with_capacity(this.batch.len() * 160);
        if let Some((next, retry)) = prime {
            let (id, retry) = (event_id(this.inlet.stream(), next), retry.as_millis());
            let _ = write!(out, "id: {id}\nretry: {retry}\ndata:\n\n");
        }
        for (seq, _, frame) in this.batch.drain(..) {
            if !matches!(this.ids, EventIds::None) {
                let id = event_id(this.inlet.stream(), Seq(seq.0 + 1));
                let _ = writeln!(out, "id: {id}");
            }
            out.put_slice(b"data: ");
            frame.write(&mut out);
            out.put_slice(b"\n\n");
        }
        this.quiet.reset(Instant::now() + *this.keep_alive);
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.primed && self.batch.is_empty() && self.inlet.is_drained()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
