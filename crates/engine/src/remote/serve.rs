//! Serves peer requests of other nodes.

use bytes::Bytes;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, Frame, SerializedFrame, StreamReceiver, leave_out_largest};
use stentor_wire::{DecodeError, Era, ErrorObject, Message, Method, Request, Response, encode};

use super::locate::Found;
use super::{PeerEvent, PeerRequest, Remote, RemoteCaller, SessionOp};
use crate::caller::Caller;
use crate::dispatch::{Answer, Scope};
use crate::handler::PendingRequests;
use crate::ids::{Seq, SessionId, StreamId};
use crate::reasons::Refused;

/// The response to a peer request: its events must be sent to the node that asked.
///
/// It must be dropped when that node cancels the request, or is lost.
#[derive(Debug)]
pub struct PeerResponse {
    /// Sent before everything else.
    first: Option<PeerEvent>,
    source: Source,
    /// Where a call for a legacy client registers its questions.
    questions: Option<PendingRequests>,
}

#[derive(Debug)]
enum Source {
    /// The stream of a call. It continues after the call has detached its reader.
    Call(StreamReceiver),
    Session(StreamReceiver),
    Ended,
}

impl Remote {
    /// Serves a peer request of another node. If it cannot be served, [`PeerEvent::Refused`] is the
    /// first and only event of the response.
    ///
    /// When dropped early, the request may have been served or not.
    pub(crate) async fn serve_peer(&self, peer_request: PeerRequest) -> PeerResponse {
        let served = match peer_request {
            PeerRequest::Request { sender, request } => self.serve_request(*sender, &request).await,
            PeerRequest::Session { session, principal, act } => {
                self.serve_session(&session, principal.as_deref(), act).await
            }
            PeerRequest::Migrate(record) => {
                let accepted = self.0.sessions.accept_migration(*record).await;
                accepted.map(|()| PeerResponse::of(PeerEvent::Ended))
            }
        };
        served.unwrap_or_else(|refused| PeerResponse::of(PeerEvent::Refused(refused)))
    }

    async fn serve_request(
        &self,
        sender: RemoteCaller,
        request: &Bytes,
    ) -> Result<PeerResponse, Refused> {
        let caller = Caller::from(sender);
        let request = match read(request) {
            Ok(request) => request,
            Err(error) => return Ok(PeerResponse::answer(&error_of(&error))),
        };
        if request.method == Method::Listen && caller.era() == Era::Modern {
            let answer = self.0.sessions.open_listen(request, caller).await?;
            return Ok(match answer {
                Answer::Now(bytes, code) => PeerResponse::answer(&Frame::Reply(bytes, code)),
                Answer::Stream(receiver) => {
                    PeerResponse { first: None, source: Source::Session(receiver), questions: None }
                }
            });
        }
        let questions = (caller.era() == Era::Legacy).then(|| {
            PendingRequests::named(self.0.nodes.own().sign(&crate::ids::random_text::<9>()))
        });
        let begun = self.0.dispatcher.begin(caller, request, questions.clone(), Scope::Own)?;
        let answer = begun.answer().await;
        Ok(match answer {
            Answer::Now(bytes, code) => PeerResponse::answer(&Frame::Reply(bytes, code)),
            Answer::Stream(receiver) => {
                PeerResponse { first: None, source: Source::Call(receiver), questions }
            }
        })
    }

    async fn serve_session(
        &self,
        session: &SessionId,
        principal: Option<&str>,
        act: SessionOp,
    ) -> Result<PeerResponse, Refused> {
        self.0.migrations.settled(session.as_str()).await;
        let session = match self.0.sessions.find_http(session.as_str(), principal) {
            Some(session) => session,
            None => {
                let found = self.locate_session(session, principal).await?;
                if let Found::Remote(node) = found {
                    return Ok(PeerResponse::of(PeerEvent::Moved(node)));
                }
                let session = self.0.sessions.find_http(session.as_str(), principal);
                session.ok_or(Refused::SessionEnded)?
            }
        };
        let receiver = match act {
            SessionOp::Message(message) => {
                let message = self.0.sessions.calls.decode(message).await;
                match message {
                    Ok(Message::Request(request)) => {
                        let receiver = session.request(request).await?;
                        // The client may reconnect to any node.
                        session.keep(&receiver, &[]);
                        receiver
                    }
                    Ok(Message::Notification(notification)) => {
                        session.notification(notification).await?;
                        return Ok(PeerResponse::of(PeerEvent::Ended));
                    }
                    Ok(Message::Response(response)) => {
                        session.response(response).await?;
                        return Ok(PeerResponse::of(PeerEvent::Ended));
                    }
                    Err(error) => return Ok(PeerResponse::answer(&error_of(&error))),
                }
            }
            SessionOp::Missed(notices) => {
                session.missed(notices).await;
                return Ok(PeerResponse::of(PeerEvent::Ended));
            }
            SessionOp::Attach => session.attach(),
            SessionOp::Resume(stream, next) => session.resume(StreamId(stream), Seq(next)).await,
            SessionOp::ReadAgain(stream, next) => {
                session.read_again(StreamId(stream), Seq(next)).await?
            }
            SessionOp::End(reason) => {
                session.end(reason);
                return Ok(PeerResponse::of(PeerEvent::Ended));
            }
        };
        let (stream, next) = (receiver.stream_id().0, receiver.next_seq().map(|seq| seq.0));
        let began = PeerEvent::Started { stream, version: session.version(), next };
        Ok(PeerResponse { first: Some(began), source: Source::Session(receiver), questions: None })
    }
}

