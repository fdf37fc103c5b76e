//! Headers: what HTTP itself demands, who may call, and what must be the same as in the body.

use http::Method;
use serde_json::{Value, json};
use stentor::http::OriginPolicy;
use stentor_tests::{Call, Client, Lane, META_CAPABILITIES, Server};

use crate::{Table, echo, initialize, modern, ping};

// Headers that mirror the body

#[tokio::test]
async fn headers_that_differ_from_the_body_are_refused() {
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
    table.check();
}

/// A client that is in use sends no `Mcp-Name`.
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
        // The task does not exist; the server finds that out after it has accepted the headers.
        for (what, call) in [
            ("no name", call().without("mcp-name")),
            ("the name", call()),
            ("the name, encoded", call().with("mcp-name", "=?base64?bm93aGVyZQ==?=")),
        ] {
            table.error(&format!("{method}, {what}"), call, 200, -32602, &json!(1)).await;
        }
    }
    table.check();
}

#[tokio::test]
async fn a_duplicate_header_is_refused() {
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
    table.check();
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
    table.check();
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
    table.check();
}

#[tokio::test]
async fn a_server_can_configure_which_origins_may_call() {
    let policy = OriginPolicy::hosts(["mcp.example"]).with_origin("https://app.example");
    let mut table = Table::of(Server::tuned(|_, http| http.origins = policy).await);
    let call = || echo().with("host", "mcp.example");
    table.row("its host", call(), 200, None).await;
    table.row("its page", call().with("origin", "https://app.example"), 200, None).await;
    table.row("another page", call().with("origin", "https://b.example"), 403, Some(-32600)).await;
    table.row("localhost", echo(), 403, Some(-32600)).await;
    table.check();
}
