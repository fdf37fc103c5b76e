//! Occurrences that reach the subscribers of all nodes, whatever becomes of one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::post;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_tests::{Client, Era, Exchange, Network, NodeOrder, Nodes, eventually, soon};
use tokio::net::TcpListener;

use crate::{NODE, quiet};

/// A stream of `happened` on one node.
struct Stream(Exchange);

impl Stream {
    async fn open(client: &Client, cursor: Option<&str>) -> Self {
        let params = json!({"name": "happened", "cursor": cursor});
        let mut exchange = client.request("events/stream", params).await;
        let first = soon("a stream to begin", exchange.next()).await.expect("a notice");
        assert_eq!(first["method"], "notifications/events/active", "{first}");
        assert_eq!(first["params"]["truncated"], false, "{first}");
        Self(exchange)
    }

    /// The next `count` occurrences: each number with its id and the position after it.
    async fn hear(&mut self, count: usize) -> Vec<(u64, String, String)> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let notice = soon("an occurrence", self.0.next()).await.expect("the stream is open");
            let params = &notice["params"];
            match notice["method"].as_str() {
                Some("notifications/events/event") => heard.push((
                    params["data"]["n"].as_u64().expect("a number"),
                    params["eventId"].as_str().expect("an id").to_owned(),
                    params["cursor"].as_str().expect("a cursor").to_owned(),
                )),
                Some("notifications/events/heartbeat") => {}
                _ => panic!("{notice}"),
            }
        }
        heard
    }
}

/// What a poll gives: numbers, the next cursor, and whether something was skipped.
async fn poll(client: &Client, cursor: Option<&str>) -> (Vec<u64>, String, bool) {
    let params = json!({"name": "happened", "cursor": cursor, "maxEvents": 100});
    let result = client.ask("events/poll", params).await;
    let events = result["events"].as_array().unwrap_or_else(|| panic!("{result}"));
    let numbers = events.iter().filter_map(|it| it["data"]["n"].as_u64()).collect();
    let cursor = result["cursor"].as_str().expect("a cursor").to_owned();
    (numbers, cursor, result["truncated"] == true)
}

