//! What the suites have in common: small tools, and what their clients send.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use stentor_engine::transport_api::{HttpSession, RequestSender};
use stentor_engine::{Context, Engine, EngineBuilder, Tool, ToolError, resource, tool};
use stentor_test::Raw;
use stentor_wire::{Era, Message, Request, meta_key};

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

/// A raw client, with what many suites send.
pub(crate) struct Client(Raw);

impl Deref for Client {
    type Target = Raw;

    fn deref(&self) -> &Raw {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Raw {
        &mut self.0
    }
}

impl Client {
    /// A client that has sent nothing.
    pub(crate) async fn connect(engine: &Engine) -> Self {
        Self(Raw::open(engine).await)
    }

    /// A legacy client that has completed the handshake.
    pub(crate) async fn legacy(engine: &Engine) -> Self {
        Self::legacy_that(engine, json!({})).await
    }

    /// A legacy client with these capabilities.
    pub(crate) async fn legacy_that(engine: &Engine, can: Value) -> Self {
        let client = stentor_test::Client::builder(engine).era(Era::Legacy).client_info("c", "1");
        Self(client.capabilities(can).raw().await)
    }

    pub(crate) async fn call(&self, id: i64, tool: &str) {
        let params = json!({"name": tool, "_meta": {"progressToken": id}});
        self.request(id, "tools/call", params).await;
    }

    pub(crate) async fn subscribe(&mut self, id: &str, uri: &str) {
        self.request(id, "resources/subscribe", json!({ "uri": uri })).await;
        assert!(self.answer(id).await.0["result"].is_object());
    }

    /// The messages before the response to a ping.
    pub(crate) async fn ping(&mut self) -> Vec<Value> {
        self.request("ping", "ping", json!({})).await;
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
