//! Resources that all callers share: the largest share gives way, and no other.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::{Answer, RequestSender};
use stentor_engine::{AsTask, Config, Connection, Context, Engine, MemoryTaskStore, tool};
use stentor_wire::{Message, ProtocolVersion, Request, meta_key};

#[derive(Deserialize, JsonSchema)]
struct Login {
    user: String,
}

#[derive(Deserialize, JsonSchema)]
struct Padded {
    #[serde(default)]
    #[expect(dead_code, reason = "it only takes room")]
    padding: String,
}

async fn engine(configure: impl FnOnce(&mut Config)) -> Engine {
    Engine::builder("test", "1")
        .tool(tool("ask", |_: Padded, ctx: Context| async move {
            ctx.elicit::<Login>("?").await.map(|login| login.user)
        }))
        .tool(tool("wait", |_: Padded, _: Context| async move {
            std::future::pending::<()>().await;
            "never"
        }))
        .tool(
            tool("work", |_: Padded, _: Context| async move {
                std::future::pending::<()>().await;
                "never"
            })
            .as_task(AsTask::Always),
        )
        .tool(tool("quick", |_: Padded, _: Context| async move { "done" }).as_task(AsTask::Always))
        .configure(configure)
        .start()
        .await
        .unwrap()
}

/// A caller without a principal, on a connection from an address.
fn on(address: u8, number: u64) -> RequestSender {
    let address = Ipv4Addr::new(10, 0, 0, address).into();
    RequestSender::default().on(Some(Connection { address, number }))
}

fn principal(name: &str, number: u64) -> RequestSender {
    let address = Ipv4Addr::new(10, 0, 0, 1).into();
    sent_by(name).on(Some(Connection { address, number }))
}

fn request(method: &str, mut params: Value) -> Box<Request> {
    params["_meta"] = json!({
        (meta_key::PROTOCOL_VERSION): "2026-07-28",
        (meta_key::CLIENT_CAPABILITIES): {
            "elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}},
        },
    });
    let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    match Message::decode(&Bytes::from(text.to_string())) {
        Ok(Message::Request(request)) => request,
        other => panic!("no request: {other:?}"),
    }
}

async fn send(engine: &Engine, from: &RequestSender, method: &str, params: Value) -> Value {
    let request = request(method, params);
    let version = ProtocolVersion::V2026_07_28;
    match engine.answer(version, request, from.clone()).await.unwrap() {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => {
            let mut batch = Vec::new();
            assert!(receiver.next(&mut batch).await, "an answer");
            let mut out = BytesMut::new();
            batch[0].frame.write(&mut out);
            serde_json::from_slice(&out).unwrap()
        }
    }
}

/// Asks a question, and returns the state to retry with.
async fn ask(engine: &Engine, from: &RequestSender, padding: usize) -> Value {
    let arguments = json!({"padding": "x".repeat(padding)});
    let params = json!({"name": "ask", "arguments": arguments});
    let answer = send(engine, from, "tools/call", params).await;
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    answer["result"].clone()
}

async fn retry(engine: &Engine, from: &RequestSender, asked: &Value, padding: usize) -> Value {
    let arguments = json!({"padding": "x".repeat(padding)});
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let params = json!({
        "name": "ask", "arguments": arguments, "requestState": asked["requestState"],
        "inputResponses": {key: {"action": "accept", "content": {"user": "ann"}}},
    });
    send(engine, from, "tools/call", params).await
}

