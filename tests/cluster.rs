//! Several nodes as one server, each a process of its own, and what becomes of that when they are
//! killed, frozen and cut off.

#[path = "cluster/modern.rs"]
mod modern;
#[path = "cluster/sessions.rs"]
mod sessions;
#[path = "cluster/telling.rs"]
mod telling;

use stentor_tests::{Client, Era, Nodes, Notices};

/// The program of a node.
const NODE: &str = env!("CARGO_BIN_EXE_cluster_node");

/// One client of each era on each node, and what it hears.
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
