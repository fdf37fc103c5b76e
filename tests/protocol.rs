//! What the protocol says to the letter: statuses, codes, headers and members, of both eras.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use stentor::http::OriginPolicy;
use stentor::model::CacheScope;
use stentor::{CacheHint, ListCache};
use stentor::{Resource, Structured, ToolError};
use stentor_tests::{
    Call, Client, Era, Event, Lane, MARK, META_CAPABILITIES, META_CLIENT, META_SERVER,
    META_VERSION, MODERN_VERSION, Notices, Phase, RawPipe, Reply, Server, eventually,
    in_every_lane,
};

const LEGACY_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// Sends one request after the other and collects what comes out wrong, so that one table
/// shows all of it.
struct Table {
    server: Server,
    wrong: Vec<String>,
}

impl Table {
    async fn start() -> Self {
        Self::of(Server::start().await)
    }

    fn of(server: Server) -> Self {
        Self { server, wrong: Vec::new() }
    }

    /// A row: the status, and the code of the error where there is to be one. Gives the body.
    async fn row(&mut self, what: &str, call: Call, status: u16, code: Option<i64>) -> Value {
        let mut reply = call.send(self.server.address).await;
        let found = reply.status.as_u16();
        let body = reply.message().await.unwrap_or_default();
        let found_code = body["error"]["code"].as_i64();
        if (found, found_code) != (status, code) {
            self.wrong.push(format!(
                "{what}: {found} {found_code:?} instead of {status} {code:?}: {body}"
            ));
        }
        body
    }

    /// As [`row`](Self::row), for an error that carries the id of its request.
    async fn error(&mut self, what: &str, call: Call, status: u16, code: i64, id: &Value) -> Value {
        let body = self.row(what, call, status, Some(code)).await;
        if body.get("id").unwrap_or(&Value::Null) != id {
            self.wrong.push(format!("{what}: the id is not {id}: {body}"));
        }
        body
    }

    #[track_caller]
    fn holds(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// A modern call of `echo`.
fn echo() -> Call {
    modern("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}}))
}

fn modern(method: &str, params: Value) -> Call {
    Call::modern(&json!(1), method, params)
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "raw", "version": "0.0.1"});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params})
}

fn ping(id: i64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

fn is_stream(reply: &Reply) -> bool {
    reply.header("content-type") == "text/event-stream"
}

// Bodies

#[tokio::test]
async fn a_body_that_is_no_single_message_is_refused() {
    let mut table = Table::start().await;
    let session = Client::connect(&table.server, Lane::HTTP_LEGACY).await.session().to_owned();
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}});
    let with = |member: &str, value: Value| {
        let mut message = message.clone();
        message[member] = value;
        message.to_string().into_bytes()
    };
    let without = |member: &str| {
        let mut message = message.clone();
        message.as_object_mut().expect("an object").remove(member);
        message.to_string().into_bytes()
    };
    let none = Value::Null;
    let seven = json!(7);
    let rows: Vec<(&str, Vec<u8>, i64, &Value)> = vec![
        ("half of an object", b"{\"jsonrpc\":".to_vec(), -32700, &none),
        ("nothing", Vec::new(), -32700, &none),
        ("a word", b"hello".to_vec(), -32700, &none),
        ("two messages", format!("{message}{message}").into_bytes(), -32700, &none),
        ("invalid UTF-8", b"{\"jsonrpc\":\"\xff\"}".to_vec(), -32700, &none),
        ("a batch", format!("[{message}]").into_bytes(), -32600, &none),
        ("an empty batch", b"[]".to_vec(), -32600, &none),
        ("a number", b"42".to_vec(), -32600, &none),
        ("null", b"null".to_vec(), -32600, &none),
        ("an empty object", b"{}".to_vec(), -32600, &none),
        ("no jsonrpc", without("jsonrpc"), -32600, &seven),
        ("jsonrpc 1.0", with("jsonrpc", json!("1.0")), -32600, &seven),
        ("jsonrpc as a number", with("jsonrpc", json!(2.0)), -32600, &seven),
        ("no method", without("method"), -32600, &seven),
        ("method as a number", with("method", json!(5)), -32600, &seven),
        ("method null", with("method", json!(null)), -32600, &seven),
        ("params as an array", with("params", json!([])), -32600, &seven),
        ("params as a text", with("params", json!("a")), -32600, &seven),
        ("id null", with("id", json!(null)), -32600, &none),
        ("id with a fraction", with("id", json!(1.5)), -32600, &none),
        ("id true", with("id", json!(true)), -32600, &none),
        ("id as an object", with("id", json!({})), -32600, &none),
        ("id as an array", with("id", json!([1])), -32600, &none),
        ("a request with a result", with("result", json!({})), -32600, &seven),
        ("a request with an error", with("error", json!({})), -32600, &seven),
    ];
    for (what, body, code, id) in rows {
        let bare = Call::post(body.clone());
        table.error(&format!("{what}, bare"), bare, 400, code, id).await;
        let legacy = Call::post(body.clone()).with("mcp-session-id", &session);
        table.error(&format!("{what}, legacy"), legacy, 400, code, id).await;
        let modern = Call::post(body)
            .with("mcp-protocol-version", MODERN_VERSION)
            .with("mcp-method", "tools/list");
        table.error(&format!("{what}, modern"), modern, 400, code, id).await;
    }
    table.holds();
}

#[tokio::test]
async fn a_notification_is_accepted_without_a_body() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let message = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let response = json!({"jsonrpc": "2.0", "id": 99, "result": {}});
    let calls = [
        Call::legacy(client.session(), &message),
        Call::legacy(client.session(), &response),
        Call::post(message.to_string()).with("mcp-protocol-version", MODERN_VERSION),
    ];
    for call in calls {
        let reply = call.send(server.address).await;
        assert_eq!(reply.status, 202);
        assert_eq!(reply.text().await, "");
    }
    // A modern client must not send responses.
    let call = Call::post(response.to_string()).with("mcp-protocol-version", MODERN_VERSION);
    assert_eq!(call.send(server.address).await.status, 400);
}

// `_meta` and versions

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
    table.holds();
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
    table.holds();
}

in_every_lane![a_version_that_was_not_asked_for_is_never_negotiated];

