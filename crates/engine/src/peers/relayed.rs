//! The reading end of a stream that is on another node.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use stentor_wire::{ErrorObject, Id, code, encode};

use super::{Conversation, Said, Spoken, What};
use crate::ids::{Seq, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Frame};

/// The reading end of a stream that is on another node.
#[derive(Debug)]
pub(crate) struct Relayed {
    stream: StreamId,
    /// The number of the frame that is read next, where that is known.
    next: Option<Seq>,
    conversation: Option<Conversation>,
    frames: VecDeque<Delivered>,
    /// The request that the stream is to answer, until it has.
    unanswered: Option<Id>,
}

impl Relayed {
    /// `request` is what the stream is to answer, if it is the stream of a request.
    pub(super) fn new(
        stream: StreamId,
        next: Option<Seq>,
        conversation: Conversation,
        request: Option<Id>,
    ) -> Self {
        let (conversation, frames) = (Some(conversation), VecDeque::new());
        Self { stream, next, conversation, frames, unanswered: request }
    }

    /// A stream that begins with what was said already.
    pub(super) fn saying(said: Said, conversation: Conversation) -> Self {
        let mut relayed = Self::new(StreamId(0), None, conversation, None);
        relayed.take(said);
        relayed
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.conversation.is_none() && self.frames.is_empty()
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Delivered>,
    ) -> Poll<bool> {
        while self.frames.is_empty() {
            let Some(conversation) = &mut self.conversation else { return Poll::Ready(false) };
            match std::task::ready!(conversation.poll_next(cx)) {
                Some(said) => self.take(said),
                None => {
                    self.conversation = None;
                    self.frames.extend(self.unanswered.take().map(|request| gone(&request)));
                }
            }
        }
        self.next = self.frames.back().map(|(seq, ..)| Seq(seq.0 + 1));
        batch.extend(self.frames.drain(..));
        Poll::Ready(true)
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::Frames { frames, last } => {
                self.frames.extend(frames.into_iter().filter_map(Spoken::into_delivered));
                if self.frames.iter().any(|(_, class, _)| *class == Class::Reply) {
                    self.unanswered = None;
                }
                if last {
                    self.conversation = None;
                }
            }
            // The client comes back for the rest.
            Said::Over | Said::Detached | Said::Refused(_) | Said::Moved(_) => {
                self.conversation = None;
            }
            Said::Began { .. } => {}
        }
    }
}

/// What a client is told whose request was with a node that has gone.
fn gone(request: &Id) -> Delivered {
    let error = ErrorObject::unavailable("the node that had the session has gone");
    let reply = encode::error(Some(request), &error);
    (Seq(0), Class::Reply, Frame::Reply(reply, Some(code::UNAVAILABLE)))
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
