//! What goes wrong, and whom it does not harm.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use stentor::{SessionId, ToolError};
use stentor_engine::testing::{Victim, kill};
use stentor_tests::{
    Call, Client, Era, Lane, MARK, META_CAPABILITIES, META_LOG_LEVEL, META_VERSION, MODERN_VERSION,
    Notices, Phase, RawPipe, Server, eventually, in_every_lane, soon,
};

in_every_lane![
    a_tool_that_panics_answers_its_caller_and_harms_nobody,
    a_prompt_or_resource_that_panics_answers_its_caller,
    a_shutdown_waits_for_calls_and_ends_every_stream_properly,
    a_call_that_outlasts_a_shutdown_ends_with_an_error,
    a_call_that_takes_too_long_ends_with_an_error,
    calls_over_the_limit_are_refused_until_one_ends,
    an_answer_makes_room_for_the_next_call,
    subscriptions_over_the_limit_are_refused,
    a_client_that_leaves_leaves_nothing_behind,
    a_hub_that_dies_is_replaced_and_everybody_still_hears,
    a_registry_that_dies_is_replaced_and_its_lists_are_still_there,
];

async fn a_tool_that_panics_answers_its_caller_and_harms_nobody(lane: Lane) {
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

async fn a_prompt_or_resource_that_panics_answers_its_caller(lane: Lane) {
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

async fn a_shutdown_waits_for_calls_and_ends_every_stream_properly(lane: Lane) {
    let mut server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let notices = client.hear(&[]).await;
    let meta = json!({"progressToken": 1});
    let call = client.start_with("hold", json!({"name": "a"}), meta).await;
    server.stage.reached("a", Phase::Waiting).await;
    let begun = Instant::now();
    server.begin_shutdown().await;
    // Not through others, which have nothing to wait for and may have ended.
    let late = if lane == Lane::HTTP_MODERN { &client.through(server.home) } else { &client };
    let refused = late.call("echo", json!({"text": "too late"})).await;
    assert_eq!(refused.error()["code"], 503);
    if !lane.is_legacy() {
        let params = json!({"notifications": {"toolsListChanged": true}});
        let refused = late.request("subscriptions/listen", params).await.answer().await;
        assert_eq!(refused.error()["code"], 503);
    }
    if lane.is_http() {
        let refused = Call::post(initialize()).send(server.home).await;
        assert_eq!(refused.status, 503);
    } else {
        assert!(RawPipe::open(&server).served().await.is_err());
    }
    server.stage.release("a");
    let answer = call.answer().await;
    assert_eq!((answer.text(), answer.progress()), ("held", vec![1.0]));
    let last = notices.end().await;
    if lane.is_legacy() {
        assert_eq!(last, None, "a stream of notices just ends");
    } else {
        // That the result carries the id of its subscription is checked by `Notices`.
        assert_eq!(last.expect("a result")["result"]["resultType"], "complete");
    }
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let late = server.engine.catalog().add(Server::tool("late")).await;
    assert_eq!(late, Err(stentor::CatalogError::Stopped));
}

fn initialize() -> String {
    let client = json!({"name": "raw", "version": "0.0.1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
}

async fn a_call_that_outlasts_a_shutdown_ends_with_an_error(lane: Lane) {
    let drain = Duration::from_millis(100);
    let mut server = Server::tuned(|config, _| config.drain_timeout = drain).await;
    let client = Client::connect(&server, lane).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    let begun = Instant::now();
    server.begin_shutdown().await;
    let answer = call.answer().await;
    assert_eq!(answer.error()["code"], 503);
    assert!(begun.elapsed() >= drain, "it had its time");
    server.stage.reached("a", Phase::Stopped).await;
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_blocks_its_thread_does_not_hold_up_a_shutdown() {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let begin = std::sync::Mutex::new(Some(begin));
    let block = stentor::tool("block", move || {
        let begin = begin.lock().expect("one call").take();
        begin.expect("one call").send(()).expect("the test waits");
        // The test lets go by dropping the other end.
        let _ = released.lock().expect("one call").recv();
        std::future::ready(Ok::<_, ToolError>("late"))
    });
    server.engine.catalog().add(block).await.expect("a new tool");
    let client = Client::connect(&server, Lane::STDIO_MODERN).await;
    let call = client.start("block", json!({})).await;
    begun.await.expect("the call runs");
    soon("the engine to stop", server.engine.shutdown()).await;
    assert_eq!(call.answer().await.response, None, "its stream ends all the same");
    drop(release);
}

async fn a_call_that_takes_too_long_ends_with_an_error(lane: Lane) {
    let limit = Duration::from_millis(50);
    let server = Server::tuned(|config, _| config.call_timeout = Some(limit)).await;
    let client = Client::connect(&server, lane).await;
    let answer = client.call("hold", json!({"name": "a"})).await;
    assert_eq!(answer.error()["code"], 499);
    server.stage.reached("a", Phase::Stopped).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
}

async fn calls_over_the_limit_are_refused_until_one_ends(lane: Lane) {
    let server = Server::tuned(|config, _| {
        config.max_requests_per_session = 2;
        config.max_stateless_calls = 2;
    })
    .await;
    let client = Client::connect(&server, lane).await;
    let held = join_all(["a", "b"].map(|name| client.start("hold", json!({"name": name})))).await;
    for name in ["a", "b"] {
        server.stage.reached(name, Phase::Waiting).await;
    }
    for _ in 0..3 {
        let refused = client.start("echo", json!({"text": "hello"})).await;
        if lane.is_http() {
            // Another node says no more than that it is busy.
            let status = refused.reply().status.as_u16();
            assert!(status == 429 || server.is_cluster() && status == 503, "{status}");
        }
        assert_eq!(refused.answer().await.error()["code"], 503);
    }
    // A cancellation gets through all the same.
    let mut held = held.into_iter();
    client.notify("notifications/cancelled", json!({"requestId": "another"})).await;
    server.stage.release("a");
    assert_eq!(held.next().expect("the first").answer().await.text(), "held");
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
}

async fn an_answer_makes_room_for_the_next_call(lane: Lane) {
    let server = Server::tuned(|config, _| {
        config.max_requests_per_session = 1;
        config.max_stateless_calls = 1;
    })
    .await;
    let client = Client::connect(&server, lane).await;
    for n in 0..300 {
        let answer = client.call("echo", json!({"text": "hello"})).await;
        assert_eq!(answer.text(), "hello", "call {n}");
        // One that runs nobody's code.
        client.nudge().await;
    }
    for _ in 0..50 {
        // A legacy one sends its next request right after the answer to `initialize`.
        Client::connect(&server, lane).await;
    }
}

async fn subscriptions_over_the_limit_are_refused(lane: Lane) {
    let server = Server::tuned(|config, _| config.max_subscriptions = 2).await;
    let client = Client::connect(&server, lane).await;
    let uris = ["test://static", "test://clock", "test://bytes"];
    if !lane.is_legacy() {
        let params = json!({"notifications": {"resourceSubscriptions": uris}});
        let refused = client.request("subscriptions/listen", params).await.answer().await;
        assert_eq!(refused.error()["code"], -32602);
        client.listen(json!({"resourceSubscriptions": uris[..2]})).await;
        return;
    }
    let subscribe = async |uri: &str| {
        let request = client.request("resources/subscribe", json!({"uri": uri})).await;
        request.answer().await.response.expect("an answer")["error"]["code"].as_i64()
    };
    let expected = [(uris[0], None), (uris[1], None), (uris[1], None), (uris[2], Some(-32602))];
    for (uri, code) in expected {
        assert_eq!(subscribe(uri).await, code, "{uri}");
    }
    client.ask("resources/unsubscribe", json!({"uri": uris[0]})).await;
    assert_eq!(subscribe(uris[2]).await, None);
}

async fn a_client_that_leaves_leaves_nothing_behind(lane: Lane) {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let client = Client::connect(&server, lane).await;
    let notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    client.leave().await;
    if lane == Lane::HTTP_MODERN {
        drop((call, notices));
    } else {
        // The streams end properly, and the call is answered before.
        assert_eq!(call.answer().await.error()["code"], 503);
        notices.end().await;
    }
    server.stage.reached("a", Phase::Stopped).await;
    server.unused().await;
}

const ALL_LISTS: [&str; 3] =
    ["prompts/list_changed", "resources/list_changed", "tools/list_changed"];

/// What was heard until the mark, without repetitions.
async fn heard_once(notices: &mut Notices) -> Vec<String> {
    let mut heard = notices.until_mark().await;
    heard.sort();
    heard.dedup();
    heard
}

async fn a_hub_that_dies_is_replaced_and_everybody_still_hears(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let mut notices = client.hear(&["test://clock"]).await;
    kill(&server.engine, Victim::Hub).await.expect("there is a hub");
    eventually("everybody to be back", async || {
        server.engine.observe().await.is_ok_and(|view| view.hub.subscribers == 1)
    })
    .await;
    // Everything that may have been missed is told, also the mark.
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

async fn a_registry_that_dies_is_replaced_and_its_lists_are_still_there(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    client.call("add", json!({"kind": "tools", "name": "before"})).await;
    let before = server.engine.catalog().snapshot();
    let mut notices = client.hear(&[]).await;
    kill(&server.engine, Victim::Registry).await.expect("there is a registry");
    // Lists are read without it.
    assert_eq!(client.list("tools").await, before.tool_names().collect::<Vec<_>>());
    server.mark().await;
    let heard = heard_once(&mut notices).await;
    let session = if lane == Lane::HTTP_LEGACY { client.session() } else { "" };
    let is_here = server.engine.sessions().iter().any(|it| it.id.as_str() == session);
    if is_here || !server.is_cluster() {
        assert_eq!(heard, ALL_LISTS, "a notice may have been lost");
    }
    // On another node nothing was lost. Where it may have been, what other nodes told may have, too,
    // and all is said once more when the session has joined the hub again.
    assert!(heard.iter().all(|it| ALL_LISTS.contains(&&**it)), "{heard:?}");
    assert_eq!(server.engine.catalog().snapshot().revision(), before.revision());
    client.call("add", json!({"kind": "tools", "name": "after"})).await;
    server.mark().await;
    let mut heard = heard_once(&mut notices).await;
    while server.is_cluster() && !heard.contains(&"tools/list_changed".to_owned()) {
        // That was the mark from before, said once more.
        heard = heard_once(&mut notices).await;
    }
    if !server.is_cluster() {
        assert_eq!(heard, ["tools/list_changed"]);
    }
    assert!(heard.iter().all(|it| ALL_LISTS.contains(&&**it)), "{heard:?}");
    assert!(client.list("tools").await.ends_with(&["before", "after"].map(String::from)));
    assert!(server.engine.catalog().snapshot().revision() > before.revision());
}

/// A client whose session is in the server's own engine.
async fn at_home(server: &Server) -> Client {
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
    let client = at_home(&server).await;
    let other = at_home(&server).await;
    let mut notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    let others_call = other.start("hold", json!({"name": "b"})).await;
    for name in ["a", "b"] {
        server.stage.reached(name, Phase::Waiting).await;
    }
    let victim = Victim::Session(id(&server, &client));
    kill(&server.engine, victim).await.expect("there is such a session");
    assert!(call.answer().await.error()["code"].is_i64());
    server.stage.reached("a", Phase::Stopped).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0], "its streams and subscriptions go on");
    server.stage.release("b");
    assert_eq!(others_call.answer().await.text(), "held");
}

// On one thread, so that the session ends before the root knows of the crash.
#[tokio::test]
async fn a_session_that_crashes_as_it_ends_leaves_nothing_behind() {
    let server = Server::start().await;
    let client = at_home(&server).await;
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
async fn the_parent_of_modern_calls_that_dies_is_replaced_and_they_are_answered() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let mut notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    kill(&server.engine, Victim::Stateless).await.expect("there is one");
    assert!(call.answer().await.error()["code"].is_i64());
    eventually("the next call to be answered", async || {
        let answer = client.call("echo", json!({"text": "hello"})).await;
        answer.response.expect("an answer").get("result").is_some()
    })
    .await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0], "the listen is none of its children");
}

#[tokio::test]
async fn a_refused_initialize_leaves_no_session_behind() {
    let server = Server::tuned(|config, _| config.max_sessions = 1).await;
    let client = json!({"name": "raw", "version": "0.0.1"});
    for params in [
        json!({}),
        json!({"protocolVersion": 7, "capabilities": {}, "clientInfo": client}),
        json!({"protocolVersion": "2025-11-25", "clientInfo": client}),
        json!({"protocolVersion": "2025-11-25", "capabilities": {}}),
    ] {
        for accept in ["application/json, text/event-stream", "text/event-stream, application/json"]
        {
            let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                "params": params});
            let call = Call::post(request.to_string()).with("accept", accept);
            let mut reply = call.send(server.address).await;
            assert_eq!(reply.header("mcp-session-id"), "");
            assert_eq!(reply.message().await.expect("an answer")["error"]["code"], -32602);
            eventually("its place to be free", async || {
                server.activity().await.sessions.is_empty()
            })
            .await;
        }
    }
    Client::connect(&server, Lane::HTTP_LEGACY).await;
}

