//! Networks that split and heal.

use std::time::{Duration, Instant};

use serde_json::json;
use stentor_tests::{Client, Era, Network, NodeOrder, Nodes, eventually};

use crate::freezing::heard;
use crate::{NODE, agreed, audience, nothing_to_tell};

/// A cluster on its own network.
async fn on(network: Network, names: &[&str], give_up_after: Duration) -> Nodes {
    let mut nodes = Nodes::none(NODE);
    (nodes.network, nodes.give_up_after) = (Some(network), give_up_after);
    for name in names {
        nodes.start(name).await;
    }
    nodes.whole().await;
    nothing_to_tell(&nodes).await;
    nodes
}

async fn plug(nodes: &mut Nodes, name: &str, bridge: usize) {
    nodes.network.as_mut().expect("a network").plug(name, bridge).await;
}

async fn heal(nodes: &mut Nodes) {
    nodes.network.as_mut().expect("a network").heal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_split_continue_and_get_everything_once_when_it_heals() {
    let name = "splitting::both_sides_of_a_split_continue_and_get_everything_once_when_it_heals";
    let Some(network) = Network::for_test(name).await else { return };
    let mut nodes = on(network, &["a", "b", "c"], Duration::from_millis(2_500)).await;
    let uris: Vec<_> = (0..6).map(|n| format!("test://{n}")).collect();
    let watched: Vec<_> = uris.iter().map(|uri| &**uri).collect();
    let mut audience = audience(&nodes, &watched).await;
    let [at_a, at_b, at_c] =
        ["a", "b", "c"].map(|name| Client::at(nodes[name].http(), Era::Modern, json!({})));
    let (at_a, at_b, at_c) = (at_a.await, at_b.await, at_c.await);
    let under_way = at_a.start("hold-c", json!({"name": "cut"})).await;

    let split = Instant::now();
    plug(&mut nodes, "c", 1).await;
    let shows =
        async |client: &Client, tool: &str| client.list("tools").await.contains(&tool.into());
    eventually("each side to give the other one up", async || {
        !shows(&at_a, "echo-c").await
            && !shows(&at_b, "echo-c").await
            && !shows(&at_c, "echo-a").await
            && !shows(&at_c, "echo-b").await
    })
    .await;
    println!("given up after {:?}", split.elapsed());
    // A call that waits for the other side gets an error.
    assert!(under_way.answer().await.error()["message"].is_string());
    assert_eq!(at_a.call("echo-b", json!({})).await.text(), "b");
    assert_eq!(at_c.call("echo-c", json!({})).await.text(), "c");
    assert!(at_c.call("echo-a", json!({})).await.error()["code"].is_i64());
    nodes["a"].put("of-many", "new").await;
    nodes["c"].put("of-one", "new").await;
    for (n, uri) in uris.iter().enumerate() {
        nodes[["a", "b", "c"][n % 3]].run(NodeOrder::Touch(uri.clone())).await;
    }
    nodes["b"].run(NodeOrder::Tell((0..30).collect())).await;
    nodes["c"].run(NodeOrder::Tell((30..60).collect())).await;
    assert!(shows(&at_b, "of-many").await && !shows(&at_b, "of-one").await);
    assert!(shows(&at_c, "of-one").await && !shows(&at_c, "of-many").await);

    let healed = Instant::now();
    heal(&mut nodes).await;
    nodes.whole().await;
    agreed(&nodes, |tools| ["of-many", "of-one"].iter().all(|it| tools.contains(&(*it).into())))
        .await;
    println!("agreed {:?} after it healed", healed.elapsed());
    nodes.mark("b").await;
    for (client, notices) in &mut audience {
        let told = (0..60).map(|n: u64| n.to_string()).filter(|_| client.lane().is_legacy());
        let mut expected: Vec<_> = uris.iter().cloned().chain(told).collect();
        // In order for each node that sent them.
        let (lists, mut rest) = heard(notices).await;
        expected.sort();
        rest.sort();
        assert_eq!(rest, expected, "{client:?}");
        assert!(lists >= 1, "{client:?}");
        assert!(shows(client, "of-many").await && shows(client, "of-one").await);
    }
    assert_eq!(at_c.call("echo-a", json!({})).await.text(), "a");
    assert_eq!(at_a.call("echo-c", json!({})).await.text(), "c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_a_short_split() {
    let name = "splitting::no_client_notices_a_short_split";
    let Some(network) = Network::for_test(name).await else { return };
    let mut nodes = on(network, &["a", "b"], Duration::from_secs(8)).await;
    let mut audience = audience(&nodes, &["test://x"]).await;
    let client = Client::at(nodes["a"].http(), Era::Modern, json!({})).await;
    plug(&mut nodes, "b", 1).await;
    // The call starts while `b` is unreachable, and `b` answers it later.
    let call = tokio::spawn(async move { client.call("echo-b", json!({})).await });
    nodes["a"].put("while-split", "new").await;
    nodes["a"].run(NodeOrder::Touch("test://x".to_owned())).await;
    nodes["b"].run(NodeOrder::Tell(vec![7])).await;
    eventually("the call to be under way", async || nodes["a"].census().await.peer_requests.1 == 1)
        .await;
    assert!(!call.is_finished());
    heal(&mut nodes).await;
    assert_eq!(call.await.expect("an answer").text(), "b");
    agreed(&nodes, |tools| tools.contains(&"while-split".into())).await;
    nodes.mark("a").await;
    for (client, notices) in &mut audience {
        let told = client.lane().is_legacy().then(|| "7".to_owned());
        let mut expected: Vec<_> = ["test://x".to_owned()].into_iter().chain(told).collect();
        expected.sort();
        let (lists, mut rest) = heard(notices).await;
        rest.sort();
        assert_eq!((lists, rest), (1, expected), "{client:?}");
    }
}