async fn a_version_that_was_not_asked_for_is_never_negotiated(lane: Lane) {
    let server = Server::start().await;
    if lane.is_legacy() {
        for version in LEGACY_VERSIONS {
            // Checks that the answer names the same version.
            let client = Client::speaking(&server, lane, version).await;
            let expected = format!("raw legacy {version}");
            assert_eq!(client.call("who", json!({})).await.text(), expected);
        }
        return;
    }
    // Whoever asks for something else is offered the newest that has a handshake.
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
async fn initialize_says_who_answers_and_what_it_can_do() {
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
            // A session for each, as a DELETE that is not refused ends it.
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
    table.holds();
}

// Headers that mirror the body

#[tokio::test]
async fn headers_that_do_not_say_what_the_body_says_are_refused() {
    let mut table = Table::start().await;
    let read = || modern("resources/read", json!({"uri": "test://static"}));
    let get = || modern("prompts/get", json!({"name": "greet", "arguments": {"name": "Ann"}}));
    let list = || modern("tools/list", json!({}));
    let size = || modern("tools/call", json!({"name": "größe"}));
    let size_base64 = "=?base64?Z3LDtsOfZQ==?=";
    for (what, call) in [
        ("no version", echo().without("mcp-protocol-version")),
        ("a legacy version", echo().with("mcp-protocol-version", "2025-11-25")),
        ("an unknown version", echo().with("mcp-protocol-version", "1900-01-01")),
        ("no method", echo().without("mcp-method")),
        ("no method, of a list", list().without("mcp-method")),
        ("another method", echo().with("mcp-method", "prompts/get")),
        ("a method in other letters", echo().with("mcp-method", "Tools/Call")),
        ("an encoded method", echo().with("mcp-method", "=?base64?dG9vbHMvY2FsbA==?=")),
        ("no name", echo().without("mcp-name")),
        ("no name, of a resource", read().without("mcp-name")),
        ("no name, of a prompt", get().without("mcp-name")),
        ("another name", echo().with("mcp-name", "fail")),
        ("another resource", read().with("mcp-name", "test://clock")),
        ("another prompt", get().with("mcp-name", "panic")),
        ("a name in other letters", echo().with("mcp-name", "Echo")),
        ("an empty name", echo().with("mcp-name", "")),
        ("another name, encoded", echo().with("mcp-name", "=?base64?ZmFpbA==?=")),
        ("bad padding", echo().with("mcp-name", "=?base64?ZWNobw=?=")),
        ("bad letters", echo().with("mcp-name", "=?base64?ZW!obw==?=")),
        ("an unfinished code", echo().with("mcp-name", "=?base64?ZWNobw==")),
        ("a code in other letters", echo().with("mcp-name", "=?BASE64?ZWNobw==?=")),
        ("no UTF-8 within", echo().with("mcp-name", "=?base64?/w==?=")),
        ("UTF-8 without a code", size().with("mcp-name", "größe")),
        ("a name of the wrong method", size().with("mcp-name", "echo")),
    ] {
        table.error(what, call, 400, -32020, &json!(1)).await;
    }
    for (what, call) in [
        ("plain", echo()),
        ("encoded", echo().with("mcp-name", "=?base64?ZWNobw==?=")),
        ("not ASCII", size().with("mcp-name", size_base64)),
        ("space around", echo().with("mcp-name", " \techo ")),
        ("a name that nobody needs", list().with("mcp-name", "anything")),
        ("a resource", read()),
        ("a prompt", get()),
    ] {
        table.row(what, call, 200, None).await;
    }
    table.holds();
}

/// A client in use sends none.
#[tokio::test]
async fn the_methods_of_tasks_may_lack_the_name_and_have_no_wrong_one() {
    let mut table = Table::start().await;
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = json!({"taskId": "nowhere", "inputResponses": {}, "_meta": {
            META_CAPABILITIES: {"extensions": {"io.modelcontextprotocol/tasks": {}}},
        }});
        let call = || modern(method, params.clone());
        for (what, call) in [
            ("another name", call().with("mcp-name", "other")),
            ("an empty name", call().with("mcp-name", "")),
            ("a name in other letters", call().with("mcp-name", "Nowhere")),
            ("another name, encoded", call().with("mcp-name", "=?base64?ZmFpbA==?=")),
            ("bad padding", call().with("mcp-name", "=?base64?ZWNobw=?=")),
            ("no method", call().without("mcp-name").without("mcp-method")),
        ] {
            table.error(&format!("{method}, {what}"), call, 400, -32020, &json!(1)).await;
        }
        // There is no such task, which is found out behind the headers.
        for (what, call) in [
            ("no name", call().without("mcp-name")),
            ("the name", call()),
            ("the name, encoded", call().with("mcp-name", "=?base64?bm93aGVyZQ==?=")),
        ] {
            table.error(&format!("{method}, {what}"), call, 200, -32602, &json!(1)).await;
        }
    }
    table.holds();
}

#[tokio::test]
async fn a_header_that_is_there_twice_is_refused() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    for call in [
        echo().and("mcp-name", "fail"),
        echo().and("mcp-name", "echo"),
        echo().and("mcp-method", "tools/list"),
        echo().and("mcp-protocol-version", "2025-11-25"),
        Call::legacy(client.session(), &ping(1)).and("mcp-session-id", "another"),
    ] {
        let reply = call.send(server.address).await;
        assert_eq!(reply.status, 400);
        assert!(reply.json().await["error"]["code"].is_i64());
    }
}