#[tokio::test]
async fn the_id_of_a_running_request_cannot_be_used_again() {
    let server = Server::start().await;
    let params = json!({"name": "hold", "arguments": {"name": "a"}});
    let call = json!({"jsonrpc": "2.0", "id": "same", "method": "tools/call", "params": params});

    let mut pipe = RawPipe::open(&server);
    pipe.line(initialize()).await;
    pipe.next().await.expect("an answer");
    pipe.line(call.to_string()).await;
    server.stage.reached("a", Phase::Waiting).await;
    pipe.line(call.to_string()).await;
    let refused = pipe.next().await.expect("an answer");
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("same"), &json!(-32600)));
    server.stage.release("a");
    let answer = pipe.next().await.expect("an answer");
    assert_eq!(answer["result"]["content"][0]["text"], "held");

    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let first = client.request_as(json!("same"), "tools/call", params.clone()).await;
    server.stage.reached("a", Phase::Waiting).await;
    let again = client.request_as(json!("same"), "tools/call", params.clone()).await;
    assert_eq!(again.answer().await.error()["code"], -32600);
    // The ids of other clients are their own.
    let other = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let echo = json!({"name": "echo", "arguments": {"text": "hello"}});
    let others = other.request_as(json!("same"), "tools/call", echo).await;
    assert_eq!(others.answer().await.text(), "hello");
    server.stage.release("a");
    assert_eq!(first.answer().await.text(), "held");
}

