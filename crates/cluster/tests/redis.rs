//! The Redis store. Each test has its own server.

#[path = "redis/nodes.rs"]
mod nodes;
#[path = "redis/processes.rs"]
mod processes;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/store.rs"]
mod store;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::HttpSession;
use stentor_engine::{Context, Engine, Seq, ToolError};
use stentor_wire::{Message, Request};

async fn lines(ctx: Context) -> Result<&'static str, ToolError> {
    for line in 0..100 {
        ctx.info(line);
    }
    Ok("all of them")
}

fn request(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn some(receiver: &mut StreamReceiver) -> Vec<(Seq, Value)> {
    let mut batch = Vec::new();
    receiver.next(&mut batch).await;
    let message = |Delivered { seq, frame, .. }| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        (seq, serde_json::from_slice(&out).expect("JSON"))
    };
    batch.into_iter().map(message).collect()
}

async fn all(receiver: &mut StreamReceiver) -> Vec<(Seq, Value)> {
    let mut messages = Vec::new();
    loop {
        match some(receiver).await {
            more if more.is_empty() => return messages,
            more => messages.extend(more),
        }
    }
}

async fn opened(engine: &Engine) -> HttpSession {
    let session = engine.open_http_session(sent_by("ann")).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let request = request(0, "initialize", params);
    all(&mut session.request(request).await.unwrap()).await;
    session
}

async fn call(session: &HttpSession, id: i64) -> StreamReceiver {
    let request = request(id, "tools/call", json!({"name": "lines"}));
    let receiver = session.request(request).await.unwrap();
    session.keep(&receiver, &[]);
    receiver
}
