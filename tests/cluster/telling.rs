//! Notices that start on one node reach the clients of all nodes.

use serde_json::json;
use stentor_tests::{Client, NodeOrder, Nodes, eventually};

use crate::{NODE, agreed, all_heard, audience, nothing_to_tell, quiet};

const TOOLS: &str = "tools/list_changed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_of_any_node_is_shown_by_all_and_each_change_is_announced_once() {
    let nodes = quiet(&["a", "b", "c"]).await;
    let mut audience = audience(&nodes, &[]).await;
    for node in nodes.all() {
        let tool = format!("new-on-{}", node.name);
        node.put(&tool, "new").await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, TOOLS, "{client:?}");
            // No mark in between: a client that was notified must find the tool and be able to call
            // it at once.
            assert!(client.list("tools").await.contains(&tool));
            assert_eq!(client.call(&tool, json!({})).await.text(), node.name);
        }
        all_heard(&nodes, &node.name, &mut audience, &[]).await;
        node.put(&tool, "with another description").await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, TOOLS, "{client:?}");
        }
        all_heard(&nodes, &node.name, &mut audience, &[]).await;
        node.put(&tool, "with another description").await;
        all_heard(&nodes, &node.name, &mut audience, &[]).await;
        node.remove(&tool).await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, TOOLS, "{client:?}");
            assert!(!client.list("tools").await.contains(&tool));
            let error = client.call(&tool, json!({})).await.error().clone();
            assert_eq!(error["message"], format!("unknown tool: {tool}"));
        }
        all_heard(&nodes, &node.name, &mut audience, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_notifications_of_one_node_arrive_once_on_all() {
    let nodes = quiet(&["a", "b", "c"]).await;
    let mut audience = audience(&nodes, &["test://watched"]).await;
    for (n, node) in (1..).zip(nodes.all()) {
        node.run(NodeOrder::Touch("test://watched".to_owned())).await;
        node.run(NodeOrder::Touch("test://nobody".to_owned())).await;
        all_heard(&nodes, &node.name, &mut audience, &["resources/updated test://watched"]).await;
        let numbers = vec![10 * n, 10 * n + 1, 10 * n + 2];
        node.run(NodeOrder::Tell(numbers.clone())).await;
        nodes.mark(&node.name).await;
        for (client, notices) in &mut audience {
            let mut told = Vec::new();
            loop {
                let notice = notices.next().await.expect("a notice");
                let params = &notice["params"];
                match params["n"].as_u64() {
                    Some(n) => told.push(n),
                    None => break assert_eq!(params["uri"], stentor_tests::MARK, "{notice}"),
                }
            }
            // The protocol limits the notices of modern clients to those that they listen for.
            let expected = if client.lane().is_legacy() { &numbers[..] } else { &[] };
            assert_eq!(told, expected, "{client:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_of_several_nodes_is_one_and_stays_until_the_last_has_removed_it() {
    let nodes = quiet(&["a", "b", "c"]).await;
    nodes["a"].put("same", "the same").await;
    agreed(&nodes, |tools| tools.iter().any(|it| it == "same")).await;
    nothing_to_tell(&nodes).await;
    let mut audience = audience(&nodes, &[]).await;
    nodes["b"].put("same", "the same").await;
    all_heard(&nodes, "b", &mut audience, &[]).await;
    for (client, _) in &audience {
        let found = client.list("tools").await.into_iter().filter(|it| it == "same").count();
        assert_eq!(found, 1);
    }
    // Calls alternate between the two nodes.
    let third = Client::at(nodes["c"].http(), stentor_tests::Era::Modern, json!({})).await;
    let mut by = Vec::new();
    for _ in 0..4 {
        by.push(third.call("same", json!({})).await.text().to_owned());
    }
    by.sort();
    assert_eq!(by, ["a", "a", "b", "b"]);
    nodes["a"].remove("same").await;
    all_heard(&nodes, "a", &mut audience, &[]).await;
    for (client, _) in &audience {
        assert_eq!(client.call("same", json!({})).await.text(), "b");
    }
    nodes["b"].remove("same").await;
    for (client, notices) in &mut audience {
        assert_eq!(notices.heard().await, TOOLS, "{client:?}");
        assert!(!client.list("tools").await.contains(&"same".to_owned()));
    }
    all_heard(&nodes, "b", &mut audience, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_define_a_tool_differently_show_the_same_one_everywhere() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let shown = async |description: &str, conflict: bool| {
        eventually(format_args!("all to show '{description}'"), async || {
            for node in nodes.all() {
                let census = node.census().await;
                let found = census.conflicts.contains(&"tool".to_owned());
                let client = Client::at(node.http(), stentor_tests::Era::Modern, json!({})).await;
                let page = client.ask("tools/list", json!({})).await;
                let tools = page["tools"].as_array().expect("a list");
                let tool = tools.iter().find(|tool| tool["name"] == "tool");
                let said = tool.and_then(|tool| tool["description"].as_str());
                if said != Some(description) || found != conflict {
                    return false;
                }
            }
            true
        })
        .await;
    };
    nodes["c"].put("tool", "one").await;
    shown("one", false).await;
    // On a tie, the smaller description wins.
    nodes["a"].put("tool", "another").await;
    shown("another", true).await;
    // The description of the majority wins.
    nodes["b"].put("tool", "one").await;
    shown("one", true).await;
    for (node, at) in [("b", "a"), ("c", "b"), ("c", "c"), ("b", "a")] {
        let client = Client::at(nodes[at].http(), stentor_tests::Era::Modern, json!({})).await;
        let by = client.call("tool", json!({})).await.text().to_owned();
        assert!(["b", "c"].contains(&&*by), "{node} {by}");
    }
    nodes["b"].remove("tool").await;
    shown("another", true).await;
    nodes["a"].put("tool", "one").await;
    shown("one", false).await;
}
