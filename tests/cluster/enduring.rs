//! Occurrences while nodes are killed, frozen and split off, and subscribers come and go.
//!
//! `STENTOR_SOAK=1` runs for ten minutes instead of a few seconds; `STENTOR_CLUSTER_SEED=N` repeats the
//! order of the faults.

#[path = "enduring/subscribers.rs"]
mod subscribers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stentor_tests::{Network, NodeOrder, Nodes, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::NODE;
use subscribers::{Addresses, Record, endpoint, poller, streamer, subscribe};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Occurrences in one order, and how often that is given: 200 a second.
const AT_ONCE: u64 = 10;
const EVERY: Duration = Duration::from_millis(50);

/// The numbers of one node begin here times its place.
const OF_NODE: u64 = 1_000_000_000;

/// Random numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % sides
    }
}

/// What is wrong with a node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Frozen,
    Killed,
    Split,
}

struct Run {
    nodes: Nodes,
    random: Random,
    fault: Option<(&'static str, Fault)>,
    addresses: Addresses,
    next: BTreeMap<&'static str, u64>,
    /// All emits that have returned: their numbers, with the ids.
    emitted: BTreeMap<u64, String>,
    endpoint: String,
}

impl Run {
    fn look_up(&self) {
        let sound = self.nodes.all().filter(|it| self.fault.is_none_or(|(bad, _)| bad != it.name));
        *self.addresses.lock() = sound.map(stentor_tests::Node::http).collect();
    }

    async fn emit(&mut self) {
        let sound = self.fault.filter(|(_, fault)| *fault != Fault::Split).map(|(bad, _)| bad);
        let able: Vec<_> = NAMES.into_iter().filter(|name| Some(*name) != sound).collect();
        let name = able[self.random.below(able.len() as u64) as usize];
        let next = self.next.get_mut(name).expect("a number");
        let numbers = *next..*next + AT_ONCE;
        *next += AT_ONCE;
        let ids = self.nodes[name].emit(numbers.clone()).await;
        self.emitted.extend(numbers.zip(ids));
    }

    /// Does something to a node, or undoes it.
    async fn disturb(&mut self) {
        if let Some((name, fault)) = self.fault.take() {
            match fault {
                Fault::Frozen => self.nodes[name].thaw(),
                Fault::Killed => {
                    self.nodes.start(name).await;
                    let allow = NodeOrder::Allow(self.endpoint.clone());
                    self.nodes[name].run(allow).await;
                }
                Fault::Split => self.nodes.network.as_mut().expect("a network").heal().await,
            }
            println!("{name} is whole again");
        } else {
            let name = NAMES[self.random.below(3) as usize];
            let has_network = self.nodes.network.is_some();
            let fault = match self.random.below(if has_network { 3 } else { 2 }) {
                0 => Fault::Frozen,
                1 => Fault::Killed,
                _ => Fault::Split,
            };
            self.fault = Some((name, fault));
            // No new client goes there.
            self.look_up();
            match fault {
                Fault::Frozen => self.nodes[name].freeze(),
                Fault::Killed => self.nodes.take(name).kill().await,
                Fault::Split => {
                    self.nodes.network.as_mut().expect("a network").plug(name, 1).await;
                }
            }
            println!("{name} is {fault:?}");
        }
        self.look_up();
    }
}

fn seed() -> u64 {
    let given = std::env::var("STENTOR_CLUSTER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("STENTOR_CLUSTER_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_nodes_nothing_is_lost_silently_or_heard_twice() {
    let name = "enduring::whatever_becomes_of_nodes_nothing_is_lost_silently_or_heard_twice";
    let network = Network::for_test(name).await;
    let Some(network) = network else { return };
    let is_soak = std::env::var_os("STENTOR_SOAK").is_some();
    let mut nodes = Nodes::none(NODE);
    nodes.network = Some(network);
    for name in NAMES {
        nodes.start(name).await;
    }
    nodes.whole().await;
    let (endpoint, delivered) = endpoint().await;
    for node in nodes.all() {
        node.run(NodeOrder::Allow(endpoint.clone())).await;
    }
    let next = (0..).zip(NAMES).map(|(place, name)| (name, place * OF_NODE));
    let mut run = Run {
        nodes,
        random: Random(seed()),
        fault: None,
        addresses: Addresses::default(),
        next: next.collect(),
        emitted: BTreeMap::new(),
        endpoint: endpoint.clone(),
    };
    run.look_up();
    subscribe(&run.addresses, &endpoint).await;
    let records: Vec<Arc<Mutex<Record>>> = (0..8).map(|_| Arc::default()).collect();
    let mut subscribers = JoinSet::new();
    for (index, record) in records.iter().enumerate() {
        match index % 2 {
            0 => subscribers.spawn(poller(run.addresses.clone(), record.clone())),
            _ => subscribers.spawn(streamer(run.addresses.clone(), record.clone())),
        };
    }
    eventually("all to have begun", async || records.iter().all(|it| it.lock().cursor.is_some()))
        .await;

    let span = Duration::from_secs(if is_soak { 600 } else { 12 });
    let (begun, mut disturbed) = (Instant::now(), Instant::now());
    while begun.elapsed() < span {
        let round = Instant::now();
        run.emit().await;
        if disturbed.elapsed() > Duration::from_secs(if is_soak { 4 } else { 2 }) {
            run.disturb().await;
            disturbed = Instant::now();
        }
        sleep(EVERY.saturating_sub(round.elapsed())).await;
    }
    if run.fault.is_some() {
        run.disturb().await;
    }
    run.nodes.whole().await;
    // The last one, so that all know when they have everything.
    run.emit().await;

    let missing =
        |record: &Record| run.emitted.keys().filter(|n| !record.heard.contains_key(n)).count();
    let complete = async || {
        records.iter().all(|record| {
            let record = record.lock();
            record.gaps > 0 || missing(&record) == 0
        })
    };
    let waited = timeout(Duration::from_secs(60), async {
        while !complete().await {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let all_have = waited.await.is_ok();
    subscribers.abort_all();
    for (index, record) in records.iter().enumerate() {
        let record = record.lock();
        println!(
            "{}: {} heard, {} gaps, {} missing, came back {} times",
            if index % 2 == 0 { "poll" } else { "push" },
            record.heard.len(),
            record.gaps,
            missing(&record),
            record.returns,
        );
        assert_eq!(record.wrong, Vec::<String>::new());
        for (n, id) in &record.heard {
            assert!(run.emitted.get(n).is_none_or(|known| known == id), "{n} has two ids");
        }
    }
    assert!(all_have, "some have not heard everything, and were told of no gap");
    eventually("the webhook to have everything", async || {
        let delivered = delivered.lock();
        run.emitted.keys().all(|n| delivered.heard.contains_key(n)) || delivered.gaps > 0
    })
    .await;
    let delivered = delivered.lock();
    println!(
        "webhook: {} heard, {} of them again, {} gaps; {} emitted",
        delivered.heard.len(),
        delivered.again,
        delivered.gaps,
        run.emitted.len()
    );
}
