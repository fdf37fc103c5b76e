//! The errand of another node, done here.

use bytes::Bytes;
use serde::Deserialize;
use stentor_wire::{DecodeError, Era, ErrorObject, Id, Message, Method, Request, Response, encode};

use super::{Act, Errand, Found, Said, Sender, Spoken, What};
use crate::dispatch::Scope;
use crate::engine::Engine;
use crate::ids::{Seq, SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Frame, Inlet};
use crate::port::{Answer, Refused, stateless};
use crate::session::{Caller, Questions};

/// The errand of another node, done here: what it says is to be sent there. Dropping it is how
/// that node calls it off, or is gone.
#[derive(Debug)]
pub struct Serving {
    /// What is said before anything else.
    first: Option<Said>,
    source: Source,
    /// Where a call of a legacy client asks.
    questions: Option<Questions>,
}

#[derive(Debug)]
enum Source {
    /// A stream that goes on when its reader is to go away.
    Call(Inlet),
    /// A stream of a session.
    Session(Inlet),
    Over,
}

impl Engine {
    /// Does what another node asks. What comes of it is the errand's stream; what cannot be
    /// done is the first and only thing that is said there.
    ///
    /// When dropped early, it may or may not have been done.
    pub async fn serve_peer(&self, errand: Errand) -> Serving {
        let served = match errand {
            Errand::Request { sender, request } => self.serve_request(*sender, &request).await,
            Errand::Session { session, principal, act } => {
                self.serve_session(&session, principal.as_deref(), act).await
            }
            Errand::Adopt(record) => self.adopt(*record).await.map(|()| Serving::of(Said::Over)),
        };
        served.unwrap_or_else(|refused| Serving::of(Said::Refused(refused)))
    }

    async fn serve_request(&self, sender: Sender, request: &Bytes) -> Result<Serving, Refused> {
        let (core, caller) = (self.core(), Caller::from(sender));
        let request = match read(request) {
            Ok(request) => request,
            Err(error) => return Ok(Serving::answer(&error_of(&error))),
        };
        if request.method == Method::Listen && caller.era() == Era::Modern {
            let answer = self.listen(request, caller).await?;
            return Ok(match answer {
                Answer::Now(bytes, code) => Serving::answer(&Frame::Reply(bytes, code)),
                Answer::Stream(inlet) => {
                    Serving { first: None, source: Source::Session(inlet), questions: None }
                }
            });
        }
        let questions = (caller.era() == Era::Legacy)
            .then(|| Questions::named(core.config.node.sign(&crate::ids::random_text::<9>())));
        let begun = stateless(core, caller, request, questions.clone(), Scope::Own)?;
        let answer = begun.answer().await;
        Ok(match answer {
            Answer::Now(bytes, code) => Serving::answer(&Frame::Reply(bytes, code)),
            Answer::Stream(inlet) => {
                Serving { first: None, source: Source::Call(inlet), questions }
            }
        })
    }

