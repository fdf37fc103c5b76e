//! The content of a response, and the bodies by which hyper or axum writes it.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyError;
use super::events::{COMMENT, Events, next_probe};
use super::flow::Flow;

#[derive(Debug)]
pub(super) enum Content {
    Full(Bytes),
    Events(Box<Events>),
}

impl Content {
    /// As a body, which writes a keep-alive comment when it has been quiet.
    pub(super) fn into_body(self, keep_alive: Duration, flow: Option<Flow>) -> ResponseBody {
        ResponseBody(match self {
            Self::Full(bytes) => Reply::Full(bytes),
            Self::Events(events) => {
                let keep_alive = events.keep_alive(keep_alive);
                let events = Some(events);
                Reply::Events(EventBody { events, keep_alive, quiet: None, probe: None, flow })
            }
        })
    }
}

/// The body of a response of the endpoint: one message, or a stream of events.
///
/// A [layer](super::serve_layered) that answers a request by itself makes its own with `from`, or an
/// empty one with `default`. Then the service of the layer has one type of body, and streams that
/// pass it are still written [without hyper](super::serve_layered#streams).
#[derive(Debug)]
pub struct ResponseBody(Reply);

#[derive(Debug)]
enum Reply {
    Full(Bytes),
    Events(EventBody),
}

impl ResponseBody {
    /// Takes the stream, if it is one.
    pub(super) fn take_events(&mut self) -> Option<Box<Events>> {
        match &mut self.0 {
            Reply::Events(body) => body.events.take(),
            Reply::Full(_) => None,
        }
    }

    fn is_full(&self) -> bool {
        matches!(self.0, Reply::Full(_))
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self(Reply::Full(Bytes::new()))
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Reply::Full(bytes))
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

/// Writes as many events at once as are waiting, and a comment when it has been quiet.
#[derive(Debug)]
struct EventBody {
    /// `None` once something else writes them.
    events: Option<Box<Events>>,
    keep_alive: Duration,
    /// `None` until something reads the body.
    quiet: Option<Pin<Box<Sleep>>>,
    /// The interval between comments that find out if the client has disconnected.
    probe: Option<Duration>,
    /// The flow of the connection, where it is known.
    flow: Option<Flow>,
}

impl EventBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let keep_alive = self.keep_alive;
        let quiet = self
            .quiet
            .get_or_insert_with(|| Box::pin(sleep_until(events.due(Instant::now(), keep_alive))));
        let written = match events.poll_ready(cx) {
            Poll::Ready(true) => {
                let mut out = BytesMut::new();
                events.write(&mut out);
                out.freeze()
            }
            Poll::Ready(false) => return Poll::Ready(None),
            Poll::Pending => {
                let may_be_gone = self.flow.as_ref().is_some_and(Flow::may_be_gone);
                if !may_be_gone || self.probe.is_some() {
                    ready!(quiet.as_mut().poll(cx));
                }
                if events.is_late() {
                    return Poll::Ready(None);
                }
                if may_be_gone {
                    self.probe = Some(next_probe(self.probe));
                }
                Bytes::from_static(COMMENT)
            }
        };
        let pause = self.probe.unwrap_or(keep_alive).min(keep_alive);
        quiet.as_mut().reset(events.due(Instant::now(), pause));
        Poll::Ready(Some(written))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        if let (Some(events), Some(flow)) = (&self.events, &self.flow)
            && flow.is_stalled()
        {
            events.stalled();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.0 {
            Reply::Full(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Reply::Events(events) => ready!(events.poll(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Reply::Full(bytes) => bytes.is_empty(),
            Reply::Events(body) => body.events.as_ref().is_none_or(|events| events.is_over()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Reply::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Reply::Events(_) => SizeHint::default(),
        }
    }
}

/// A body as layers have left it.
#[derive(Debug)]
pub(super) enum Outer {
    /// It has still the type that the endpoint has given it.
    Untouched(ResponseBody),
    Other(axum::body::Body),
}

impl Outer {
    pub(super) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let mut body = Some(body);
        let untouched = (&mut body as &mut dyn Any).downcast_mut::<Option<ResponseBody>>();
        match (untouched.and_then(Option::take), body) {
            (Some(untouched), _) => Self::Untouched(untouched),
            (None, Some(other)) => Self::Other(axum::body::Body::new(other)),
            (None, None) => Self::Untouched(ResponseBody::default()),
        }
    }
}

/// What hyper writes.
#[derive(Debug)]
pub(super) struct Written {
    body: Outer,
    /// What is told once the body is written; `None` if it was told.
    ends: Option<Flow>,
}

impl Written {
    /// A response is complete as soon as hyper has all of it.
    pub(super) fn new(body: Outer, flow: Flow) -> Self {
        let is_full = matches!(&body, Outer::Untouched(body) if body.is_full());
        if is_full {
            flow.answered();
        }
        Self { body, ends: (!is_full).then_some(flow) }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(flow) = &self.ends {
            flow.answered();
        }
    }
}

impl Body for Written {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.body {
            Outer::Untouched(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Outer::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Outer::Untouched(body) => body.is_end_stream(),
            Outer::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Outer::Untouched(body) => body.size_hint(),
            Outer::Other(body) => body.size_hint(),
        }
    }
}
