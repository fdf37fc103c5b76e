//! The hooks of a type whose clients are on several nodes: one node runs them for all.

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nodes::Nodes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_engine::Engine;
use stentor_events::{Events, EventsHandle};
use support::{Filter, Jobs, Peer, jobs, server, until};
use tokio::time::sleep;

/// Who watches what, and all hooks that have begun, such as `one+a`.
#[derive(Clone, Default)]
struct Calls {
    log: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>,
}

impl Calls {
    fn hook(&self, node: &'static str, sign: char, filter: &Filter) {
        let queue = filter.queue.clone().unwrap_or_else(|| "all".to_owned());
        self.log.lock().push(format!("{node}{sign}{queue}"));
        let mut open = self.open.lock();
        let open = open.entry(queue).or_default();
        match sign {
            '+' => open.push(node),
            _ => open.retain(|it| *it != node),
        }
    }

    fn jobs(&self, node: &'static str) -> Jobs {
        let hook = |sign: char| {
            let calls = self.clone();
            move |filter: Arc<Filter>| {
                let calls = calls.clone();
                async move {
                    sleep(Duration::from_millis(20)).await;
                    calls.hook(node, sign, &filter);
                }
            }
        };
        jobs("job.done").on_subscribe(hook('+')).on_unsubscribe(hook('-'))
    }

    /// The nodes that watch a queue.
    fn open(&self, queue: &str) -> Vec<&'static str> {
        self.open.lock().get(queue).cloned().unwrap_or_default()
    }

    async fn until_open(&self, queue: &str, count: usize) -> Vec<&'static str> {
        let what = format!("{count} nodes watch {queue}");
        until(&what, || self.open(queue).len() == count).await;
        self.open(queue)
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }
}

struct Node {
    name: &'static str,
    engine: Engine,
    handle: EventsHandle,
    client: Peer,
}

async fn start(name: &'static str, events: Events) -> Node {
    let handle = events.handle();
    let engine = Nodes::named(name, server().extension(events)).start().await.unwrap();
    let client = Peer::stranger(&engine).await;
    Node { name, engine, handle, client }
}

