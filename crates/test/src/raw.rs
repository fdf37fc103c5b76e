//! The bytes of a client: what no correct client sends, and every message that comes back.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::Engine;
use stentor_engine::transport_api::{Pipe, RequestSender};
use stentor_wire::Message;

/// A client that sends exactly what the test says, and reads nothing by itself.
///
/// [`Builder::raw`](crate::Builder::raw) opens one that has completed the handshake of its era.
#[derive(Debug)]
pub struct Raw {
    pipe: Pipe,
    messages: Messages,
}

impl Raw {
    /// Opens a connection without any handshake.
    ///
    /// # Panics
    ///
    /// If the engine opens no session.
    pub async fn open(engine: &Engine) -> Self {
        Self::open_for(engine, RequestSender::default()).await
    }

    pub(crate) async fn open_for(engine: &Engine, sender: RequestSender) -> Self {
        let opened = engine.open_pipe_for(sender).await;
        let (pipe, receiver) = opened.unwrap_or_else(|error| panic!("no session: {error}"));
        Self { pipe, messages: Messages::new(receiver) }
    }

    pub(crate) fn into_parts(self) -> (Pipe, Messages) {
        (self.pipe, self.messages)
    }

    /// Sends one message. Waits while many messages wait for the session, or many answers for the
    /// client. Cancel safe: the message is sent or not.
    ///
    /// # Panics
    ///
    /// If the session has ended.
    pub async fn send(&self, message: Value) {
        self.send_bytes(message.to_string()).await;
    }

    /// Like [`send`](Self::send), with bytes that need not be a message.
    ///
    /// # Panics
    ///
    /// If the session has ended.
    pub async fn send_bytes(&self, line: impl Into<Bytes>) {
        let delivered = self.pipe.deliver(Message::decode(&line.into())).await;
        delivered.unwrap_or_else(|error| panic!("not sent: {error}"));
    }

    /// Sends a request.
    ///
    /// # Panics
    ///
    /// If the session has ended.
    pub async fn request(&self, id: impl Into<Value>, method: &str, params: Value) {
        self.send(request(&id.into(), method, params)).await;
    }

    /// The next message of the server; `None` when the session has ended. Cancel safe.
    ///
    /// # Panics
    ///
    /// If the server sends something that is not JSON.
    pub async fn next(&mut self) -> Option<Value> {
        self.messages.next().await
    }

    /// The response to a request, and the messages before it.
    ///
    /// # Panics
    ///
    /// If the session ends before.
    pub async fn answer(&mut self, id: impl Into<Value>) -> (Value, Vec<Value>) {
        let (id, mut before) = (id.into(), Vec::new());
        loop {
            let Some(message) = self.next().await else {
                panic!("the session ended before the response to {id}, after {before:?}");
            };
            if message.get("id") == Some(&id) && message.get("method").is_none() {
                return (message, before);
            }
            before.push(message);
        }
    }

    /// These messages come first.
    pub(crate) fn unread(&mut self, messages: Vec<Value>) {
        let later = std::mem::replace(&mut self.messages.received, messages.into());
        self.messages.received.extend(later);
    }

    /// The session, as a transport uses it.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }
}

/// A request as JSON.
pub(crate) fn request(id: &Value, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// The messages of the server.
#[derive(Debug)]
pub(crate) struct Messages {
    receiver: StreamReceiver,
    batch: Vec<Delivered>,
    received: VecDeque<Value>,
}

impl Messages {
    fn new(receiver: StreamReceiver) -> Self {
        Self { receiver, batch: Vec::new(), received: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Option<Value> {
        while self.received.is_empty() {
            if !self.receiver.next(&mut self.batch).await {
                return None;
            }
            for Delivered { frame, .. } in self.batch.drain(..) {
                let mut out = BytesMut::new();
                frame.write(&mut out);
                let message = serde_json::from_slice(&out);
                let message = message.unwrap_or_else(|error| panic!("{error}: {out:?}"));
                self.received.push_back(message);
            }
        }
        self.received.pop_front()
    }
}
