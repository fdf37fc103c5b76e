//! Shutdowns, time limits and other limits: calls that must end, and requests that are refused.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use stentor_tests::{Call, Client, Lane, Phase, RawPipe, Server, eventually, in_every_lane, soon};

in_every_lane![
    a_shutdown_waits_for_calls_and_ends_every_stream_properly,
    a_call_that_outlasts_a_shutdown_ends_with_an_error,
    a_call_that_takes_too_long_ends_with_an_error,
    calls_over_the_limit_are_refused_until_one_ends,
    an_answer_frees_the_permit_for_the_next_call,
    subscriptions_over_the_limit_are_refused,
    a_client_that_disconnects_leaves_nothing_behind,
];

async fn a_shutdown_waits_for_calls_and_ends_every_stream_properly(lane: Lane) {
    let mut server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let notices = client.hear(&[]).await;
    let meta = json!({"progressToken": 1});
    let call = client.start_with("hold", json!({"name": "a"}), meta).await;
    server.stage.reached("a", Phase::Waiting).await;
    let begun = Instant::now();
    server.begin_shutdown().await;
    // Sent to this node directly: the other nodes have no calls to wait for and may have ended.
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
        // `Notices` checks that the result carries the id of its subscription.
        assert_eq!(last.expect("a result")["result"]["resultType"], "complete");
    }
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let late = server.engine.catalog().add(Server::tool("late")).await;
    assert_eq!(late, Err(stentor::catalog::CatalogError::Stopped));
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
        // The test ends the call by dropping the other end.
        let _ = released.lock().expect("one call").recv();
        std::future::ready("late")
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
    let server = Server::tuned(|config, _| config.calls.timeout = Some(limit)).await;
    let client = Client::connect(&server, lane).await;
    let answer = client.call("hold", json!({"name": "a"})).await;
    assert_eq!(answer.error()["code"], 499);
    server.stage.reached("a", Phase::Stopped).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
}

async fn calls_over_the_limit_are_refused_until_one_ends(lane: Lane) {
    let server = Server::tuned(|config, _| {
        config.sessions.max_requests = 2;
        config.calls.max_stateless_calls = 2;
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
            // Another node only reports that it is busy.
            let status = refused.reply().status.as_u16();
            assert!(status == 429 || server.is_cluster() && status == 503, "{status}");
        }
        assert_eq!(refused.answer().await.error()["code"], 503);
    }
    // A cancellation is accepted even at the limit.
    let mut held = held.into_iter();
    client.notify("notifications/cancelled", json!({"requestId": "another"})).await;
    server.stage.release("a");
    assert_eq!(held.next().expect("the first").answer().await.text(), "held");
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
}

async fn an_answer_frees_the_permit_for_the_next_call(lane: Lane) {
    let server = Server::tuned(|config, _| {
        config.sessions.max_requests = 1;
        config.calls.max_stateless_calls = 1;
    })
    .await;
    let client = Client::connect(&server, lane).await;
    for n in 0..300 {
        let answer = client.call("echo", json!({"text": "hello"})).await;
        assert_eq!(answer.text(), "hello", "call {n}");
        // A request that runs no author's code.
        client.nudge().await;
    }
    for _ in 0..50 {
        // A legacy client sends its next request right after the answer to `initialize`.
        Client::connect(&server, lane).await;
    }
}

async fn subscriptions_over_the_limit_are_refused(lane: Lane) {
    let server = Server::tuned(|config, _| config.sessions.max_subscriptions = 2).await;
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

async fn a_client_that_disconnects_leaves_nothing_behind(lane: Lane) {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let client = Client::connect(&server, lane).await;
    let notices = client.hear(&[]).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    client.leave().await;
    if lane == Lane::HTTP_MODERN {
        drop((call, notices));
    } else {
        // The streams end properly, and the call is answered first.
        assert_eq!(call.answer().await.error()["code"], 503);
        notices.end().await;
    }
    server.stage.reached("a", Phase::Stopped).await;
    server.unused().await;
}

#[tokio::test]
async fn a_refused_initialize_leaves_no_session_behind() {
    let server = Server::tuned(|config, _| config.sessions.max_sessions = 1).await;
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
    // Each client has its own ids.
    let other = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let echo = json!({"name": "echo", "arguments": {"text": "hello"}});
    let others = other.request_as(json!("same"), "tools/call", echo).await;
    assert_eq!(others.answer().await.text(), "hello");
    server.stage.release("a");
    assert_eq!(first.answer().await.text(), "held");
}
