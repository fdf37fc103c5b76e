//! Calls of code that was always done at once run in place, without a task actor. They must behave
//! like calls in an actor.

mod support;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_delivery::policy::Class;
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{Context, Engine, SessionKind, ToolError, tool};
use stentor_wire::meta_key;
use support::{Client, methods};
use tokio::time::{Instant, sleep};

/// After this many calls the code counts as done at once.
const PROVEN: i64 = 16;

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mood {
    #[default]
    Quick,
    Waits,
    Hangs,
    Panics,
    Speaks,
    Asks,
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

/// An engine whose tool reports whether it is in the list of running calls: only calls with an
/// actor are.
async fn engine() -> Engine {
    let slot = Arc::new(OnceLock::<Engine>::new());
    let seen = slot.clone();
    let moody = tool("moody", move |args: Moody, ctx: Context| {
        let seen = seen.clone();
        async move {
            let has_actor = !seen.get().expect("started").calls().is_empty();
            let place = if has_actor { "an actor" } else { "in place" };
            match args.mood {
                Mood::Quick => {}
                Mood::Waits => sleep(Duration::from_secs(1)).await,
                Mood::Hangs => std::future::pending().await,
                Mood::Panics => panic!("a secret of the tool"),
                Mood::Speaks => ctx.error("something"),
                Mood::Asks => return Ok(ctx.elicit::<Name>("who?").await?.name),
            }
            Ok::<_, ToolError>(place.to_owned())
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

fn place(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// Calls the tool until the engine treats it as quick. On a busy machine a run may take long
/// although it does nothing, and then the count starts over.
async fn prove(client: &mut Client) {
    for id in 0.. {
        let place = place(&ask(client, 1_000 + id, "quick").await.0).to_owned();
        assert!(place == "an actor" || id >= PROVEN);
        if place == "in place" {
            return;
        }
        assert!(id < 1_000 * PROVEN, "it is never known to be quick");
    }
}

/// Makes the first slow call of a tool that counts as quick. Returns the answer, the messages
/// before it, and when the call began.
async fn surprised(client: &mut Client, mood: &str) -> (Value, Vec<Value>, Instant) {
    loop {
        prove(client).await;
        let begun = Instant::now();
        let (answer, before) = ask(client, 1, mood).await;
        if place(&answer) == "in place" {
            return (answer, before, begun);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn code_that_has_to_wait_continues_in_an_actor() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    let (_, _, begun) = surprised(&mut client, "waits").await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(engine.calls().len(), 0);
    assert_eq!(place(&ask(&mut client, 2, "quick").await.0), "an actor", "it has to prove itself");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_place_is_answered_and_disturbs_no_other_client() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    prove(&mut client).await;
    let (answer, _) = ask(&mut client, 1, "panics").await;
    assert_eq!(answer["error"]["message"], "the tool 'moody' panicked");
    ask(&mut client, 2, "quick").await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_moved_is_cancelled_and_ends_with_its_engine_as_any_other() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    prove(&mut client).await;
    client.send(moody(1, "hangs", &json!({}))).await;
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                     "params": {"requestId": 1}}))
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
    prove(&mut client).await;
    client.send(moody(100, "hangs", &json!({}))).await;
    engine.shutdown().await;
    let (answer, before) = client.answer(100).await;
    assert_eq!(answer["error"]["message"], "the server is shutting down");
    assert_eq!(before, [0; 0], "the cancelled one has no answer");
}

#[tokio::test(start_paused = true)]
async fn messages_of_code_in_place_come_before_its_answer_and_end_running_in_place() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    let (_, before, _) = surprised(&mut client, "speaks").await;
    assert_eq!(methods(&before), ["notifications/message"]);
    assert_eq!(place(&ask(&mut client, 2, "quick").await.0), "an actor");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_progress_sees_the_call_run() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    prove(&mut client).await;
    client.send(moody(1, "quick", &json!({"_meta": {"progressToken": 1}}))).await;
    assert_eq!(place(&client.answer(1).await.0), "an actor");
}

#[tokio::test(start_paused = true)]
async fn a_question_asked_in_place_is_answered_as_any_other() {
    let engine = engine().await;
    let mut client = Client::connect(&engine).await;
    let meta = json!({"_meta": {
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: {"elicitation": {}},
    }});
    for id in 1..=PROVEN {
        client.send(moody(id, "quick", &meta)).await;
        client.answer(id).await;
    }
    client.send(moody(100, "asks", &meta)).await;
    let asked = client.answer(100).await.0["result"].clone();
    assert_eq!(asked["resultType"], "input_required");
    let keys = asked["inputRequests"].as_object().expect("questions").keys();
    let responses: serde_json::Map<_, _> = keys
        .map(|key| (key.clone(), json!({"action": "accept", "content": {"name": "Ann"}})))
        .collect();
    let mut retry = meta.clone();
    retry["inputResponses"] = responses.into();
    retry["requestState"] = asked["requestState"].clone();
    client.send(moody(101, "asks", &retry)).await;
    assert_eq!(place(&client.answer(101).await.0), "Ann");
    assert_eq!(engine.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_after_the_messages_that_came_before_them() {
    let engine = engine().await;
    let mut client = Client::legacy(&engine).await;
    prove(&mut client).await;
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
        for id in 0..=PROVEN {
            ask(&mut client, 1_000 + id, "quick").await;
        }
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
            .open_http_session(stentor_engine::transport_api::Source::default())
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
        let ended = seen.sessions.iter().all(|session| session.kind == SessionKind::Stateless);
        if ended && seen.hub.subscribers == 0 {
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
            .open_http_session(stentor_engine::transport_api::Source::default())
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
        let mut batch = Vec::new();
        let heard = tokio::time::timeout(Duration::from_secs(5), async {
            while !batch.iter().any(|(_, class, _)| *class == Class::ResourceUpdated) {
                assert!(receiver.next(&mut batch).await);
            }
        });
        heard.await.expect("word of what is watched");
        engine.shutdown().await;
    }
}
