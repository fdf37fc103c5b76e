//! A client at the other end of an in-memory pipe, with paused time.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::transport_api::{HttpSession, Pipe, RequestSender};
use stentor_engine::{Context, Engine, EngineBuilder, Tool, ToolError, resource, tool};
use stentor_wire::{Message, Request, meta_key};

pub(crate) fn engine() -> EngineBuilder {
    Engine::builder("test", "1")
        .tool(tool("echo", || async { "echo" }))
        .tool(tool("panic", panics))
        .tool(tool("wait", || async {
            std::future::pending::<()>().await;
            "never"
        }))
        .tool(tool("log", |ctx: Context| async move {
            ctx.warning("below the level");
            ctx.error("above it");
            "logged"
        }))
        .resource(resource("test://watched", "watched", || async { "text" }))
        .tool(tool("block", |ctx: Context| async move {
            ctx.cancelled().await;
            "told"
        }))
}

async fn panics() -> Result<String, ToolError> {
    panic!("a secret of the tool")
}

/// Asks this many questions, waits 10 ms for the answer to each, and counts the questions in
/// `asked`.
pub(crate) fn impatient(times: usize, asked: Arc<AtomicUsize>) -> Tool {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Name {
        #[expect(dead_code, reason = "nobody answers")]
        name: String,
    }
    tool("impatient", move |ctx: Context| {
        let asked = asked.clone();
        async move {
            for _ in 0..times {
                let asking = ctx.elicit::<Name>("are you there?");
                let _ = tokio::time::timeout(Duration::from_millis(10), asking).await;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            "nobody is there"
        }
    })
}

pub(crate) struct Client {
    pub(crate) pipe: Pipe,
    receiver: StreamReceiver,
    received: std::collections::VecDeque<Value>,
}

impl Client {
    pub(crate) async fn connect(engine: &Engine) -> Self {
        let (pipe, receiver) = engine.open_pipe().await.expect("a pipe");
        Self { pipe, receiver, received: Default::default() }
    }

    /// A legacy client that has completed the handshake.
    pub(crate) async fn legacy(engine: &Engine) -> Self {
        Self::legacy_that(engine, json!({})).await
    }

    /// A legacy client with these capabilities.
    pub(crate) async fn legacy_that(engine: &Engine, can: Value) -> Self {
        let mut client = Self::connect(engine).await;
        client
            .send(json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "capabilities": can,
                "clientInfo": {"name": "c", "version": "1"},
            }}))
            .await;
        let answer = client.next().await.expect("an answer");
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        client
    }

    pub(crate) async fn send(&self, message: Value) {
        let bytes = Bytes::from(message.to_string());
        self.pipe.deliver(Message::decode(&bytes)).await.expect("delivered");
    }

    pub(crate) async fn call(&self, id: i64, tool: &str) {
        let params = json!({"name": tool, "_meta": {"progressToken": id}});
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
            .await;
    }

    /// The next message; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let mut batch = Vec::new();
        while self.received.is_empty() {
            if !self.receiver.next(&mut batch).await {
                return None;
            }
            for (_, _, frame) in batch.drain(..) {
                let mut out = BytesMut::new();
                frame.write(&mut out);
                self.received.push_back(serde_json::from_slice(&out).expect("JSON"));
            }
        }
        self.received.pop_front()
    }

    /// The response to a request, and the messages before it.
    pub(crate) async fn answer(&mut self, id: impl Into<Value>) -> (Value, Vec<Value>) {
        let (id, mut before) = (id.into(), Vec::new());
        loop {
            let message = self.next().await.expect("an answer");
            if message.get("id") == Some(&id) {
                return (message, before);
            }
            before.push(message);
        }
    }

    pub(crate) async fn subscribe(&mut self, id: &str, uri: &str) {
        let params = json!({"uri": uri});
        let method = "resources/subscribe";
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        assert!(self.answer(id).await.0["result"].is_object());
    }

    pub(crate) async fn ping(&mut self) -> Vec<Value> {
        self.send(json!({"jsonrpc": "2.0", "id": "ping", "method": "ping"})).await;
        self.answer("ping").await.1
    }
}

pub(crate) fn modern_meta() -> Value {
    json!({meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: {}})
}

pub(crate) fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|message| message["method"].as_str()).collect()
}

/// A legacy session over HTTP whose client has sent `initialize`.
pub(crate) async fn http_session(engine: &Engine) -> HttpSession {
    let session = engine.open_http_session(RequestSender::default()).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let mut receiver = session.request(request(0, "initialize", params)).await.unwrap();
    let mut answer = Vec::new();
    while receiver.next(&mut answer).await {}
    assert_eq!(answer.len(), 1);
    session
}

pub(crate) fn request(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    match Message::decode(&Bytes::from(text)) {
        Ok(Message::Request(request)) => request,
        other => panic!("no request: {other:?}"),
    }
}
