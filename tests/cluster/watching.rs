//! Hooks of resources that clients of several nodes watch.

use serde_json::json;
use stentor_tests::{Client, Era, Nodes, eventually};

use crate::NODE;

const URI: &str = "hooked://orders";

/// Waits until exactly one node watches, and returns its name.
async fn watching(nodes: &Nodes) -> String {
    let mut found = String::new();
    eventually("one node to watch", async || {
        let mut all = Vec::new();
        for node in nodes.all() {
            if node.hooks(URI).await.last() == Some(&true) {
                all.push(node.name.clone());
            }
        }
        found = all.first().cloned().unwrap_or_default();
        all.len() == 1
    })
    .await;
    found
}

/// Checks that watch and unwatch took turns on all nodes.
async fn took_turns(nodes: &Nodes) {
    for node in nodes.all() {
        let hooks = node.hooks(URI).await;
        let turns = hooks.iter().enumerate().all(|(at, begins)| *begins == (at % 2 == 0));
        assert!(turns, "{}: {hooks:?}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_watches_for_all_and_another_one_takes_over_when_it_dies_or_leaves() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    nodes.whole().await;
    let first = Client::at(nodes["a"].http(), Era::Legacy, json!({})).await;
    let first_notices = first.hear(&[URI]).await;
    let runner = watching(&nodes).await;
    let others: Vec<_> = nodes.names().filter(|name| **name != runner).cloned().collect();
    let legacy = Client::at(nodes[&others[0]].http(), Era::Legacy, json!({})).await;
    let legacy_notices = legacy.hear(&["HOOKED://orders"]).await;
    let modern = Client::at(nodes[&others[1]].http(), Era::Modern, json!({})).await;
    let modern_notices = modern.hear(&[URI]).await;
    first.ask("resources/unsubscribe", json!({"uri": URI})).await;
    drop(first_notices);
    for node in nodes.all() {
        let expected: &[bool] = if node.name == runner { &[true] } else { &[] };
        assert_eq!(node.hooks(URI).await, expected, "{}", node.name);
    }

    nodes.take(&runner).kill().await;
    let next = watching(&nodes).await;
    assert_eq!(nodes[&next].hooks(URI).await, [true]);
    // It has the highest rank for this URI, so the watch moves back, and away when it leaves.
    nodes.start(&runner).await;
    eventually("the watch to move back", async || nodes[&runner].hooks(URI).await == [true]).await;
    assert_eq!(watching(&nodes).await, runner);
    assert_eq!(nodes[&next].hooks(URI).await, [true, false]);
    nodes.take(&runner).terminate().await;
    assert_eq!(watching(&nodes).await, next);

    drop(modern_notices);
    legacy.ask("resources/unsubscribe", json!({"uri": URI})).await;
    drop(legacy_notices);
    eventually("nobody to watch", async || {
        nodes[&next].hooks(URI).await == [true, false, true, false]
    })
    .await;
    took_turns(&nodes).await;
}
