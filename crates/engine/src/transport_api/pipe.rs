//! The session of a client at the other end of a pipe, for its transport.

use std::time::Duration;

use bytes::Bytes;
use stentor_delivery::StreamSender;
use stentor_wire::{DecodeError, ErrorObject, Message, encode};

use crate::reasons::{EndReason, Refused};
use crate::session::Session;

/// The session of one client at the other end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    session: Session,
    sender: StreamSender,
    drain_timeout: Duration,
}

impl Pipe {
    pub(super) fn new(session: Session, sender: StreamSender, drain_timeout: Duration) -> Self {
        Self { session, sender, drain_timeout }
    }

    /// Decodes one line of the client, like [`Engine::decode`](crate::Engine::decode).
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, line: Bytes) -> Result<Message, DecodeError> {
        self.session.decode(line).await
    }

    /// Delivers what was decoded from one line of the client.
    ///
    /// Waits while many messages of the client wait for the session, or many answers wait for the
    /// client. A request above the limit of running requests is answered with an error. Cancel
    /// safe: the message is delivered or not.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn deliver(&self, decoded: Result<Message, DecodeError>) -> Result<(), Refused> {
        // A client that does not read its answers must not send more requests.
        self.sender.wait_until_read().await;
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                let (id, code) = (error.id.clone(), error.code);
                self.sender.reply(encode::error(id.as_ref(), &error.into()), Some(code));
                return Ok(());
            }
        };
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(notification) => {
                return self.session.notification(notification).await;
            }
            Message::Response(response) => {
                return self.session.response(response).await;
            }
        };
        let id = request.id.clone();
        let refuse = |error: ErrorObject| {
            self.sender.reply(encode::error(Some(&id), &error), Some(error.code));
            Ok(())
        };
        match self.session.deliver_request(request, self.sender.clone()).await {
            Err(Refused::TooManyRequests) => {
                refuse(ErrorObject::unavailable(Refused::TooManyRequests.to_string()))
            }
            asked => asked,
        }
    }

    /// Ends the session after the client has closed its input.
    ///
    /// Its listens get their results, and the questions that it has not answered end at once. Its
    /// requests may still be answered, for as long as during a shutdown. Then the session ends, and
    /// the receiver of its stream with it.
    pub async fn finish(&self) {
        if self.session.finish(EndReason::Disconnected, self.drain_timeout).await.is_err() {
            // A call that cannot be cancelled must not keep the stream open.
            self.sender.finish();
        }
    }

    /// Whether the engine shuts down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.session.is_draining()
    }
}
