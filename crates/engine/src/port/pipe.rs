//! The session of a client at the other end of a pipe, as its transport sees it.

use std::sync::Arc;

use bytes::Bytes;
use stentor_wire::{DecodeError, ErrorObject, Message, encode};

use super::Refused;
use super::deliver::{ask, tell};
use crate::core::Core;
use crate::engine::LAST_MOMENT;
use crate::outlet::Outlet;
use crate::session::{EndReason, MAX_WAITING_MESSAGES, SessionEntry, Told};

/// The session of one client at the other end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    pub(super) core: Arc<Core>,
    pub(super) entry: Arc<SessionEntry>,
    pub(super) outlet: Outlet,
}

impl Pipe {
    /// Decodes one line of the client, as [`Engine::decode`](crate::Engine::decode).
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, line: Bytes) -> Result<Message, DecodeError> {
        self.core.decode(line).await
    }

    /// Hands in what was decoded from one line of the client.
    ///
    /// Waits while many messages of the client wait for the session, or many answers for the
    /// client; a request over the limit of running ones is answered with an error. Cancel safe:
    /// it is handed in or not.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn deliver(&self, decoded: Result<Message, DecodeError>) -> Result<(), Refused> {
        // A client that does not read its answers must not ask for more.
        self.outlet.answers_read().await;
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                let (id, code) = (error.id.clone(), error.code);
                self.outlet.reply(encode::error(id.as_ref(), &error.into()), Some(code));
                return Ok(());
            }
        };
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(notification) => {
                return tell(&self.core, &self.entry, Told::Notification(notification)).await;
            }
            Message::Response(response) => {
                return tell(&self.core, &self.entry, Told::Response(response)).await;
            }
        };
        let id = request.id.clone();
        let refuse = |error: ErrorObject| {
            self.outlet.reply(encode::error(Some(&id), &error), Some(error.code));
            Ok(())
        };
        match ask(&self.core, &self.entry, request, self.outlet.clone()).await {
            Err(Refused::TooManyRequests) => {
                refuse(ErrorObject::unavailable(Refused::TooManyRequests.to_string()))
            }
            asked => asked,
        }
    }

    /// The client sends nothing more. Its listens get their results, and what it was asked and has not
    /// answered is over at once. Lets what it asked for be answered, for as long as a shutdown would,
    /// and ends the session; then the inlet ends, too.
    pub async fn finish(&self) {
        let (turns, permits) = (self.entry.turns(), self.entry.permits());
        // All turns are back when every message was handled, all permits when every request
        // was answered.
        let answered = async {
            let _turns = turns.acquire_many(MAX_WAITING_MESSAGES).await;
            self.entry.questions().close();
            self.entry.drain(&self.core);
            let _permits = permits.acquire_many(self.core.config.max_requests() as u32).await;
        };
        let _ = tokio::time::timeout(self.core.config.drain_timeout, answered).await;
        // One that waited for the store of tasks until now is answered, too.
        self.entry.drain(&self.core);
        self.entry.end(&self.core, EndReason::Disconnected);
        // Calls that were ended answer, too, and the last of them ends the stream.
        let all = self.core.config.max_requests() as u32;
        if tokio::time::timeout(LAST_MOMENT, permits.acquire_many(all)).await.is_err() {
            // One that cannot be ended must not hold it open.
            self.outlet.finish();
        }
    }

    /// Whether the engine shuts down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }
}