#[tokio::test]
async fn parameters_that_a_tool_mirrors_must_be_in_their_headers() {
    let mut table = Table::start().await;
    let call =
        |arguments: Value| modern("tools/call", json!({"name": "region", "arguments": arguments}));
    let west = || call(json!({"region": "west", "note": "n"}));
    let ten = || call(json!({"limit": 10}));
    for (what, call) in [
        ("missing", west()),
        ("another", west().with("mcp-param-region", "east")),
        ("in other letters", west().with("mcp-param-region", "West")),
        ("another, encoded", west().with("mcp-param-region", "=?base64?ZWFzdA==?=")),
        ("badly encoded", west().with("mcp-param-region", "=?base64?%%%?=")),
        ("no ASCII", west().with("mcp-param-region", [0xff])),
        ("without a value", call(json!({})).with("mcp-param-region", "west")),
        ("for null", call(json!({"region": null})).with("mcp-param-region", "null")),
        ("an integer that is missing", ten()),
        ("another integer", ten().with("mcp-param-limit", "11")),
        ("no integer", ten().with("mcp-param-limit", "ten")),
    ] {
        table.error(what, call, 400, -32020, &json!(1)).await;
    }
    let umlaut = call(json!({"region": "Süd"}));
    for (what, call) in [
        ("the same", west().with("mcp-param-region", "west")),
        ("encoded", west().with("mcp-param-region", "=?base64?d2VzdA==?=")),
        ("not ASCII", umlaut.with("mcp-param-region", "=?base64?U8O8ZA==?=")),
        ("absent", call(json!({"note": "n"}))),
        ("an integer", ten().with("mcp-param-limit", "10")),
        ("the same number", ten().with("mcp-param-limit", "10.0")),
        ("one that no tool mirrors", echo().with("mcp-param-region", "west")),
    ] {
        table.row(what, call, 200, None).await;
    }
    // The legacy era mirrors nothing.
    let client = Client::connect(&table.server, Lane::HTTP_LEGACY).await;
    assert_eq!(client.call("region", json!({"region": "west"})).await.text(), "west");
    table.holds();
}

// What the endpoint refuses by itself

#[tokio::test]
async fn requests_that_http_itself_forbids_are_refused_with_its_statuses() {
    let server = Server::tuned(|_, http| http.max_body = 2_000).await;
    let mut table = Table::of(server);
    let client = Client::connect(&table.server, Lane::HTTP_LEGACY).await;
    let session = client.session();
    let long = |length: usize| {
        let body = ping(1).to_string();
        Call::legacy(session, &json!(0)).body(format!("{body:length$}"))
    };
    for (what, call, status) in [
        ("accepts no stream", echo().with("accept", "application/json"), 406),
        ("accepts no JSON", echo().with("accept", "text/event-stream"), 406),
        ("accepts a page", echo().with("accept", "text/html"), 406),
        ("accepts nothing", echo().without("accept"), 406),
        ("excludes JSON", echo().with("accept", "application/json;q=0, */*"), 406),
        ("legacy, accepts no stream", long(0).with("accept", "application/json"), 406),
        ("a form", echo().with("content-type", "application/x-www-form-urlencoded"), 415),
        ("plain text", echo().with("content-type", "text/plain"), 415),
        ("no type", echo().without("content-type"), 415),
        ("compressed", echo().with("content-encoding", "gzip"), 415),
        ("compressed twice", echo().with("content-encoding", "identity, BR"), 415),
        ("Latin", echo().with("content-type", "application/json; charset=latin1"), 415),
        ("UTF-16", echo().with("content-type", "application/json;v=1; Charset=\"UTF-16\""), 415),
        ("a long body", long(2_001), 413),
        ("long headers", echo().with("x-padding", "x".repeat(17_000)), 431),
        ("a GET that accepts no stream", Call::get(session).with("accept", "text/html"), 406),
        ("a GET that accepts nothing", Call::get(session).without("accept"), 406),
    ] {
        table.row(what, call, status, Some(-32600)).await;
    }
    for (what, call) in [
        ("accepts everything", echo().with("accept", "*/*")),
        ("accepts both in ranges", echo().with("accept", "application/*, text/*")),
        (
            "accepts both in two headers",
            echo().with("accept", "text/event-stream").and("accept", "application/json"),
        ),
        ("a character set", echo().with("content-type", "application/json; charset=utf-8")),
        ("the same in quotes", echo().with("content-type", "application/json;Charset=\"UTF-8\"")),
        ("ASCII", echo().with("content-type", "application/json;charset=us-ascii")),
        ("not compressed", echo().with("content-encoding", "identity")),
        ("a type in other letters", echo().with("content-type", "Application/JSON")),
        ("a body that just fits", long(2_000)),
        ("headers that just fit", echo().with("x-padding", "x".repeat(15_000))),
    ] {
        table.row(what, call, 200, None).await;
    }
    table.holds();
}

#[tokio::test]
async fn other_http_methods_are_not_allowed() {
    let server = Server::start().await;
    for method in [Method::PUT, Method::PATCH, Method::OPTIONS, Method::HEAD] {
        let reply = Call::new(method.clone()).send(server.address).await;
        assert_eq!(reply.status, 405, "{method}");
        let allowed: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
        assert_eq!(allowed, ["POST", "GET", "DELETE"]);
    }
}

#[tokio::test]
async fn pages_of_other_sites_cannot_call() {
    let mut table = Table::start().await;
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "file://", ""] {
        table.row(origin, echo().with("origin", origin), 403, Some(-32600)).await;
        let call = Call::post(initialize("2025-11-25").to_string()).with("origin", origin);
        table.row(origin, call, 403, Some(-32600)).await;
    }
    for host in
        ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1@evil.example"]
    {
        table.row(host, echo().with("host", host), 403, Some(-32600)).await;
    }
    let two = echo().with("origin", "http://localhost").and("origin", "https://evil.example");
    table.row("two origins", two, 403, Some(-32600)).await;
    for origin in
        ["http://localhost", "http://localhost:6274", "https://127.0.0.1", "http://[::1]:1"]
    {
        table.row(origin, echo().with("origin", origin), 200, None).await;
    }
    for host in ["localhost", "localhost:8000", "LOCALHOST", "127.1.2.3", "[::1]:8000"] {
        table.row(host, echo().with("host", host), 200, None).await;
    }
    let address = table.server.address;
    assert_eq!(echo().send_as_is(address).await.status, 403, "no host");
    for call in [Call::get("x"), Call::delete("x"), Call::new(Method::OPTIONS)] {
        let reply = call.with("origin", "https://evil.example").send(address).await;
        assert_eq!(reply.status, 403);
    }
    table.holds();
}