// Clients that do not read

/// More than all buffers between the server and a client hold.
const FLOOD: u32 = 30_000;

/// A modern call of `flood`.
fn flood() -> Value {
    let meta = json!({
        META_VERSION: MODERN_VERSION, META_CAPABILITIES: {}, META_LOG_LEVEL: "info",
    });
    json!({"name": "flood", "arguments": {"n": FLOOD}, "_meta": meta})
}

/// Checks what a client finds that reads at last: messages in order, with holes, the newest
/// ones, and the response last. Gives the number of messages.
fn check_flood(messages: &[Value]) -> u64 {
    let (response, logs) = messages.split_last().expect("messages");
    assert_eq!(response["result"]["content"][0]["text"], "flooded");
    let number = |log: &Value, key| log["params"]["data"][key].as_u64();
    let numbers: Vec<_> = logs.iter().filter_map(|log| number(log, "n")).collect();
    let told: u64 = logs.iter().filter_map(|log| number(log, "dropped")).sum();
    assert_eq!(numbers.len() as u64 + told, u64::from(FLOOD), "the client is told how many");
    assert!(numbers.is_sorted_by(|a, b| a < b));
    // What was dropped are the oldest: the newest hundred are there.
    let newest = u64::from(FLOOD) - 99..=u64::from(FLOOD);
    assert!(numbers.ends_with(&newest.collect::<Vec<_>>()));
    assert!(numbers.len() < FLOOD as usize, "it was more than the buffers hold");
    numbers.len() as u64
}

