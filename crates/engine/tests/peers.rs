//! Two engines as peers: what a client of one notices of the other.

#[path = "peers/calls.rs"]
mod calls;
#[path = "peers/items.rs"]
mod items;
#[path = "peers/nodes.rs"]
mod nodes;
#[path = "peers/rights.rs"]
mod rights;
#[path = "peers/sessions.rs"]
mod sessions;
#[path = "peers/streams.rs"]
mod streams;
mod support;
#[path = "peers/watches.rs"]
mod watches;

use bytes::{Bytes, BytesMut};
use nodes::Nodes;
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::{Answer, HttpSession};
use stentor_engine::{CallError, Context, Engine, ToolError, tool};
use stentor_wire::{Message, ProtocolVersion, Request, meta_key};

/// One node without tools, and one with tools.
async fn two() -> (Nodes, Engine, Engine) {
    let nodes = Nodes::default();
    let far =
        nodes.start("far", support::engine().tool(tool("ask", ask)).tool(tool("steps", steps)));
    let far = far.await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    (nodes, near, far)
}

async fn ask(ctx: Context) -> Result<String, CallError> {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Name {
        name: String,
    }
    let Name { name } = ctx.elicit("Who?").await?;
    Ok(format!("Hello, {name}!"))
}

async fn steps(ctx: Context) -> Result<&'static str, ToolError> {
    for step in 1..=100 {
        ctx.report_progress_paced(f64::from(step), Some(100.0), "").await;
        ctx.info(step);
    }
    ctx.notify("notifications/own", json!({"a": 1}));
    Ok("done")
}

fn modern(id: i64, method: &str, mut params: Value, capabilities: Value) -> Box<Request> {
    params["_meta"] = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: capabilities,
    });
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn answered(engine: &Engine, request: Box<Request>) -> Value {
    let version = ProtocolVersion::V2026_07_28;
    match engine.answer(version, request, None).await.unwrap() {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => all(&mut receiver).await.pop().unwrap(),
    }
}

async fn all(receiver: &mut StreamReceiver) -> Vec<Value> {
    let (mut batch, mut messages) = (Vec::new(), Vec::new());
    while receiver.next(&mut batch).await {
        for stentor_delivery::Delivered { frame, .. } in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            messages.push(serde_json::from_slice(&out).unwrap());
        }
    }
    messages
}

async fn until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 20, "it does not come to this");
        tokio::task::yield_now().await;
    }
}

fn legacy(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn opened(engine: &Engine) -> HttpSession {
    let session = engine.open_http_session(sent_by("ann")).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let request = legacy(0, "initialize", params);
    all(&mut session.request(request).await.unwrap()).await;
    session
}
