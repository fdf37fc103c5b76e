//! Pipes: both eras on one, garbage, and the end of the input.

use std::time::Duration;

use serde_json::{Value, json};
use stentor_tests::{
    Client, Lane, META_CAPABILITIES, META_VERSION, MODERN_VERSION, Phase, RawPipe, Server,
    eventually,
};

use crate::{initialize, ping};

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
    // A modern request needs no handshake, and is not a handshake.
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

    // Each era is notified of a change in its own way.
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

/// A ping that is longer than the allowed length of a line.
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
        // Empty lines are ignored, and a line may end as on Windows.
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

/// A pipe with a waiting modern call of `hold`.
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
async fn requests_before_the_end_of_the_input_are_answered() {
    let server = Server::start().await;
    let mut pipe = holding(&server).await;
    pipe.line(initialize("2025-11-25").to_string()).await;
    // The last line needs no line end.
    pipe.bytes(ping(2).to_string()).await;
    pipe.close().await;
    assert_eq!(pipe.next().await.expect("an answer")["id"], "init");
    assert_eq!(pipe.next().await.expect("an answer")["id"], 2);
    server.stage.release("a");
    assert_eq!(pipe.next().await.expect("an answer")["result"]["content"][0]["text"], "held");
    assert_eq!(pipe.next().await, None);
    pipe.served().await.expect("the pipe ended well");
    eventually("its session to end", async || server.activity().await.sessions.is_empty()).await;
    // The engine continues.
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
