//! Resources with hooks that clients of another node watch.

use std::sync::{Arc, Mutex};

use serde_json::json;
use stentor_engine::{EngineBuilder, Resource, Watch};

use super::{all, legacy, opened, support, until};
use crate::nodes::Nodes;

const URI: &str = "test://hooked";

/// The hooks that ran: the node, and whether it began to watch.
type Log = Arc<Mutex<Vec<(&'static str, bool)>>>;

fn hooked(node: &'static str, log: &Log) -> EngineBuilder {
    let [on, off] = [true, false].map(|begins| {
        let log = log.clone();
        move |watch: Watch| {
            assert_eq!(watch.uri(), URI);
            log.lock().unwrap().push((node, begins));
            std::future::ready(())
        }
    });
    support::engine().resource(Resource::text(URI, "hooked", "").on_watch(on).on_unwatch(off))
}

fn taken(log: &Log) -> Vec<(&'static str, bool)> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[tokio::test]
async fn one_of_the_nodes_that_offer_the_hooks_runs_them_for_the_clients_of_all() {
    let (nodes, log) = (Nodes::default(), Log::default());
    let near = nodes.start("near", support::engine()).await;
    let session = opened(&near).await;
    let ask = async |id, method| {
        let request = legacy(id, method, json!({"uri": URI}));
        all(&mut session.request(request).await.unwrap()).await
    };
    let one = nodes.start("one", hooked("one", &log)).await;
    ask(1, "resources/subscribe").await;
    until(|| !log.lock().unwrap().is_empty()).await;
    assert_eq!(taken(&log), [("one", true)]);

    // Of two nodes it is one, as soon as each has heard of the other.
    let two = nodes.start("two", hooked("two", &log)).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let moved = [&[("one", true)][..], &taken(&log)].concat();
    let watches = |node| {
        let turns: Vec<_> = moved.iter().filter(|(it, _)| *it == node).map(|(_, it)| *it).collect();
        assert!(turns.iter().enumerate().all(|(at, begins)| *begins == (at % 2 == 0)), "{moved:?}");
        turns.last() == Some(&true)
    };
    assert_ne!(watches("one"), watches("two"), "{moved:?}");

    let (lost, left) = if watches("one") { ("one", "two") } else { ("two", "one") };
    nodes.lose(lost);
    until(|| !log.lock().unwrap().is_empty()).await;
    assert_eq!(taken(&log), [(left, true)], "the other one is dead, and runs nothing");
    ask(2, "resources/unsubscribe").await;
    until(|| !log.lock().unwrap().is_empty()).await;
    assert_eq!(taken(&log), [(left, false)]);
    for engine in [near, one, two] {
        engine.join_peers(None);
        engine.shutdown().await;
    }
}
