//! The nodes as the show controls them: it starts, commands, freezes and kills their processes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::stage::{Failure, Stage, View};

/// The time limit of every operation; leaving in order takes the longest.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running node. Dropping it kills the process.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) http: SocketAddr,
    pub(crate) gossip: SocketAddr,
    child: Child,
    commands: ChildStdin,
    done: mpsc::Receiver<()>,
}

/// The name of a node within the cluster.
pub(crate) fn name(number: usize) -> String {
    format!("node-{number}")
}

impl Node {
    /// Starts this program once more, as a node.
    pub(crate) async fn start(
        number: usize,
        seeds: impl IntoIterator<Item = SocketAddr>,
        stage: &Arc<Stage>,
    ) -> Result<Self, Failure> {
        stage.forget_views(number);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg(name(number))
            .args(seeds.into_iter().map(|seed| seed.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().ok_or("there is no stdin")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("there is no stdout")?).lines();
        let first = timeout(PATIENCE, lines.next_line()).await??.ok_or("a node did not start")?;
        let first: Value = serde_json::from_str(&first)?;
        let address = |name| first[name].as_str().ok_or("a node does not say where it is");
        let (http, gossip) = (address("http")?.parse()?, address("gossip")?.parse()?);
        stage.node_is_at(number, http);
        let (to, done) = mpsc::channel(1);
        tokio::spawn(read(number, lines, to, stage.clone()));
        let log = child.stderr.take().ok_or("there is no stderr")?;
        tokio::spawn(read_log(number, BufReader::new(log).lines(), stage.clone()));
        Ok(Self { number, http, gossip, child, commands, done })
    }

    /// Sends a command, and waits until it is carried out.
    pub(crate) async fn tell(&mut self, command: &str) -> Result<(), Failure> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let done = timeout(PATIENCE, self.done.recv()).await;
        done.ok().flatten().ok_or_else(|| format!("node {} did not {command}", self.number).into())
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) async fn signal(&self, signal: &str) -> Result<(), Failure> {
        let pid = self.child.id().ok_or("the node has ended")?;
        let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().await?;
        if sent.success() { Ok(()) } else { Err(format!("no {signal} was sent").into()) }
    }

    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }
}

/// Reads the lines of a node until it ends.
async fn read(
    number: usize,
    mut lines: Lines<BufReader<ChildStdout>>,
    done: mpsc::Sender<()>,
    stage: Arc<Stage>,
) {
    let mut met = HashSet::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        if said.get("done").is_some() {
            // The show may have stopped waiting.
            let _ = done.try_send(());
        }
        let other = said["node"].as_str().and_then(|node| node.strip_prefix("node-")?.parse().ok());
        let (Some(other), Some(view)) = (other, said["view"].as_str()) else { continue };
        let view = match view {
            "linked" => View::Linked,
            "unlinked" => View::Unlinked,
            "dead" => View::Dead,
            _ => View::Left,
        };
        let before = stage.sees(number, other, view);
        let words = match (before, view) {
            // The first links are not worth a line.
            (_, View::Linked) if met.insert(other) => continue,
            (_, View::Linked) => "is linked again with",
            (Some(View::Linked), View::Unlinked) => "has lost its link to",
            (Some(_), View::Dead) => "hears nothing of, and gives up,",
            (Some(_), View::Left) => "has been told of the leave of",
            _ => continue,
        };
        stage.say(format!("node {number}"), format!("{words} node {other}"));
    }
}

/// Prints a node's log lines as part of the story.
async fn read_log(number: usize, mut lines: Lines<BufReader<ChildStderr>>, stage: Arc<Stage>) {
    while let Ok(Some(line)) = lines.next_line().await {
        stage.say(format!("node {number}"), format!("logs: {}", line.trim()));
    }
}
