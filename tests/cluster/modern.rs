//! Modern requests have no session, so any node can serve them.

use serde_json::{Value, json};
use stentor_tests::{Client, Era, Nodes, Phase, eventually};

use crate::NODE;

/// One client with these capabilities for each node.
async fn clients(nodes: &Nodes, capabilities: Value) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in nodes.all() {
        clients.push(Client::at(node.http(), Era::Modern, capabilities.clone()).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_through_any_node() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let clients = clients(&nodes, json!({"elicitation": {"form": {}}})).await;
    for tool in ["ask-a", "ask-b", "ask-c"] {
        for (asked, answered) in [(0, 1), (1, 2), (2, 0), (1, 1)] {
            let result = clients[asked].call(tool, json!({})).await.result().clone();
            assert_eq!(result["resultType"], "input_required", "{result}");
            let keys = result["inputRequests"].as_object().expect("questions").keys();
            let answers = keys
                .map(|key| (key.clone(), json!({"action": "accept", "content": {"name": "Ann"}})));
            let params = json!({
                "name": tool, "arguments": {}, "requestState": result["requestState"],
                "inputResponses": answers.collect::<serde_json::Map<_, _>>(),
            });
            let done = clients[answered].request("tools/call", params.clone()).await.answer().await;
            assert_eq!(done.text(), "Hello, Ann!", "{tool} {asked} {answered}");
            // A state token is valid once, on whatever node it is used.
            let again = clients[2].request("tools/call", params).await.answer().await;
            assert!(again.error()["code"].is_i64());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_polled_and_cancelled_through_any_node() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let clients = clients(&nodes, tasks).await;
    for owner in ["a", "b", "c"] {
        for (n, client) in clients.iter().enumerate() {
            let names = [format!("ends-{n}"), format!("cancelled-{n}")];
            let mut ids = Vec::new();
            for name in &names {
                let begun = client.call(&format!("task-{owner}"), json!({"name": name})).await;
                let task = begun.result();
                assert_eq!(task["resultType"], "task", "{task}");
                ids.push(task["taskId"].as_str().expect("an id").to_owned());
                nodes[owner].reached(name, Phase::Waiting).await;
            }
            for other in &clients {
                for id in &ids {
                    let task = other.ask("tasks/get", json!({"taskId": id})).await;
                    assert_eq!(task["status"], "working", "{task}");
                }
            }
            let other = &clients[(n + 1) % 3];
            other.ask("tasks/cancel", json!({"taskId": ids[1]})).await;
            nodes[owner].reached(&names[1], Phase::Stopped).await;
            nodes[owner].run(stentor_tests::NodeOrder::Release(names[0].clone())).await;
            for (id, status) in ids.iter().zip(["completed", "cancelled"]) {
                for other in &clients {
                    eventually(format_args!("{id} to be {status}"), async || {
                        let task = other.ask("tasks/get", json!({"taskId": id})).await;
                        task["status"] == status
                    })
                    .await;
                }
            }
        }
    }
    let none = clients[0].request("tasks/get", json!({"taskId": "b.none"})).await.answer().await;
    assert!(none.error()["code"].is_i64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paced_progress_through_another_node_loses_nothing() {
    let nodes = Nodes::of(NODE, &["a", "b"]).await;
    for era in [Era::Legacy, Era::Modern] {
        let client = Client::at(nodes["a"].http(), era, json!({})).await;
        let meta = json!({"progressToken": "p"});
        let call = client.start_with("paced-b", json!({"count": 5_000}), meta).await;
        let answer = call.answer().await;
        assert_eq!(answer.text(), "counted");
        let expected: Vec<_> = (1..=5_000).map(f64::from).collect();
        assert_eq!(answer.progress(), expected, "{era:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_call_ends_when_its_client_disconnects() {
    let nodes = Nodes::of(NODE, &["a", "b"]).await;
    let client = Client::at(nodes["a"].http(), Era::Modern, json!({})).await;
    let meta = json!({"progressToken": "p"});
    let mut call = client.start_with("hold-b", json!({"name": "left"}), meta).await;
    assert_eq!(call.next().await.expect("progress")["params"]["progress"], 1.0);
    drop(call);
    nodes["b"].reached("left", Phase::Stopped).await;
    for node in nodes.all() {
        eventually("nothing to be left", async || {
            let census = node.census().await;
            (census.calls, census.peer_requests, census.held) == (0, (0, 0), 0)
        })
        .await;
    }
}
