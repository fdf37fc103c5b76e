//! Code that the benchmarks share: clients in memory, of either era.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::future::Future;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::Answer;
use stentor_engine::{Engine, EngineBuilder};
use stentor_wire::{Message, Method, ProtocolVersion, Request, meta_key};
use tokio::runtime::{Builder, Runtime};

/// Two threads on every machine, so that results of different machines are comparable.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Runs a client where a server's connections run: on a thread of the runtime. From another thread,
/// every message would have to wake a thread of the runtime.
pub(crate) fn on_worker<T: Send + 'static>(
    runtime: &Runtime,
    client: impl Future<Output = T> + Send + 'static,
) -> T {
    let client = runtime.spawn(client);
    runtime.block_on(client).expect("no panic")
}

pub(crate) fn start(runtime: &Runtime, builder: EngineBuilder) -> Engine {
    runtime.block_on(builder.start()).expect("an engine")
}

pub(crate) fn legacy(id: u64, method: &str, params: Value) -> Bytes {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    request.to_string().into()
}

pub(crate) fn modern(id: u64, method: &str, mut params: Value) -> Bytes {
    params["_meta"][meta_key::PROTOCOL_VERSION] = json!("2026-07-28");
    params["_meta"][meta_key::CLIENT_INFO] = json!({"name": "bench", "version": "1.0.0"});
    params["_meta"][meta_key::CLIENT_CAPABILITIES] = json!({});
    legacy(id, method, params)
}

/// The bytes that open a legacy session.
pub(crate) fn initialize() -> Bytes {
    let client = json!({"name": "bench", "version": "1.0.0"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    legacy(0, "initialize", params)
}

/// Reads a request as a transport does.
pub(crate) fn decode(bytes: &Bytes) -> Box<Request> {
    let Ok(Message::Request(request)) = Message::decode(bytes) else { panic!("a request") };
    request
}

/// The notification that a legacy client is ready.
pub(crate) fn initialized() -> Box<stentor_wire::Notification> {
    let method = Method::parse("notifications/initialized");
    Box::new(stentor_wire::Notification { method, params: Default::default() })
}

/// Sends a modern request, without HTTP around it.
pub(crate) async fn answer(engine: &Engine, bytes: &Bytes) -> Answer {
    answer_for(engine, bytes, None).await
}

/// As `answer`, for a sender with this identity.
pub(crate) async fn answer_for(
    engine: &Engine,
    bytes: &Bytes,
    identity: Option<Identity>,
) -> Answer {
    let request = decode(bytes);
    let version: ProtocolVersion = request.meta.require_modern().expect("a modern request");
    engine.answer(version, request, identity).await.expect("not refused")
}

pub(crate) fn stream(answer: Answer) -> StreamReceiver {
    match answer {
        Answer::Stream(receiver) => receiver,
        Answer::Now(bytes, _) => panic!("{}", String::from_utf8_lossy(&bytes)),
    }
}

/// Reads a stream to its end, as bytes. Returns the number of frames; `out` has the last one.
pub(crate) async fn to_end(
    receiver: &mut StreamReceiver,
    batch: &mut Vec<Delivered>,
    out: &mut BytesMut,
) -> usize {
    let mut frames = 0;
    while receiver.next(batch).await {
        for Delivered { frame, .. } in batch.drain(..) {
            frames += 1;
            out.clear();
            frame.write(out);
        }
    }
    frames
}
