//! The receiver of a stream on another node.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, Frame, Next, RemoteSource, SerializedFrame, StreamReceiver};
use stentor_wire::{ErrorObject, Id, code, encode};
use tokio_util::task::AbortOnDropHandle;

use super::session::RemoteSession;
use super::{PeerEvent, PeerStream};
use crate::ids::{Seq, StreamId};

#[derive(Debug)]
pub(super) struct RemoteStream {
    stream: StreamId,
    /// The number of the next frame, if it is known.
    next: Option<Seq>,
    source: Source,
    frames: VecDeque<Delivered>,
    /// The request that the stream must answer, until it is answered.
    unanswered: Option<Unanswered>,
}

#[derive(Debug)]
enum Source {
    Node(PeerStream),
    /// That node was lost. The session may continue there or on another node, and the stream with
    /// it.
    Lost(AbortOnDropHandle<Option<StreamReceiver>>),
    Ended,
}

#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) request: Id,
    pub(super) session: Arc<RemoteSession>,
}

impl RemoteStream {
    /// `unanswered` is set for the stream of a request.
    pub(super) fn new(
        stream: StreamId,
        next: Option<Seq>,
        peer_stream: PeerStream,
        unanswered: Option<Unanswered>,
    ) -> Self {
        let (source, frames) = (Source::Node(peer_stream), VecDeque::new());
        Self { stream, next, source, frames, unanswered }
    }

    /// A stream that begins with this event.
    pub(super) fn saying(event: PeerEvent, peer_stream: PeerStream) -> Self {
        let mut stream = Self::new(StreamId(0), None, peer_stream, None);
        stream.take(event);
        stream
    }

    /// Searches for the stream after its node was lost.
    ///
    /// The answer must come from the node that continues the session, as it does for a client that
    /// reconnects: an answer made up here could be followed by another one from there.
    fn find_again(&self) -> Source {
        let Some(Unanswered { request, session }) = &self.unanswered else { return Source::Ended };
        let from = self.next.unwrap_or(Seq(0));
        let search = session.clone().find_stream(self.stream, from, request.clone());
        Source::Lost(AbortOnDropHandle::new(tokio::spawn(search)))
    }

    fn take(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Frames { frames, last } => {
                self.frames.extend(frames.into_iter().filter_map(SerializedFrame::into_delivered));
                if self.frames.iter().any(|(_, class, _)| *class == Class::Reply) {
                    self.unanswered = None;
                }
                if last {
                    self.source = Source::Ended;
                }
            }
            // The client comes back for the rest.
            PeerEvent::Ended
            | PeerEvent::Detached
            | PeerEvent::Refused(_)
            | PeerEvent::Moved(_) => {
                self.source = Source::Ended;
            }
            PeerEvent::Started { .. } => {}
        }
    }
}

impl RemoteSource for RemoteStream {
    fn stream_id(&self) -> StreamId {
        self.stream
    }

    fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    fn is_drained(&self) -> bool {
        matches!(self.source, Source::Ended) && self.frames.is_empty()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<Next> {
        while self.frames.is_empty() {
            match &mut self.source {
                Source::Node(peer_stream) => match ready!(peer_stream.poll_next(cx)) {
                    Some(event) => self.take(event),
                    None => self.source = self.find_again(),
                },
                Source::Lost(search) => {
                    let found = ready!(Pin::new(search).poll(cx));
                    let unanswered = self.unanswered.take();
                    self.source = Source::Ended;
                    match found {
                        Ok(Some(receiver)) => return Poll::Ready(Next::From(receiver)),
                        Ok(None) | Err(_) => {
                            self.frames.extend(unanswered.map(|it| lost_reply(&it.request)));
                        }
                    }
                }
                Source::Ended => return Poll::Ready(Next::End),
            }
        }
        self.next = self.frames.back().map(|(seq, ..)| Seq(seq.0 + 1));
        batch.extend(self.frames.drain(..));
        Poll::Ready(Next::Some)
    }
}

/// The error for a client whose request was lost with its node, and its session with it.
///
/// No node knows which numbers that node gave out. So the frame has the last number that exists: no
/// other frame gets it, and no frame follows it on any node.
fn lost_reply(request: &Id) -> Delivered {
    let error = ErrorObject::unavailable("the node that had the session has gone");
    let reply = encode::error(Some(request), &error);
    (Seq(Seq::END.0 - 1), Class::Reply, Frame::Reply(reply, Some(code::UNAVAILABLE)))
}
