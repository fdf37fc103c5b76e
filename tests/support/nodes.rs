//! Nodes of a cluster, each in its own process, so that tests can kill, freeze and disconnect them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Index;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::other_nodes::cluster_name;
use crate::{MARK, Network, Phase, eventually, soon};

/// The settings of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// The name of its cluster, which is also the cluster's secret.
    pub cluster: String,
    /// Gossip addresses of other nodes.
    pub seeds: Vec<String>,
    /// After this much silence another node is given up.
    pub give_up_after: Duration,
    /// Its address.
    pub address: IpAddr,
}

/// The addresses of a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// For HTTP clients.
    pub http: SocketAddr,
    /// For links of other nodes.
    pub link: SocketAddr,
    /// For gossip.
    pub gossip: SocketAddr,
}

/// A command to a node. The node answers each order once it is carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NodeOrder {
    /// Adds or replaces these tools, with this description. Each tool waits for `ms` and answers
    /// with the name of the node.
    Put(Vec<String>, String),
    /// Removes these tools.
    Remove(Vec<String>),
    /// Announces that this resource changed.
    Touch(String),
    /// Sends the application's own notifications, `notifications/example/told`, with these numbers.
    Tell(Vec<u64>),
    /// Lets a waiting call continue.
    Release(String),
    /// Asks for the phase of a call, an `Option<Phase>`.
    Phase(String),
    /// Cuts the link to this node; the nodes then make a new one.
    Cut(String),
    /// Asks for the hooks that this URI's watchers made the node run, in order: `true` for each
    /// `on_watch`. URIs that begin with `hooked://` have hooks.
    Hooks(String),
    /// Emits occurrences of the type `happened` with these numbers. The answer are their ids.
    Emit(Vec<u64>),
    /// Lets webhooks go to this origin.
    Allow(String),
    /// Asks for the number of webhooks that the node delivers.
    Webhooks,
    /// Asks for what has become of another node, as observers hear it, in order.
    PeerChanges(String),
    /// Asks for a [`NodeCensus`].
    Count,
}

/// The counts of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCensus {
    /// Open sessions.
    pub sessions: usize,
    /// Running calls.
    pub calls: usize,
    /// Peer requests that it serves for others, and those that others serve for it.
    pub peer_requests: (usize, usize),
    /// Bytes that are queued or kept for clients.
    pub held: usize,
    /// Changes that its clients were not notified of yet.
    pub untold: usize,
    /// The nodes to which it has a link.
    pub links: Vec<String>,
    /// The tools that its clients see, in order.
    pub tools: Vec<String>,
    /// Tools that nodes define differently.
    pub conflicts: Vec<String>,
}

