//! Nodes that are killed, that leave, and that come back.

use std::time::{Duration, Instant};

use serde_json::json;
use stentor_tests::{
    Call, Client, Era, Event, MARK, NodeOrder, Nodes, Phase, Reply, eventually, soon,
};

use crate::{NODE, agreed, all_heard, audience, nothing_to_tell};

/// The head of a request on a session that is sent to a node.
async fn status(nodes: &Nodes, node: &str, session: &str) -> u16 {
    let ping = json!({"jsonrpc": "2.0", "id": 99, "method": "ping"});
    let call = Call::legacy(session, &ping).with("mcp-protocol-version", "2025-11-25");
    call.send(nodes[node].http()).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_node_that_is_killed_hears_so_at_once() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let mut waiting = Vec::new();
    for node in ["a", "b"] {
        for era in [Era::Legacy, Era::Modern] {
            let client = Client::at(nodes[node].http(), era, json!({})).await;
            let name = format!("{node} {era:?}");
            waiting.push(client.start("hold-c", json!({"name": name})).await);
            nodes["c"].reached(&name, Phase::Waiting).await;
        }
    }
    // A session on the killed node, with a call of a tool that is elsewhere.
    let on_c = Client::at(nodes["c"].http(), Era::Legacy, json!({})).await;
    let through_a = on_c.through(nodes["a"].http());
    let mut notices = through_a.hear(&[]).await;
    for tool in ["hold-a", "hold-b", "hold-c"] {
        waiting.push(through_a.start(tool, json!({"name": tool})).await);
        nodes[&tool[5..]].reached(tool, Phase::Waiting).await;
    }

    let killed = Instant::now();
    nodes.take("c").kill().await;
    for call in waiting {
        let answer = call.answer().await;
        let error = answer.error()["message"].as_str().expect("a message");
        assert!(error.contains("node") || error.contains("session"), "{error}");
    }
    println!("all callers knew of it after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    // What the session had running elsewhere is stopped.
    for tool in ["hold-a", "hold-b"] {
        nodes[&tool[5..]].reached(tool, Phase::Stopped).await;
    }
    // Its stream ends, for the client to come back.
    while soon("the end of the stream", notices.next()).await.is_some() {}
    for node in ["a", "b"] {
        eventually("the session to be unknown", async || {
            let status = status(&nodes, node, on_c.session()).await;
            assert!([404, 503].contains(&status), "{status}");
            status == 404
        })
        .await;
    }
    println!("its sessions were unknown after {:?}", killed.elapsed());
    nodes.whole().await;
    for node in nodes.all() {
        eventually("nothing to be left", async || {
            let census = node.census().await;
            (census.calls, census.errands) == (0, (0, 0))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_go_with_their_node_and_are_back_with_it() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    for node in ["b", "c"] {
        nodes[node].put("both", "of two nodes").await;
    }
    nodes["c"].put("once", "of the first run").await;
    agreed(&nodes, |tools| tools.contains(&"both".into()) && tools.contains(&"once".into())).await;
    nothing_to_tell(&nodes).await;
    let kept = nodes.take("c");
    let mut audience = audience(&nodes, &[]).await;
    let killed = Instant::now();
    kept.kill().await;
    for (client, notices) in &mut audience {
        assert_eq!(notices.heard().await, "tools/list_changed", "{client:?}");
        let tools = client.list("tools").await;
        assert!(!tools.contains(&"echo-c".into()) && !tools.contains(&"once".into()));
        assert!(tools.contains(&"both".into()));
        assert_eq!(client.call("both", json!({})).await.text(), "b");
    }
    println!("everybody knew of it after {:?}", killed.elapsed());
    all_heard(&nodes, "a", &mut audience, &[]).await;

    for _ in 0..2 {
        nodes.start("c").await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, "tools/list_changed", "{client:?}");
        }
        nodes.whole().await;
        // All may be told that they missed what the node told last: then there is more to hear.
        nothing_to_tell(&nodes).await;
        audience = crate::audience(&nodes, &[]).await;
        audience.retain(|(client, _)| client.address() != nodes["c"].http());
        for (client, _) in &audience {
            let tools = client.list("tools").await;
            assert!(tools.contains(&"echo-c".into()) && !tools.contains(&"once".into()));
            assert_eq!(client.call("echo-c", json!({})).await.text(), "c");
        }
        // What it tells in this life is heard, too.
        all_heard(&nodes, "c", &mut audience, &[]).await;
        // This time in order.
        let left = Instant::now();
        nodes.take("c").terminate().await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, "tools/list_changed", "{client:?}");
            assert!(!client.list("tools").await.contains(&"echo-c".into()));
        }
        println!("it left within {:?}", left.elapsed());
        all_heard(&nodes, "a", &mut audience, &[]).await;
    }
}

/// Reads to the end of a stream, in whatever way it ends.
async fn rest(mut reply: Reply, into: &mut Vec<serde_json::Value>, last: &mut String) {
    while let Some(Event::Data(data, id)) = reply.event().await {
        *last = id.unwrap_or_else(|| last.clone());
        if !data.is_empty() {
            into.push(serde_json::from_str(&data).expect("a message"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_node_that_leaves_go_on_elsewhere() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let on_c = Client::at(nodes["c"].http(), Era::Legacy, json!({})).await;
    for uri in ["test://watched", MARK] {
        on_c.ask("resources/subscribe", json!({ "uri": uri })).await;
    }
    let mut last = String::new();
    let mut heard = Vec::new();
    let notices = Call::get(on_c.session()).send(nodes["c"].http()).await;
    let second = Call::get(on_c.session()).send(nodes["a"].http()).await;
    assert_eq!(second.status, 409, "it is read already");
    for n in 0..10 {
        nodes["a"].run(NodeOrder::Tell(vec![n])).await;
    }
    let leaving = nodes.take("c");
    let left = Instant::now();
    tokio::join!(leaving.terminate(), rest(notices, &mut heard, &mut last));
    println!("it left within {:?}", left.elapsed());
    // While it is nowhere to be read.
    for n in 10..20 {
        nodes["a"].run(NodeOrder::Tell(vec![n])).await;
    }
    let mut turn = ["a", "b"].into_iter().cycle();
    for node in ["a", "b", "a"] {
        assert_eq!(status(&nodes, node, on_c.session()).await, 200, "{node}");
    }
    let get = Call::get(on_c.session()).with("last-event-id", &last);
    let mut reply = get.send(nodes[turn.next().expect("a cycle")].http()).await;
    assert_eq!(reply.status, 200);
    nodes["b"].run(NodeOrder::Touch("test://watched".to_owned())).await;
    nodes["a"].run(NodeOrder::Tell(vec![20])).await;
    let told = |heard: &[serde_json::Value]| -> Vec<u64> {
        heard.iter().filter_map(|it| it["params"]["n"].as_u64()).collect()
    };
    while told(&heard).last() != Some(&20)
        || !heard.iter().any(|it| it["params"]["uri"] == "test://watched")
    {
        heard.push(reply.message().await.expect("another notice"));
    }
    assert_eq!(told(&heard), (0..=20).collect::<Vec<_>>());
    let watched = heard.iter().filter(|it| it["params"]["uri"] == "test://watched");
    assert_eq!(watched.count(), 1);
    let delete = Call::delete(on_c.session()).send(nodes["b"].http()).await;
    assert!(delete.status.is_success(), "{}", delete.status);
    for node in ["a", "b"] {
        assert_eq!(status(&nodes, node, on_c.session()).await, 404, "{node}");
    }
}