async fn modern(nodes: &Nodes, node: &str) -> Client {
    Client::at(nodes[node].http(), Era::Modern, json!({})).await
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_node_emits_is_heard_once_on_each_and_a_cursor_is_good_everywhere() {
    let names = ["a", "b", "c"];
    let nodes = quiet(&names).await;
    let mut clients = BTreeMap::new();
    for name in names {
        clients.insert(name, modern(&nodes, name).await);
    }
    let (_, begin, _) = poll(&clients["a"], None).await;
    let mut streams = Vec::new();
    for client in clients.values() {
        streams.push(Stream::open(client, None).await);
    }
    let mut ids = BTreeMap::new();
    for round in 0..5 {
        for (index, name) in (0..).zip(names) {
            let numbers = round * 100 + index * 10..round * 100 + index * 10 + 4;
            ids.extend(numbers.clone().zip(nodes[name].emit(numbers).await));
            // An emit that has returned is found by a poll of any node.
            let (found, ..) = poll(&clients[names[(index as usize + 1) % 3]], Some(&begin)).await;
            assert_eq!(found.len(), ids.len());
        }
    }
    let all: Vec<u64> = ids.keys().copied().collect();
    let mut positions = Vec::new();
    for stream in &mut streams {
        let heard = stream.hear(all.len()).await;
        assert!(heard.iter().all(|(n, id, _)| ids[n] == *id));
        assert_eq!(sorted(heard.iter().map(|(n, ..)| *n).collect()), all);
        positions.push(heard);
    }
    // From each position on one node exactly the rest comes on another.
    for (node, heard) in positions.iter().enumerate() {
        for (index, (.., cursor)) in heard.iter().enumerate().step_by(7) {
            let rest = sorted(heard[index + 1..].iter().map(|(n, ..)| *n).collect());
            let (found, _, truncated) = poll(&clients[names[(node + 1) % 3]], Some(cursor)).await;
            assert_eq!((sorted(found), truncated), (rest, false));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_frozen_gets_what_it_has_missed_and_delays_nobody_for_long() {
    let nodes = quiet(&["a", "b", "c"]).await;
    let (at_b, at_c) = (modern(&nodes, "b").await, modern(&nodes, "c").await);
    let mut on_b = Stream::open(&at_b, None).await;
    let mut on_c = Stream::open(&at_c, None).await;
    nodes["c"].freeze();
    let ids = nodes["a"].emit(0..20).await;
    assert_eq!(on_b.hear(20).await.len(), ids.len());
    nodes["c"].thaw();
    let heard = on_c.hear(20).await;
    assert_eq!(heard.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // From here on it is waited for again.
    nodes["a"].emit([20]).await;
    assert_eq!(on_c.hear(1).await[0].0, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_has_emitted_is_there_and_its_cursors_are_good() {
    let mut nodes = quiet(&["a", "b", "c"]).await;
    let (at_a, at_b) = (modern(&nodes, "a").await, modern(&nodes, "b").await);
    let (_, begin, _) = poll(&at_a, None).await;
    nodes["a"].emit(0..10).await;
    let (first, middle, _) = poll(&at_a, Some(&begin)).await;
    assert_eq!(first.len(), 10);
    nodes["a"].emit(10..20).await;
    nodes.take("a").kill().await;
    nodes["c"].emit(20..25).await;
    let (rest, _, truncated) = poll(&at_b, Some(&middle)).await;
    assert_eq!((sorted(rest), truncated), ((10..25).collect(), false));
    let (all, _, truncated) = poll(&at_b, Some(&begin)).await;
    assert_eq!((sorted(all), truncated), ((0..25).collect(), false));
    // A new run of the node has the old occurrences, and new numbers.
    nodes.start("a").await;
    nodes.whole().await;
    let again = modern(&nodes, "a").await;
    eventually("the log to be there again", async || {
        poll(&again, Some(&begin)).await.0.len() == 25
    })
    .await;
    nodes["a"].emit([25]).await;
    let (new, _, truncated) = poll(&at_b, Some(&middle)).await;
    assert_eq!((new.len(), truncated), (16, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_split_go_on_and_each_hears_of_the_other_when_it_heals() {
    let name = "events::both_sides_of_a_split_go_on_and_each_hears_of_the_other_when_it_heals";
    let Some(network) = Network::for_test(name).await else { return };
    let mut nodes = Nodes::none(NODE);
    nodes.network = Some(network);
    for name in ["a", "b", "c"] {
        nodes.start(name).await;
    }
    nodes.whole().await;
    let (at_a, at_c) = (modern(&nodes, "a").await, modern(&nodes, "c").await);
    let mut on_a = Stream::open(&at_a, None).await;
    let mut on_c = Stream::open(&at_c, None).await;
    nodes.network.as_mut().expect("a network").plug("c", 1).await;
    nodes["b"].emit(0..10).await;
    nodes["c"].emit(10..20).await;
    assert_eq!(on_a.hear(10).await.len(), 10);
    assert_eq!(on_c.hear(10).await.len(), 10);
    nodes.network.as_mut().expect("a network").heal().await;
    let (rest_a, rest_c) = (on_a.hear(10).await, on_c.hear(10).await);
    assert_eq!(rest_a.iter().map(|it| it.0).collect::<Vec<_>>(), (10..20).collect::<Vec<_>>());
    assert_eq!(rest_c.iter().map(|it| it.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

/// The numbers that an endpoint has received.
type Received = Arc<Mutex<Vec<u64>>>;

/// An endpoint that takes everything.
async fn endpoint() -> (SocketAddr, Received) {
    let received = Received::default();
    let taken = received.clone();
    let hook = post(move |body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        if let Some(n) = body["data"]["n"].as_u64() {
            taken.lock().push(n);
        }
        json!({"challenge": body["challenge"]}).to_string()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let served = axum::serve(listener, axum::Router::new().route("/hook", hook));
    tokio::spawn(served.into_future());
    (address, received)
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_delivered_by_one_node_and_continued_when_that_is_killed() {
    let mut nodes = quiet(&["a", "b", "c"]).await;
    let (address, received) = endpoint().await;
    for node in nodes.all() {
        node.run(NodeOrder::Allow(format!("http://{address}"))).await;
    }
    let client = modern(&nodes, "a").await;
    let url = format!("http://{address}/hook");
    let wanted = json!({"name": "happened", "delivery": {"url": url, "secret": SECRET}});
    let subscribed = client.ask("events/subscribe", wanted.clone()).await;
    // Whichever node is asked, it is the same webhook.
    for name in ["b", "c"] {
        let again = modern(&nodes, name).await.ask("events/subscribe", wanted.clone()).await;
        assert_eq!(again["id"], subscribed["id"], "{again}");
    }
    let mut owner = None;
    for node in nodes.all() {
        match node.webhooks().await {
            0 => {}
            count => assert!(count == 1 && owner.replace(node.name.clone()).is_none()),
        }
    }
    let owner = owner.expect("an owner");
    for (index, name) in (0..).zip(["a", "b", "c"]) {
        nodes[name].emit(index * 10..index * 10 + 5).await;
    }
    eventually("all to be delivered", async || received.lock().len() == 15).await;

    nodes.take(&owner).kill().await;
    let left: Vec<String> = nodes.names().cloned().collect();
    nodes[&left[0]].emit(100..105).await;
    nodes[&left[1]].emit(105..110).await;
    eventually("the rest to be delivered", async || {
        let received = received.lock();
        (100..110).all(|n| received.contains(&n))
    })
    .await;
    let numbers = sorted(received.lock().clone());
    assert!((0..5).chain(10..15).chain(20..25).all(|n| numbers.contains(&n)));
    // It ends wherever that is asked.
    let last = modern(&nodes, &left[0]).await;
    let key = json!({"name": "happened", "delivery": {"url": url}});
    assert!(last.request("events/unsubscribe", key).await.answer().await.result().is_object());
    let mut count = 0;
    for node in nodes.all() {
        count += node.webhooks().await;
    }
    assert_eq!(count, 0);
}

/// Waits until exactly one node runs the hooks of the type `watched`, and returns its name.
async fn watching(nodes: &Nodes) -> String {
    let mut found = String::new();
    eventually("one node to watch", async || {
        let mut all = Vec::new();
        for node in nodes.all() {
            if node.hooks("watched").await.last() == Some(&true) {
                all.push(node.name.clone());
            }
        }
        found = all.first().cloned().unwrap_or_default();
        all.len() == 1
    })
    .await;
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_runs_the_hooks_for_all_and_another_one_when_it_is_killed_or_leaves() {
    let mut nodes = quiet(&["a", "b", "c"]).await;
    let mut streams = BTreeMap::new();
    for name in ["a", "b", "c"] {
        let client = modern(&nodes, name).await;
        let stream = client.request("events/stream", json!({"name": "watched"})).await;
        streams.insert(name.to_owned(), (client, stream));
        watching(&nodes).await;
    }
    let first = watching(&nodes).await;
    for node in nodes.all() {
        let expected: &[bool] = if node.name == first { &[true] } else { &[] };
        assert_eq!(node.hooks("watched").await, expected, "{}", node.name);
    }
    nodes.take(&first).kill().await;
    streams.remove(&first);
    let second = watching(&nodes).await;
    // The first one comes back, takes over, and leaves in order.
    nodes.start(&first).await;
    eventually("the watch to move back", async || nodes[&first].hooks("watched").await == [true])
        .await;
    assert_eq!(watching(&nodes).await, first);
    nodes.take(&first).terminate().await;
    assert_eq!(watching(&nodes).await, second);
    drop(streams);
    eventually("nobody to watch", async || {
        nodes[&second].hooks("watched").await == [true, false, true, false]
    })
    .await;
}
