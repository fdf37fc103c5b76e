//! The session of a client at the other end of a pipe, for its transport.

use std::sync::Arc;

use bytes::Bytes;
use stentor_wire::{DecodeError, ErrorObject, Message, encode};

use super::Refused;
use super::deliver::{ask, tell};
use crate::core::Core;
use crate::engine::CANCEL_GRACE;
use crate::reasons::EndReason;
use crate::session::{MAX_WAITING_MESSAGES, OneWay, SessionEntry};
use stentor_delivery::StreamSender;

/// The session of one client at the other end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    pub(super) core: Arc<Core>,
    pub(super) entry: Arc<SessionEntry>,
    pub(super) sender: StreamSender,
}

impl Pipe {
    /// Decodes one line of the client, like [`Engine::decode`](crate::Engine::decode).
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, line: Bytes) -> Result<Message, DecodeError> {
        self.core.decode(line).await
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
                return tell(&self.core, &self.entry, OneWay::Notification(notification)).await;
            }
            Message::Response(response) => {
                return tell(&self.core, &self.entry, OneWay::Response(response)).await;
            }
        };
        let id = request.id.clone();
        let refuse = |error: ErrorObject| {
            self.sender.reply(encode::error(Some(&id), &error), Some(error.code));
            Ok(())
        };
        match ask(&self.core, &self.entry, request, self.sender.clone()).await {
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
        let (turns, permits) = (self.entry.turns(), self.entry.permits());
        // All turns are free when every message was handled, all permits when every request was
        // answered.
        let answered = async {
            let _turns = turns.acquire_many(MAX_WAITING_MESSAGES).await;
            self.entry.questions().close();
            self.entry.drain(&self.core);
            let _permits = permits.acquire_many(self.core.config.max_requests() as u32).await;
        };
        let _ = tokio::time::timeout(self.core.config.drain_timeout, answered).await;
        // Ends also a listen that has waited for the task store until now.
        self.entry.drain(&self.core);
        self.entry.end(&self.core, EndReason::Disconnected);
        // Cancelled calls answer, too, and the last of them ends the stream.
        let all = self.core.config.max_requests() as u32;
        if tokio::time::timeout(CANCEL_GRACE, permits.acquire_many(all)).await.is_err() {
            // A call that cannot be cancelled must not keep the stream open.
            self.sender.finish();
        }
    }

    /// Whether the engine shuts down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.lifecycle.is_draining()
    }
}
