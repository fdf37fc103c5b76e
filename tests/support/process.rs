//! A server in a process of its own, so that what it takes of memory can be measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stentor::SessionKind;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::Server;

/// How the server is set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// When a session without a client ends.
    pub idle: Duration,
    /// When a stream is closed that nobody reads.
    pub stall: Duration,
    /// How long questions wait for an answer, and a pipe that was closed for its calls.
    pub patience: Duration,
}

/// Where the server is reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// Sockets that are pipes, with stdio's framing.
    pub pipes: SocketAddr,
}

/// What the server is told to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Changes the catalog: the description of one tool says which change was the last.
    Change(u64),
    /// Says once for each of so many resources, see [`long_uri`], that it changed.
    Touch(u32),
    /// Sends a notification of its own to every legacy client.
    Notify {
        /// How often.
        count: u32,
        /// How long it is.
        bytes: usize,
    },
    /// Counts what is there.
    Count,
}

/// What there is in a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Sessions, but for the one that stands for stateless calls.
    pub sessions: usize,
    /// Who hears notices.
    pub subscribers: usize,
    /// Calls that are counted as running.
    pub running: usize,
    /// Calls that are listed as running.
    pub calls: usize,
    /// Calls that wait for an answer.
    pub suspended: usize,
    /// What waits or is kept, in bytes.
    pub held: usize,
    /// Tasks of the runtime: each actor and each connection is one.
    pub tasks: usize,
}

impl Census {
    /// Counts; `None` while an actor is being replaced.
    pub async fn take(server: &Server) -> Option<Self> {
        let view = server.engine.observe().await.ok()?;
        let clients = view.sessions.iter().filter(|it| it.kind != SessionKind::Stateless);
        Some(Self {
            sessions: clients.count(),
            subscribers: view.hub.subscribers,
            running: view.running_calls,
            calls: server.engine.calls().len(),
            suspended: view.suspended_calls,
            held: server.engine.tally().held,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        })
    }
}

/// A resource with a long name, so that a few updates fill a socket.
#[must_use]
pub fn long_uri(n: u32) -> String {
    format!("test://long/{n}/{}", "x".repeat(400))
}

/// The description of the tool `change` after this change.
#[must_use]
pub fn description(change: u64) -> String {
    format!("change {change}.")
}

/// A server that was started. It ends with this.
#[derive(Debug)]
pub struct Process {
    /// Where it is reached.
    pub addresses: Addresses,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts the program `soak_server`.
    pub async fn start(program: impl AsRef<Path>, settings: Settings) -> Self {
        let mut command = tokio::process::Command::new(program.as_ref());
        command.arg(serde_json::to_string(&settings).expect("plain settings"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the server starts");
        let stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let addresses = read(&mut stdout).await;
        Self { addresses, child, stdin, stdout }
    }

    /// Has the server do something, and waits until it is done.
    pub async fn run(&mut self, command: Command) {
        self.ask::<()>(command).await;
    }

    /// What there is in the server.
    pub async fn census(&mut self) -> Census {
        self.ask(Command::Count).await
    }

    async fn ask<A: DeserializeOwned>(&mut self, command: Command) -> A {
        let line = serde_json::to_string(&command).expect("a plain command") + "\n";
        self.stdin.write_all(line.as_bytes()).await.expect("the server runs");
        read(&mut self.stdout).await
    }

    /// What the server takes of memory (`VmRSS`), in KiB.
    #[must_use]
    pub fn memory(&self) -> u64 {
        resident(self.child.id().expect("the server runs"))
    }
}

/// What a process takes of memory (`VmRSS`), in KiB.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let number = line.split_whitespace().nth(1).expect("a number");
    number.parse().expect("a number")
}

async fn read<A: DeserializeOwned>(lines: &mut Lines<BufReader<ChildStdout>>) -> A {
    let line = lines.next_line().await.expect("a pipe").expect("the server runs");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
