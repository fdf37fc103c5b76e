//! Panics of an author's code, and actors that die.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use stentor::faults::{FaultTarget, kill};
use stentor::session::SessionId;
use stentor_tests::{Call, Client, Era, Lane, Notices, Phase, Server, eventually, in_every_lane};

in_every_lane![
    a_panic_of_a_tool_is_answered_and_disturbs_no_other_client,
    a_panic_of_a_prompt_or_resource_is_answered,
    a_hub_that_dies_is_replaced_and_all_subscribers_are_still_notified,
    a_registry_that_dies_is_replaced_and_keeps_its_lists,
];

async fn a_panic_of_a_tool_is_answered_and_disturbs_no_other_client(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let mut notices = client.hear(&[]).await;
    let other = client.start("hold", json!({"name": "other"})).await;
    server.stage.reached("other", Phase::Waiting).await;
    let mut fastest = Duration::MAX;
    for tool in ["panic", "panic_at_once", "panic", "panic_at_once", "panic"] {
        let begun = Instant::now();
        let answer = client.call(tool, json!({})).await;
        fastest = fastest.min(begun.elapsed());
        assert_eq!(answer.error()["code"], -32603);
        let message = answer.error()["message"].as_str().expect("a message");
        assert!(message.contains(tool), "{message}");
        assert!(!message.contains("part of a test"), "what it says is not for clients: {message}");
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    server.stage.release("other");
    assert_eq!(other.answer().await.text(), "held");
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
    client.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["tools/list_changed"]);
}

async fn a_panic_of_a_prompt_or_resource_is_answered(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    for (method, params) in [
        ("prompts/get", json!({"name": "panic"})),
        ("resources/read", json!({"uri": "test://panic"})),
    ] {
        let answer = client.request(method, params).await.answer().await;
        assert_eq!(answer.error()["code"], -32603, "{method}");
    }
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
}

const ALL_LISTS: [&str; 3] =
    ["prompts/list_changed", "resources/list_changed", "tools/list_changed"];

/// The notices until the mark, sorted and without repetitions.
async fn heard_once(notices: &mut Notices) -> Vec<String> {
    let mut heard = notices.until_mark().await;
    heard.sort();
    heard.dedup();
    heard
}

async fn a_hub_that_dies_is_replaced_and_all_subscribers_are_still_notified(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let mut notices = client.hear(&["test://clock"]).await;
    kill(&server.engine, FaultTarget::Hub).await.expect("there is a hub");
    eventually("everybody to be back", async || {
        server.engine.observe().await.is_ok_and(|view| view.hub.subscribers == 1)
    })
    .await;
    // Every notice that may have been lost is sent again, including the mark.
    let mut missed = BTreeSet::new();
    while missed.len() < ALL_LISTS.len() + 2 {
        missed.insert(notices.heard().await);
    }
    assert!(ALL_LISTS.iter().all(|list| missed.contains(*list)), "{missed:?}");
    assert!(missed.contains("resources/updated test://clock"), "{missed:?}");
    server.engine.send_resource_updated("test://clock");
    server.engine.send_resource_updated("test://static");
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["resources/updated test://clock"]);
    client.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["tools/list_changed"]);
}

async fn a_registry_that_dies_is_replaced_and_keeps_its_lists(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    client.call("add", json!({"kind": "tools", "name": "before"})).await;
    let before = server.engine.catalog().snapshot();
    let mut notices = client.hear(&[]).await;
    kill(&server.engine, FaultTarget::Registry).await.expect("there is a registry");
    // Lists are read without the registry.
    assert_eq!(client.list("tools").await, before.tool_names().collect::<Vec<_>>());
    server.mark().await;
    let heard = heard_once(&mut notices).await;
    let session = if lane == Lane::HTTP_LEGACY { client.session() } else { "" };
    let is_here = server.engine.sessions().iter().any(|it| it.id.as_str() == session);
    if is_here || !server.is_cluster() {
        assert_eq!(heard, ALL_LISTS, "a notice may have been lost");
    }
    // A session on another node has lost nothing. A session that may have lost a notice may have
    // lost notices of other nodes, too, so all are sent once more when it has joined the hub again.
    assert!(heard.iter().all(|it| ALL_LISTS.contains(&&**it)), "{heard:?}");
    assert_eq!(server.engine.catalog().snapshot().revision(), before.revision());
    client.call("add", json!({"kind": "tools", "name": "after"})).await;
    server.mark().await;
    let mut heard = heard_once(&mut notices).await;
    while server.is_cluster() && !heard.contains(&"tools/list_changed".to_owned()) {
        // That was the earlier mark, sent once more.
        heard = heard_once(&mut notices).await;
    }
    if !server.is_cluster() {
        assert_eq!(heard, ["tools/list_changed"]);
    }
    assert!(heard.iter().all(|it| ALL_LISTS.contains(&&**it)), "{heard:?}");
    assert!(client.list("tools").await.ends_with(&["before", "after"].map(String::from)));
    assert!(server.engine.catalog().snapshot().revision() > before.revision());
}

/// A client whose session is in the server's own engine, not on another node.
async fn client_of_own_engine(server: &Server) -> Client {
    Client::at(server.home, Era::Legacy, json!({})).await
}

/// The id of a client's session.
fn id(server: &Server, client: &Client) -> SessionId {
    let mut sessions = server.engine.sessions().into_iter().map(|session| session.id);
    sessions.find(|id| id.as_str() == client.session()).expect("its session")
}

#[tokio::test]
async fn a_session_that_crashes_goes_on_and_only_its_open_calls_fail() {
    let server = Server::start().await;
    let client = client_of_own_engine(&server).await;
    let other = client_of_own_engine(&server).await;
    let mut notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    let others_call = other.start("hold", json!({"name": "b"})).await;
    for name in ["a", "b"] {
        server.stage.reached(name, Phase::Waiting).await;
    }
    let target = FaultTarget::Session(id(&server, &client));
    kill(&server.engine, target).await.expect("there is such a session");
    assert!(call.answer().await.error()["code"].is_i64());
    server.stage.reached("a", Phase::Stopped).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0], "its streams and subscriptions go on");
    server.stage.release("b");
    assert_eq!(others_call.answer().await.text(), "held");
}

// On one thread, so that the session ends before the supervisor learns of the crash.
#[tokio::test]
async fn a_session_that_crashes_as_it_ends_leaves_nothing_behind() {
    let server = Server::start().await;
    let client = client_of_own_engine(&server).await;
    let notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    let id = id(&server, &client);
    assert!(server.engine.restart_session(&id) && server.engine.end_session(&id));
    assert!(!server.engine.end_session(&id), "it is gone at once");
    assert_eq!(Call::get(client.session()).send(server.address).await.status, 404);
    assert!(call.answer().await.error()["code"].is_i64());
    assert_eq!(notices.end().await, None);
    server.unused().await;
}

#[tokio::test]
async fn a_task_actor_that_dies_is_replaced_and_its_call_is_answered() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let mut notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    kill(&server.engine, FaultTarget::TaskActors).await.expect("there is one");
    assert!(call.answer().await.error()["code"].is_i64());
    eventually("the next call to be answered", async || {
        let answer = client.call("echo", json!({"text": "hello"})).await;
        answer.response.expect("an answer").get("result").is_some()
    })
    .await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0], "the listen has nothing to do with it");
}
