//! States of questions and streams belong to who began them, and need the scopes that they needed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::remote::{PeerEvent, PeerRequest};
use stentor_engine::testing::SharedStore;
use stentor_engine::transport_api::{HttpSession, Refused, RequestSender};
use stentor_engine::{
    CallError, Context, Engine, EngineBuilder, Seq, SessionId, StreamId, ToolError, tool,
};
use tokio::sync::Notify;

use crate::nodes::{Nodes, through_json};
use crate::support::request;
use crate::{ann, message, messages, modern, session};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Name {
    name: String,
}

async fn ask(ctx: Context) -> Result<String, CallError> {
    let Name { name } = ctx.elicit("Who?").await?;
    Ok(name)
}

async fn ask_inside(ctx: Context) -> Result<String, CallError> {
    ctx.require_scope("inside")?;
    ask(ctx).await
}

async fn inside(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.info("before");
    ctx.require_scope("inside")?;
    ctx.info("secret");
    Ok("secret")
}

/// Says something, and never ends.
async fn endless(ctx: Context) -> Result<&'static str, ToolError> {
    inside(ctx.clone()).await?;
    std::future::pending().await
}

fn builder() -> EngineBuilder {
    Engine::builder("test", "1")
        .tool(tool("ask", ask))
        .tool(tool("scoped", ask).require_scope("write"))
        .tool(tool("inside_ask", ask_inside))
        .tool(tool("open", || async { "open" }))
        .tool(tool("item", || async { "secret" }).require_scope("write"))
        .tool(tool("inside", inside))
        .tool(tool("endless", endless).require_scope("write"))
}

/// The retry of a call that asked for a name.
async fn retry(engine: &Engine, who: &Identity, tool: &str, asked: &Value) -> Value {
    let capabilities = json!({"elicitation": {"form": {}}});
    let mut params = json!({ "name": tool });
    if !asked.is_null() {
        let keys = asked["inputRequests"].as_object().unwrap().keys();
        let accept = json!({"action": "accept", "content": {"name": "eve"}});
        let answers: serde_json::Map<_, _> =
            keys.map(|key| (key.clone(), accept.clone())).collect();
        params["inputResponses"] = answers.into();
        params["requestState"] = asked["requestState"].clone();
    }
    modern_that(engine, who, params, capabilities).await
}

