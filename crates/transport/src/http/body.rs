//! The content of a response, and the body by which hyper or axum writes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::events::{COMMENT, Events, next_probe};
use super::flow::Flow;

#[derive(Debug)]
pub(super) enum Content {
    Full(Bytes),
    Events(Box<Events>),
}

impl Content {
    /// As a body, which writes a keep-alive comment when it has been quiet.
    pub(super) fn into_body(self, keep_alive: Duration, flow: Option<Flow>) -> ReplyBody {
        match self {
            Self::Full(bytes) => ReplyBody::Full(bytes),
            Self::Events(events) => {
                let events = *events;
                let quiet = Box::pin(sleep_until(events.due(Instant::now(), keep_alive)));
                ReplyBody::Events(EventBody { events, keep_alive, quiet, probe: None, flow })
            }
        }
    }
}

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
    /// The interval between comments that find out if the client has disconnected.
    probe: Option<Duration>,
    /// The flow of the connection, where it is known.
    flow: Option<Flow>,
}

impl EventBody {
    fn may_be_gone(&self) -> bool {
        self.flow.as_ref().is_some_and(Flow::may_be_gone)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let written = match self.events.poll_ready(cx) {
            Poll::Ready(true) => {
                let mut out = BytesMut::new();
                self.events.write(&mut out);
                out.freeze()
            }
            Poll::Ready(false) => return Poll::Ready(None),
            Poll::Pending => {
                let may_be_gone = self.may_be_gone();
                if !may_be_gone || self.probe.is_some() {
                    ready!(self.quiet.as_mut().poll(cx));
                }
                if self.events.is_late() {
                    return Poll::Ready(None);
                }
                if may_be_gone {
                    self.probe = Some(next_probe(self.probe));
                }
                Bytes::from_static(COMMENT)
            }
        };
        let pause = self.probe.unwrap_or(self.keep_alive).min(self.keep_alive);
        self.quiet.as_mut().reset(self.events.due(Instant::now(), pause));
        Poll::Ready(Some(written))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        let Some(flow) = &self.flow else { return };
        if flow.is_stalled() {
            self.events.stalled();
        }
        flow.answered();
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