/// Waits until the flood is over, and checks that everybody else is served meanwhile.
async fn serve_others(server: &Server) {
    let other = Client::connect(server, Lane::STDIO_LEGACY).await;
    let mut notices = other.hear(&[]).await;
    eventually("the flood to be over", async || {
        assert_eq!(other.call("echo", json!({"text": "hello"})).await.text(), "hello");
        server.engine.observe().await.expect("the engine runs").running_calls == 0
    })
    .await;
    other.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["tools/list_changed"]);
}

/// A pipe that nobody read while the server was flooded, and what was to be read then.
async fn flooded_pipe(server: &Server) -> Vec<Value> {
    let mut pipe = RawPipe::sized(server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(server).await;
    let mut messages = Vec::new();
    while messages.last().is_none_or(|last: &Value| last.get("method").is_some()) {
        messages.push(pipe.next().await.expect("another message"));
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_loses_messages_but_not_the_result() {
    let server = Server::start().await;
    check_flood(&flooded_pipe(&server).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_that_is_lost_is_counted() {
    let server = Server::start().await;
    let received = check_flood(&flooded_pipe(&server).await);
    let lost = server.activity().await.lost_logs;
    assert_eq!(received + lost, u64::from(FLOOD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_pipe_that_nobody_reads_is_bounded() {
    let server = Server::start().await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(&server).await;
    let limit = stentor::Config::default().limits.frames + 1;
    let sessions = server.activity().await.sessions;
    let unread = sessions.iter().map(|session| session.unread).max().expect("sessions");
    assert!(unread <= limit, "{unread} messages wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_loses_messages_but_not_the_result() {
    let server = Server::start().await;
    let call = Call::modern(&json!(1), "tools/call", flood());
    let mut reply = call.send(server.address).await;
    serve_others(&server).await;
    let mut messages = Vec::new();
    while let Some(message) = reply.message().await {
        messages.push(message);
    }
    check_flood(&messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_reads_one_of_its_streams_too_slowly_is_served_on_the_others() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let stalled = client.start("flood", json!({"n": FLOOD})).await;
    serve_others(&server).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
    assert_eq!(notices.heard().await, "tools/list_changed");
    assert_eq!(notices.heard().await, format!("resources/updated {MARK}"));
    assert_eq!(stalled.answer().await.text(), "flooded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_hold_up_a_shutdown() {
    let mut server = Server::start().await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    let _stalled = Call::modern(&json!(1), "tools/call", flood()).send(server.address).await;
    serve_others(&server).await;
    server.begin_shutdown().await;
    soon("the engine to stop", server.engine.shutdown()).await;
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_any_more_ends_with_its_input() {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(&server).await;
    pipe.close().await;
    // The client's reading end stays open meanwhile.
    let _ = pipe.served().await;
}
