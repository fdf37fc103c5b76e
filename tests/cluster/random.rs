//! Random events in random order, checked against a model.
//!
//! `STENTOR_CLUSTER_SEED=N` repeats one schedule. `STENTOR_SOAK=1` runs many long schedules for ten
//! minutes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_tests::{Era, Network, Node, NodeOrder, Nodes, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::{Http, Peer};
use crate::{NODE, nothing_to_tell};

/// The names of possible nodes.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The number of tools that are added and removed, on any node.
const TOOLS: u64 = 6;
/// How long a call may take: a node may be frozen for part of it.
const PATIENCE: Duration = Duration::from_secs(30);

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

    fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let index = self.below(of.len().max(1) as u64);
        of.get(index as usize).cloned()
    }
}

/// Names and descriptions of tools.
type Tools = BTreeMap<String, String>;

/// The tools that a client of these nodes sees. Each has the description that most nodes give it;
/// on a tie, the smaller one.
fn union(offered: &BTreeMap<String, Tools>) -> Tools {
    let mut votes: BTreeMap<&String, BTreeMap<&String, usize>> = BTreeMap::new();
    for (name, description) in offered.values().flatten() {
        *votes.entry(name).or_default().entry(description).or_default() += 1;
    }
    let best = |votes: BTreeMap<&String, usize>| {
        let best = votes.into_iter().min_by_key(|(text, count)| (usize::MAX - count, *text));
        best.expect("a vote").0.clone()
    };
    votes.into_iter().map(|(name, votes)| (name.clone(), best(votes))).collect()
}

/// The state of a listener.
#[derive(Debug)]
struct Listener {
    node: String,
    era: Era,
    notices: u64,
    list: Tools,
    has_ended: bool,
    /// The counts of changes and events when it connected.
    before: (u64, u64),
}

async fn list(http: &mut Http, peer: &Peer) -> io::Result<Tools> {
    http.ask(&peer.request(1, "tools/list", json!({}))).await?;
    let page = http.message().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let tools = page["result"]["tools"].as_array().ok_or(io::ErrorKind::InvalidData)?;
    let text = |tool: &Value, key: &str| tool[key].as_str().unwrap_or_default().to_owned();
    let tools = tools.iter().map(|tool| (text(tool, "name"), text(tool, "description")));
    Ok(tools.filter(|(name, _)| name.starts_with("any-")).collect())
}

/// Listens for changes of the tools, and reads the list after each notice.
async fn listen(to: SocketAddr, heard: &Mutex<Listener>, is_ready: &AtomicBool) -> io::Result<()> {
    let era = heard.lock().era;
    let (mut asking, mut hearing) = (Http::connect(to).await?, Http::connect(to).await?);
    let peer = Peer::open(&mut asking, era).await?;
    hearing.ask(&peer.hear(&[])).await?;
    let first = list(&mut asking, &peer).await?;
    heard.lock().list = first;
    is_ready.store(true, Ordering::Release);
    while let Some(notice) = hearing.message().await? {
        if notice["method"] == "notifications/tools/list_changed" {
            let now = list(&mut asking, &peer).await?;
            let mut heard = heard.lock();
            heard.list = now;
            heard.notices += 1;
        }
    }
    Ok(())
}

/// The nodes that callers know.
#[derive(Debug, Default)]
struct Known {
    /// The addresses to send calls to.
    live: Vec<SocketAddr>,
    /// Nodes that were asked to end: their clients may lose their connections.
    ended: HashSet<SocketAddr>,
}

#[derive(Debug, Default)]
struct Calls {
    results: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
}

