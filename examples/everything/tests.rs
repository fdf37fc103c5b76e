//! Any client may call a tool with any arguments: calls that would take too much memory or time are
//! refused.

use std::time::Duration;

use serde_json::{Value, json};
use stentor::Engine;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::parts::everything;

async fn called(engine: &Engine, tool: &str, arguments: &Value) -> Value {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(server);
    let (hears, mut says) = tokio::io::split(client);
    let asking = async {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        says.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(hears).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("an answer");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["id"] == 1 {
                return said;
            }
        }
    };
    tokio::select! {
        served = stentor::stdio::serve_on(engine, reader, writer) => panic!("{served:?}"),
        answer = timeout(Duration::from_secs(30), asking) => answer.expect("an answer in time"),
    }
}

#[tokio::test]
async fn no_argument_of_a_tool_takes_unbounded_memory_or_time() {
    let engine = everything(Engine::builder("test", "1")).start().await.unwrap();
    let names: Vec<_> = (0..1_001).map(|name| format!("tool{name}")).collect();
    for (tool, arguments) in [
        ("flood", json!({"n": 1, "bytes": i64::MAX})),
        ("flood", json!({"n": 1, "bytes": u64::MAX})),
        ("flood", json!({"n": 1, "bytes": 1_000_000_000})),
        ("flood", json!({"n": u32::MAX, "bytes": 1})),
        ("burst", json!({"n": u32::MAX})),
        ("progress", json!({"n": u32::MAX})),
        ("sleep", json!({"ms": u64::MAX})),
        ("slow_tool", json!({"seconds": -1.0})),
        ("slow_tool", json!({"seconds": f64::MAX})),
        ("slow_compute", json!({"seconds": -1})),
        ("slow_compute", json!({"seconds": f64::MAX})),
        ("slow_compute", json!({"seconds": 0, "label": "x".repeat(1_000)})),
        ("add_tool", json!({"name": "x".repeat(1_000)})),
        ("replace_tools", json!({"names": names})),
        ("replace_tools", json!({"names": ["x".repeat(1_000)]})),
    ] {
        let answer = called(&engine, tool, &arguments).await;
        let refused = answer.get("error").is_some() || answer["result"]["isError"] == true;
        assert!(refused, "{tool} {answer}");
        let said = answer.to_string();
        assert!(!said.contains("panic"), "{tool} {said}");
    }
    // The largest accepted values.
    let answer = called(&engine, "flood", &json!({"n": 1, "bytes": 65_536})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    let answer = called(&engine, "replace_tools", &json!({"names": names[..1_000]})).await;
    assert_ne!(answer["result"]["isError"], true, "{answer}");
    let answer = called(&engine, "add_tool", &json!({"name": "one_more"})).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
}
