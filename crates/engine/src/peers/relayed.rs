//! The reading end of a stream that is on another node.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use stentor_wire::{ErrorObject, Id, code, encode};
use tokio_util::task::AbortOnDropHandle;

use super::{Conversation, Distant, Said, Spoken, What};
use crate::ids::{Seq, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Frame, Inlet};

/// The reading end of a stream that is on another node.
#[derive(Debug)]
pub(crate) struct Relayed {
    stream: StreamId,
    /// The number of the frame that is read next, where that is known.
    next: Option<Seq>,
    source: Source,
    frames: VecDeque<Delivered>,
    /// The request that the stream is to answer, until it has.
    unanswered: Option<Unanswered>,
}

#[derive(Debug)]
enum Source {
    /// The node that has the session.
    Node(Conversation),
    /// That node was lost. The session may go on, there or elsewhere, and the stream with it.
    Lost(AbortOnDropHandle<Option<Inlet>>),
    /// Nothing follows.
    Over,
}

/// A request that has no answer yet, and the session that it is of.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) request: Id,
    pub(super) session: Arc<Distant>,
}

/// What is read next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Frames.
    Some,
    /// Nothing any more.
    End,
    /// The rest of the stream is read here.
    From(Inlet),
}

impl Relayed {
    /// `unanswered` is what the stream is to answer, if it is the stream of a request.
    pub(super) fn new(
        stream: StreamId,
        next: Option<Seq>,
        conversation: Conversation,
        unanswered: Option<Unanswered>,
    ) -> Self {
        let (source, frames) = (Source::Node(conversation), VecDeque::new());
        Self { stream, next, source, frames, unanswered }
    }

    /// A stream that begins with what was said already.
    pub(super) fn saying(said: Said, conversation: Conversation) -> Self {
        let mut relayed = Self::new(StreamId(0), None, conversation, None);
        relayed.take(said);
        relayed
    }

    /// A stream of which its client has read everything.
    pub(crate) fn over(stream: StreamId) -> Self {
        let (source, frames) = (Source::Over, VecDeque::new());
        Self { stream, next: None, source, frames, unanswered: None }
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    pub(crate) fn is_drained(&self) -> bool {
        matches!(self.source, Source::Over) && self.frames.is_empty()
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Delivered>,
    ) -> Poll<Next> {
        while self.frames.is_empty() {
            match &mut self.source {
                Source::Node(conversation) => match ready!(conversation.poll_next(cx)) {
                    Some(said) => self.take(said),
                    None => self.source = self.find_again(),
                },
                Source::Lost(search) => {
                    let found = ready!(Pin::new(search).poll(cx));
                    let unanswered = self.unanswered.take();
                    self.source = Source::Over;
                    match found {
                        Ok(Some(inlet)) => return Poll::Ready(Next::From(inlet)),
                        Ok(None) | Err(_) => {
                            self.frames.extend(unanswered.map(|it| gone(&it.request)));
                        }
                    }
                }
                Source::Over => return Poll::Ready(Next::End),
            }
        }
        self.next = self.frames.back().map(|(seq, ..)| Seq(seq.0 + 1));
        batch.extend(self.frames.drain(..));
        Poll::Ready(Next::Some)
    }

    /// The node was lost. Who waits for an answer gets it from wherever the session goes on, as its
    /// client would that comes back: an answer made up here could be followed by another one there.
    fn find_again(&self) -> Source {
        let Some(Unanswered { request, session }) = &self.unanswered else { return Source::Over };
        let from = self.next.unwrap_or(Seq(0));
        let search = session.clone().find_stream(self.stream, from, request.clone());
        Source::Lost(AbortOnDropHandle::new(tokio::spawn(search)))
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::Frames { frames, last } => {
                self.frames.extend(frames.into_iter().filter_map(Spoken::into_delivered));
                if self.frames.iter().any(|(_, class, _)| *class == Class::Reply) {
                    self.unanswered = None;
                }
                if last {
                    self.source = Source::Over;
                }
            }
            // The client comes back for the rest.
            Said::Over | Said::Detached | Said::Refused(_) | Said::Moved(_) => {
                self.source = Source::Over;
            }
            Said::Began { .. } => {}
        }
    }
}

/// What a client is told whose request was with a node that has gone, and its session with it. No
/// node knows which numbers were given out there, so this has the last one that there is: nobody gives
/// it to anything else, and nothing follows it anywhere.
fn gone(request: &Id) -> Delivered {
    let error = ErrorObject::unavailable("the node that had the session has gone");
    let reply = encode::error(Some(request), &error);
    (Seq(Seq::END.0 - 1), Class::Reply, Frame::Reply(reply, Some(code::UNAVAILABLE)))
}

impl Spoken {
    pub(super) fn of((seq, class, frame): &Delivered) -> Self {
        let what = match frame {
            Frame::Reply(json, code) => What::Reply(json.clone(), *code),
            Frame::Message(json) => What::Message(json.clone()),
            Frame::Log(level, json) => What::Log(*level, json.clone()),
            Frame::Progress(value) => {
                What::Progress(value.progress, value.total, value.message.to_string())
            }
            Frame::Dropped(level, _) => What::Log(*level, written(frame)),
            Frame::Notice(..) => What::Message(written(frame)),
        };
        Self { seq: seq.0, class: *class, what }
    }

    /// As [`of`](Self::of), with progress as the message that it is on a session's stream.
    pub(crate) fn written(delivered: &Delivered) -> Self {
        match delivered {
            (seq, class, frame @ Frame::Progress(_)) => {
                Self { seq: seq.0, class: *class, what: What::Message(written(frame)) }
            }
            other => Self::of(other),
        }
    }

    /// A frame of a session's stream, where progress is a message.
    pub(crate) fn into_delivered(self) -> Option<Delivered> {
        let frame = match self.what {
            What::Reply(json, code) => Frame::Reply(json, code),
            What::Message(json) => Frame::Message(json),
            What::Log(level, json) => Frame::Log(level, json),
            What::Progress(..) => return None,
        };
        Some((Seq(self.seq), self.class, frame))
    }
}

/// A frame as its client reads it.
pub(crate) fn written(frame: &Frame) -> bytes::Bytes {
    let mut out = bytes::BytesMut::new();
    frame.write(&mut out);
    out.freeze()
}
