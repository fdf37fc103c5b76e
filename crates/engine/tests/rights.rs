//! Who may see and do what: what is hidden is as if it were not there, scopes are asked for, and
//! sessions, states and streams belong to somebody.

#[path = "rights/binding.rs"]
mod binding;
#[path = "rights/hidden.rs"]
mod hidden;
#[path = "peers/nodes.rs"]
#[allow(dead_code, reason = "other suites use the rest")]
mod nodes;
#[path = "rights/revoked.rs"]
mod revoked;
#[path = "rights/scopes.rs"]
mod scopes;
mod support;

use bytes::BytesMut;
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::Engine;
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::{Answer, HttpSession, RequestSender};
use stentor_wire::{Era, ProtocolVersion};
use support::{modern_meta, request};

fn ann(scopes: &[&'static str]) -> Identity {
    Identity::named("ann").scopes(scopes.iter().copied())
}

async fn messages(receiver: &mut StreamReceiver) -> Vec<Value> {
    let (mut batch, mut messages) = (Vec::new(), Vec::new());
    while receiver.next(&mut batch).await {
        messages.extend(batch.drain(..).map(message));
    }
    messages
}

fn message(delivered: stentor_delivery::Delivered) -> Value {
    let mut out = BytesMut::new();
    delivered.frame.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

/// A legacy session over HTTP.
async fn session(engine: &Engine, who: &Identity) -> HttpSession {
    let session = engine.open_http_session(RequestSender::known(who.clone())).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    messages(&mut session.request(request(0, "initialize", params)).await.unwrap()).await;
    session
}

/// What a modern request over HTTP brings.
async fn begun(engine: &Engine, who: &Identity, method: &str, mut params: Value) -> Answer {
    params["_meta"] = modern_meta();
    let request = request(1, method, params);
    engine.answer(ProtocolVersion::V2026_07_28, request, Some(who.clone())).await.unwrap()
}

/// The response to a modern request over HTTP.
async fn modern(engine: &Engine, who: &Identity, method: &str, params: Value) -> Value {
    match begun(engine, who, method, params).await {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => messages(&mut receiver).await.pop().unwrap(),
    }
}

async fn listen(engine: &Engine, who: &Identity, filter: Value) -> StreamReceiver {
    let params = json!({ "notifications": filter });
    match begun(engine, who, "subscriptions/listen", params).await {
        Answer::Stream(receiver) => receiver,
        Answer::Now(bytes, _) => panic!("{bytes:?}"),
    }
}

/// The response to a request of a client of an era.
async fn answer(engine: &Engine, era: Era, who: &Identity, method: &str, params: Value) -> Value {
    match era {
        Era::Modern => modern(engine, who, method, params).await,
        Era::Legacy => {
            let session = session(engine, who).await;
            let mut receiver = session.request(request(1, method, params)).await.unwrap();
            messages(&mut receiver).await.pop().unwrap()
        }
    }
}
