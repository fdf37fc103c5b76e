//! Nodes that are killed, that leave, and that come back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use stentor_tests::{Call, Client, Era, NodeOrder, Nodes, Phase, eventually, soon};

use crate::{NODE, audience};

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
    nodes.agreed(|tools| tools.contains(&"both".into()) && tools.contains(&"once".into())).await;
    let kept = nodes.take("c");
    let mut audience = audience(&nodes, &[]).await;
    for is_killed in [true, false] {
        if is_killed {
            // It cannot be taken out before the audience is there, which must not be on it.
        }
    }
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
    nodes.quiet(&mut audience, "a").await;

    for _ in 0..2 {
        nodes.start("c").await;
        nodes.whole().await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, "tools/list_changed", "{client:?}");
            let tools = client.list("tools").await;
            assert!(tools.contains(&"echo-c".into()) && !tools.contains(&"once".into()));
            assert_eq!(client.call("echo-c", json!({})).await.text(), "c");
        }
        nodes.quiet(&mut audience, "b").await;
        // What it tells in this life is heard, too.
        nodes["c"].run(NodeOrder::Touch("test://mark".into())).await;
        for (_, notices) in &mut audience {
            assert_eq!(notices.until_mark().await, [""; 0]);
        }
        // This time in order.
        let left = Instant::now();
        nodes.take("c").terminate().await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, "tools/list_changed", "{client:?}");
            assert!(!client.list("tools").await.contains(&"echo-c".into()));
        }
        println!("it left within {:?}", left.elapsed());
        nodes.quiet(&mut audience, "a").await;
    }
}
