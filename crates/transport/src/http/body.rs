//! A stream of frames as the body of a response: Server-Sent Events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use stentor_engine::outlet::{Delivered, Inlet};
use tokio::time::{Instant, Sleep, sleep};

pin_project_lite::pin_project! {
    /// Writes as many events at once as are waiting, and a comment when it has been quiet.
    pub(super) struct EventStream {
        inlet: Inlet,
        batch: Vec<Delivered>,
        keep_alive: Duration,
        #[pin]
        quiet: Sleep,
    }
}

impl EventStream {
    pub(super) fn new(inlet: Inlet, batch: Vec<Delivered>, keep_alive: Duration) -> Self {
        Self { inlet, batch, keep_alive, quiet: sleep(keep_alive) }
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
        if this.batch.is_empty() {
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
        for (_, _, frame) in this.batch.drain(..) {
            out.put_slice(b"data: ");
            frame.write(&mut out);
            out.put_slice(b"\n\n");
        }
        this.quiet.reset(Instant::now() + *this.keep_alive);
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.batch.is_empty() && self.inlet.is_drained()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
