//! Versions: `_meta` of modern requests, and `initialize`.

use serde_json::{Value, json};
use stentor_tests::{
    Call, Client, Lane, META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN_VERSION, RawPipe,
    Server, in_every_lane,
};

use crate::{Table, initialize, modern, ping};

const LEGACY_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

#[tokio::test]
async fn a_modern_request_needs_its_meta() {
    let mut table = Table::start().await;
    let one = json!(1);
    let meta = |version: Value, capabilities: Value, client: Value| {
        let mut meta = json!({});
        for (key, value) in
            [(META_VERSION, version), (META_CAPABILITIES, capabilities), (META_CLIENT, client)]
        {
            if !value.is_null() {
                meta[key] = value;
            }
        }
        json!({"_meta": meta})
    };
    let body = |params: Value| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params});
        Call::post(message.to_string())
            .with("mcp-protocol-version", MODERN_VERSION)
            .with("mcp-method", "tools/list")
    };
    let (version, client) = (json!(MODERN_VERSION), json!({"name": "raw", "version": "1"}));
    for (what, params) in [
        ("no _meta", json!({})),
        ("an empty _meta", json!({"_meta": {}})),
        ("no version", meta(Value::Null, json!({}), client.clone())),
        ("no capabilities", meta(version.clone(), Value::Null, client.clone())),
        ("_meta as a text", json!({"_meta": "a"})),
        ("version as a number", meta(json!(2026), json!({}), client.clone())),
        ("capabilities as a text", meta(version.clone(), json!("all"), client.clone())),
        ("client as a text", meta(version.clone(), json!({}), json!("me"))),
    ] {
        table.error(what, body(params), 400, -32602, &one).await;
    }
    let bare = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let bare = body(json!({})).body(bare.to_string());
    table.error("no params", bare, 400, -32602, &one).await;
    table.row("no client", body(meta(version, json!({}), Value::Null)), 200, None).await;
    table.check();
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_known_ones() {
    let mut table = Table::start().await;
    let discovered = table.row("discover", modern("server/discover", json!({})), 200, None).await;
    let known = discovered["result"]["supportedVersions"].clone();
    for version in ["v999.0.0", "1900-01-01", "2026-07-29", ""] {
        let params = json!({"_meta": {META_VERSION: version}});
        for method in ["tools/list", "server/discover", "no/such/method", "subscriptions/listen"] {
            let call = modern(method, params.clone());
            let body = table.error(version, call, 400, -32022, &json!(1)).await;
            assert_eq!(body["error"]["data"]["requested"], version);
            assert_eq!(body["error"]["data"]["supported"], known);
        }
    }
    assert!(known.as_array().is_some_and(|known| known.contains(&json!(MODERN_VERSION))));
    table.check();
}

in_every_lane![a_version_that_was_not_asked_for_is_never_negotiated];

async fn a_version_that_was_not_asked_for_is_never_negotiated(lane: Lane) {
    let server = Server::start().await;
    if lane.is_legacy() {
        for version in LEGACY_VERSIONS {
            // `speaking` checks that the answer names the same version.
            let client = Client::speaking(&server, lane, version).await;
            let expected = format!("raw legacy {version}");
            assert_eq!(client.call("who", json!({})).await.text(), expected);
        }
        return;
    }
    // To any other version the server offers the newest version that has a handshake.
    for version in ["1999-01-01", "2026-07-28", "2030-01-01", ""] {
        let response = if lane.is_http() {
            let call = Call::post(initialize(version).to_string());
            call.send(server.address).await.json().await
        } else {
            let mut pipe = RawPipe::open(&server);
            pipe.line(initialize(version).to_string()).await;
            pipe.next().await.expect("an answer")
        };
        assert_eq!(response["result"]["protocolVersion"], "2025-11-25", "{version}");
    }
}

#[tokio::test]
async fn initialize_returns_the_server_info_and_capabilities() {
    let server = Server::start().await;
    let call = Call::post(initialize("2025-11-25").to_string());
    let mut reply = call.send(server.address).await;
    let session = reply.header("mcp-session-id").to_owned();
    assert!(session.len() >= 16 && session.bytes().all(|byte| byte.is_ascii_graphic()));
    let answer = reply.message().await.expect("an answer");
    let expected = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "tools": {"listChanged": true},
            "resources": {"listChanged": true, "subscribe": true},
            "prompts": {"listChanged": true},
            "completions": {},
            "logging": {},
            "extensions": {"com.example/arithmetic": {"operations": ["sum"]}},
            "com.example/mood": {"good": true},
        },
        "serverInfo": {"name": "fixture", "version": "1.2.3"},
        "instructions": "Be gentle.",
    });
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "init", "result": expected}));
    let other = Call::post(initialize("2025-11-25").to_string()).send(server.address).await;
    assert_ne!(other.header("mcp-session-id"), session);
}

#[tokio::test]
async fn a_version_that_the_server_does_not_speak_is_refused_on_every_http_request() {
    let mut table = Table::start().await;
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let calls = |session: &str| {
        [
            ("a request", Call::legacy(session, &ping(1))),
            ("a notification", Call::legacy(session, &notification)),
            ("a GET", Call::get(session)),
            ("a DELETE", Call::delete(session)),
        ]
    };
    let unknown = ["1999-01-01", "2026-07-29", "latest", ""].map(|version| (version, false));
    for (version, known) in
        LEGACY_VERSIONS.map(|version| (version, true)).into_iter().chain(unknown)
    {
        for kind in 0..4 {
            // A new session each time, because an accepted DELETE ends it.
            let client = Client::connect(&table.server, Lane::HTTP_LEGACY).await;
            let (what, call) = calls(client.session())[kind].clone();
            let call = call.with("mcp-protocol-version", version);
            let status = call.send(table.server.address).await.status;
            let right = if known { status.is_success() } else { status == 400 };
            if !right {
                table.wrong.push(format!("{what} in '{version}': {status}"));
            }
        }
    }
    table.check();
}