#[tokio::test]
async fn a_server_can_be_told_who_may_call() {
    let policy = OriginPolicy::hosts(["mcp.example"]).with_origin("https://app.example");
    let mut table = Table::of(Server::tuned(|_, http| http.origins = policy).await);
    let call = || echo().with("host", "mcp.example");
    table.row("its host", call(), 200, None).await;
    table.row("its page", call().with("origin", "https://app.example"), 200, None).await;
    table.row("another page", call().with("origin", "https://b.example"), 403, Some(-32600)).await;
    table.row("localhost", echo(), 403, Some(-32600)).await;
    table.holds();
}

// Methods

#[tokio::test]
async fn methods_that_an_era_does_not_have_are_not_found() {
    let mut table = Table::start().await;
    let client = Client::connect(&table.server, Lane::HTTP_LEGACY).await;
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
        "no/such/method",
        "",
        "TOOLS/LIST",
        "notifications/initialized",
    ] {
        let call = modern(method, json!({"uri": "test://static", "level": "info"}));
        table.error(method, call, 404, -32601, &json!(1)).await;
    }
    for method in ["server/discover", "subscriptions/listen", "no/such/method", "TOOLS/LIST"] {
        let params = json!({"notifications": {"toolsListChanged": true}});
        let request = json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params});
        let call = Call::legacy(client.session(), &request);
        table.error(method, call, 200, -32601, &json!(2)).await;
    }
    table.holds();
}

#[tokio::test]
async fn methods_that_an_era_does_not_have_are_not_found_on_a_pipe() {
    let server = Server::start().await;
    for (lane, methods) in [
        (Lane::STDIO_MODERN, ["ping", "logging/setLevel", "no/such/method"]),
        (Lane::STDIO_LEGACY, ["server/discover", "subscriptions/listen", "no/such/method"]),
    ] {
        let client = Client::connect(&server, lane).await;
        for method in methods {
            let answer = client.request(method, json!({"level": "info"})).await.answer().await;
            assert_eq!(answer.error()["code"], -32601, "{method}");
        }
    }
}

// Results

in_every_lane![results_say_in_the_modern_era_only_what_they_are_and_how_long_they_hold];

async fn results_say_in_the_modern_era_only_what_they_are_and_how_long_they_hold(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let reference = json!({"type": "ref/prompt", "name": "greet"});
    let argument = json!({"name": "style", "value": ""});
    let both = [
        ("tools/list", json!({}), true),
        ("prompts/list", json!({}), true),
        ("resources/list", json!({}), true),
        ("resources/templates/list", json!({}), true),
        ("resources/read", json!({"uri": "test://static"}), true),
        ("tools/call", json!({"name": "echo", "arguments": {"text": "a"}}), false),
        ("tools/call", json!({"name": "fail"}), false),
        ("tools/call", json!({"name": "sum", "arguments": {"a": 1, "b": 2}}), false),
        ("prompts/get", json!({"name": "greet", "arguments": {"name": "Ann"}}), false),
        ("completion/complete", json!({"ref": reference, "argument": argument}), false),
    ];
    let own = if lane.is_legacy() {
        let uri = json!({"uri": "test://static"});
        vec![
            ("ping", json!({}), false),
            ("logging/setLevel", json!({"level": "info"}), false),
            ("resources/subscribe", uri.clone(), false),
            ("resources/unsubscribe", uri, false),
        ]
    } else {
        vec![("server/discover", json!({}), true)]
    };
    for (method, params, is_cacheable) in both.into_iter().chain(own) {
        let result = client.ask(method, params).await;
        if lane.is_legacy() {
            for member in ["resultType", "ttlMs", "cacheScope", "_meta"] {
                assert_eq!(result.get(member), None, "{method}: {result}");
            }
            continue;
        }
        assert_eq!(result["resultType"], "complete", "{method}: {result}");
        let server = json!({"name": "fixture", "version": "1.2.3"});
        assert_eq!(result["_meta"][META_SERVER], server, "{method}");
        let hints = is_cacheable.then(|| (json!(0), json!("private")));
        let found = result.get("ttlMs").cloned().zip(result.get("cacheScope").cloned());
        assert_eq!(found, hints, "{method}: {result}");
    }
}

#[tokio::test]
async fn a_server_can_say_how_long_its_lists_and_resources_hold() {
    let server = Server::tuned(|config, _| {
        config.list_cache = ListCache::all(CacheHint { ttl_ms: 60_000, scope: CacheScope::Public });
    })
    .await;
    let kept = Resource::text("test://kept", "kept", "kept").cache(5_000, CacheScope::Public);
    server.engine.catalog().add(kept).await.expect("a new resource");
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    for (method, params, ttl_ms, scope) in [
        ("tools/list", json!({}), 60_000, "public"),
        ("server/discover", json!({}), 60_000, "public"),
        ("resources/read", json!({"uri": "test://kept"}), 5_000, "public"),
        ("resources/read", json!({"uri": "test://static"}), 0, "private"),
    ] {
        let result = client.ask(method, params).await;
        let found = (&result["ttlMs"], &result["cacheScope"]);
        assert_eq!(found, (&json!(ttl_ms), &json!(scope)), "{method}");
    }
}

#[tokio::test]
async fn discover_says_who_answers_and_what_it_can_do() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let result = client.ask("server/discover", json!({})).await;
        assert_eq!(result["instructions"], "Be gentle.");
        assert_eq!(result["supportedVersions"][0], MODERN_VERSION);
        for capability in ["tools", "prompts", "resources", "logging", "completions"] {
            assert!(result["capabilities"][capability].is_object(), "{result}");
        }
        assert_eq!(result["capabilities"]["resources"]["subscribe"], true);
    }
}

#[tokio::test]
async fn a_result_that_does_not_fit_its_schema_is_an_error_of_the_server() {
    #[derive(serde::Serialize, schemars::JsonSchema)]
    struct Count {
        #[schemars(range(max = 9))]
        count: u32,
    }
    let server = Server::start().await;
    let liar =
        stentor::tool("liar", || async { Ok::<_, ToolError>(Structured(Count { count: 10 })) });
    server.engine.catalog().add(liar).await.expect("a new tool");
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    assert_eq!(client.call("liar", json!({})).await.error()["code"], -32603);
}

// Streams

