//! Nodes that freeze and thaw, and links that break.

use std::time::{Duration, Instant};

use serde_json::json;
use stentor_tests::{Client, Era, MARK, NodeOrder, Nodes, Notices, eventually};

use crate::{NODE, agreed, audience, nothing_to_tell};

const TOOLS: &str = "tools/list_changed";

/// The notices before the mark: the number of list changes, and all others.
pub(crate) async fn heard(notices: &mut Notices) -> (usize, Vec<String>) {
    let mut all = Vec::new();
    loop {
        let message = notices.next().await.expect("a notice");
        let params = &message["params"];
        match (params["uri"].as_str(), params["n"].as_u64()) {
            (Some(MARK), _) => break,
            (Some(uri), _) => all.push(uri.to_owned()),
            (None, Some(n)) => all.push(n.to_string()),
            (None, None) => all.push(message["method"].as_str().expect("a method").to_owned()),
        }
    }
    let before = all.len();
    all.retain(|it| !it.ends_with(TOOLS));
    (before - all.len(), all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_is_given_up_delays_no_other_node_and_catches_up_when_it_thaws() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let uris: Vec<_> = (0..5).map(|n| format!("test://{n}")).collect();
    let watched: Vec<_> = uris.iter().map(|uri| &**uri).collect();
    let mut others = Vec::new();
    let mut frozen = Vec::new();
    for (client, notices) in audience(&nodes, &watched).await {
        let is_there = client.address() == nodes["c"].http();
        if is_there { &mut frozen } else { &mut others }.push((client, notices));
    }
    let reading = Client::at(nodes["a"].http(), Era::Modern, json!({})).await;
    nodes["c"].freeze();
    let since = Instant::now();
    // The other nodes do not wait for the frozen node, even before they give it up.
    let mut waited = Vec::new();
    let mut lists = vec![0; others.len()];
    for n in 0_u64.. {
        let begun = Instant::now();
        nodes["a"].put("changing", &format!("change {n}")).await;
        nodes["b"].run(NodeOrder::Touch(MARK.to_owned())).await;
        for ((_, notices), lists) in others.iter_mut().zip(&mut lists) {
            *lists += notices.until_mark().await.len();
        }
        waited.push(begun.elapsed());
        if !reading.list("tools").await.contains(&"echo-c".to_owned()) {
            break;
        }
    }
    let given_up = since.elapsed();
    waited.sort();
    let (usual, longest) = (waited[waited.len() / 2], waited[waited.len() - 1]);
    println!("it was given up after {given_up:?}; others waited {usual:?}, at most {longest:?}");
    // The longest wait may be due to this machine.
    assert!(usual < Duration::from_secs(1) && longest < given_up, "{waited:?}");
    agreed_except(&nodes, "c").await;

    // Changes while the node is frozen.
    nodes["a"].put("while-away", "new").await;
    for uri in &uris {
        nodes["b"].run(NodeOrder::Touch(uri.clone())).await;
    }
    nodes["b"].run(NodeOrder::Tell((0..50).collect())).await;
    nodes["c"].thaw();
    nodes.whole().await;
    agreed(&nodes, |tools| tools.contains(&"while-away".into())).await;
    // Each node announces in its own order, so each needs a mark.
    nodes.mark("b").await;
    let expected = |client: &Client| {
        let told = (0..50).map(|n: u64| n.to_string());
        let told = told.filter(|_| client.lane().is_legacy());
        uris.iter().cloned().chain(told).collect::<Vec<_>>()
    };
    for (client, notices) in frozen.iter_mut().chain(&mut others) {
        // Earlier marks may come first.
        let (mut lists, mut rest) = (0, Vec::new());
        while rest.len() < expected(client).len() {
            let (more, heard) = heard(notices).await;
            lists += more;
            rest.extend(heard);
        }
        rest.sort();
        let mut expected = expected(client);
        expected.sort();
        assert_eq!(rest, expected, "{client:?}");
        println!("{lists} times of the tools: {:?}", client.lane());
        assert!(client.list("tools").await.contains(&"while-away".to_owned()));
    }
    // Observers have heard of it, in order.
    let mut changes = nodes["a"].peer_changes("c").await.into_iter();
    for change in ["connected", "disconnected", "gone", "connected"] {
        assert!(changes.any(|it| it == change), "{change}");
    }
    // From now on everything works as before.
    nodes["c"].put("afterwards", "new").await;
    for (client, notices) in others.iter_mut().chain(&mut frozen) {
        while !client.list("tools").await.contains(&"afterwards".to_owned()) {
            notices.heard().await;
        }
    }
}

/// Waits until all nodes except one show the same tools.
async fn agreed_except(nodes: &Nodes, gone: &str) {
    eventually("the others to agree", async || {
        let mut tools = Vec::new();
        for node in nodes.all().filter(|node| node.name != gone) {
            let census = node.census().await;
            tools.push((census.tools, census.untold));
        }
        let own = format!("echo-{gone}");
        tools.iter().all(|it| *it == tools[0] && it.1 == 0 && !it.0.contains(&own))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_a_short_freeze() {
    let mut nodes = Nodes::none(NODE);
    nodes.give_up_after = Duration::from_secs(8);
    for name in ["a", "b"] {
        nodes.start(name).await;
    }
    nodes.whole().await;
    nothing_to_tell(&nodes).await;
    let mut audience = audience(&nodes, &["test://x"]).await;
    nodes["b"].freeze();
    nodes["a"].put("while-away", "new").await;
    nodes["a"].run(NodeOrder::Touch("test://x".to_owned())).await;
    nodes["b"].thaw();
    agreed(&nodes, |tools| tools.contains(&"while-away".into())).await;
    nothing_to_tell(&nodes).await;
    nodes.mark("a").await;
    for (client, notices) in &mut audience {
        // Notices that waited for the link arrive in any order.
        let expected = (1, vec!["test://x".to_owned()]);
        assert_eq!(heard(notices).await, expected, "{client:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_link_is_replaced_and_nothing_is_lost_or_repeated() {
    let mut nodes = Nodes::none(NODE);
    nodes.give_up_after = Duration::from_secs(8);
    for name in ["a", "b"] {
        nodes.start(name).await;
    }
    nodes.whole().await;
    nothing_to_tell(&nodes).await;
    let mut audience = audience(&nodes, &["test://x"]).await;
    for round in 0..20_u64 {
        let (here, there) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        nodes[here].run(NodeOrder::Cut(there.to_owned())).await;
        nodes[here].run(NodeOrder::Touch("test://x".to_owned())).await;
        nodes[here].run(NodeOrder::Tell(vec![2 * round, 2 * round + 1])).await;
        nodes[there].run(NodeOrder::Touch("test://nobody".to_owned())).await;
        nodes.whole().await;
        nodes.mark(here).await;
        for (client, notices) in &mut audience {
            let (lists, rest) = heard(notices).await;
            let told = [2 * round, 2 * round + 1].map(|n| n.to_string());
            let told = told.into_iter().filter(|_| client.lane().is_legacy());
            let expected: Vec<_> = std::iter::once("test://x".to_owned()).chain(told).collect();
            let mut rest = rest;
            rest.sort_by_key(|it| !it.starts_with("test:"));
            assert_eq!((lists, rest), (0, expected), "{round} {client:?}");
        }
    }
    // A call that uses the link is answered.
    let client = Client::at(nodes["a"].http(), Era::Modern, json!({})).await;
    let call = client.start("hold-b", json!({"name": "cut"})).await;
    nodes["b"].reached("cut", stentor_tests::Phase::Waiting).await;
    nodes["a"].run(NodeOrder::Cut("b".to_owned())).await;
    assert!(call.answer().await.error()["message"].is_string());
    nodes["b"].reached("cut", stentor_tests::Phase::Stopped).await;
}