/// The modest caller gets its questions answered, whatever the greedy callers ask and in whatever
/// order.
async fn others_get_their_questions(
    greedy: impl Fn(u64) -> RequestSender,
    modest: &RequestSender,
    configure: impl FnOnce(&mut Config),
    padding: usize,
) {
    let engine = engine(configure).await;
    let first = ask(&engine, &greedy(0), padding).await;
    for n in 1..100 {
        ask(&engine, &greedy(n), padding).await;
    }
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(ask(&engine, modest, 0).await);
    }
    for n in 0..100 {
        ask(&engine, &greedy(n), padding).await;
    }
    for asked in &asked {
        let answer = retry(&engine, modest, asked, 0).await;
        assert_eq!(answer["result"]["content"][0]["text"], "ann", "{answer}");
    }
    let told = retry(&engine, &greedy(0), &first, padding).await;
    assert_eq!(told["error"]["code"], 503, "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("gave way"), "{told}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_cannot_crowd_out_the_questions_of_another() {
    let few = |config: &mut Config| config.calls.max_awaiting_input = 20;
    others_get_their_questions(|_| on(1, 1), &on(1, 2), few, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_with_many_connections_cannot_crowd_out_the_questions_of_another() {
    let few = |config: &mut Config| config.calls.max_awaiting_input = 20;
    others_get_their_questions(|n| on(1, n), &on(2, 1), few, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_principal_cannot_crowd_out_the_questions_of_another() {
    let few = |config: &mut Config| config.calls.max_awaiting_input = 20;
    others_get_their_questions(|n| principal("bob", n), &principal("ann", 1), few, 0).await;
}

#[tokio::test(start_paused = true)]
async fn questions_with_large_requests_are_bounded_by_their_bytes() {
    let little = |config: &mut Config| config.calls.max_awaiting_input_bytes = 200_000;
    others_get_their_questions(|_| on(1, 1), &on(1, 2), little, 20_000).await;
}

async fn begin(engine: &Engine, from: &RequestSender, name: &str, padding: usize) -> Value {
    let arguments = json!({"padding": "x".repeat(padding)});
    send(engine, from, "tools/call", json!({"name": name, "arguments": arguments})).await
}

async fn task(engine: &Engine, from: &RequestSender, name: &str, padding: usize) -> String {
    let answer = begin(engine, from, name, padding).await;
    assert_eq!(answer["result"]["resultType"], "task", "{answer}");
    answer["result"]["taskId"].as_str().unwrap().to_owned()
}

/// The modest caller can have as many tasks as its share, whatever the greedy caller begins.
async fn others_get_their_tasks(store: MemoryTaskStore, name: &str, padding: usize) {
    let engine = engine(|config| config.tasks.store = Arc::new(store)).await;
    let (greedy, modest) = (on(1, 1), on(1, 2));
    let mut refused = 0;
    for _ in 0..60 {
        let answer = begin(&engine, &greedy, name, padding).await;
        refused += usize::from(answer["error"]["code"] == 503);
    }
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(task(&engine, &modest, "work", 0).await);
    }
    for _ in 0..60 {
        begin(&engine, &greedy, name, padding).await;
    }
    for id in tasks {
        let got = send(&engine, &modest, "tasks/get", json!({"taskId": id})).await;
        assert_eq!(got["result"]["status"], "working", "{got}");
    }
    // A caller that reaches its own limit loses no running task.
    assert_eq!(refused > 0, name == "work", "{refused}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_many_running_tasks_gives_way_to_others() {
    others_get_their_tasks(MemoryTaskStore::new(20, 1 << 30), "work", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_many_ended_tasks_gives_way_to_others() {
    others_get_their_tasks(MemoryTaskStore::new(20, 1 << 30), "quick", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_large_tasks_gives_way_to_others() {
    others_get_their_tasks(MemoryTaskStore::new(1_000, 400_000), "work", 20_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_gives_way_fails_and_is_removed() {
    let store = Arc::new(MemoryTaskStore::new(2, 1 << 30));
    let engine = engine(|config| config.tasks.store = store.clone()).await;
    let first = task(&engine, &on(1, 1), "work", 0).await;
    let params = json!({"notifications": {"taskIds": [first]}});
    let listen = request("subscriptions/listen", params);
    let version = ProtocolVersion::V2026_07_28;
    let Ok(Answer::Stream(mut receiver)) = engine.answer(version, listen, on(1, 1)).await else {
        panic!("no stream");
    };
    task(&engine, &on(1, 1), "work", 0).await;
    task(&engine, &on(1, 2), "work", 0).await;
    let mut told = String::new();
    while !told.contains("gave way") {
        let mut batch = Vec::new();
        assert!(receiver.next(&mut batch).await, "{told}");
        let mut out = BytesMut::new();
        batch.iter().for_each(|event| event.frame.write(&mut out));
        told += std::str::from_utf8(&out).unwrap();
    }
    assert!(told.contains("\"status\":\"failed\""), "{told}");
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let got = send(&engine, &on(1, 1), "tasks/get", json!({"taskId": first})).await;
    assert_eq!(got["error"]["message"], "task not found", "{got}");
    let second = task(&engine, &on(2, 1), "work", 0).await;
    let got = send(&engine, &on(2, 1), "tasks/get", json!({"taskId": second})).await;
    assert_eq!(got["result"]["status"], "working", "{got}");
}

/// Begins a call that keeps running; `None` if it is refused.
async fn call(engine: &Engine, from: &RequestSender) -> Option<stentor_delivery::StreamReceiver> {
    let request = request("tools/call", json!({"name": "wait"}));
    match engine.answer(ProtocolVersion::V2026_07_28, request, from.clone()).await {
        Ok(Answer::Stream(receiver)) => Some(receiver),
        Ok(answer) => panic!("{answer:?}"),
        Err(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_many_running_calls_gives_way_to_others() {
    let engine = engine(|config| config.calls.max_stateless_calls = 20).await;
    let (greedy, modest) = (on(1, 1), on(2, 1));
    let mut calls = Vec::new();
    for _ in 0..40 {
        calls.extend(call(&engine, &greedy).await);
    }
    assert_eq!(calls.len(), 20, "nobody's own call ends for another of his");
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(call(&engine, &modest).await.expect("a place"));
        // The greedy caller tries again at once.
        assert!(call(&engine, &greedy).await.is_none());
    }
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 20, "no more than may");
    let mut told = 0;
    for receiver in &mut calls {
        let mut batch = Vec::new();
        let heard = futures::FutureExt::now_or_never(receiver.next(&mut batch));
        if heard == Some(true) {
            let mut out = BytesMut::new();
            batch[0].frame.write(&mut out);
            assert!(String::from_utf8_lossy(&out).contains("gave way"), "{out:?}");
            told += 1;
        }
    }
    assert_eq!(told, 4);
    drop((calls, others));
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
    let mut again = Vec::new();
    for _ in 0..40 {
        again.extend(call(&engine, &greedy).await);
    }
    assert_eq!(again.len(), 20, "all places are back");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_exhausts_the_request_budget_gives_way_to_others() {
    for tool in ["ask", "work", "wait"] {
        let engine = engine(|config| {
            config.requests.total = 1_000_000;
            config.calls.max_stateless_calls = 40;
        });
        let engine = engine.await;
        let (greedy, modest) = (on(1, 1), on(2, 1));
        let version = ProtocolVersion::V2026_07_28;
        let mut kept = Vec::new();
        let mut calls = async |from: &RequestSender| {
            let arguments = json!({"padding": "x".repeat(1_000)});
            let request = request("tools/call", json!({"name": tool, "arguments": arguments}));
            let answered = engine.answer(version, request, from.clone()).await;
            tokio::task::yield_now().await;
            let is_in = answered.is_ok();
            kept.extend(answered);
            is_in
        };
        for _ in 0..200 {
            calls(&greedy).await;
        }
        for n in 0..3 {
            assert!(calls(&modest).await, "{tool} {n}");
            for _ in 0..10 {
                calls(&greedy).await;
            }
        }
    }
}
