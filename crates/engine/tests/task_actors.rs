//! Task actors: every call runs in one, they are reused, and the pool of them shrinks.

mod support;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_delivery::policy::Class;
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{ActorPoolView, Context, Engine, ToolError, tool};
use stentor_wire::meta_key;
use support::{Client, methods};
use tokio::time::{Instant, sleep};

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mood {
    #[default]
    Quick,
    Waits,
    Hangs,
    Panics,
    Fragile,
    Speaks,
    Asks,
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("a secret of the tool");
    }
}

#[derive(Deserialize, JsonSchema)]
struct Moody {
    #[serde(default)]
    mood: Mood,
}

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
}

/// An engine whose tool reports how many calls it finds in the list of running calls.
async fn engine() -> Engine {
    let slot = Arc::new(OnceLock::<Engine>::new());
    let seen = slot.clone();
    let moody = tool("moody", move |args: Moody, ctx: Context| {
        let seen = seen.clone();
        async move {
            let running = seen.get().expect("started").calls().len();
            match args.mood {
                Mood::Quick => {}
                Mood::Waits => sleep(Duration::from_secs(1)).await,
                Mood::Hangs => std::future::pending().await,
                Mood::Panics => panic!("a secret of the tool"),
                Mood::Fragile => {
                    let _fragile = Fragile;
                    std::future::pending().await
                }
                Mood::Speaks => ctx.error("something"),
                Mood::Asks => return Ok(ctx.elicit::<Name>("who?").await?.name),
            }
            Ok::<_, ToolError>(running.to_string())
        }
    });
    let engine = support::engine().tool(moody).start().await.unwrap();
    slot.set(engine.clone()).expect("set once");
    engine
}