async fn modern_that(engine: &Engine, who: &Identity, mut params: Value, can: Value) -> Value {
    use stentor_engine::transport_api::Answer;
    use stentor_wire::{ProtocolVersion, meta_key};
    params["_meta"] = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: can,
    });
    let request = request(1, "tools/call", params);
    let version = ProtocolVersion::V2026_07_28;
    match engine.answer(version, request, Some(who.clone())).await.unwrap() {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => messages(&mut receiver).await.pop().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_is_good_for_its_principal_and_client_only() {
    let engine = builder().start().await.unwrap();
    let owner = Identity::named("ann").client("editor");
    let asked = retry(&engine, &owner, "ask", &Value::Null).await["result"].take();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let mut tampered = asked.clone();
    tampered["requestState"] = format!("{}x", asked["requestState"].as_str().unwrap()).into();
    let expected = retry(&engine, &owner, "ask", &tampered).await;
    assert_eq!(expected["error"]["code"], -32602, "{expected}");
    for other in [
        Identity::named("ann"),
        Identity::named("ann").client("other"),
        Identity::named("bob").client("editor"),
        Identity::issued("https://i", "ann").client("editor"),
    ] {
        assert_eq!(retry(&engine, &other, "ask", &asked).await, expected, "{other:?}");
    }
    // Another token of the same principal and client.
    let again = Identity::named("ann").client("editor").scopes(["more"]);
    let done = retry(&engine, &again, "ask", &asked).await;
    assert_eq!(done["result"]["content"][0]["text"], "eve", "{done}");
}

#[tokio::test(start_paused = true)]
async fn a_weaker_credential_does_not_go_on_with_a_call_and_does_not_use_its_state_up() {
    let engine = builder().start().await.unwrap();
    for (tool, scope) in [("scoped", "write"), ("inside_ask", "inside")] {
        let asked = retry(&engine, &ann(&[scope]), tool, &Value::Null).await["result"].take();
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        for _ in 0..2 {
            let refused = retry(&engine, &ann(&["other"]), tool, &asked).await;
            assert_eq!(refused["error"]["code"], 403, "{refused}");
            assert_eq!(refused["error"]["data"]["scope"], scope, "{refused}");
        }
        assert_eq!(engine.observe().await.unwrap().calls_awaiting_input, 1);
        let done = retry(&engine, &ann(&[scope, "more"]), tool, &asked).await;
        assert_eq!(done["result"]["content"][0]["text"], "eve", "{done}");
    }
}

/// Begins a call on a session, with the credential of a sender, and returns its stream.
async fn begin(engine: &Engine, id: &SessionId, who: &Identity, tool: &str) -> StreamId {
    let session = used(engine, id, who).await;
    let params = json!({ "name": tool });
    let mut receiver = session.request(request(9, "tools/call", params)).await.unwrap();
    session.keep(&receiver, &[]);
    let mut batch = Vec::new();
    let mut said = Vec::new();
    while said.iter().all(|it: &Value| !it.to_string().contains("secret")) {
        assert!(receiver.next(&mut batch).await, "{said:?}");
        said.extend(batch.drain(..).map(message));
    }
    receiver.stream_id()
}

async fn used(engine: &Engine, id: &SessionId, who: &Identity) -> HttpSession {
    engine.http_session(id.as_str(), &RequestSender::known(who.clone())).await.unwrap()
}

/// Resumes a stream from its begin: what is read at first, if it is that stream.
async fn resumed(
    engine: &Engine,
    id: &SessionId,
    who: &Identity,
    stream: StreamId,
) -> Option<String> {
    let session = used(engine, id, who).await;
    let mut receiver = session.resume(stream, Seq(0)).await.unwrap();
    if receiver.stream_id() != stream {
        assert_eq!(receiver.stream_id(), StreamId(0), "as a stream that never was");
        return None;
    }
    let mut batch = Vec::new();
    assert!(receiver.next(&mut batch).await);
    Some(batch.drain(..).map(|it| message(it).to_string()).collect())
}

async fn is_for_the_stronger(
    engine: &Engine,
    id: &SessionId,
    stream: StreamId,
    scope: &'static str,
) {
    for weaker in [ann(&[]), ann(&["other"])] {
        assert_eq!(resumed(engine, id, &weaker, stream).await, None);
    }
    let read = resumed(engine, id, &ann(&[scope, "write"]), stream).await;
    assert!(read.as_ref().is_some_and(|read| read.contains("secret")), "{read:?}");
}

#[tokio::test]
async fn a_stream_is_not_resumed_without_the_scopes_that_its_call_needed() {
    let engine = builder().start().await.unwrap();
    let id = session(&engine, &ann(&[])).await.id().clone();
    for (tool, scope) in [("item", "write"), ("inside", "inside")] {
        let stream = begin(&engine, &id, &ann(&[scope]), tool).await;
        is_for_the_stronger(&engine, &id, stream, scope).await;
    }
    // What needed no scope can be read by all of its owner's.
    let session = used(&engine, &id, &ann(&["write"])).await;
    let params = json!({"name": "open"});
    let receiver = session.request(request(9, "tools/call", params)).await.unwrap();
    session.keep(&receiver, &[]);
    assert!(resumed(&engine, &id, &ann(&[]), receiver.stream_id()).await.is_some());
}

#[tokio::test]
async fn a_weaker_reader_of_a_running_call_ends_when_the_call_asks_for_a_scope() {
    let go = Arc::<Notify>::default();
    let waiting = go.clone();
    let wait = tool("wait", move |ctx: Context| {
        let go = waiting.clone();
        async move {
            ctx.info("a secret is no secret yet");
            go.notified().await;
            inside(ctx).await
        }
    });
    let engine = Engine::builder("test", "1").tool(wait).start().await.unwrap();
    let id = session(&engine, &ann(&[])).await.id().clone();
    let stream = begin(&engine, &id, &ann(&["inside"]), "wait").await;
    let weaker = used(&engine, &id, &ann(&[])).await;
    let mut receiver = weaker.resume(stream, Seq(0)).await.unwrap();
    assert_eq!(receiver.stream_id(), stream, "nothing was asked for yet");
    let mut batch = Vec::new();
    assert!(receiver.next(&mut batch).await);
    go.notify_one();
    batch.clear();
    while receiver.next(&mut batch).await {}
    let read: Vec<_> = batch.drain(..).map(message).collect();
    assert!(!json!(read).to_string().contains("\"secret"), "{read:?}");
    is_for_the_stronger(&engine, &id, stream, "inside").await;
}

#[tokio::test]
async fn what_only_some_see_is_not_resumed_by_a_credential_without_the_label() {
    let hidden = tool("hidden", || async { "secret" }).only_for(["admin", "root"]);
    let engine = builder().tool(hidden).start().await.unwrap();
    let id = session(&engine, &ann(&[])).await.id().clone();
    let stream = begin(&engine, &id, &ann(&["admin"]), "hidden").await;
    let session = used(&engine, &id, &ann(&["admin"])).await;
    let mut listed = session.request(request(9, "tools/list", json!({}))).await.unwrap();
    session.keep(&listed, &[]);
    assert!(messages(&mut listed).await[0].to_string().contains("hidden"));
    for stream in [stream, listed.stream_id()] {
        assert_eq!(resumed(&engine, &id, &ann(&["other"]), stream).await, None);
        // Another label of the same rule is as good.
        for label in ["root", "admin"] {
            assert!(resumed(&engine, &id, &ann(&[label]), stream).await.is_some());
        }
    }
}

#[tokio::test]
async fn a_stream_of_a_call_on_another_node_is_not_resumed_without_its_scopes() {
    let nodes = Nodes::default();
    let _far = nodes.start("far", builder()).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let id = session(&near, &ann(&[])).await.id().clone();
    for (tool, scope) in [("item", "write"), ("inside", "inside")] {
        let stream = begin(&near, &id, &ann(&[scope]), tool).await;
        is_for_the_stronger(&near, &id, stream, scope).await;
    }
}

#[tokio::test]
async fn a_session_that_migrates_takes_along_what_its_streams_need() {
    let nodes = Nodes::default();
    let far = nodes.start("far", builder()).await;
    let near = nodes.start("near", builder()).await;
    let id = session(&far, &ann(&[])).await.id().clone();
    let mut streams = Vec::new();
    for (tool, scope) in [("item", "write"), ("inside", "inside")] {
        streams.push((begin(&far, &id, &ann(&[scope]), tool).await, scope));
    }
    let mut migration = far.begin_migration(&id, Duration::from_secs(1)).await.unwrap();
    let record = through_json(&migration.take().unwrap());
    let mut migrated = near.serve_peer(PeerRequest::Migrate(Box::new(record))).await;
    assert!(matches!(migrated.next().await, Some(PeerEvent::Ended)));
    migration.arrived();
    drop(migration);
    assert_eq!(near.http_sessions(), std::slice::from_ref(&id));
    for (stream, scope) in streams {
        is_for_the_stronger(&near, &id, stream, scope).await;
    }
    let other = RequestSender::known(Identity::named("ann").client("other"));
    let session = near.http_session(id.as_str(), &other).await.unwrap();
    let refused = session.request(request(1, "ping", json!({}))).await.err();
    assert_eq!(refused, Some(Refused::SessionEnded), "it is still its owner's");
}

#[tokio::test]
async fn a_session_that_is_taken_over_keeps_what_its_streams_need() {
    let store = SharedStore::default();
    let start = async |name: &str| {
        let (node, store) = (stentor_engine::NodeId::new(name).unwrap(), Arc::new(store.clone()));
        let engine = builder().configure(|config| {
            config.node = node;
            config.sessions.store = Some(store.clone());
            config.event_store = store;
        });
        engine.start().await.unwrap()
    };
    let first = start("first").await;
    let id = session(&first, &ann(&[])).await.id().clone();
    let strong = ann(&["inside", "write"]);
    let stream = begin(&first, &id, &strong, "endless").await;
    // Also what the code asked for while it ran.
    let needs = || {
        let record = serde_json::to_value(store.session(&id)?).unwrap();
        Some(record["needs"].to_string())
    };
    let begun = std::time::Instant::now();
    while !needs().is_some_and(|it| it.contains("inside") && it.contains("write")) {
        assert!(begun.elapsed().as_secs() < 20, "{:?}", needs());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.actor().kill_and_wait(None).await.unwrap();
    let second = start("second").await;
    for weaker in [ann(&[]), ann(&["write"]), ann(&["inside"])] {
        assert_eq!(resumed(&second, &id, &weaker, stream).await, None, "{weaker:?}");
    }
    let read = resumed(&second, &id, &strong, stream).await;
    assert!(read.as_ref().is_some_and(|read| read.contains("secret")), "{read:?}");
    let other = RequestSender::known(Identity::named("ann").client("other"));
    assert_eq!(second.http_session(id.as_str(), &other).await.err(), Some(Refused::SessionEnded));
}

#[tokio::test]
async fn a_session_is_as_unknown_to_others_as_one_that_never_was() {
    let engine = builder().start().await.unwrap();
    let owner = Identity::named("ann").client("editor");
    let id = session(&engine, &owner).await.id().clone();
    let stranger = session(&engine, &Identity::named("bob")).await.id().clone();
    for (id, sender) in [
        (id.as_str(), RequestSender::default()),
        (id.as_str(), RequestSender::local()),
        (id.as_str(), RequestSender::known(Identity::named("ann"))),
        (id.as_str(), RequestSender::known(Identity::named("bob").client("editor"))),
        (stranger.as_str(), RequestSender::known(owner.clone())),
        ("never", RequestSender::known(owner.clone())),
    ] {
        let refused = engine.http_session(id, &sender).await.err();
        assert_eq!(refused, Some(Refused::SessionEnded), "{sender:?}");
    }
    used(&engine, &id, &owner.scopes(["any"])).await;
    let listed = modern(&engine, &ann(&[]), "tools/list", json!({})).await;
    assert!(listed["result"].is_object());
}
