//! Reads the body of a request, with a limit of its size, a minimum rate, and one budget for all
//! requests.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::flow::Flow;
use super::guard::Refusal;
use super::unfinished::Share;
use super::{BodyError, Endpoint};

/// The smallest buffer for a body that arrives in pieces.
const MIN_BUFFER: usize = 16 * 1024;

/// The body of a request, as its client sends it.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    /// The flow of the connection, where it is known.
    flow: Option<Flow>,
    over: bool,
    /// Whether the connection itself finds out how much of the body was read.
    within_layers: bool,
}

impl<B: Body> Upload<B> {
    pub(super) fn new(body: B, flow: Option<Flow>) -> Self {
        let over = body.is_end_stream();
        Self { body, flow, over, within_layers: false }
    }

    /// As layers pass it on: it may differ from what the client sends.
    pub(super) fn within_layers(body: B) -> Self {
        Self { within_layers: true, ..Self::new(body, None) }
    }

    /// Whether the body has been read to its end, as far as that matters here.
    pub(super) fn is_over(&self) -> bool {
        self.over || self.within_layers
    }
}

impl<B: Body + Unpin> Body for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.over = match &frame {
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        let goes_on = match &self.flow {
            Some(flow) if matches!(frame, Some(Ok(_))) && !self.over => flow.goes_on(),
            Some(flow) => flow.asked(),
            None => true,
        };
        // The connection was closed to make room for another one; dropping it drops this task.
        if goes_on { Poll::Ready(frame) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body to its end; `None` if the client broke off.
pub(super) async fn read<B>(endpoint: &Endpoint, body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let limit = endpoint.config.max_body;
    let too_large = Refusal::BodyTooLarge { limit };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let mut pace = Pace { endpoint, received: 0, waited: false, late: None };
    // Most bodies have one piece, which is returned without a copy. Several pieces are copied
    // together: each piece would keep alive the whole buffer that it was read into.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = pace.frame(body).await? {
        let Ok(frame) = frame else { return Ok(None) };
        let Ok(data) = frame.into_data() else { continue };
        pace.received += data.len();
        if pace.received > limit {
            return Err(too_large);
        }
        if first.is_empty() && whole.is_empty() {
            pace.count(data.len())?;
            first = data;
        } else {
            pace.make_room(&mut whole, limit)?;
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(Some(if whole.is_empty() { first } else { whole.freeze() }))
}

/// How a body arrives.
struct Pace<'a> {
    endpoint: &'a Endpoint,
    received: usize,
    waited: bool,
    /// For a body that did not arrive at once.
    late: Option<Late>,
}

struct Late {
    share: Share,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Pace<'_> {
    async fn frame<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Refusal> {
        poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                self.waited = false;
                return Poll::Ready(Ok(frame));
            }
            // A piece that has arrived already is ready at the next poll: only a body that is still
            // missing costs a timer.
            if !std::mem::replace(&mut self.waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.poll_late(cx).map(Err)
        })
        .await
    }

    /// Completes with the reason when the body must not be waited for any longer.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let (config, received) = (&self.endpoint.config, self.received);
        let late = self.late.get_or_insert_with(|| Late::new(self.endpoint, received));
        if late.share.poll_gives_way(cx).is_ready() {
            return Poll::Ready(Refusal::NoRoomForBody);
        }
        let rate = config.min_body_rate;
        let earned = Duration::try_from_secs_f64(received as f64 / rate as f64);
        let time = config.body_grace.saturating_add(earned.unwrap_or(Duration::MAX));
        let Some(due) = late.since.checked_add(time) else { return Poll::Pending };
        while late.timer.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(Refusal::BodyTooSlow { rate });
            }
            late.timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Grows the buffer for all that was received.
    fn make_room(&mut self, whole: &mut BytesMut, limit: usize) -> Result<(), Refusal> {
        if whole.capacity() >= self.received {
            return Ok(());
        }
        // By the bytes received, not by the size that the client announces.
        let size = self.received.max(whole.capacity().saturating_mul(2)).max(MIN_BUFFER);
        let size = size.min(limit).max(self.received);
        self.late.get_or_insert_with(|| Late::new(self.endpoint, 0));
        self.count(size)?;
        let mut larger = BytesMut::with_capacity(size);
        larger.extend_from_slice(whole);
        *whole = larger;
        Ok(())
    }

    /// Counts the kept bytes in the budget, for a body that did not arrive at once.
    fn count(&self, held: usize) -> Result<(), Refusal> {
        match &self.late {
            Some(late) if !late.share.hold(held) => Err(Refusal::NoRoomForBody),
            _ => Ok(()),
        }
    }
}

impl Late {
    fn new(endpoint: &Endpoint, held: usize) -> Self {
        let share = endpoint.unfinished.share();
        share.hold(held);
        let since = Instant::now();
        let due = since.checked_add(endpoint.config.body_grace).unwrap_or(since);
        Self { share, since, timer: Box::pin(sleep_until(due)) }
    }
}
