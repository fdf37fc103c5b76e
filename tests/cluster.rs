//! Several nodes as one server, each in its own process, which tests kill, freeze and disconnect.

// The tests print their measurements.
#![allow(clippy::print_stdout)]

#[path = "cluster/enduring.rs"]
mod enduring;
#[path = "cluster/events.rs"]
mod events;
#[path = "cluster/freezing.rs"]
mod freezing;
#[path = "soak/http.rs"]
#[allow(dead_code, reason = "the soak suite uses more of it")]
mod http;
#[path = "cluster/killing.rs"]
mod killing;
#[path = "cluster/measure.rs"]
mod measure;
#[path = "cluster/modern.rs"]
mod modern;
#[path = "cluster/random.rs"]
mod random;
#[path = "cluster/sessions.rs"]
mod sessions;
#[path = "cluster/splitting.rs"]
mod splitting;
#[path = "cluster/telling.rs"]
mod telling;
#[path = "cluster/watching.rs"]
mod watching;

use std::time::Duration;

use futures::future::join_all;
use stentor_tests::{Client, Era, Node, Nodes, Notices, eventually};
use tokio::time::timeout;

const NODE: &str = env!("CARGO_BIN_EXE_cluster_node");

/// One client of each era on each node, with its stream of notices.
async fn audience(nodes: &Nodes, uris: &[&str]) -> Vec<(Client, Notices)> {
    let mut audience = Vec::new();
    for node in nodes.all() {
        for era in [Era::Legacy, Era::Modern] {
            let client = Client::at(node.http(), era, serde_json::json!({})).await;
            let notices = client.hear(uris).await;
            audience.push((client, notices));
        }
    }
    audience
}

/// A cluster of these nodes, after all notices about its formation were sent.
async fn quiet(names: &[&str]) -> Nodes {
    let nodes = Nodes::of(NODE, names).await;
    nothing_to_tell(&nodes).await;
    nodes
}

/// Waits until all pending notices were sent. A node announces a list only when all nodes show it,
/// but waits for the others for a second at most.
async fn nothing_to_tell(nodes: &Nodes) {
    let listens = nodes.all().map(|node| async {
        let client = Client::at(node.http(), Era::Modern, serde_json::json!({})).await;
        let mut notices = client.hear(&[]).await;
        while timeout(Duration::from_millis(1_500), notices.next()).await.is_ok() {}
    });
    join_all(listens).await;
}

/// Checks that all clients received these notices before a mark, and no others.
async fn all_heard(nodes: &Nodes, from: &str, all: &mut [(Client, Notices)], expected: &[&str]) {
    nodes.mark(from).await;
    for (client, notices) in all {
        assert_eq!(notices.until_mark().await, expected, "{client:?}");
    }
}

/// Waits until all nodes show the same tools and have announced them.
async fn agreed(nodes: &Nodes, holds: impl Fn(&[String]) -> bool) {
    eventually("all nodes to know of it", async || {
        let all = join_all(nodes.all().map(Node::census)).await;
        all.iter().all(|it| it.untold == 0 && it.tools == all[0].tools && holds(&it.tools))
    })
    .await;
}