    async fn serve_session(
        &self,
        session: &SessionId,
        principal: Option<&str>,
        act: Act,
    ) -> Result<Serving, Refused> {
        self.core().moving.settled(session.as_str()).await;
        let session = match self.own_http_session(session.as_str(), principal) {
            Some(session) => session,
            None => {
                let found = self.locate_session(session, principal).await?;
                if let Found::There(node) = found {
                    return Ok(Serving::of(Said::Moved(node)));
                }
                let session = self.own_http_session(session.as_str(), principal);
                session.ok_or(Refused::SessionEnded)?
            }
        };
        let inlet = match act {
            Act::Message(message) => {
                let message = self.core().decode(message).await;
                match message {
                    Ok(Message::Request(request)) => {
                        let inlet = session.request(request).await?;
                        // Its client may come back to any node.
                        session.keep(&inlet, &[]);
                        inlet
                    }
                    Ok(Message::Notification(notification)) => {
                        session.notification(notification).await?;
                        return Ok(Serving::of(Said::Over));
                    }
                    Ok(Message::Response(response)) => {
                        session.response(response).await?;
                        return Ok(Serving::of(Said::Over));
                    }
                    Err(error) => return Ok(Serving::answer(&error_of(&error))),
                }
            }
            Act::Heard(notices) => {
                session.missed(notices).await;
                return Ok(Serving::of(Said::Over));
            }
            Act::Attach => session.attach().await?,
            Act::Resume(stream, next) => session.resume(StreamId(stream), Seq(next)).await?,
            Act::ReadAgain(stream, next) => {
                session.read_again(StreamId(stream), Seq(next), None).await?
            }
            Act::End(reason) => {
                session.end(reason).await?;
                return Ok(Serving::of(Said::Over));
            }
        };
        let (stream, next) = (inlet.stream().0, inlet.next_seq().map(|seq| seq.0));
        let began = Said::Began { stream, version: session.version(), next };
        Ok(Serving { first: Some(began), source: Source::Session(inlet), questions: None })
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

impl Serving {
    fn of(said: Said) -> Self {
        Self { first: Some(said), source: Source::Over, questions: None }
    }

    fn answer(reply: &Frame) -> Self {
        let frames = vec![Spoken::of(&(Seq(0), Class::Reply, reply.clone()))];
        Self::of(Said::Frames { frames, last: true })
    }

    /// What is said next; `None` when nothing follows. Cancel safe.
    pub async fn next(&mut self) -> Option<Said> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut batch = Vec::new();
        match &mut self.source {
            Source::Call(inlet) => {
                if inlet.next(&mut batch).await {
                    let last = inlet.is_drained() && has_reply(&batch);
                    return Some(self.say(batch.iter().map(Spoken::of).collect(), last));
                }
                match inlet.outlet().filter(|outlet| !outlet.is_finished()) {
                    // The call has sent its client away, which is to come back for the rest.
                    Some(outlet) => {
                        *inlet = outlet.attach();
                        Some(Said::Detached)
                    }
                    None => self.end(),
                }
            }
            Source::Session(inlet) => {
                if inlet.next(&mut batch).await {
                    let last = inlet.is_drained();
                    return Some(self.say(batch.iter().map(Spoken::written).collect(), last));
                }
                self.end()
            }
            Source::Over => None,
        }
    }

    fn say(&mut self, frames: Vec<Spoken>, last: bool) -> Said {
        if last {
            self.source = Source::Over;
        }
        Said::Frames { frames, last }
    }

    fn end(&mut self) -> Option<Said> {
        self.source = Source::Over;
        Some(Said::Over)
    }

    /// The client answers a question of the call.
    pub fn client_answers(&self, response: Response) {
        if let Some(questions) = &self.questions {
            // One that is answered already needs no other answer.
            questions.answer(response);
        }
    }
}

impl Said {
    /// What is said is more than can be sent: its largest answer becomes an error, and any other message
    /// is left out. `false` if there is nothing to leave out.
    pub fn leave_out_largest(&mut self) -> bool {
        match self {
            Self::Frames { frames, .. } => leave_out_largest(frames),
            _ => false,
        }
    }
}

/// Of frames that are more than can be sent, the largest answer becomes an error, and any other message
/// is left out. `false` if there is nothing to leave out.
pub(crate) fn leave_out_largest(frames: &mut Vec<Spoken>) -> bool {
    let largest = (0..frames.len()).max_by_key(|index| frames[*index].what.len());
    let Some(largest) = largest else { return false };
    let what = &mut frames[largest].what;
    crate::log!(warn, bytes = what.len(), "a message is too large to be sent to another node");
    match what.too_large() {
        Some(error) if error.len() < what.len() => *what = error,
        _ => drop(frames.remove(largest)),
    }
    true
}

impl Spoken {
    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.what.len()
    }
}

impl What {
    /// What takes the place of an answer that is too large.
    fn too_large(&self) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answered {
            id: Id,
        }
        let Self::Reply(json, _) = self else { return None };
        let Answered { id } = serde_json::from_slice(json).ok()?;
        let error = "the answer is too large to be sent from one node to another";
        let error = ErrorObject::internal(error);
        Some(Self::Reply(encode::error(Some(&id), &error), Some(error.code)))
    }

    /// How long it is, in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Reply(json, _) | Self::Message(json) | Self::Log(_, json) => json.len(),
            Self::Progress(_, _, message) => message.len(),
        }
    }
}

fn has_reply(batch: &[Delivered]) -> bool {
    batch.iter().any(|(_, class, _)| *class == Class::Reply)
}

impl From<Sender> for Caller {
    fn from(sender: Sender) -> Self {
        Self::of_peer(sender)
    }
}

/// What another node is to know of a caller.
impl From<&Caller> for Sender {
    fn from(caller: &Caller) -> Self {
        Self {
            version: caller.version,
            client: caller.client.clone(),
            capabilities: caller.capabilities.clone(),
            session: caller.session.clone(),
            principal: caller.principal.clone(),
            connection: caller.connection,
            resumes: caller.resumes,
            level: caller.level(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(frames: impl IntoIterator<Item = What>) -> Said {
        let spoken = |what| Spoken { seq: 0, class: Class::Reply, what };
        Said::Frames { frames: frames.into_iter().map(spoken).collect(), last: true }
    }

    fn says(said: &Said) -> Vec<String> {
        let Said::Frames { frames, .. } = said else { panic!("{said:?}") };
        let says = |spoken: &Spoken| match &spoken.what {
            What::Reply(json, _) | What::Message(json) | What::Log(_, json) => {
                String::from_utf8(json.to_vec()).unwrap()
            }
            What::Progress(_, _, message) => message.clone(),
        };
        frames.iter().map(says).collect()
    }

    #[test]
    fn of_what_is_too_large_an_answer_stays_an_answer_and_the_rest_goes_on() {
        let large = "x".repeat(10_000);
        let mut batch = said([
            What::Message(Bytes::from_static(b"1")),
            What::Reply(format!(r#"{{"id":"a","result":"{large}"}}"#).into(), None),
            What::Message(Bytes::from("y".repeat(9_000))),
        ]);
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        let left = says(&batch);
        assert_eq!((left.len(), &*left[0]), (2, "1"));
        assert!(left[1].contains(r#""id":"a""#) && left[1].contains("-32603"), "{}", left[1]);
        // Also what cannot become any smaller comes to an end.
        assert!(batch.leave_out_largest() && batch.leave_out_largest());
        assert!(!batch.leave_out_largest());
        assert!(!Said::Over.leave_out_largest());
    }
}