fn read(request: &Bytes) -> Result<Box<Request>, DecodeError> {
    match Message::decode(request)? {
        Message::Request(request) => Ok(request),
        _ => Err(DecodeError {
            id: None,
            code: stentor_wire::code::INVALID_REQUEST,
            message: "it is no request".to_owned(),
        }),
    }
}

fn error_of(error: &DecodeError) -> Frame {
    let object = ErrorObject::new(error.code, error.message.clone());
    Frame::Reply(encode::error(error.id.as_ref(), &object), Some(error.code))
}

impl PeerResponse {
    fn of(event: PeerEvent) -> Self {
        Self { first: Some(event), source: Source::Ended, questions: None }
    }

    fn answer(reply: &Frame) -> Self {
        let frames = vec![SerializedFrame::of(&(Seq(0), Class::Reply, reply.clone()))];
        Self::of(PeerEvent::Frames { frames, last: true })
    }

    /// The next event. `None` when nothing follows. Cancel safe.
    pub async fn next(&mut self) -> Option<PeerEvent> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut batch = Vec::new();
        match &mut self.source {
            Source::Call(receiver) => {
                if receiver.next(&mut batch).await {
                    let last = receiver.is_drained() && has_reply(&batch);
                    return Some(
                        self.frames(batch.iter().map(SerializedFrame::of).collect(), last),
                    );
                }
                match receiver.sender().filter(|sender| !sender.is_finished()) {
                    // The call has detached its client, which must come back for the rest.
                    Some(sender) => {
                        *receiver = sender.attach();
                        Some(PeerEvent::Detached)
                    }
                    None => self.end(),
                }
            }
            Source::Session(receiver) => {
                if receiver.next(&mut batch).await {
                    let last = receiver.is_drained();
                    return Some(
                        self.frames(batch.iter().map(SerializedFrame::written).collect(), last),
                    );
                }
                self.end()
            }
            Source::Ended => None,
        }
    }

    fn frames(&mut self, frames: Vec<SerializedFrame>, last: bool) -> PeerEvent {
        if last {
            self.source = Source::Ended;
        }
        PeerEvent::Frames { frames, last }
    }

    fn end(&mut self) -> Option<PeerEvent> {
        self.source = Source::Ended;
        Some(PeerEvent::Ended)
    }

    /// Delivers the client's answer to a question of the call.
    pub fn client_answers(&self, response: Response) {
        if let Some(questions) = &self.questions {
            // A second answer to the same question has no effect.
            questions.answer(response);
        }
    }
}

impl PeerEvent {
    /// Makes an event smaller that is too large to be sent. Its largest frame becomes an error if
    /// it is a reply, and is removed otherwise. `false` if no frame is left.
    pub fn leave_out_largest(&mut self) -> bool {
        match self {
            Self::Frames { frames, .. } => {
                let left_out = leave_out_largest(frames);
                left_out.inspect(|bytes| crate::log::left_out(*bytes)).is_some()
            }
            _ => false,
        }
    }
}

fn has_reply(batch: &[Delivered]) -> bool {
    batch.iter().any(|(_, class, _)| *class == Class::Reply)
}

#[cfg(test)]
mod tests {
    use stentor_delivery::FrameBody;

    use super::*;

    fn event_of(frames: impl IntoIterator<Item = FrameBody>) -> PeerEvent {
        let frame = |body| SerializedFrame { seq: 0, class: Class::Reply, body };
        PeerEvent::Frames { frames: frames.into_iter().map(frame).collect(), last: true }
    }

    fn texts(event: &PeerEvent) -> Vec<String> {
        let PeerEvent::Frames { frames, .. } = event else { panic!("{event:?}") };
        let text = |frame: &SerializedFrame| match &frame.body {
            FrameBody::Reply(json, _) | FrameBody::Message(json) | FrameBody::Log(_, json) => {
                String::from_utf8(json.to_vec()).unwrap()
            }
            FrameBody::Progress(_, _, message) => message.clone(),
        };
        frames.iter().map(text).collect()
    }

    #[test]
    fn a_large_reply_becomes_an_error_and_a_large_message_is_left_out() {
        let large = "x".repeat(10_000);
        let mut batch = event_of([
            FrameBody::Message(Bytes::from_static(b"1")),
            FrameBody::Reply(format!(r#"{{"id":"a","result":"{large}"}}"#).into(), None),
            FrameBody::Message(Bytes::from("y".repeat(9_000))),
        ]);
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        let left = texts(&batch);
        assert_eq!((left.len(), &*left[0]), (2, "1"));
        assert!(left[1].contains(r#""id":"a""#) && left[1].contains("-32603"), "{}", left[1]);
        // A frame that cannot become smaller is removed in the end.
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        assert!(!batch.leave_out_largest());
        assert!(!PeerEvent::Ended.leave_out_largest());
    }
}