#[tokio::test]
async fn every_stream_has_the_headers_that_keep_it_flowing() {
    let server = Server::start().await;
    let legacy = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let modern_client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let token = json!({"progressToken": 1});
    let legacy_call = legacy.start_with("hold", json!({"name": "a"}), token.clone()).await;
    let modern_call = modern_client.start_with("hold", json!({"name": "b"}), token).await;
    // A listen is a stream whatever its client likes better.
    let listen =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let listen = listen.with("accept", "application/json, text/event-stream;q=0.1");
    let listen = listen.send(server.address).await;
    let get = Call::get(legacy.session()).send(server.address).await;
    for reply in [legacy_call.reply(), modern_call.reply(), &listen, &get] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), "text/event-stream");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-accel-buffering"), "no");
    }
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_alive() {
    let server = Server::tuned(|_, http| http.keep_alive = Duration::from_millis(20)).await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut get = Call::get(client.session()).send(server.address).await;
    let call = modern("tools/call", json!({"name": "hold", "arguments": {"name": "a"}}));
    let mut call = call.send(server.address).await;
    let listen =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listen = listen.send(server.address).await;
    assert!(matches!(listen.event().await, Some(Event::Data(..))), "the acknowledgment");
    assert!(matches!(get.event().await, Some(Event::Data(..))), "its id");
    for stream in [&mut get, &mut call, &mut listen] {
        for _ in 0..3 {
            assert_eq!(stream.event().await, Some(Event::Comment));
        }
    }
}

#[tokio::test]
async fn the_order_of_accept_decides_between_json_and_a_stream() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let legacy_echo = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "hello"}}});
    for (accept, streams) in [
        ("application/json, text/event-stream", false),
        ("text/event-stream, application/json", true),
        ("application/json;q=0.5, text/event-stream", true),
        ("text/event-stream;q=0.5, application/json", false),
        ("*/*", false),
    ] {
        let calls = [
            echo(),
            modern("tools/list", json!({})),
            Call::legacy(client.session(), &legacy_echo),
            Call::legacy(client.session(), &ping(2)),
            Call::post(initialize("2025-11-25").to_string()),
        ];
        for call in calls {
            let mut reply = call.clone().with("accept", accept).send(server.address).await;
            assert_eq!(reply.status, 200);
            assert_eq!(is_stream(&reply), streams, "{accept}: {call:?}");
            if !streams {
                assert_eq!(reply.header("content-type"), "application/json");
            }
            assert!(reply.message().await.expect("an answer")["result"].is_object());
            if streams {
                assert_eq!(reply.message().await, None, "the response ends its stream");
            }
        }
    }
}

// Coming back to a stream

/// The next event of a stream: its message, or null where it only tells an id; and its id.
async fn event(stream: &mut Reply) -> (Value, Option<String>) {
    match stream.event().await.expect("another event") {
        Event::Data(data, id) if data.is_empty() => (Value::Null, id),
        Event::Data(data, id) => (serde_json::from_str(&data).expect("a message"), id),
        Event::Comment => panic!("no time has passed"),
    }
}

/// A legacy call of `hold` that has reported its progress.
async fn hold(server: &Server, client: &Client, name: &str) -> Reply {
    let meta = json!({"progressToken": name});
    let params = json!({"name": "hold", "arguments": {"name": name}, "_meta": meta});
    let request = json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params});
    let call = Call::legacy(client.session(), &request);
    let reply = call.send(server.address).await;
    server.stage.reached(name, Phase::Waiting).await;
    reply
}

#[tokio::test]
async fn legacy_events_have_ids_of_their_own_and_modern_ones_have_none() {
    let server = Server::start().await;
    let mut ids = std::collections::HashSet::new();
    for version in ["2025-11-25", "2025-06-18"] {
        let client = Client::speaking(&server, Lane::HTTP_LEGACY, version).await;
        let mut streams = vec![client.notices().await.into_reply()];
        server.engine.send_tool_list_changed();
        for name in ["a", "b"] {
            streams.push(hold(&server, &client, &format!("{name} {version}")).await);
        }
        for stream in &mut streams {
            // Older clients would read the empty event as a message.
            if version == "2025-11-25" {
                let (message, id) = event(stream).await;
                assert_eq!(message, Value::Null);
                assert!(ids.insert((version, id.expect("an id"))));
            }
            let (message, id) = event(stream).await;
            assert!(message["method"].is_string(), "{message}");
            assert!(ids.insert((version, id.expect("an id"))), "an id twice in a session");
        }
    }
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "c"}), meta).await.into_reply();
    let mut listen = client.hear(&[]).await.into_reply();
    server.mark().await;
    for stream in [&mut call, &mut listen] {
        let (message, id) = event(stream).await;
        assert!(message["method"].is_string(), "{message}");
        assert_eq!(id, None);
    }
}

#[tokio::test]
async fn a_client_that_comes_back_to_a_call_reads_on_without_a_gap_or_a_repeat() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let mut stream = hold(&server, &client, "a").await;
    let (_, first) = event(&mut stream).await;
    let (progress, second) = event(&mut stream).await;
    assert_eq!(progress["method"], "notifications/progress");
    drop(stream);
    let come_back = async |id: &Option<String>| {
        let get = Call::get(client.session()).with("last-event-id", id.as_ref().expect("an id"));
        let reply = get.send(server.address).await;
        assert_eq!(reply.status, 200);
        reply
    };
    // While it runs: from its beginning, and from where it was.
    let (again, again_id) = event(&mut come_back(&first).await).await;
    assert_eq!((again, &again_id), (progress.clone(), &second));
    let mut live = come_back(&second).await;
    server.stage.release("a");
    let (answer, third) = event(&mut live).await;
    assert_eq!(
        (&answer["id"], answer["result"]["content"][0]["text"].as_str()),
        (&json!("a"), Some("held"))
    );
    assert_eq!(live.event().await, None, "the response is the end");
    // And after it was answered.
    let mut whole = come_back(&first).await;
    assert_eq!(event(&mut whole).await, (progress, second));
    assert_eq!(event(&mut whole).await, (answer, third));
    assert_eq!(whole.event().await, None);
    // What belongs to the call was told on its stream alone.
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0]);
}

