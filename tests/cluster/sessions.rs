//! A legacy session is served by any node.

use futures::future::join_all;
use serde_json::{Value, json};
use stentor_tests::{Call, Client, Era, Event, Nodes, Phase, Reply, eventually};

use crate::NODE;

/// A client that supports elicitation, with a session on this node.
async fn client(nodes: &Nodes, at: &str) -> Client {
    Client::at(nodes[at].http(), Era::Legacy, json!({"elicitation": {}})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_of_a_session_may_go_through_another_node() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let on_a = client(&nodes, "a").await;
    let [on_b, on_c] = ["b", "c"].map(|node| on_a.through(nodes[node].http()));

    let mut notices = on_b.hear(&["test://watched"]).await;
    nodes["c"].put("new", "new").await;
    assert_eq!(notices.heard().await, "tools/list_changed");
    assert!(on_c.list("tools").await.contains(&"new".to_owned()));

    // The session is on one node, the tool on another, and the answer arrives through a third.
    for tool in ["ask-a", "ask-b", "ask-c"] {
        let mut call = on_b.start(tool, json!({})).await;
        let question = loop {
            let message = call.next().await.expect("a question");
            if message["method"] != "notifications/message" {
                break message;
            }
        };
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let result = json!({"action": "accept", "content": {"name": "Ann"}});
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
        let reply = Call::legacy(on_a.session(), &answer)
            .with("mcp-protocol-version", "2025-11-25")
            .send(nodes["c"].http())
            .await;
        assert_eq!(reply.status, 202);
        assert_eq!(call.answer().await.text(), "Hello, Ann!", "{tool}");
    }

    // Calls that begin on one node and are cancelled through another.
    for (n, tool) in ["hold-a", "hold-b", "hold-c"].into_iter().enumerate() {
        let name = format!("call-{n}");
        let call = on_c.start_with(tool, json!({"name": name}), json!({"progressToken": 1})).await;
        let node = &nodes[tool.strip_prefix("hold-").expect("a name")];
        node.reached(&name, Phase::Waiting).await;
        let params = json!({"requestId": call.id()});
        on_b.notify("notifications/cancelled", params).await;
        node.reached(&name, Phase::Stopped).await;
        let answer = call.answer().await;
        assert_eq!((answer.progress(), answer.response), (vec![1.0], None));
    }

    let reply = Call::delete(on_a.session()).send(nodes["c"].http()).await;
    assert!(reply.status.is_success(), "{}", reply.status);
    assert_eq!(notices.end().await, None);
    for node in nodes.all() {
        let reply = Call::get(on_a.session()).send(node.http()).await;
        assert_eq!(reply.status, 404, "{}", node.name);
    }
    eventually("nothing to be left", async || {
        let all = join_all(nodes.all().map(|node| node.census())).await;
        all.iter().all(|it| (it.sessions, it.calls, it.peer_requests, it.held) == (0, 0, (0, 0), 0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_rejoins_finds_the_sessions_of_all_others() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let [moves, on_b, on_c] =
        [client(&nodes, "a").await, client(&nodes, "b").await, client(&nodes, "c").await];
    nodes.take("a").terminate().await;
    nodes.start("a").await;
    nodes.whole().await;
    let again = nodes["a"].http();
    // One of the two other nodes has the sessions of the node that left; only that one is asked.
    for client in [on_b, on_c, moves] {
        assert!(client.through(again).list("tools").await.contains(&"echo-a".to_owned()));
    }
}

/// Reads this many events of a stream, or fewer if it ends. Returns whether the stream is still
/// open.
async fn read(reply: &mut Reply, some: usize, into: &mut Vec<Value>, last: &mut String) -> bool {
    for _ in 0..some {
        let Some(event) = reply.event().await else { return false };
        let Event::Data(data, id) = event else { continue };
        *last = id.unwrap_or_else(|| last.clone());
        if !data.is_empty() {
            into.push(serde_json::from_str(&data).expect("a message"));
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_is_resumed_through_each_node_without_a_gap() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let lines: u64 = 300;
    for (home, tool) in [("a", "lines-b"), ("b", "lines-b"), ("c", "lines-a")] {
        let client = client(&nodes, home).await;
        let first = client.through(nodes["a"].http());
        let call = first.start(tool, json!({"count": lines, "ms": 2})).await;
        let (id, mut reply) = (call.id().clone(), call.into_reply());
        let (mut said, mut last) = (Vec::new(), String::new());
        let mut turn = ["b", "c", "a"].into_iter().cycle();
        while read(&mut reply, 25, &mut said, &mut last).await {
            drop(reply);
            let node = turn.next().expect("a cycle");
            let get = Call::get(client.session()).with("last-event-id", &last);
            reply = get.send(nodes[node].http()).await;
            assert_eq!(reply.status, 200, "{node}");
        }
        let answer = said.pop().expect("an answer");
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&id, &json!("said")));
        let numbers: Vec<_> = said.iter().map(|line| line["params"]["n"].as_u64()).collect();
        assert_eq!(numbers, (1..=lines).map(Some).collect::<Vec<_>>(), "{home} {tool}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_notices_of_a_session_are_resumed_through_another_node_each_once() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let client = client(&nodes, "a").await;
    let mut reply = Call::get(client.session()).send(nodes["b"].http()).await;
    let (mut said, mut last) = (Vec::new(), String::new());
    // The stream has an event id before its first message.
    read(&mut reply, 1, &mut said, &mut last).await;
    assert_eq!((said.len(), &*last), (0, "0-0"));
    for round in 0..30_u64 {
        let from = ["a", "b", "c"][round as usize % 3];
        let numbers = (0..4).map(|n| 4 * round + n).collect();
        nodes[from].run(stentor_tests::NodeOrder::Tell(numbers)).await;
        // Two of four, so that some are in flight when the client disconnects.
        let wanted = said.len() + 2;
        while said.len() < wanted {
            assert!(read(&mut reply, 1, &mut said, &mut last).await);
        }
        drop(reply);
        let through = ["c", "a", "b"][round as usize % 3];
        let get = Call::get(client.session()).with("last-event-id", &last);
        reply = get.send(nodes[through].http()).await;
        assert_eq!(reply.status, 200, "{through}");
    }
    while said.len() < 120 {
        assert!(read(&mut reply, 1, &mut said, &mut last).await);
    }
    let numbers: Vec<_> = said.iter().map(|it| it["params"]["n"].as_u64().expect("n")).collect();
    // Notifications of different nodes arrive in any order, those of one node in order.
    for from in 0..3 {
        let of_one = |n: &u64| (n / 4) % 3 == from;
        let heard: Vec<_> = numbers.iter().copied().filter(of_one).collect();
        assert_eq!(heard, (0..120).filter(of_one).collect::<Vec<_>>());
    }
}
