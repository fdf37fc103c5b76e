//! Legacy sessions: how a request names one, and how many there are.

use std::time::Duration;

use serde_json::{Value, json};
use stentor_tests::{Call, Client, Era, Lane, MODERN_VERSION, Phase, RawPipe, Server, eventually};

use crate::{Table, echo, initialize, modern, ping};

#[tokio::test]
async fn a_legacy_session_is_named_on_every_request_and_unknown_once_deleted() {
    let mut table = Table::start().await;
    let client = Client::connect(&table.server, Lane::HTTP_LEGACY).await;
    let session = client.session();
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let calls = |session: &str| {
        [
            ("a request", Call::legacy(session, &ping(1))),
            ("a notification", Call::legacy(session, &notification)),
            ("a GET", Call::get(session)),
            ("a DELETE", Call::delete(session)),
        ]
    };
    for (what, call) in calls("") {
        let call = call.without("mcp-session-id");
        table.row(&format!("{what} without"), call, 400, Some(-32600)).await;
    }
    for unknown in ["unknown", "", "ü"] {
        for (what, call) in calls(unknown) {
            table.row(&format!("{what} of '{unknown}'"), call, 404, Some(-32600)).await;
        }
    }
    table.row("a known one", Call::legacy(session, &ping(1)), 200, None).await;
    let again = Call::legacy(session, &initialize("2025-11-25"));
    table.error("initialize again", again, 200, -32600, &json!("init")).await;
    let deleted = Call::delete(session).send(table.server.address).await;
    assert!(deleted.status.is_success(), "{}", deleted.status);
    for (what, call) in calls(session) {
        table.row(&format!("{what} after its end"), call, 404, Some(-32600)).await;
    }
    table.check();
}

#[tokio::test]
async fn a_refusal_carries_the_id_of_a_readable_request() {
    let server = Server::tuned(|config, _| {
        config.sessions.max_sessions = 1;
        config.sessions.max_requests = 1;
        config.calls.max_stateless_calls = 1;
    })
    .await;
    // Each node has its own limits.
    let legacy = Client::at(server.home, Era::Legacy, json!({})).await;
    let _held = legacy.start("hold", json!({"name": "a"})).await;
    let other = Client::at(server.home, Era::Modern, json!({})).await;
    let _held = other.start("hold", json!({"name": "b"})).await;
    let mut table = Table::of(server);
    table.server.address = table.server.home;
    let call = Call::legacy(legacy.session(), &ping(3));
    table.error("too many requests of a session", call, 429, 503, &json!(3)).await;
    table.error("too many modern requests", echo(), 429, 503, &json!(1)).await;
    let listen = modern("subscriptions/listen", json!({"notifications": {}}));
    table.error("too many sessions", listen, 503, 503, &json!(1)).await;
    let call = Call::post(initialize("2025-11-25").to_string());
    table.error("too many sessions, legacy", call, 503, 503, &json!("init")).await;
    let without = Call::legacy("", &ping(3)).without("mcp-session-id");
    table.error("no session", without, 400, -32600, &json!(3)).await;
    let unknown = Call::legacy("unknown", &ping(3));
    table.error("an unknown session", unknown, 404, -32600, &json!(3)).await;
    table.check();
}

#[tokio::test]
async fn a_modern_request_neither_needs_nor_gets_a_session() {
    let server = Server::start().await;
    let reply = echo().with("mcp-session-id", "made up").send(server.address).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("mcp-session-id"), "");
}

#[tokio::test]
async fn a_session_has_one_stream_of_notices_at_a_time() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut first = client.notices().await;
    client.call("add", json!({"kind": "tools", "name": "early"})).await;
    assert_eq!(first.heard().await, "tools/list_changed");
    // Without `Last-Event-ID`, like a client whose connection died: the newest stream wins.
    let mut second = client.notices().await;
    assert_eq!(first.end().await, None, "the first one ends");
    // Notices in flight to the first stream may be lost.
    let mut told = [second.heard().await, second.heard().await, second.heard().await];
    told.sort();
    assert_eq!(told, ["prompts/list_changed", "resources/list_changed", "tools/list_changed"]);
    client.call("add", json!({"kind": "prompts", "name": "late"})).await;
    assert_eq!(second.heard().await, "prompts/list_changed");
    // This works any number of times.
    let _third = client.notices().await;
    assert_eq!(second.end().await, None, "each is heard on one stream only");
}

#[tokio::test]
async fn initialize_and_a_session_are_legacy_whatever_version_the_header_names() {
    let server = Server::start().await;
    for version in [MODERN_VERSION, "2025-11-25", "2099-01-01"] {
        let call = Call::post(initialize("2025-11-25").to_string());
        let reply = call.with("mcp-protocol-version", version).send(server.address).await;
        assert_eq!(reply.status, 200, "{version}");
        assert_ne!(reply.header("mcp-session-id"), "", "{version}");
    }
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let modern = |message: Value| {
        let call = Call::legacy(client.session(), &message);
        call.with("mcp-protocol-version", MODERN_VERSION).send(server.address)
    };
    assert_eq!(modern(ping(1)).await.status, 200);
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    let params = json!({"requestId": call.id()});
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    assert_eq!(modern(cancel).await.status, 202);
    server.stage.reached("a", Phase::Stopped).await;
}

#[tokio::test]
async fn an_idle_session_ends() {
    let server = Server::tuned(|config, _| {
        config.sessions.idle_timeout = Duration::from_millis(1_500);
    })
    .await;
    let reading = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut notices = reading.notices().await;
    let calling = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let call = calling.start("hold", json!({"name": "a"})).await;
    let idle = Client::connect(&server, Lane::HTTP_LEGACY).await;
    eventually("the idle session to end", async || {
        let sessions = server.activity().await.sessions;
        !sessions.iter().any(|session| session.id == idle.session())
    })
    .await;
    let gone = Call::legacy(idle.session(), &ping(1)).send(server.address).await;
    assert_eq!(gone.status, 404);
    // The other sessions are older than the idle one, but were in use.
    reading.nudge().await;
    server.engine.send_tool_list_changed();
    assert_eq!(notices.heard().await, "tools/list_changed");
    server.stage.release("a");
    assert_eq!(call.answer().await.text(), "held");
}

#[tokio::test]
async fn sessions_over_the_limit_are_refused_until_one_ends() {
    let server = Server::tuned(|config, _| config.sessions.max_sessions = 2).await;
    // Each node has its own limits.
    let first = Client::at(server.home, Era::Legacy, json!({})).await;
    let listener = Client::at(server.home, Era::Modern, json!({})).await;
    let listen = listener.listen(json!({"toolsListChanged": true})).await;
    let open = async || {
        let call = Call::post(initialize("2025-11-25").to_string());
        call.send(server.home).await.status.as_u16()
    };
    assert_eq!(open().await, 503);
    let refused = modern("subscriptions/listen", json!({"notifications": {}}));
    assert_eq!(refused.send(server.home).await.status, 503);
    let pipe = RawPipe::open(&server);
    assert!(pipe.served().await.is_err(), "a pipe is a session, too");
    // Other requests need no session.
    assert_eq!(listener.call("echo", json!({"text": "hello"})).await.text(), "hello");
    drop(listen);
    eventually("the listen's place to be free", async || open().await == 200).await;
    assert_eq!(open().await, 503);
    first.leave().await;
    eventually("the session's place to be free", async || open().await == 200).await;
}