/// Calls tools in a loop, through random nodes.
async fn call(
    mut random: Random,
    known: Arc<Mutex<Known>>,
    calls: Arc<Calls>,
    stop: Arc<AtomicBool>,
) {
    let mut id = 0;
    while !stop.load(Ordering::Acquire) {
        id += 1;
        let to = random.one(&known.lock().live);
        let Some(to) = to else { continue };
        let tool = match random.below(3) {
            0 => format!("echo-{}", NAMES[random.below(5) as usize]),
            _ => format!("any-{}", random.below(TOOLS)),
        };
        let request = Peer::Modern.call(id, &tool, json!({"ms": random.below(40)}));
        let answered = async {
            let mut http = Http::connect(to).await?;
            http.ask(&request).await?;
            let answer = http.message().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            assert_eq!(http.message().await?, None, "one answer to a call");
            Ok::<_, io::Error>(answer)
        };
        let answered = timeout(PATIENCE, answered).await;
        match answered.unwrap_or_else(|_| panic!("{tool} through {to} is not answered")) {
            Ok(answer) => {
                assert_eq!(answer["id"], id, "{answer}");
                let is_error = answer.get("error").is_some();
                let count = if is_error { &calls.errors } else { &calls.results };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(known.lock().ended.contains(&to), "{tool} through {to}: {error}");
                calls.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

struct World {
    random: Random,
    nodes: Nodes,
    frozen: BTreeSet<String>,
    offered: BTreeMap<String, Tools>,
    listeners: Vec<Arc<Mutex<Listener>>>,
    tasks: JoinSet<()>,
    known: Arc<Mutex<Known>>,
    /// Changes of tools, and of the set of reachable nodes.
    changes: u64,
    events: u64,
    done: Vec<String>,
}

impl World {
    fn awake(&self) -> Vec<String> {
        self.nodes.names().filter(|name| !self.frozen.contains(*name)).cloned().collect()
    }

    async fn join(&mut self, name: &str) {
        self.events += 1;
        // It finds the others through any node that answers.
        let node = self.nodes.start(name).await;
        let address = node.http();
        self.offered.insert(name.to_owned(), Tools::new());
        self.known.lock().live.push(address);
        for era in [Era::Legacy, Era::Modern] {
            let heard = Arc::new(Mutex::new(Listener {
                node: name.to_owned(),
                era,
                notices: 0,
                list: Tools::new(),
                has_ended: false,
                before: (self.changes, self.events - 1),
            }));
            self.listeners.push(heard.clone());
            let is_ready = Arc::new(AtomicBool::new(false));
            let ready = is_ready.clone();
            self.tasks.spawn(async move {
                let _ = listen(address, &heard, &ready).await;
                heard.lock().has_ended = true;
            });
            eventually("a listener", async || is_ready.load(Ordering::Acquire)).await;
        }
    }

    fn take_out(&mut self, name: &str) -> stentor_tests::Node {
        self.events += 1;
        self.offered.remove(name);
        let node = self.nodes.take(name);
        let mut known = self.known.lock();
        known.live.retain(|address| *address != node.http());
        known.ended.insert(node.http());
        drop(known);
        // Its listeners end with it, whether they have noticed or not.
        for heard in &self.listeners {
            let mut heard = heard.lock();
            heard.has_ended |= heard.node == name;
        }
        node
    }

    async fn step(&mut self) {
        let awake = self.awake();
        let node = self.random.one(&awake).expect("a node that is not frozen");
        let tool = format!("any-{}", self.random.below(TOOLS));
        let roll = self.random.below(100);
        let what = match roll {
            0..40 => {
                let description = ["x", "y"][self.random.below(2) as usize].to_owned();
                self.nodes[&node].put(&tool, &description).await;
                let before = self.offered.entry(node.clone()).or_default();
                if before.insert(tool.clone(), description.clone()).as_ref() != Some(&description) {
                    self.changes += 1;
                }
                format!("{node} puts {tool} {description}")
            }
            40..60 => {
                self.nodes[&node].remove(&tool).await;
                let removed = self.offered.entry(node.clone()).or_default().remove(&tool);
                self.changes += u64::from(removed.is_some());
                format!("{node} removes {tool}")
            }
            60..68 => {
                self.nodes[&node].run(NodeOrder::Touch("test://x".to_owned())).await;
                format!("{node} touches")
            }
            68..76 if self.nodes.network.is_some() => self.split_or_heal().await,
            68..74 => {
                let Some(other) = awake.iter().find(|other| **other != node) else { return };
                self.nodes[&node].run(NodeOrder::Cut(other.clone())).await;
                format!("{node} is cut off from {other}")
            }
            74..84 => {
                let absent: Vec<_> = NAMES
                    .into_iter()
                    .filter(|name| !self.nodes.names().any(|it| it == name))
                    .collect();
                let Some(name) = self.random.one(&absent) else { return };
                self.join(name).await;
                format!("{name} joins")
            }
            84..87 if awake.len() > 2 => {
                self.take_out(&node).terminate().await;
                format!("{node} leaves")
            }
            87..92 if awake.len() > 2 => {
                self.take_out(&node).kill().await;
                format!("{node} is killed")
            }
            92..96 if awake.len() > 2 && self.frozen.is_empty() => {
                self.events += 1;
                self.nodes[&node].freeze();
                self.frozen.insert(node.clone());
                format!("{node} freezes")
            }
            _ => {
                let Some(node) = self.frozen.pop_first() else { return };
                let is_long = self.random.below(2) == 0;
                if is_long {
                    self.given_up(&node).await;
                }
                self.events += 1;
                self.nodes[&node].thaw();
                format!("{node} thaws, given up: {is_long}")
            }
        };
        self.done.push(what);
    }

    /// Splits the network at random, or heals it.
    async fn split_or_heal(&mut self) -> String {
        // All other nodes may be seen to leave and to return.
        self.events += NAMES.len() as u64;
        let names: Vec<_> = self.nodes.names().cloned().collect();
        let Some(network) = &mut self.nodes.network else { return String::new() };
        if !network.is_whole() && self.random.below(2) == 0 {
            network.heal().await;
            return "all is healed".to_owned();
        }
        let mut parts = BTreeMap::new();
        for name in names {
            let part = self.random.below(2) as usize;
            network.plug(&name, part).await;
            parts.insert(name, part);
        }
        let is_long = self.frozen.is_empty() && self.random.below(2) == 0;
        if is_long {
            eventually(format_args!("{parts:?} to give each other up"), async || {
                let all = join_all(self.nodes.all().map(Node::census)).await;
                let is_apart = |name: &String, links: &[String]| {
                    links.iter().all(|other| parts.get(other) == parts.get(name))
                };
                self.nodes.names().zip(all).all(|(name, it)| is_apart(name, &it.links))
            })
            .await;
        }
        format!("split, given up: {is_long}, {parts:?}")
    }

    /// Waits until all others have given a node up.
    async fn given_up(&self, name: &str) {
        eventually(format_args!("{name} to be given up"), async || {
            let mut is_gone = true;
            for node in self.nodes.all().filter(|node| node.name != name) {
                is_gone &= !node.census().await.links.iter().any(|it| it == name);
            }
            is_gone
        })
        .await;
    }

    async fn check(&mut self) {
        while let Some(node) = self.frozen.pop_first() {
            self.events += 1;
            self.nodes[&node].thaw();
        }
        if let Some(network) = &mut self.nodes.network {
            network.heal().await;
        }
        let (quiet, model) = (Instant::now(), union(&self.offered));
        self.nodes.whole().await;
        for node in self.nodes.all() {
            eventually(format_args!("{} to offer {model:?}", node.name), async || {
                let mut http = Http::connect(node.http()).await.expect("it runs");
                list(&mut http, &Peer::Modern).await.expect("a list") == model
            })
            .await;
        }
        let agreed = quiet.elapsed();
        let lived = || self.listeners.iter().filter(|heard| !heard.lock().has_ended);
        assert_eq!(lived().count(), 2 * self.nodes.len(), "{:?}", self.listeners);
        for heard in lived() {
            let what = format!("{:?} to have learned of {model:?}", heard.lock());
            eventually(what, async || heard.lock().list == model).await;
        }
        println!("    after {agreed:?} all agreed, after {:?} all knew", quiet.elapsed());
        nothing_to_tell(&self.nodes).await;
        for heard in lived() {
            let heard = heard.lock();
            assert_eq!(heard.list, model, "{heard:?}");
            // Each node may be seen to leave, and to return with all notices that it missed.
            let events = 2 * NAMES.len() as u64 * (self.events - heard.before.1);
            let most = self.changes - heard.before.0 + events;
            assert!(heard.notices <= most, "{most}: {heard:?}");
        }
    }
}

async fn schedule(
    seed: u64,
    steps: usize,
    callers: u64,
    network: Option<Network>,
) -> Option<Network> {
    println!("STENTOR_CLUSTER_SEED={seed}");
    let mut world = World {
        random: Random(seed),
        nodes: Nodes::none(NODE),
        frozen: BTreeSet::new(),
        offered: BTreeMap::new(),
        listeners: Vec::new(),
        tasks: JoinSet::new(),
        known: Arc::default(),
        changes: 0,
        events: 0,
        done: Vec::new(),
    };
    world.nodes.network = network;
    for name in &NAMES[..3] {
        world.join(name).await;
    }
    let (calls, stop) = (Arc::new(Calls::default()), Arc::new(AtomicBool::new(false)));
    let mut calling = JoinSet::new();
    for n in 0..callers {
        let random = Random(seed ^ (n + 1).wrapping_mul(0x1234_5678_9abc_def1));
        calling.spawn(call(random, world.known.clone(), calls.clone(), stop.clone()));
    }
    for _ in 0..steps {
        world.step().await;
        let pause = world.random.below(30);
        sleep(Duration::from_millis(pause)).await;
    }
    println!("    {}", world.done.join("; "));
    world.check().await;
    stop.store(true, Ordering::Release);
    while let Some(done) = calling.join_next().await {
        done.expect("a caller that has all its answers");
    }
    println!("    {calls:?}");
    assert!(calls.results.load(Ordering::Relaxed) > 0);
    world.nodes.network.take()
}

/// Runs schedules from random seeds, or one from a given seed; many long ones with `STENTOR_SOAK`.
/// A schedule passes its network on to the next.
async fn schedules(mut network: Option<Network>) {
    let seed = std::env::var("STENTOR_CLUSTER_SEED").ok().and_then(|seed| seed.parse().ok());
    let is_soak = std::env::var_os("STENTOR_SOAK").is_some();
    let (steps, callers) = if is_soak { (150, 16) } else { (30, 3) };
    if let Some(seed) = seed {
        schedule(seed, steps, callers, network).await;
        return;
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
    let mut seeds = Random(now as u64);
    let begun = Instant::now();
    for round in 0.. {
        let is_over = if is_soak { begun.elapsed().as_secs() >= 600 } else { round == 3 };
        if is_over {
            return;
        }
        network = schedule(seeds.below(1 << 32), steps, callers, network).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_random_events_all_nodes_agree_and_all_clients_know() {
    schedules(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_random_splits_all_nodes_agree_and_all_clients_know() {
    let name = "random::after_random_splits_all_nodes_agree_and_all_clients_know";
    if let Some(network) = Network::for_test(name).await {
        schedules(Some(network)).await;
    }
}