/// Nodes that know each other.
async fn cluster(calls: &Calls, names: &[&'static str]) -> (Nodes, Vec<Node>) {
    let (nodes, mut all) = (Nodes::default(), Vec::new());
    for name in names {
        let node = start(name, Events::new().add(&calls.jobs(name))).await;
        nodes.join(&node.engine);
        all.push(node);
    }
    // They have found each other and told each other what they watch.
    sleep(Duration::from_secs(5)).await;
    (nodes, all)
}

async fn stop(all: Vec<Node>) {
    for node in all {
        node.engine.join_peers(None);
        node.engine.shutdown().await;
    }
}

fn of(queue: &str) -> Value {
    json!({"name": "job.done", "arguments": {"queue": queue}})
}

#[tokio::test(start_paused = true)]
async fn one_node_begins_with_the_first_client_of_any() {
    let calls = Calls::default();
    let (_nodes, mut all) = cluster(&calls, &["one", "two", "three"]).await;
    let queues: Vec<String> = (0..12).map(|number| format!("q{number}")).collect();
    for (index, queue) in queues.iter().enumerate() {
        for turn in 0..3 {
            all[(index + turn) % 3].client.opened(of(queue)).await;
            calls.until_open(queue, 1).await;
        }
    }
    sleep(Duration::from_secs(10)).await;
    let log = calls.log();
    assert_eq!(log.len(), queues.len(), "{log:?}");
    for node in &all {
        assert!(log.iter().any(|it| it.starts_with(node.name)), "each runs some: {log:?}");
    }
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_client_ends_it_wherever_it_is() {
    let calls = Calls::default();
    let (_nodes, mut all) = cluster(&calls, &["one", "two", "three"]).await;
    let mut streams = Vec::new();
    for node in &mut all {
        streams.push(node.client.opened(of("a")).await.0);
    }
    let runner = calls.until_open("a", 1).await[0];
    for (at, id) in streams.into_iter().enumerate() {
        sleep(Duration::from_secs(3)).await;
        assert_eq!(calls.log(), [format!("{runner}+a")]);
        all[at].client.cancel(id).await;
    }
    calls.until_open("a", 0).await;
    assert_eq!(calls.log(), [format!("{runner}+a"), format!("{runner}-a")]);
    // A poll counts, too.
    all[0].client.poll(of("a")).await;
    assert_eq!(calls.until_open("a", 1).await, [runner]);
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_node_that_watches_dies_or_leaves_another_one_begins() {
    let calls = Calls::default();
    let (nodes, mut all) = cluster(&calls, &["one", "two", "three"]).await;
    for node in &mut all {
        node.client.opened(of("a")).await;
    }
    let first = calls.until_open("a", 1).await[0];
    // For the others it is dead; nobody has told it.
    nodes.lose(first);
    let both = calls.until_open("a", 2).await;
    let second = *both.iter().find(|it| **it != first).unwrap();
    let leaving = all.iter().position(|it| it.name == second).unwrap();
    let leaving = all.remove(leaving);
    leaving.engine.shutdown().await;
    nodes.lose(second);
    until("the third one", || {
        let open = calls.open("a");
        !open.contains(&second) && open.len() == 2
    })
    .await;
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_takes_over_after_the_old_one_has_ended() {
    let calls = Calls::default();
    let (nodes, mut all) = cluster(&calls, &["one"]).await;
    let queues: Vec<String> = (0..12).map(|number| format!("q{number}")).collect();
    for queue in &queues {
        all[0].client.opened(of(queue)).await;
        calls.until_open(queue, 1).await;
    }
    let mut two = start("two", Events::new().add(&calls.jobs("two"))).await;
    nodes.join(&two.engine);
    two.client.opened(of("q0")).await;
    until("some have moved", || queues.iter().any(|it| calls.open(it) == ["two"])).await;
    sleep(Duration::from_secs(10)).await;
    for queue in &queues {
        assert_eq!(calls.open(queue).len(), 1, "{queue}");
        let own: Vec<_> = calls.log().into_iter().filter(|it| it.ends_with(queue)).collect();
        match &own[..] {
            [only] => assert!(only.starts_with("one+")),
            // A client of the new node may have come before it knew the other one.
            [.., ended, begun] if queue != "q0" => {
                assert!(own.len() == 3 && ended.starts_with("one-"), "{own:?}");
                assert!(begun.starts_with("two+"), "{own:?}");
            }
            _ => {}
        }
    }
    all.push(two);
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn each_side_of_a_split_watches_until_they_see_each_other() {
    let calls = Calls::default();
    let (nodes, mut all) = cluster(&calls, &["one", "two"]).await;
    let mut streams = Vec::new();
    for node in &mut all {
        streams.push(node.client.opened(of("a")).await.0);
    }
    let runner = calls.until_open("a", 1).await[0];
    nodes.split(&["one"]);
    calls.until_open("a", 2).await;
    nodes.split(&[]);
    assert_eq!(calls.until_open("a", 1).await, [runner]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(calls.log().len(), 3, "{:?}", calls.log());
    // What has changed meanwhile is known.
    for (node, id) in all.iter().zip(streams) {
        node.client.cancel(id).await;
    }
    calls.until_open("a", 0).await;
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_added_later_is_watched_for_those_who_were_there() {
    let calls = Calls::default();
    let (nodes, mut all) = cluster(&calls, &["one"]).await;
    let two = start("two", Events::new()).await;
    nodes.join(&two.engine);
    sleep(Duration::from_secs(5)).await;
    let queues: Vec<String> = (0..12).map(|number| format!("q{number}")).collect();
    for queue in &queues {
        all[0].client.opened(of(queue)).await;
        assert_eq!(calls.until_open(queue, 1).await, ["one"]);
    }
    two.handle.add(&calls.jobs("two")).await.unwrap();
    until("some have moved", || queues.iter().any(|it| calls.open(it) == ["two"])).await;
    sleep(Duration::from_secs(10)).await;
    assert!(queues.iter().all(|it| calls.open(it).len() == 1));
    // It goes, and they come back.
    two.handle.remove("job.done").await.unwrap();
    until("all are back", || queues.iter().all(|it| calls.open(it) == ["one"])).await;
    all.push(two);
    stop(all).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_and_goes_leaves_nothing() {
    let calls = Calls::default();
    let (_nodes, mut all) = cluster(&calls, &["one", "two"]).await;
    for turn in 0..60_u64 {
        let node = &mut all[turn as usize % 2];
        let (id, _) = node.client.opened(of("a")).await;
        sleep(Duration::from_millis(turn % 7)).await;
        node.client.cancel(id).await;
        sleep(Duration::from_millis(turn % 5)).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(calls.open("a"), [""; 0]);
    let log = calls.log();
    assert!(log.chunks(2).all(|it| it[0].contains('+') && it[1].contains('-')), "{log:?}");
    assert!(log.iter().all(|it| it[..3] == log[0][..3]), "on one node: {log:?}");
    stop(all).await;
}
