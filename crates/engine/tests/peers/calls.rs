//! Calls of remote tools: their progress, questions and end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use stentor_engine::{Context, Engine, tool};
use stentor_wire::ProtocolVersion;
use tokio::sync::Notify;

use crate::nodes::Nodes;
use crate::support::{self, Client, methods};
use crate::{answered, ask, modern, two, until};

#[tokio::test]
async fn a_legacy_call_of_a_remote_tool_is_a_call_like_any_other() {
    let (_nodes, near, _far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await;
    let (listed, _) = client.answer(1).await;
    assert!(listed.to_string().contains(r#""steps""#), "{listed}");

    client.call(2, "steps").await;
    let (answer, before) = client.answer(2).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    let of = |method: &str| before.iter().filter(|it| it["method"] == method).collect::<Vec<_>>();
    let progress: Vec<_> =
        of("notifications/progress").iter().map(|it| it["params"]["progress"].as_f64()).collect();
    assert_eq!(progress, (1..=100).map(|step| Some(f64::from(step))).collect::<Vec<_>>());
    assert_eq!(of("notifications/progress")[0]["params"]["progressToken"], 2);
    assert_eq!(of("notifications/message").len(), 100);
    assert_eq!(before.last().unwrap()["method"], "notifications/own");

    client.call(3, "panic").await;
    let (answer, _) = client.answer(3).await;
    assert_eq!(answer["error"]["message"], "the tool 'panic' panicked");
}

#[tokio::test]
async fn a_question_of_a_remote_tool_reaches_the_client_and_its_answer_the_tool() {
    let (_nodes, near, _far) = two().await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "ask").await;
    let question = client.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({"action": "accept", "content": {"name": "Ann"}});
    client.send(json!({"jsonrpc": "2.0", "id": question["id"], "result": answer})).await;
    let (answer, _) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "Hello, Ann!", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_a_remote_tool_gives_up_is_withdrawn() {
    let nodes = Nodes::default();
    let far = support::engine()
        .tool(tool("ask", ask))
        .configure(|config| config.calls.ask_timeout = std::time::Duration::from_secs(5));
    let _far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "ask").await;
    let question = client.next().await.unwrap();
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let taken_back = before.iter().find(|it| it["method"] == "notifications/cancelled");
    assert_eq!(taken_back.unwrap()["params"]["requestId"], question["id"]);
}

#[tokio::test(start_paused = true)]
async fn questions_of_a_remote_tool_wait_there_for_a_client_that_does_not_read() {
    let (nodes, asked) = (Nodes::default(), Arc::new(AtomicUsize::new(0)));
    let far = support::engine().tool(support::impatient(10_000, asked.clone()));
    let far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "impatient").await;
    while asked.load(Ordering::Relaxed) < 10_000 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    for engine in [&near, &far] {
        let held = engine.counters().held;
        assert!(held < (1 << 20) + (1 << 17), "{} {held}", engine.node());
    }
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "nobody is there");
    let count = |method: &str| before.iter().filter(|it| it["method"] == method).count();
    assert_eq!(count("elicitation/create"), count("notifications/cancelled"));
}

#[tokio::test]
async fn a_modern_retry_finds_the_call_that_waits_through_any_node() {
    let (nodes, near, far) = two().await;
    let third = nodes.start("third", Engine::builder("test", "1")).await;
    let capabilities = json!({"elicitation": {}});
    let params = json!({"name": "ask"});
    let asked = answered(&near, modern(1, "tools/call", params, capabilities.clone())).await;
    let result = &asked["result"];
    assert_eq!(result["resultType"], "input_required", "{asked}");
    let key = result["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let params = json!({
        "name": "ask", "requestState": result["requestState"],
        "inputResponses": {key: {"action": "accept", "content": {"name": "Ann"}}},
    });
    let done = answered(&third, modern(2, "tools/call", params, capabilities)).await;
    assert_eq!(done["result"]["content"][0]["text"], "Hello, Ann!", "{done}");
    assert_eq!(done["id"], 2);
    assert_eq!(far.calls().len(), 0);
}

#[tokio::test]
async fn a_remote_call_is_cancelled_when_its_client_cancels_it_or_disconnects() {
    let (_nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "wait").await;
    until(|| far.calls().len() == 1).await;
    let params = json!({"requestId": 1});
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
        .await;
    until(|| far.calls().is_empty()).await;
    assert_eq!(methods(&client.ping().await), [""; 0], "nothing follows");

    let request = modern(1, "tools/call", json!({"name": "wait"}), json!({}));
    let answer = near.answer(ProtocolVersion::V2026_07_28, request, None).await.unwrap();
    until(|| far.calls().len() == 1).await;
    drop(answer);
    until(|| far.calls().is_empty()).await;
}

#[tokio::test]
async fn when_a_node_is_lost_its_callers_get_an_error_at_once() {
    let (nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "wait").await;
    until(|| far.calls().len() == 1).await;
    nodes.lose("far");
    far.actor().kill();
    let (answer, before) = client.answer(1).await;
    let mut heard = methods(&before);
    heard.sort_unstable();
    let lists = ["notifications/resources/list_changed", "notifications/tools/list_changed"];
    assert_eq!(heard, lists);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("shutting down") || message.contains("has gone"), "{answer}");
    client.call(2, "wait").await;
    let (answer, _) = client.answer(2).await;
    assert_eq!(answer["error"]["message"], "unknown tool: wait");
}

#[tokio::test]
async fn a_slow_client_holds_up_a_remote_tool_that_waits_for_it() {
    let nodes = Nodes::default();
    let (reported, all_reported) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0_u32)));
    let count = all_reported.clone();
    let floods = tool("floods", move |ctx: Context| {
        let (reported, count) = (reported.clone(), count.clone());
        async move {
            for step in 1..=100_000 {
                ctx.report_progress_paced(f64::from(step), None, "").await;
                *count.lock().unwrap() = step;
            }
            reported.notify_one();
            "done"
        }
    });
    let _far = nodes.start("far", Engine::builder("test", "1").tool(floods)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "floods").await;
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 200 {
        tokio::task::yield_now().await;
    }
    assert!(*all_reported.lock().unwrap() < 50_000, "it is far ahead of its client");
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    assert_eq!(before.len(), 100_000, "and loses nothing");
}
