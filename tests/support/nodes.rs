//! Nodes of a cluster, each a process of its own that can be killed, frozen and cut off.

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

use crate::neighbours::cluster_name;
use crate::{MARK, Network, Phase, eventually, soon};

/// How a node is set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// The name of its cluster, which is its secret, too.
    pub cluster: String,
    /// Where others gossip.
    pub seeds: Vec<String>,
    /// After how much silence others are given up.
    pub give_up_after: Duration,
    /// Its address.
    pub address: IpAddr,
}

/// Where a node is reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// HTTP.
    pub http: SocketAddr,
    /// Links of other nodes.
    pub link: SocketAddr,
    /// Gossip.
    pub gossip: SocketAddr,
}

/// What a node is told to do. Each order is answered when it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NodeOrder {
    /// Adds these tools or puts them in the place of what they were, with this description. They
    /// wait for `ms`, and answer with the name of the node.
    Put(Vec<String>, String),
    /// Removes these tools.
    Remove(Vec<String>),
    /// Says that this resource changed.
    Touch(String),
    /// Sends notifications of its own, `notifications/example/told`, with these numbers.
    Tell(Vec<u64>),
    /// Lets a waiting call go on.
    Release(String),
    /// How far a call is, an `Option<Phase>`.
    Phase(String),
    /// Cuts the link to this node; a new one is made.
    Cut(String),
    /// Counts: a [`NodeCensus`].
    Count,
}

/// What there is in a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCensus {
    /// Sessions, but for the one that stands for stateless calls.
    pub sessions: usize,
    /// Calls that run.
    pub calls: usize,
    /// Errands that it is on for others, and others for it.
    pub errands: (usize, usize),
    /// Bytes that wait or are kept for clients.
    pub held: usize,
    /// Changes that its clients are still to be told of.
    pub untold: usize,
    /// The nodes that it has a link to.
    pub links: Vec<String>,
    /// The tools that its clients see, in their order.
    pub tools: Vec<String>,
    /// The tools that nodes define differently.
    pub conflicts: Vec<String>,
}

/// A node that was started. It ends with this.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub addresses: NodeAddresses,
    child: Child,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Node {
    /// Starts the program `cluster_node` by this command.
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

    /// Where it serves HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Has the node do something, and waits until it is done.
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

    /// What there is in the node.
    pub async fn census(&self) -> NodeCensus {
        self.ask(NodeOrder::Count).await
    }

    /// Waits until a call of the node's code has come to `phase`.
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

    /// SIGKILL: nothing of it runs any more when this returns.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }

    /// SIGTERM: it leaves, and this waits until it has ended.
    pub async fn terminate(mut self) {
        self.signal(Signal::TERM);
        let ended = soon("the node to end", self.child.wait()).await.expect("it ran");
        assert!(ended.success(), "{ended}");
    }

    /// SIGSTOP: it does nothing any more, and nobody is told.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on as if nothing had been.
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

/// The nodes of one cluster, by their names.
#[derive(Debug)]
pub struct Nodes {
    program: PathBuf,
    cluster: String,
    /// After how much silence nodes are given up.
    pub give_up_after: Duration,
    live: BTreeMap<String, Node>,
    /// The network that they are in, if they have one of their own.
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

    /// A cluster of these nodes, each of which knows all others.
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

    /// Takes a node out, to end it.
    pub fn take(&mut self, name: &str) -> Node {
        self.live.remove(name).expect("it runs")
    }

    /// All that run.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.live.values()
    }

    /// The names of all that run.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.live.keys()
    }

    /// How many run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Waits until each node has a link to all others, all offer the same, and nothing is held
    /// back.
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

    /// Waits until nothing is held back on any node, and has one of them send a mark to all who
    /// hear: what happened there before is heard before.
    pub async fn mark(&self, from: &str) {
        let mut settled = 0;
        eventually("all changes to be announced", async || {
            let all = futures::future::join_all(self.all().map(Node::census)).await;
            settled = if all.iter().all(|census| census.untold == 0) { settled + 1 } else { 0 };
            // Once more, as something may have been on its way to one that was asked first.
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
