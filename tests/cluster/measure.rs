//! The cost of several nodes, compared to one.
//!
//! By default the sizes are small and nothing is asserted. To measure in an optimized build:
//!
//! ```sh
//! ulimit -n "$(ulimit -Hn)"
//! STENTOR_MEASURE=1 cargo test --release -p stentor-tests --test cluster measure -- --nocapture --test-threads=1
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use serde_json::json;
use stentor_tests::{Era, Node, NodeOrder, Nodes};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{Http, Peer};
use crate::{NODE, nothing_to_tell};

/// The time limit of every operation, on a machine that is busy with other work.
const BOUND: Duration = Duration::from_secs(60);

/// Selects the small size or the size to measure.
fn size<T>(small: T, big: T) -> T {
    if std::env::var_os("STENTOR_MEASURE").is_some() { big } else { small }
}

/// Listening clients of both eras, spread over the nodes. Each reports when it was notified.
async fn listeners(
    nodes: &Nodes,
    count: usize,
    heard: &mpsc::UnboundedSender<Instant>,
) -> JoinSet<()> {
    let addresses: Vec<_> = nodes.all().map(Node::http).collect();
    let open = |n: usize| {
        let (to, heard) = (addresses[n % addresses.len()], heard.clone());
        let era = [Era::Legacy, Era::Modern][n / addresses.len() % 2];
        async move {
            let mut http = Http::connect(to).await.expect("a connection");
            let peer = Peer::open(&mut http, era).await.expect("a session");
            http.ask(&peer.hear(&[])).await.expect("a stream");
            if era == Era::Modern {
                http.message().await.expect("a stream").expect("an acknowledgment");
            }
            (http, heard)
        }
    };
    let mut tasks = JoinSet::new();
    let mut opened = stream::iter((0..count).map(open)).buffer_unordered(64);
    while let Some((mut http, heard)) = opened.next().await {
        tasks.spawn(async move {
            while let Ok(Some(_)) = http.message().await {
                let _ = heard.send(Instant::now());
            }
        });
    }
    tasks
}

/// The times until the first and the last client were notified of a change on one node.
async fn broadcast(names: &[&str], count: usize) -> Vec<(Duration, Duration)> {
    let nodes = Nodes::of(NODE, names).await;
    let (to, mut heard) = mpsc::unbounded_channel();
    let _listeners = listeners(&nodes, count, &to).await;
    nothing_to_tell(&nodes).await;
    while heard.try_recv().is_ok() {}
    let mut took = Vec::new();
    for round in 0..size(2, 7) {
        let begun = Instant::now();
        nodes[names[0]].put("changing", &format!("round {round}")).await;
        let mut all = Vec::new();
        while all.len() < count {
            let at = timeout(BOUND, heard.recv()).await.expect("in time").expect("listeners");
            all.push(at.saturating_duration_since(begun));
        }
        all.sort();
        took.push((all[count / 2], all[count - 1]));
    }
    assert!(heard.try_recv().is_err(), "each change is heard once");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_all_sessions_of_three_nodes() {
    let count = size(150, 3_000);
    for names in [&["a"][..], &["a", "b", "c"]] {
        let mut took = broadcast(names, count).await;
        took.sort_by_key(|(_, last)| *last);
        let (half, last) = took[took.len() / 2];
        println!(
            "{} nodes, {count} sessions: half had it after {half:?}, all after {last:?} (of {} \
             changes the fastest {:?}, the slowest {:?})",
            names.len(),
            took.len(),
            took[0].1,
            took[took.len() - 1].1,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_receives_all_items_of_the_others() {
    let count = size(200, 1_000);
    let mut nodes = Nodes::of(NODE, &["a", "b"]).await;
    let names: Vec<_> = (0..count).map(|n| format!("one-of-many-{n}")).collect();
    nodes["a"].run(NodeOrder::Put(names, "one of many".to_owned())).await;
    let has_all = async |node: &Node| {
        let census = node.census().await;
        census.tools.iter().filter(|tool| tool.starts_with("one-of-many")).count() == count
    };
    let begun = Instant::now();
    while !has_all(&nodes["b"]).await {
        assert!(begun.elapsed() < BOUND);
    }
    println!("{count} tools were listed on the other node after {:?}", begun.elapsed());
    let begun = Instant::now();
    let joined = nodes.start("c").await;
    println!("a node started within {:?}", begun.elapsed());
    while !has_all(joined).await {
        assert!(begun.elapsed() < BOUND);
    }
    println!("and listed {count} tools of the others after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_remote_tools() {
    let nodes = Nodes::of(NODE, &["a", "b"]).await;
    let (clients, time) = (size(8, 32), size(Duration::from_millis(500), Duration::from_secs(5)));
    let to = nodes["a"].http();
    for (tool, era) in [
        ("echo-a", Era::Modern),
        ("echo-b", Era::Modern),
        ("echo-a", Era::Legacy),
        ("echo-b", Era::Legacy),
    ] {
        let until = Instant::now() + time;
        let mut calling = JoinSet::new();
        let waits = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for _ in 0..clients {
            let waits = waits.clone();
            calling.spawn(async move {
                let mut http = Http::connect(to).await.expect("a connection");
                let peer = Peer::open(&mut http, era).await.expect("a session");
                let mut took = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    let id = took.len() as u64 + 1;
                    http.ask(&peer.call(id, tool, json!({}))).await.expect("a response");
                    let answer = http.message().await.expect("a response").expect("an answer");
                    assert!(answer["result"].is_object(), "{answer}");
                    took.push(begun.elapsed());
                }
                waits.lock().append(&mut took);
            });
        }
        calling.join_all().await;
        let mut waits = std::mem::take(&mut *waits.lock());
        waits.sort();
        let rate = waits.len() as f64 / time.as_secs_f64();
        println!(
            "{tool} through a, {era:?}, {clients} clients: {rate:.0} calls/s, {:.0} a minute, \
             median {:?}, p99 {:?}",
            60.0 * rate,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
        );
    }
}
