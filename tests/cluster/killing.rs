//! Nodes that are killed, that leave, and that rejoin.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stentor_tests::{Call, Client, Era, Event, NodeOrder, Nodes, Phase, Reply, eventually, soon};
use tokio::time::sleep;

use crate::{NODE, agreed, all_heard, audience, nothing_to_tell};

/// The HTTP status of a request that is sent on a session to a node.
async fn status(nodes: &Nodes, node: &str, session: &str) -> u16 {
    let ping = json!({"jsonrpc": "2.0", "id": 99, "method": "ping"});
    let call = Call::legacy(session, &ping).with("mcp-protocol-version", "2025-11-25");
    call.send(nodes[node].http()).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_killed_node_fail_at_once() {
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
    // A session on the killed node, with calls of remote tools.
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
    // The remote calls of the session are stopped.
    for tool in ["hold-a", "hold-b"] {
        nodes[&tool[5..]].reached(tool, Phase::Stopped).await;
    }
    // Its stream ends, so that the client can resume it.
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
            (census.calls, census.peer_requests) == (0, (0, 0))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_disappear_and_return_with_their_node() {
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
        // All clients may be notified that they missed the node's last notices. Wait for that, too.
        nothing_to_tell(&nodes).await;
        audience = crate::audience(&nodes, &[]).await;
        audience.retain(|(client, _)| client.address() != nodes["c"].http());
        for (client, _) in &audience {
            let tools = client.list("tools").await;
            assert!(tools.contains(&"echo-c".into()) && !tools.contains(&"once".into()));
            assert_eq!(client.call("echo-c", json!({})).await.text(), "c");
        }
        // Notices of the restarted node arrive, too.
        all_heard(&nodes, "c", &mut audience, &[]).await;
        // This time the node leaves in order.
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

/// The events read of one stream of a session, through several nodes.
#[derive(Default)]
struct Read {
    messages: Vec<Value>,
    last: String,
    /// The event ids of messages, as two numbers.
    ids: Vec<(u64, u64)>,
}

impl Read {
    /// Reads to the end of a stream, whether it ends properly or not.
    async fn rest(&mut self, mut reply: Reply) {
        while self.one(&mut reply).await {}
    }

    async fn one(&mut self, reply: &mut Reply) -> bool {
        let Some(event) = reply.event().await else { return false };
        if let Event::Data(data, id) = event {
            self.last = id.unwrap_or_else(|| self.last.clone());
            if !data.is_empty() {
                let (stream, next) = self.last.split_once('-').expect("an id");
                self.ids.push((stream.parse().expect("a number"), next.parse().expect("a number")));
                self.messages.push(serde_json::from_str(&data).expect("a message"));
            }
        }
        true
    }

    /// Opens the stream, or resumes it after the last event read.
    async fn resume(&self, session: &str, nodes: &Nodes, through: &str) -> Reply {
        let get = match &*self.last {
            "" => Call::get(session),
            last => Call::get(session).with("last-event-id", last),
        };
        let reply = get.send(nodes[through].http()).await;
        assert_eq!(reply.status, 200, "{through}");
        reply
    }

    /// Checks that no event id repeats, and that the only answered request has one answer, which is
    /// last.
    fn check_answered_once(&self, request: &Value) -> &Value {
        assert!(self.ids.is_sorted_by(|a, b| a < b), "an id was given out twice: {:?}", self.ids);
        let answers: Vec<_> = self.messages.iter().filter(|it| it["id"] == *request).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(self.messages.last(), Some(answers[0]), "nothing follows the answer");
        answers[0]
    }

    fn numbers(&self) -> Vec<u64> {
        self.messages.iter().filter_map(|it| it["params"]["n"].as_u64()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_node_that_leaves_migrate_and_miss_nothing() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let mut on_c = Vec::new();
    for _ in 0..3 {
        let client = Client::at(nodes["c"].http(), Era::Legacy, json!({})).await;
        client.ask("resources/subscribe", json!({"uri": "test://watched"})).await;
        on_c.push(client);
    }
    // One client reads there, one through another node, one not at all.
    let mut reads = [Read::default(), Read::default(), Read::default()];
    let direct = reads[0].resume(on_c[0].session(), &nodes, "c").await;
    let through_b = reads[1].resume(on_c[1].session(), &nodes, "b").await;

    let leaving = nodes.take("c");
    let has_left = AtomicBool::new(false);
    let tell = async |n| nodes["a"].run(NodeOrder::Tell(vec![n])).await;
    let telling = async {
        // Not more than the queue of a disconnected client can hold.
        let mut n = 0;
        while !has_left.load(Ordering::Acquire) {
            if n < 300 {
                tell(n).await;
                n += 1;
            }
            sleep(Duration::from_millis(5)).await;
        }
        n
    };
    let leave = async {
        let begun = Instant::now();
        leaving.terminate().await;
        println!("it left within {:?}", begun.elapsed());
        has_left.store(true, Ordering::Release);
    };
    let [first, second, _] = &mut reads;
    let reading = async {
        first.rest(direct).await;
        // This stream may continue without a break.
        let mut through_b = through_b;
        let mut is_open = true;
        while is_open && !has_left.load(Ordering::Acquire) {
            is_open = second.one(&mut through_b).await;
        }
    };
    let (told, (), ()) = tokio::join!(telling, leave, reading);
    tell(told).await;
    nodes["b"].run(NodeOrder::Touch("test://watched".to_owned())).await;

    for (client, (read, through)) in on_c.iter().zip(reads.iter_mut().zip(["a", "b", "b"])) {
        for node in ["a", "b"] {
            assert_eq!(status(&nodes, node, client.session()).await, 200, "{node}");
        }
        let mut reply = read.resume(client.session(), &nodes, through).await;
        let is_watched = |it: &&Value| it["params"]["uri"] == "test://watched";
        while read.numbers().last() != Some(&told)
            || !read.messages.iter().any(|it| is_watched(&it))
        {
            assert!(read.one(&mut reply).await, "{:?}", read.messages);
        }
        // A notification sent while the session moved may arrive a little later than later ones.
        let mut numbers = read.numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..=told).collect::<Vec<_>>(), "{through}");
        assert!(read.messages.iter().any(|it| is_watched(&it)));
        drop(reply);
        let delete = Call::delete(client.session()).send(nodes["b"].http()).await;
        assert!(delete.status.is_success(), "{}", delete.status);
        for node in ["a", "b"] {
            assert_eq!(status(&nodes, node, client.session()).await, 404, "{node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_a_node_that_leaves_is_read_to_its_end_on_another_node() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    for tool in ["lines-a", "lines-c"] {
        if !nodes.names().any(|name| name == "c") {
            nodes.start("c").await;
            nodes.whole().await;
        }
        let client = Client::at(nodes["c"].http(), Era::Legacy, json!({})).await;
        let call = client.start(tool, json!({"count": 200, "ms": 3})).await;
        let (id, mut reply) = (call.id().clone(), call.into_reply());
        let mut read = Read::default();
        while read.messages.len() < 10 {
            assert!(read.one(&mut reply).await);
        }
        let leaving = nodes.take("c");
        tokio::join!(leaving.terminate(), read.rest(reply));
        let mut turn = ["a", "b"].into_iter().cycle();
        while read.messages.last().is_none_or(|last| last["id"] != id) {
            let reply = read.resume(client.session(), &nodes, turn.next().expect("a cycle")).await;
            read.rest(reply).await;
        }
        let answer = read.messages.pop().expect("an answer");
        assert_eq!(answer["result"]["content"][0]["text"], "said", "{tool}: {answer}");
        assert_eq!(read.numbers(), (1..=200).collect::<Vec<_>>(), "{tool}");
    }
}

/// Starts a call on a session of `c`, and reads the first messages through `a`.
async fn read_through_a(nodes: &Nodes, count: u64) -> (Client, Value, Reply, Read) {
    let on_c = Client::at(nodes["c"].http(), Era::Legacy, json!({})).await;
    let through_a = on_c.through(nodes["a"].http());
    let call = through_a.start("lines-c", json!({"count": count, "ms": 10})).await;
    let (id, mut reply, mut read) = (call.id().clone(), call.into_reply(), Read::default());
    while read.messages.len() < 3 {
        assert!(read.one(&mut reply).await);
    }
    (on_c, id, reply, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_node_gets_no_id_twice_when_the_node_of_its_session_dies() {
    let mut nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let (on_c, id, reply, mut read) = read_through_a(&nodes, 10_000).await;
    nodes.take("c").kill().await;
    read.rest(reply).await;
    let answer = read.check_answered_once(&id);
    assert!(answer["error"]["message"].as_str().expect("an error").contains("has gone"));
    for through in ["a", "b"] {
        let get = Call::get(on_c.session()).with("last-event-id", &read.last);
        assert_eq!(get.send(nodes[through].http()).await.status, 404, "{through}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_node_does_not_notice_that_the_link_breaks() {
    let nodes = Nodes::of(NODE, &["a", "b", "c"]).await;
    let (on_c, id, reply, mut read) = read_through_a(&nodes, 200).await;
    let cut = async {
        for _ in 0..3 {
            nodes["a"].run(NodeOrder::Cut("c".to_owned())).await;
            nodes.whole().await;
        }
    };
    tokio::join!(read.rest(reply), cut);
    let answer = read.check_answered_once(&id);
    assert_eq!(answer["result"]["content"][0]["text"], "said", "{answer}");
    assert_eq!(read.numbers(), (1..=200).collect::<Vec<_>>());
    // A client that resumes after the answer, on any node, receives nothing more.
    for through in ["a", "b", "c"] {
        let get = Call::get(on_c.session()).with("last-event-id", &read.last);
        let (reply, mut rest) = (get.send(nodes[through].http()).await, Read::default());
        assert_eq!(reply.status, 200);
        rest.rest(reply).await;
        assert_eq!(rest.messages, [Value::Null; 0], "{through}");
    }
}