fn moody(id: i64, mood: &str, more: &Value) -> Value {
    let mut params = json!({"name": "moody", "arguments": {"mood": mood}});
    if let (Some(params), Some(more)) = (params.as_object_mut(), more.as_object()) {
        params.extend(more.clone());
    }
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

async fn ask(client: &mut Client, id: i64, mood: &str) -> (Value, Vec<Value>) {
    client.send(moody(id, mood, &json!({}))).await;
    client.answer(id).await
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// The task actors that run a call, and those that wait for one.
async fn pool(engine: &Engine) -> (usize, usize) {
    let ActorPoolView { working, idle, .. } = engine.observe().await.unwrap().task_pool;
    (working, idle)
}

#[tokio::test(start_paused = true)]
async fn every_call_is_listed_and_one_actor_runs_them_one_after_the_other() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    for id in 0..50 {
        assert_eq!(text(&ask(&mut client, id, "quick").await.0), "1");
        assert_eq!(pool(&engine).await, (0, 1));
    }
    assert_eq!(engine.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_have_an_actor_each_and_actors_that_are_not_needed_stop() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    let begun = Instant::now();
    for id in 0..20 {
        client.send(moody(id, "waits", &json!({}))).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pool(&engine).await, (20, 0));
    assert_eq!(engine.calls().len(), 20);
    // In any order: each call has an actor of its own.
    let mut answered = Vec::new();
    for _ in 0..20 {
        let answer = client.next().await.expect("an answer");
        answered.extend(answer["id"].as_i64());
    }
    answered.sort_unstable();
    assert_eq!(answered, Vec::from_iter(0..20));
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(pool(&engine).await, (0, 20));
    // Twice, because an actor may have been needed since the last sweep.
    sleep(Duration::from_secs(15)).await;
    assert_eq!(pool(&engine).await, (0, 0));
    ask(&mut client, 100, "quick").await;
    assert_eq!(pool(&engine).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_killed_actor_answers_and_is_replaced() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    client.send(moody(1, "hangs", &json!({}))).await;
    sleep(Duration::from_millis(1)).await;
    kill(&engine, FaultTarget::TaskActors).await.unwrap();
    let (answer, _) = client.answer(1).await;
    assert_eq!(answer["error"]["message"], "the call ended without an answer");
    ask(&mut client, 2, "quick").await;
    // Also one that is idle.
    kill(&engine, FaultTarget::TaskActors).await.unwrap();
    assert_eq!(text(&ask(&mut client, 3, "quick").await.0), "1");
    assert_eq!(pool(&engine).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_and_disturbs_no_other_client() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    let (answer, _) = ask(&mut client, 1, "panics").await;
    assert_eq!(answer["error"]["message"], "the tool 'moody' panicked");
    ask(&mut client, 2, "quick").await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_destructor_that_panics_ends_no_actor() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    client.send(moody(1, "fragile", &json!({}))).await;
    sleep(Duration::from_millis(1)).await;
    let cancel = json!({"requestId": 1, "reason": "no more"});
    let method = "notifications/cancelled";
    client.send(json!({"jsonrpc": "2.0", "method": method, "params": cancel})).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(pool(&engine).await, (0, 1));
    assert_eq!(text(&ask(&mut client, 2, "quick").await.0), "1");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_cancelled_and_ends_with_its_engine() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    client.send(moody(1, "hangs", &json!({}))).await;
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                     "params": {"requestId": 1}}))
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
    client.send(moody(100, "hangs", &json!({}))).await;
    engine.shutdown().await;
    let (answer, before) = client.answer(100).await;
    assert_eq!(answer["error"]["message"], "the server is shutting down");
    assert_eq!(before, [0; 0], "the cancelled one has no answer");
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_call_come_before_its_answer() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    let (_, before) = ask(&mut client, 1, "speaks").await;
    assert_eq!(methods(&before), ["notifications/message"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_with_a_retry() {
    let engine = engine().await;
    let mut client = Client::connect(&engine).await;
    let meta = json!({"_meta": {
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: {"elicitation": {}},
    }});
    client.send(moody(100, "asks", &meta)).await;
    let asked = client.answer(100).await.0["result"].clone();
    assert_eq!(asked["resultType"], "input_required");
    assert_eq!(pool(&engine).await, (1, 0), "the call waits in its actor");
    let keys = asked["inputRequests"].as_object().expect("questions").keys();
    let responses: serde_json::Map<_, _> = keys
        .map(|key| (key.clone(), json!({"action": "accept", "content": {"name": "Ann"}})))
        .collect();
    let mut retry = meta.clone();
    retry["inputResponses"] = responses.into();
    retry["requestState"] = asked["requestState"].clone();
    client.send(moody(101, "asks", &retry)).await;
    assert_eq!(text(&client.answer(101).await.0), "Ann");
    assert_eq!(engine.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_after_the_messages_that_came_before_them() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    for round in 0..50 {
        let level = if round % 2 == 0 { "emergency" } else { "info" };
        client
            .send(json!({"jsonrpc": "2.0", "id": "level", "method": "logging/setLevel",
                         "params": {"level": level}}))
            .await;
        client.send(moody(round, "speaks", &json!({}))).await;
        let (_, before) = client.answer(round).await;
        let said = methods(&before).len();
        assert_eq!(said, usize::from(level == "info"), "with the level that was set before it");
    }
}

mod http {
    use bytes::Bytes;
    use stentor_engine::transport_api::HttpSession;
    use stentor_wire::Message;

    use super::{Value, json};

    /// Sends a request and reads its response, if any.
    pub(super) async fn ask(session: &HttpSession, id: u32, method: &str, params: Value) {
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text.to_string())) else {
            panic!("no request: {text}");
        };
        // The session may have ended.
        if let Ok(mut receiver) = session.request(request).await {
            receiver.next(&mut Vec::new()).await;
        }
    }

    pub(super) async fn initialize(session: &HttpSession) {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        });
        ask(session, 0, "initialize", params).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_it_is_opened_leaves_the_hub() {
    let engine = engine().await;
    for _ in 0..2_000 {
        let session = engine
            .open_http_session(stentor_engine::transport_api::RequestSender::default())
            .await
            .unwrap();
        let ending = tokio::spawn({
            let session = session.clone();
            async move { session.end(stentor_engine::EndReason::Deleted).await }
        });
        http::initialize(&session).await;
        ending.await.unwrap().unwrap();
    }
    let begun = std::time::Instant::now();
    loop {
        let seen = engine.observe().await.unwrap();
        if seen.sessions.is_empty() && seen.hub.subscribers == 0 {
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(30), "{} subscribers", seen.hub.subscribers);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_made_while_the_hub_is_replaced_gets_its_updates() {
    for _ in 0..200 {
        let engine = engine().await;
        let session = engine
            .open_http_session(stentor_engine::transport_api::RequestSender::default())
            .await
            .unwrap();
        http::initialize(&session).await;
        let killing = tokio::spawn({
            let engine = engine.clone();
            async move { kill(&engine, FaultTarget::Hub).await.unwrap() }
        });
        http::ask(&session, 1, "resources/subscribe", json!({"uri": "test://watched"})).await;
        killing.await.unwrap();
        let mut receiver = session.attach().await.unwrap();
        while engine.observe().await.is_err() {
            tokio::task::yield_now().await;
        }
        engine.send_resource_updated("test://watched");
        let mut batch = Vec::<stentor_delivery::Delivered>::new();
        let heard = tokio::time::timeout(Duration::from_secs(5), async {
            while !batch.iter().any(|event| event.class == Class::ResourceUpdated) {
                assert!(receiver.next(&mut batch).await);
            }
        });
        heard.await.expect("word of what is watched");
        engine.shutdown().await;
    }
}
