//! One node, in its own process. It reports its addresses and its view of the other nodes on
//! stdout, reads commands on stdin, and ends when stdin closes.

use std::collections::HashMap;
use std::future::ready;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor::cluster::{Cluster, ClusterConfig, NodeState};
use stentor::http::{HttpConfig, serve_on};
use stentor::{Context, Engine, EngineBuilder, Tool, ToolError, resource, session::NodeId, tool};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::stage::Failure;

/// The most tools, because a client may call `add_tool` without end.
const MOST_TOOLS: usize = 1_000;

/// The number of steps of an added tool, and the duration of each.
const STEPS: u32 = 4;
const STEP: Duration = Duration::from_millis(250);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the node of this name. The seeds are the gossip addresses of other nodes.
pub(crate) async fn run(name: &str, seeds: Vec<String>) -> Result<(), Failure> {
    let here = Here { name: name.into(), version: Arc::default() };
    let node = NodeId::new(name)?;
    let engine = offer(&here).configure(|config| config.node = node).start().await?;
    let mut config = ClusterConfig::new("demo", "a secret for demonstrations");
    config.seeds = seeds;
    let cluster = Cluster::join(&engine, config).await?;
    // Before this, the node shows less than the others, so a balancer must not use it yet.
    cluster.ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let http: SocketAddr = listener.local_addr()?;
    tell(&json!({"http": http, "gossip": cluster.gossip_address()}))?;

    let never = std::future::pending();
    let server = tokio::spawn(serve_on(engine.clone(), listener, HttpConfig::default(), never));
    let watching = tokio::spawn(watch(cluster.clone()));

    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("add", tool) => drop(engine.catalog().add(added(tool, name)).await?),
            ("touch", _) => here.touch(|uri| engine.send_resource_updated(uri)),
            ("leave", _) => {
                // From here on, changes of its view are caused by its own leave.
                watching.abort();
                cluster.leave().await;
                engine.shutdown().await;
                // Streams end properly.
                server.await??;
                return tell(&json!({"done": command}));
            }
            _ => return Err(format!("'{command}' is no command").into()),
        }
        tell(&json!({"done": command}))?;
    }
    Ok(())
}

fn tell(line: &Value) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The state that a node's tools share.
#[derive(Clone)]
struct Here {
    name: Arc<str>,
    version: Arc<AtomicUsize>,
}

impl Here {
    fn note(&self) -> String {
        format!("note://{}", self.name)
    }

    fn text(&self) -> String {
        format!("version {}", self.version.load(Ordering::Relaxed))
    }

    /// Makes a new version of the note. Announced afterwards, so that a notified client reads the
    /// new version.
    fn touch(&self, tell: impl FnOnce(&str)) {
        self.version.fetch_add(1, Ordering::Relaxed);
        tell(&self.note());
    }

    async fn add(self, args: Named, ctx: Context) -> Result<String, ToolError> {
        if ctx.catalog().snapshot().tool_names().count() >= MOST_TOOLS {
            return Err(ToolError::new(format!(
                "there are {MOST_TOOLS} tools, and may be no more"
            )));
        }
        ctx.catalog().add(added(&args.name, &self.name)).await?;
        Ok(format!("There is a tool {} now, on {}", args.name, self.name))
    }
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// The name of the tool.
    #[schemars(length(min = 1, max = 128))]
    name: String,
}

/// The items of a node at its start: tools that all nodes have, and a tool and a resource of its
/// own.
fn offer(here: &Here) -> EngineBuilder {
    let (asked, adds, touches, reads) = (here.clone(), here.clone(), here.clone(), here.clone());
    Engine::builder("Stentor Cluster", env!("CARGO_PKG_VERSION"))
        .tool(
            tool("where", move || ready(asked.name.to_string()))
                .description("Says which node ran it"),
        )
        .tool(
            tool("add_tool", move |args, ctx| adds.clone().add(args, ctx))
                .description("Adds a tool to the node that runs this"),
        )
        .tool(
            tool("touch_note", move |ctx: Context| {
                touches.touch(|uri| ctx.send_resource_updated(uri));
                ready(format!("{} has {}", touches.note(), touches.text()))
            })
            .description("Changes the note of the node that runs this"),
        )
        .tool(added(&format!("work-on-{}", here.name), &here.name))
        .resource(
            resource(here.note(), format!("note of {}", here.name), move || ready(reads.text()))
                .description("A text that only this node has"),
        )
}

/// A slow tool that reports progress.
fn added(name: &str, node: &str) -> Tool {
    let node = node.to_owned();
    tool(name.to_owned(), move |ctx: Context| {
        let node = node.clone();
        async move {
            for step in 1..=STEPS {
                sleep(STEP).await;
                let text = format!("step {step} of {STEPS} on {node}");
                ctx.report_progress(f64::from(step), Some(f64::from(STEPS)), text);
            }
            format!("done by {node}")
        }
    })
    .description("Takes its time, and tells how far it is")
}

/// Reports how this node sees the others, whenever that changes.
async fn watch(cluster: Cluster) {
    let mut told = HashMap::new();
    loop {
        for other in cluster.nodes() {
            let view = match other.state {
                NodeState::Left => "left",
                NodeState::Dead => "dead",
                _ if other.connected => "linked",
                _ => "unlinked",
            };
            if told.insert(other.node.clone(), view) != Some(view) {
                // At the end of the show nobody reads stdout.
                let _ = tell(&json!({"node": other.node.as_str(), "view": view}));
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