/// A started node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: NodeAddresses,
    child: Child,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Node {
    /// Starts the program `cluster_node` with this command.
    pub async fn start(mut command: Command, settings: &NodeSettings) -> Self {
        command.arg(serde_json::to_string(settings).expect("plain settings"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the node starts");
        let stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let addresses = soon("a node to start", read(&mut stdout)).await;
        let pipes = Mutex::new((stdin, stdout));
        Self { name: settings.name.clone(), addresses, child, pipes }
    }

    /// Its HTTP address.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Sends an order, and waits until it is carried out.
    pub async fn run(&self, order: NodeOrder) {
        self.ask::<()>(order).await;
    }

    /// Adds a tool or changes its description.
    pub async fn put(&self, tool: &str, description: &str) {
        self.run(NodeOrder::Put(vec![tool.to_owned()], description.to_owned())).await;
    }

    /// Removes a tool.
    pub async fn remove(&self, tool: &str) {
        self.run(NodeOrder::Remove(vec![tool.to_owned()])).await;
    }

    /// The counts of the node.
    pub async fn census(&self) -> NodeCensus {
        self.ask(NodeOrder::Count).await
    }

    /// The hooks of a URI that the node has run, in order: `true` for each `on_watch`.
    pub async fn hooks(&self, uri: &str) -> Vec<bool> {
        self.ask(NodeOrder::Hooks(uri.to_owned())).await
    }

    /// What has become of another node, as observers of this one hear it, in order.
    pub async fn peer_changes(&self, node: &str) -> Vec<String> {
        self.ask(NodeOrder::PeerChanges(node.to_owned())).await
    }

    /// Emits occurrences with these numbers, and returns their ids.
    pub async fn emit(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        self.ask(NodeOrder::Emit(numbers.into_iter().collect())).await
    }

    /// How many webhooks the node delivers.
    pub async fn webhooks(&self) -> usize {
        self.ask(NodeOrder::Webhooks).await
    }

    /// Waits until a call on the node has reached `phase`.
    pub async fn reached(&self, call: &str, phase: Phase) {
        eventually(format_args!("'{call}' to be {phase:?} on {}", self.name), async || {
            self.ask::<Option<Phase>>(NodeOrder::Phase(call.to_owned())).await == Some(phase)
        })
        .await;
    }

    async fn ask<A: DeserializeOwned>(&self, order: NodeOrder) -> A {
        let line = serde_json::to_string(&order).expect("a plain order") + "\n";
        let mut pipes = self.pipes.lock().await;
        pipes.0.write_all(line.as_bytes()).await.expect("the node runs");
        soon(format_args!("{} to do {order:?}", self.name), read(&mut pipes.1)).await
    }

    /// SIGKILL. When this returns, the process has ended.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }

    /// SIGTERM. The node leaves the cluster; this waits until its process has ended.
    pub async fn terminate(mut self) {
        self.signal(Signal::TERM);
        let ended = soon("the node to end", self.child.wait()).await.expect("it ran");
        assert!(ended.success(), "{ended}");
    }

    /// SIGSTOP. The node stops without notice to anybody.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT. The node continues.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the node runs");
        let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(id, signal).expect("the node runs");
    }
}

async fn read<A: DeserializeOwned>(lines: &mut Lines<BufReader<ChildStdout>>) -> A {
    let line = lines.next_line().await.expect("a pipe").expect("the node runs");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The nodes of one cluster, by name.
#[derive(Debug)]
pub struct Nodes {
    program: PathBuf,
    cluster: String,
    /// After this much silence a node is given up.
    pub give_up_after: Duration,
    live: BTreeMap<String, Node>,
    /// The nodes' own network, if there is one.
    pub network: Option<Network>,
}

impl Nodes {
    /// A cluster without nodes.
    #[must_use]
    pub fn none(program: impl Into<PathBuf>) -> Self {
        let give_up_after = Duration::from_millis(2_500);
        Self {
            program: program.into(),
            cluster: cluster_name(),
            give_up_after,
            live: BTreeMap::new(),
            network: None,
        }
    }

    /// A cluster of these nodes. Each node knows all others.
    pub async fn of(program: impl Into<PathBuf>, names: &[&str]) -> Self {
        let mut nodes = Self::none(program);
        for name in names {
            nodes.start(name).await;
        }
        nodes.whole().await;
        nodes
    }

    /// Starts a node.
    pub async fn start(&mut self, name: &str) -> &Node {
        let mut command = Command::new(&self.program);
        let mut address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if let Some(network) = &mut self.network {
            address = network.host(name).await;
            command = network.command(name, &self.program);
        }
        let settings = NodeSettings {
            address,
            name: name.to_owned(),
            cluster: self.cluster.clone(),
            seeds: self.live.values().map(|node| node.addresses.gossip.to_string()).collect(),
            give_up_after: self.give_up_after,
        };
        let node = Node::start(command, &settings).await;
        let before = self.live.insert(name.to_owned(), node);
        assert!(before.is_none(), "{name} runs already");
        &self[name]
    }

    /// Removes a node from this collection, so that the test can end it.
    pub fn take(&mut self, name: &str) -> Node {
        self.live.remove(name).expect("it runs")
    }

    /// All running nodes.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.live.values()
    }

    /// The names of all running nodes.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.live.keys()
    }

    /// The number of running nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no node runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Waits until each node has a link to all others, all nodes offer the same tools, and all
    /// changes are announced.
    pub async fn whole(&self) {
        let names: Vec<_> = self.names().cloned().collect();
        eventually(format_args!("{names:?} to be one cluster"), async || {
            let all = futures::future::join_all(self.all().map(Node::census)).await;
            let mut each = self.names().zip(&all);
            each.all(|(name, census)| {
                let others = names.iter().filter(|it| *it != name);
                let own = |name: &String| format!("echo-{name}");
                let echoes = census.tools.iter().filter(|tool| tool.starts_with("echo-"));
                census.links.iter().eq(others)
                    && names.iter().all(|name| census.tools.contains(&own(name)))
                    && echoes.count() == names.len()
                    && census.tools == all[0].tools
                    && census.untold == 0
            })
        })
        .await;
    }

    /// Waits until all changes are announced on all nodes, then has one node send a mark to all
    /// subscribers. Everything before the mark is received before it.
    pub async fn mark(&self, from: &str) {
        let mut settled = 0;
        eventually("all changes to be announced", async || {
            let all = futures::future::join_all(self.all().map(Node::census)).await;
            settled = if all.iter().all(|census| census.untold == 0) { settled + 1 } else { 0 };
            // Checked twice: during the first round, a change may have been in flight to a node
            // that was asked early.
            settled == 2
        })
        .await;
        self[from].run(NodeOrder::Touch(MARK.to_owned())).await;
    }
}

impl Index<&str> for Nodes {
    type Output = Node;

    fn index(&self, name: &str) -> &Node {
        self.live.get(name).unwrap_or_else(|| panic!("{name} does not run"))
    }
}