#[tokio::test]
async fn a_client_that_comes_back_to_its_notices_reads_on_without_a_gap_or_a_repeat() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut stream = client.notices().await.into_reply();
    let announce = [
        stentor::Engine::send_tool_list_changed,
        stentor::Engine::send_prompt_list_changed,
        stentor::Engine::send_resource_list_changed,
    ];
    let mut seen = vec![event(&mut stream).await];
    for change in announce {
        change(&server.engine);
        seen.push(event(&mut stream).await);
    }
    server.settle().await;
    // It read all three, but only the first reached it, or none; what it had is open still.
    for reached in [1, 0] {
        let id = seen[reached].1.as_ref().expect("an id");
        let come_back = Call::get(client.session()).with("last-event-id", id);
        let mut before = std::mem::replace(&mut stream, come_back.send(server.address).await);
        for expected in &seen[reached + 1..] {
            assert_eq!(event(&mut stream).await, *expected);
        }
        assert_eq!(before.event().await, None, "another has taken its place");
    }
    server.engine.send_tool_list_changed();
    let (message, id) = event(&mut stream).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert!(seen.iter().all(|(_, other)| *other != id));
}

#[tokio::test]
async fn a_client_that_cannot_read_on_is_told_to_read_its_lists_again() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    for id in ["0-999999", "77-0"] {
        let come_back = Call::get(client.session()).with("last-event-id", id);
        let mut stream = come_back.send(server.address).await;
        assert_eq!(stream.status, 200, "{id}");
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(event(&mut stream).await.0["method"].as_str().expect("a notice").to_owned());
        }
        told.sort();
        let expected = ["prompts", "resources", "tools"]
            .map(|kind| format!("notifications/{kind}/list_changed"));
        assert_eq!(told, expected, "{id}");
        drop(stream);
        eventually("the stream to be given up", async || {
            server.activity().await.sessions.iter().all(|session| !session.attached)
        })
        .await;
    }
}

#[tokio::test]
async fn nobody_reads_the_streams_of_another_session() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let other = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut stream = hold(&server, &client, "a").await;
    let (_, first) = event(&mut stream).await;
    let come_back = Call::get(other.session()).with("last-event-id", first.expect("an id"));
    let mut others = come_back.send(server.address).await;
    server.stage.release("a");
    server.stage.reached("a", Phase::Finished).await;
    server.mark().await;
    server.engine.notify_all("notifications/example/end", json!({})).await.expect("running");
    loop {
        let (message, _) = event(&mut others).await;
        let method = message["method"].as_str().expect("no response of the other one");
        assert_ne!(method, "notifications/progress");
        if method == "notifications/example/end" {
            break;
        }
    }
}

// Sessions

#[tokio::test]
async fn a_legacy_session_is_named_on_every_request_and_gone_when_it_is_deleted() {
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
    table.holds();
}

