//! What a response says, and how a server that is not ours writes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::events::{COMMENT, Events};
use super::watched::Flow;

/// What a response says.
#[derive(Debug)]
pub(super) enum Content {
    /// All of it; nothing, where it is empty.
    Full(Bytes),
    /// What a stream says, as it says it.
    Events(Box<Events>),
}

impl Content {
    /// As a body, which says every so often that it is alive.
    pub(super) fn into_body(self, keep_alive: Duration, flow: Option<Flow>) -> ReplyBody {
        match self {
            Self::Full(bytes) => ReplyBody::Full(bytes),
            Self::Events(events) => {
                let quiet = Box::pin(sleep(keep_alive));
                ReplyBody::Events(EventBody { events: *events, keep_alive, quiet, flow })
            }
        }
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum ReplyBody {
    Full(Bytes),
    Events(EventBody),
}

/// Writes as many events at once as are waiting, and a comment when it has been quiet.
#[derive(Debug)]
pub(super) struct EventBody {
    events: Events,
    keep_alive: Duration,
    quiet: Pin<Box<Sleep>>,
    /// Of the connection, where it is known.
    flow: Option<Flow>,
}

impl EventBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let written = match self.events.poll_ready(cx) {
            Poll::Ready(true) => {
                let mut out = BytesMut::new();
                self.events.write(&mut out);
                out.freeze()
            }
            Poll::Ready(false) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.quiet.as_mut().poll(cx));
                Bytes::from_static(COMMENT)
            }
        };
        self.quiet.as_mut().reset(Instant::now() + self.keep_alive);
        Poll::Ready(Some(written))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        if self.flow.as_ref().is_some_and(Flow::is_stalled) {
            self.events.stalled();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Full(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Events(events) => ready!(events.poll(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Events(body) => body.events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
