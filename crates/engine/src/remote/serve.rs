//! Serves peer requests: of other nodes, and those whose target has come to this one.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, Frame, SerializedFrame, StreamReceiver};
use stentor_wire::{DecodeError, Era, ErrorObject, Message, Method, Request, Response, encode};
use tokio::sync::mpsc;

use super::{
    Found, PeerEvent, PeerRequest, PeerStream, Remote, RemoteCaller, ResponseControl, SessionOp,
};
use crate::caller::Caller;
use crate::dispatch::{Answer, Scope};
use crate::handler::PendingRequests;
use crate::ids::{Seq, SessionId, StreamId};
use crate::reasons::Refused;
use crate::request_sender::RequestSender;

/// The response to a peer request: its events must be sent to the node that asked.
///
/// It must be dropped when that node cancels the request, or is lost.
#[derive(Debug)]
pub struct PeerResponse {
    /// Sent before everything else.
    first: Option<PeerEvent>,
    source: Source,
    questions: PeerQuestions,
}

/// The questions of a call that runs for another node. Clones are the same questions. Only a call
/// for a legacy client asks any.
#[derive(Clone, Debug, Default)]
pub struct PeerQuestions(Option<PendingRequests>);

impl PeerQuestions {
    /// Delivers the client's answer to a question. A second answer to the same question has no
    /// effect.
    pub fn answer(&self, response: Response) {
        if let Some(questions) = &self.0 {
            questions.answer(response);
        }
    }
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
            PeerRequest::Session { session, sender, op } => {
                self.serve_session(&session, &sender, op).await
            }
            PeerRequest::Migrate(record) => {
                let accepted = self.0.sessions.accept_migration(*record).await;
                accepted.map(|()| PeerResponse::of(PeerEvent::Ended))
            }
            PeerRequest::Extension { identifier, message } => {
                match self.0.dispatcher.on_peer_message(&identifier, message) {
                    Some(answer) => Ok(PeerResponse::answer(&Frame::Reply(answer.await, None))),
                    None => Err(Refused::Unreachable),
                }
            }
        };
        served.unwrap_or_else(|refused| PeerResponse::of(PeerEvent::Refused(refused)))
    }

    /// Serves a peer request that was meant for another node, after its target has come to this one.
    pub(crate) fn ask_itself(&self, peer_request: PeerRequest) -> PeerStream {
        let (sender, receiver) = mpsc::channel(1);
        let control = LocalControl::default();
        let (remote, questions) = (self.clone(), control.0.clone());
        tokio::spawn(async move {
            let serve = async {
                let mut response = remote.serve_peer(peer_request).await;
                // It is set once, here.
                let _ = questions.set(response.questions());
                while let Some(event) = response.next().await {
                    if sender.send(event).await.is_err() {
                        // Nobody reads: the request was cancelled.
                        return;
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = sender.closed() => {}
            }
        });
        PeerStream::new(receiver, Box::new(control))
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
        let opens_stream = self.0.dispatcher.opens_stream(&request.method);
        if (request.method == Method::Listen || opens_stream) && caller.era() == Era::Modern {
            let sessions = &self.0.sessions;
            let answer = match opens_stream {
                true => sessions.open_stream(request, caller, Scope::Local).await?,
                false => sessions.open_listen(request, caller).await?,
            };
            return Ok(match answer {
                Answer::Now(bytes, code) => PeerResponse::answer(&Frame::Reply(bytes, code)),
                Answer::Stream(receiver) => PeerResponse::new(None, Source::Session(receiver)),
            });
        }
        let questions = (caller.era() == Era::Legacy).then(|| {
            PendingRequests::named(self.0.nodes.node.prefixed(&crate::ids::random_text::<9>()))
        });
        let begun = self.0.dispatcher.begin(caller, request, questions.clone(), Scope::Local)?;
        let answer = begun.answer().await;
        Ok(match answer {
            Answer::Now(bytes, code) => PeerResponse::answer(&Frame::Reply(bytes, code)),
            Answer::Stream(receiver) => {
                let questions = PeerQuestions(questions);
                PeerResponse { first: None, source: Source::Call(receiver), questions }
            }
        })
    }

    async fn serve_session(
        &self,
        session: &SessionId,
        sender: &RequestSender,
        op: SessionOp,
    ) -> Result<PeerResponse, Refused> {
        let found = self.session_for_peer(session, sender).await?;
        let session = match found {
            Found::Local(session) => session,
            Found::Remote(node) => return Ok(PeerResponse::of(PeerEvent::Moved(node))),
        };
        let receiver = match op {
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
        Ok(PeerResponse::new(Some(began), Source::Session(receiver)))
    }
}

/// The way back to this engine itself: the questions, once the request has begun.
#[derive(Debug, Default)]
struct LocalControl(Arc<OnceLock<PeerQuestions>>);

impl ResponseControl for LocalControl {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        if let Some(questions) = self.0.get() {
            questions.answer(response);
        }
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
    fn new(first: Option<PeerEvent>, source: Source) -> Self {
        Self { first, source, questions: PeerQuestions::default() }
    }

    fn of(event: PeerEvent) -> Self {
        Self::new(Some(event), Source::Ended)
    }

    fn answer(reply: &Frame) -> Self {
        let frames = vec![SerializedFrame::of(&Delivered {
            seq: Seq(0),
            class: Class::Reply,
            frame: reply.clone(),
        })];
        Self::of(PeerEvent::Frames { frames, last: true, needs: Vec::new() })
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
        // A session's node checks by itself who reads its streams.
        let needs = match &self.source {
            Source::Call(receiver) => receiver.sender().map(|it| it.needs()).unwrap_or_default(),
            Source::Session(_) | Source::Ended => Vec::new(),
        };
        if last {
            self.source = Source::Ended;
        }
        PeerEvent::Frames { frames, last, needs }
    }

    fn end(&mut self) -> Option<PeerEvent> {
        self.source = Source::Ended;
        Some(PeerEvent::Ended)
    }

    /// The questions that the response contains: the client's answers go there.
    #[must_use]
    pub fn questions(&self) -> PeerQuestions {
        self.questions.clone()
    }

    /// Delivers the client's answer to a question of the call.
    pub fn client_answers(&self, response: Response) {
        self.questions.answer(response);
    }
}

fn has_reply(batch: &[Delivered]) -> bool {
    batch.iter().any(|event| event.class == Class::Reply)
}
