//! A server in its own process, so that its memory can be measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::Server;

/// The settings of the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// How long a session without a client lives.
    pub idle: Duration,
    /// How long a stream that nobody reads stays open.
    pub stall: Duration,
    /// How long questions wait for an answer, and how long calls may run after their pipe has
    /// closed.
    pub patience: Duration,
    /// Whether clients need tokens, as [`token`](crate::token) makes them.
    pub tokens: bool,
}

/// The addresses of the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// For HTTP clients.
    pub http: SocketAddr,
    /// For sockets that are pipes, with stdio's framing.
    pub pipes: SocketAddr,
}

/// A command to the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Changes the catalog. The description of the tool `change` contains this number.
    Change(u64),
    /// Announces an update of each of this many resources, see [`long_uri`].
    Touch(u32),
    /// Sends the application's own notification to all legacy clients.
    Notify {
        /// The number of notifications.
        count: u32,
        /// The length of each, in bytes.
        bytes: usize,
    },
    /// Asks for a [`Census`].
    Count,
}

/// The counts of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Open sessions.
    pub sessions: usize,
    /// Subscribers of the hub.
    pub subscribers: usize,
    /// The supervisor's count of running calls.
    pub running: usize,
    /// The length of the list of running calls.
    pub calls: usize,
    /// Calls that await input.
    pub awaiting_input: usize,
    /// Bytes that are queued or kept.
    pub held: usize,
    /// Tasks of the runtime: one for each actor and each connection.
    pub tasks: usize,
}

impl Census {
    /// Takes the counts; `None` while an actor is being replaced.
    pub async fn take(server: &Server) -> Option<Self> {
        let view = server.engine.observe().await.ok()?;
        Some(Self {
            sessions: view.sessions.len(),
            subscribers: view.hub.subscribers,
            running: view.running_calls,
            calls: server.engine.calls().len(),
            awaiting_input: view.calls_awaiting_input,
            held: server.engine.counters().held,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        })
    }
}

/// A resource with a long URI, so that a few updates fill a socket.
#[must_use]
pub fn long_uri(n: u32) -> String {
    format!("test://long/{n}/{}", "x".repeat(400))
}

/// The description of the tool `change` after this change.
#[must_use]
pub fn description(change: u64) -> String {
    format!("change {change}.")
}

/// A started server. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// Its addresses.
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

    /// Sends a command, and waits until it is carried out.
    pub async fn run(&mut self, command: Command) {
        self.ask::<()>(command).await;
    }

    /// The counts of the server.
    pub async fn census(&mut self) -> Census {
        self.ask(Command::Count).await
    }

    async fn ask<A: DeserializeOwned>(&mut self, command: Command) -> A {
        let line = serde_json::to_string(&command).expect("a plain command") + "\n";
        self.stdin.write_all(line.as_bytes()).await.expect("the server runs");
        read(&mut self.stdout).await
    }

    /// The resident memory of the server (`VmRSS`), in KiB.
    #[must_use]
    pub fn memory(&self) -> u64 {
        resident(self.child.id().expect("the server runs"))
    }
}

/// The resident memory of a process (`VmRSS`), in KiB.
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
