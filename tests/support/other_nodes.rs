//! A server of several nodes behind a load balancer, for any test.
//!
//! A node is a process. So a test that runs against several nodes starts itself again, once for
//! each other node. The new process runs the test up to the start of its server, with all settings
//! of the test, and stays there: it becomes a node without items, and reports its activity.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stentor::cluster::{Cluster, ClusterConfig};
use stentor::http::HttpConfig;
use stentor::{Engine, config::Config, session::NodeId};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::balancer::Balancer;
use crate::server::serve;
use crate::{eventually, fixture, soon};

const NODES: &str = "STENTOR_NODES";
const OTHER_NODE: &str = "STENTOR_OTHER_NODE";

/// The number of nodes that each test's server should have.
pub(crate) fn nodes_wanted() -> usize {
    std::env::var(NODES).map_or(1, |it| it.parse().expect("the number of nodes"))
}

/// The other nodes and the balancer of a cluster whose first node runs in the test's process.
#[derive(Debug)]
pub(crate) struct OtherNodes {
    /// The node of this process.
    pub(crate) cluster: Cluster,
    other_nodes: Vec<OtherNode>,
    balancer: Balancer,
}

/// A node without items, in another process. Dropping it kills the process.
#[derive(Debug)]
struct OtherNode {
    _child: Child,
    line: Mutex<BufStream<TcpStream>>,
}

/// The settings of one other node.
#[derive(Serialize, Deserialize)]
pub(crate) struct Role {
    node: String,
    cluster: String,
    seed: String,
    /// The address from which it receives orders.
    orders: SocketAddr,
}

#[derive(Serialize, Deserialize)]
enum Order {
    Tell,
    Stop,
    End,
}

impl OtherNodes {
    /// Makes a node the first of several. The node already serves HTTP at this address.
    pub(crate) async fn of(engine: &Engine, address: SocketAddr, nodes: usize) -> Self {
        let name = cluster_name();
        let first = join(engine, &name, Vec::new()).await;
        let seed = first.gossip_address().expect("an address").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let orders = listener.local_addr().expect("a bound address");
        let (mut other_nodes, mut addresses) = (Vec::new(), vec![address]);
        for n in 1..nodes {
            let node = format!("other-{n}");
            let role = Role { node, cluster: name.clone(), seed: seed.clone(), orders };
            let child = role.spawn();
            let (line, _) = soon("another node", listener.accept()).await.expect("a connection");
            let mut line = BufStream::new(line);
            addresses.push(read(&mut line).await);
            other_nodes.push(OtherNode { _child: child, line: Mutex::new(line) });
        }
        let balancer = Balancer::start(SocketAddr::from(([127, 0, 0, 1], 0)), addresses).await;
        let cluster =
            Self { cluster: first, other_nodes, balancer: balancer.expect("a free port") };
        eventually("all nodes to be one cluster", async || cluster.is_whole(engine).await).await;
        cluster
    }

    /// The address of the balancer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    async fn is_whole(&self, engine: &Engine) -> bool {
        let Ok(home) = Activity::of(engine, Some(&self.cluster)).await else { return false };
        let is_whole = |it: &Activity| {
            it.is_settled() && it.links == self.other_nodes.len() && it.names == home.names
        };
        let Some(others) = self.activities().await else { return false };
        others.iter().chain([&home]).all(is_whole)
    }

    /// The activity of the other nodes; `None` while an actor of one is being replaced.
    pub(crate) async fn activities(&self) -> Option<Vec<Activity>> {
        let all = self.other_nodes.iter().map(|it| it.ask::<Option<Activity>>(Order::Tell));
        futures::future::join_all(all).await.into_iter().collect()
    }

    /// Has the other nodes shut down, and returns when they have begun to.
    pub(crate) async fn stop(&self) {
        futures::future::join_all(self.other_nodes.iter().map(|it| it.ask::<()>(Order::Stop)))
            .await;
    }

    /// Waits until the other nodes have shut down.
    pub(crate) async fn ended(&self) {
        futures::future::join_all(self.other_nodes.iter().map(|it| it.ask::<()>(Order::End))).await;
    }
}

impl OtherNode {
    async fn ask<A: DeserializeOwned>(&self, order: Order) -> A {
        let mut stream = self.line.lock().await;
        write(&mut stream, &order).await;
        read(&mut stream).await
    }
}

async fn read<A: DeserializeOwned>(stream: &mut BufStream<TcpStream>) -> A {
    let mut line = String::new();
    soon("another node", stream.read_line(&mut line)).await.expect("it runs");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

async fn write(stream: &mut BufStream<TcpStream>, message: &impl Serialize) {
    let line = serde_json::to_string(message).expect("a plain message") + "\n";
    stream.write_all(line.as_bytes()).await.expect("the other end reads");
    stream.flush().await.expect("the other end reads");
}

impl Role {
    /// The role of this process, if it was started as another node.
    pub(crate) fn given() -> Option<Self> {
        let role = std::env::var(OTHER_NODE).ok()?;
        Some(serde_json::from_str(&role).expect("a role"))
    }

    /// Starts the test of this process again, as another node.
    fn spawn(&self) -> Child {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        assert!(
            arguments.iter().any(|it| it == "--exact"),
            "with {NODES} each test is a process of its own, as with `cargo nextest run`",
        );
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(arguments).env(OTHER_NODE, serde_json::to_string(self).expect("plain"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.spawn().expect("this program runs")
    }

    /// Runs as that node until the process ends.
    pub(crate) async fn play(self, config: Config, http: HttpConfig) -> ! {
        let builder = fixture::bare().configure(|it| {
            *it = config;
            it.node = NodeId::new(&*self.node).expect("a plain name");
        });
        let (engine, stop) =
            (builder.start().await.expect("a valid node"), CancellationToken::new());
        let cluster = join(&engine, &self.cluster, vec![self.seed]).await;
        let (address, mut served) = serve(&engine, &http, &stop).await;
        let stream = TcpStream::connect(self.orders).await.expect("the test runs");
        let mut stream = BufStream::new(stream);
        write(&mut stream, &address).await;
        loop {
            let mut order = String::new();
            if stream.read_line(&mut order).await.unwrap_or_default() == 0 {
                // The test has ended; exit even if something still runs.
                std::process::exit(0);
            }
            match serde_json::from_str(&order).expect("an order") {
                Order::Tell => {
                    let activity = Activity::of(&engine, Some(&cluster)).await;
                    write(&mut stream, &activity.ok()).await;
                }
                Order::Stop => {
                    stop.cancel();
                    engine.draining().await;
                    write(&mut stream, &()).await;
                }
                Order::End => {
                    (&mut served).await.expect("no panic").expect("a good end");
                    write(&mut stream, &()).await;
                }
            }
        }
    }
}

/// Joins a node to a cluster.
pub(crate) async fn join(engine: &Engine, name: &str, seeds: Vec<String>) -> Cluster {
    let mut config = ClusterConfig::new(name, name);
    config.seeds = seeds;
    config.give_up_after = Duration::from_secs(10);
    config.gossip_interval = Duration::from_millis(50);
    Cluster::join(engine, config).await.expect("free ports")
}

/// A unique cluster name, which is also the secret. So a node never talks to a node of another
/// test, even if it reuses the other node's port.
pub(crate) fn cluster_name() -> String {
    static CLUSTERS: AtomicU64 = AtomicU64::new(0);
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
    format!("test-{}-{number}-{now}", std::process::id())
}
