//! Messages that are refused, and unusual ones that are accepted.

use serde_json::{Value, json};
use stentor_tests::{Call, Client, Lane, MODERN_VERSION, Server};

use crate::{Table, modern};

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
    table.check();
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

#[tokio::test]
async fn null_a_byte_order_mark_and_integers_with_a_point_are_accepted() {
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
    table.check();
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
    table.check();
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