#[tokio::test]
async fn a_refused_request_that_could_be_read_is_refused_by_its_id() {
    let server = Server::tuned(|config, _| {
        config.max_sessions = 1;
        config.max_requests_per_session = 1;
        config.max_stateless_calls = 1;
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
    table.holds();
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
    // Without `Last-Event-ID`, as of a client whose path died: the newest one has it.
    let mut second = client.notices().await;
    assert_eq!(first.end().await, None, "the first one ends");
    // What was on its way to the first may be lost.
    let mut told = [second.heard().await, second.heard().await, second.heard().await];
    told.sort();
    assert_eq!(told, ["prompts/list_changed", "resources/list_changed", "tools/list_changed"]);
    client.call("add", json!({"kind": "prompts", "name": "late"})).await;
    assert_eq!(second.heard().await, "prompts/list_changed");
    // And so on, as often as it likes.
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
async fn null_a_byte_order_mark_and_integers_with_a_point_are_read_as_they_are_meant() {
    let mut table = Table::start().await;
    let session = Client::connect(&table.server, Lane::HTTP_LEGACY).await.session().to_owned();
    let list = |id: &str, rest: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"{rest}}}"#)
    };
    let call = |arguments: &str| {
        let params =
            format!(r#"{{"name":"sum","arguments":{arguments},"_meta":null,"task":null}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    };
    let rows = [
        (list("1", r#","params":null"#), json!(1)),
        (list("1", r#","params":null,"result":null,"error":null"#), json!(1)),
        (list("1", r#","params":{"cursor":null,"_meta":{"progressToken":null}}"#), json!(1)),
        (list("1", r#","params":{"_meta":{"progressToken":1.5}}"#), json!(1)),
        (list("1", r#","params":{"_meta":{"progressToken":1e999}}"#), json!(1)),
        (list("1.0", ""), json!(1)),
        (list("1e2", ""), json!(100)),
        (list("18446744073709551615", ""), json!(18_446_744_073_709_551_615_u64)),
        (format!("\u{feff}{}", list("1", "")), json!(1)),
        (call(r#"{"a":1.0,"b":2e0}"#), json!(1)),
        (call(r#"{"a":-0.0,"b":3.000}"#), json!(1)),
    ];
    for (body, id) in rows {
        let call = Call::legacy(&session, &json!(0)).body(body.clone());
        let answer = table.row(&body, call, 200, None).await;
        assert_eq!(answer["id"], id, "{body}");
        if body.contains("sum") {
            assert_eq!(answer["result"]["structuredContent"]["sum"], 3, "{body}: {answer}");
        }
    }
    table.holds();
}

#[tokio::test]
async fn a_session_without_a_sign_of_life_ends() {
    let server = Server::tuned(|config, _| {
        config.session_idle_timeout = Duration::from_millis(1_500);
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
    // The others, older than the idle one, were busy.
    reading.nudge().await;
    server.engine.send_tool_list_changed();
    assert_eq!(notices.heard().await, "tools/list_changed");
    server.stage.release("a");
    assert_eq!(call.answer().await.text(), "held");
}

#[tokio::test]
async fn sessions_over_the_limit_are_refused_until_one_ends() {
    let server = Server::tuned(|config, _| config.max_sessions = 2).await;
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
    // Other requests need none.
    assert_eq!(listener.call("echo", json!({"text": "hello"})).await.text(), "hello");
    drop(listen);
    eventually("the listen's place to be free", async || open().await == 200).await;
    assert_eq!(open().await, 503);
    first.leave().await;
    eventually("the session's place to be free", async || open().await == 200).await;
}

// Listening

/// Changes everything there is to hear of, then sends the mark.
async fn change_everything(server: &Server) {
    server.settle().await;
    server.engine.send_tool_list_changed();
    server.engine.send_prompt_list_changed();
    server.engine.send_resource_list_changed();
    server.engine.send_resource_updated("test://a");
    server.engine.send_resource_updated("test://b");
    server.mark().await;
}

async fn heard_sorted(notices: &mut Notices) -> Vec<String> {
    let mut heard = notices.until_mark().await;
    heard.sort();
    heard
}

#[tokio::test]
async fn a_listen_is_acknowledged_first_and_hears_what_it_asked_for_and_nothing_else() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let marked = json!([MARK]);
        for (filter, expected) in [
            (json!({"resourceSubscriptions": marked}), vec![]),
            (
                json!({"toolsListChanged": true, "resourceSubscriptions": marked}),
                vec!["tools/list_changed"],
            ),
            (
                json!({"promptsListChanged": true, "resourceSubscriptions": marked}),
                vec!["prompts/list_changed"],
            ),
            (
                json!({"resourcesListChanged": true, "resourceSubscriptions": marked}),
                vec!["resources/list_changed"],
            ),
            (
                json!({"toolsListChanged": false, "promptsListChanged": true,
                    "resourceSubscriptions": [MARK, "test://b"]}),
                vec!["prompts/list_changed", "resources/updated test://b"],
            ),
        ] {
            let mut notices = client.listen(filter.clone()).await;
            let mut granted = filter;
            // What is not asked for is not granted either.
            granted.as_object_mut().expect("an object").retain(|_, value| *value != false);
            assert_eq!(notices.granted, granted);
            change_everything(&server).await;
            assert_eq!(heard_sorted(&mut notices).await, expected);
            client.stop_listening(notices).await;
        }
    }
}

#[tokio::test]
async fn several_listens_at_once_are_told_apart_by_their_ids() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let tools = json!({"toolsListChanged": true, "resourceSubscriptions": [MARK]});
        let uris = json!({"resourceSubscriptions": ["test://a", MARK]});
        // That each message carries the right id, with its type, is checked by `Notices`.
        let mut number = client.listen_as(json!(700), tools.clone()).await;
        let mut text = client.listen_as(json!("700"), uris).await;
        let mut all = client.hear(&["test://a"]).await;
        change_everything(&server).await;
        assert_eq!(heard_sorted(&mut number).await, ["tools/list_changed"]);
        assert_eq!(heard_sorted(&mut text).await, ["resources/updated test://a"]);
        let expected = [
            "prompts/list_changed",
            "resources/list_changed",
            "resources/updated test://a",
            "tools/list_changed",
        ];
        assert_eq!(heard_sorted(&mut all).await, expected);
        if lane == Lane::STDIO_MODERN {
            let params = json!({"notifications": tools});
            let again = client.request_as(json!("700"), "subscriptions/listen", params).await;
            assert_eq!(again.answer().await.error()["code"], -32600, "the id is in use");
            // The harness now reads "700" from the refused one; the other two go on.
            change_everything(&server).await;
            assert_eq!(heard_sorted(&mut number).await, ["tools/list_changed"]);
            assert_eq!(heard_sorted(&mut all).await, expected);
            continue;
        }
        // The end of one is not the end of the others.
        client.stop_listening(number).await;
        change_everything(&server).await;
        assert_eq!(heard_sorted(&mut text).await, ["resources/updated test://a"]);
        assert_eq!(heard_sorted(&mut all).await, expected);
    }
}

#[tokio::test]
async fn a_listen_for_nothing_in_particular_is_refused_and_one_for_nothing_ends_at_once() {
    let mut table = Table::start().await;
    for params in [
        json!({}),
        json!({"notifications": []}),
        json!({"notifications": {"toolsListChanged": "yes"}}),
        json!({"notifications": {"resourceSubscriptions": "test://a"}}),
        json!({"notifications": {"resourceSubscriptions": [7]}}),
    ] {
        let call = modern("subscriptions/listen", params.clone());
        table.error(&params.to_string(), call, 200, -32602, &json!(1)).await;
    }
    let client = Client::connect(&table.server, Lane::HTTP_MODERN).await;
    for nothing in [
        json!({}),
        json!({"toolsListChanged": false, "resourceSubscriptions": []}),
        json!({"toolsListChanged": null, "resourceSubscriptions": null, "taskIds": null}),
        json!({"moonPhasesChanged": true}),
    ] {
        for lane in [Lane::HTTP_MODERN, Lane::STDIO_MODERN] {
            let client = Client::connect(&table.server, lane).await;
            let listen = client.listen(nothing.clone()).await;
            assert_eq!(listen.granted, json!({}), "{nothing}");
            let ended = listen.end().await.expect("a result");
            assert_eq!(ended["result"]["resultType"], "complete", "{nothing}");
            assert_eq!(client.call("echo", json!({"text": "on"})).await.text(), "on");
        }
    }
    let resources = json!({"resourceSubscriptions": ["test://a", "test://a"]});
    let mut twice = client.listen(resources).await;
    assert_eq!(twice.granted, json!({"resourceSubscriptions": ["test://a"]}));
    change_everything(&table.server).await;
    table.server.begin_shutdown().await;
    assert_eq!(twice.heard().await, "resources/updated test://a");
    let last = twice.end().await.expect("a result");
    assert_eq!(last["result"]["resultType"], "complete", "it heard of each once");
    table.holds();
}

// Pipes

#[tokio::test]
async fn one_pipe_serves_both_eras() {
    let server = Server::start().await;
    let mut pipe = RawPipe::open(&server);
    let tools = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let meta = json!({META_VERSION: MODERN_VERSION, META_CAPABILITIES: {}});
    let modern = |id: &str, method: &str, notifications: Value| {
        let params = json!({"_meta": meta, "notifications": notifications});
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
    };
    // A modern request needs no handshake, and is none.
    pipe.line(modern("m1", "server/discover", json!({}))).await;
    assert_eq!(pipe.next().await.expect("an answer")["result"]["resultType"], "complete");
    pipe.line(tools.to_string()).await;
    assert_eq!(pipe.next().await.expect("an answer")["error"]["code"], -32600);
    pipe.line(ping(2).to_string()).await;
    assert_eq!(pipe.next().await.expect("an answer")["result"], json!({}));

    pipe.line(initialize("2025-06-18").to_string()).await;
    let answer = pipe.next().await.expect("an answer");
    assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
    pipe.line(tools.to_string()).await;
    let legacy = pipe.next().await.expect("an answer");
    assert_eq!(legacy["result"].get("resultType"), None);
    pipe.line(modern("m2", "tools/list", json!({}))).await;
    let answer = pipe.next().await.expect("an answer");
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(answer["result"]["tools"], legacy["result"]["tools"]);
    pipe.line(initialize("2025-06-18").to_string()).await;
    assert_eq!(pipe.next().await.expect("an answer")["error"]["code"], -32600);

    // Each era hears a change in its own way.
    pipe.line(modern("m3", "subscriptions/listen", json!({"toolsListChanged": true}))).await;
    let acknowledged = pipe.next().await.expect("an acknowledgment");
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    server.engine.send_tool_list_changed();
    let mut subscriptions = Vec::new();
    for _ in 0..2 {
        let notice = pipe.next().await.expect("a notice");
        assert_eq!(notice["method"], "notifications/tools/list_changed");
        let id = &notice["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        subscriptions.push(id.clone());
    }
    subscriptions.sort_by_key(Value::to_string);
    assert_eq!(subscriptions, [json!("m3"), Value::Null]);
    pipe.line(modern("m4", "no/such/method", json!({}))).await;
    assert_eq!(pipe.next().await.expect("an answer")["error"]["code"], -32601);
}

#[tokio::test]
async fn a_modern_request_on_a_pipe_needs_its_meta_and_a_known_version() {
    let server = Server::start().await;
    let mut pipe = RawPipe::open(&server);
    for (meta, code) in [
        (json!({META_VERSION: "v999.0.0", META_CAPABILITIES: {}}), -32022),
        (json!({META_VERSION: MODERN_VERSION}), -32602),
        (json!({META_VERSION: 7, META_CAPABILITIES: {}}), -32602),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list",
            "params": {"_meta": meta}});
        pipe.line(request.to_string()).await;
        let answer = pipe.next().await.expect("an answer");
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(code), &json!("a")),
            "{meta}"
        );
        if code == -32022 {
            assert_eq!(answer["error"]["data"]["requested"], "v999.0.0");
            assert_eq!(answer["error"]["data"]["supported"][0], MODERN_VERSION);
        }
    }
}

/// One that is longer than a line may be.
fn long_ping(id: Value) -> Vec<u8> {
    let padding = "x".repeat(stentor::stdio::MAX_LINE);
    let ping = json!({"params": {"a": padding}, "jsonrpc": "2.0", "method": "ping", "id": id});
    ping.to_string().into_bytes()
}

#[tokio::test]
async fn garbage_on_a_pipe_is_answered_and_the_next_line_is_read() {
    let server = Server::start().await;
    let mut pipe = RawPipe::open(&server);
    for (line, code, id) in [
        (b"hello".to_vec(), -32700, Value::Null),
        (b"{\"jsonrpc\":\"2.0\",".to_vec(), -32700, Value::Null),
        (b"\xff\xfe".to_vec(), -32700, Value::Null),
        (b"[]".to_vec(), -32600, Value::Null),
        (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}".to_vec(), -32600, Value::Null),
        (b"{\"jsonrpc\":\"2.0\",\"id\":5}".to_vec(), -32600, json!(5)),
        (vec![b'x'; stentor::stdio::MAX_LINE + 1], -32600, Value::Null),
        (long_ping(json!(9)), -32600, json!(9)),
        (long_ping(json!("nine")), -32600, json!("nine")),
    ] {
        pipe.line(&line).await;
        let refused = pipe.next().await.expect("an answer");
        assert_eq!(refused["error"]["code"], code, "{refused}");
        assert_eq!(refused.get("id").cloned().unwrap_or_default(), id);
        // Empty lines are nothing, and the end of a line may be that of Windows.
        pipe.line(format!("\n  \n{}\r", ping(1))).await;
        assert_eq!(
            pipe.next().await.expect("an answer"),
            json!({"jsonrpc": "2.0", "id": 1, "result": {}})
        );
    }
    let mut long = ping(2).to_string();
    long.push_str(&" ".repeat(stentor::stdio::MAX_LINE - long.len()));
    pipe.line(long).await;
    assert_eq!(pipe.next().await.expect("an answer")["id"], 2, "a line that just fits");
}

/// A pipe on which a modern call of `hold` waits.
async fn holding(server: &Server) -> RawPipe {
    let mut pipe = RawPipe::open(server);
    let meta = json!({META_VERSION: MODERN_VERSION, META_CAPABILITIES: {}});
    let params = json!({"name": "hold", "arguments": {"name": "a"}, "_meta": meta});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    pipe.line(call.to_string()).await;
    server.stage.reached("a", Phase::Waiting).await;
    pipe
}

#[tokio::test]
async fn what_was_asked_before_the_end_of_the_input_is_answered() {
    let server = Server::start().await;
    let mut pipe = holding(&server).await;
    pipe.line(initialize("2025-11-25").to_string()).await;
    // The last line needs no end.
    pipe.bytes(ping(2).to_string()).await;
    pipe.close().await;
    assert_eq!(pipe.next().await.expect("an answer")["id"], "init");
    assert_eq!(pipe.next().await.expect("an answer")["id"], 2);
    server.stage.release("a");
    assert_eq!(pipe.next().await.expect("an answer")["result"]["content"][0]["text"], "held");
    assert_eq!(pipe.next().await, None);
    pipe.served().await.expect("the pipe ended well");
    eventually("its session to end", async || server.activity().await.sessions.is_empty()).await;
    // The engine goes on.
    Client::connect(&server, Lane::STDIO_LEGACY).await.leave().await;
}

#[tokio::test]
async fn a_call_that_outlives_its_pipe_is_stopped_after_the_drain_time() {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let mut pipe = holding(&server).await;
    pipe.close().await;
    server.stage.reached("a", Phase::Stopped).await;
    pipe.served().await.expect("the pipe ended well");
}
