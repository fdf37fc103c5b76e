//! A node for a cluster of machines or containers: the program of the `Dockerfile` and of
//! `deploy/kubernetes.yaml`. Copy it, and replace the tools by your own.
//!
//!     STENTOR_COOKIE=... cargo run --release -p stentor-examples --example node -- --name a --port 7001 --http 127.0.0.1:8001
//!     STENTOR_COOKIE=... cargo run --release -p stentor-examples --example node -- --name b --port 7002 --http 127.0.0.1:8002 \
//!         --seed 127.0.0.1:7001
//!
//! It serves clients only while the node shows what all other nodes show: from when the node has
//! joined until it has left, at Ctrl-C or SIGTERM. So a probe that connects to the port is a
//! readiness check.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use stentor::cluster::{Cluster, ClusterConfig, ClusterTls};
use stentor::console::{self, ConsoleConfig};
use stentor::http::{HttpConfig, OriginPolicy, serve_on};
use stentor::{Context, Engine, ToolError, session::NodeId, signal, tool};
use tokio::net::TcpListener;
use tokio::time::sleep;

const USAGE: &str = "usage: STENTOR_COOKIE=SECRET node --name NAME [--http ADDR] [--host NAME]... \
                     [--ip IP] [--port PORT] [--seed HOST:PORT]... [--tls DIR] [--console PORT]";

struct Arguments {
    /// The name of the node within the cluster.
    name: NodeId,
    /// The address for clients.
    http: SocketAddr,
    /// The names under which clients reach the server. Without any: see `OriginPolicy::default`.
    hosts: Vec<String>,
    /// The address at which other nodes reach this one, with gossip (UDP) and links (TCP).
    nodes: SocketAddr,
    /// Other nodes. A name may stand for many of them, and is resolved again each minute.
    seeds: Vec<String>,
    /// The folder of `ca.crt`, `tls.crt` and `tls.key`. Needed unless all nodes are on loopback.
    tls: Option<PathBuf>,
    /// The port of the console, on the loopback interface.
    console: Option<u16>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let (mut name, mut hosts, mut seeds, mut tls) = (None, Vec::new(), Vec::new(), None);
        let (mut ip, mut port) = (IpAddr::from(Ipv4Addr::LOCALHOST), 7946);
        let (mut http, mut console) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), None);
        let mut given = std::env::args().skip(1);
        while let Some(option) = given.next() {
            let value = given.next().ok_or(USAGE)?;
            match &*option {
                "--name" => name = Some(NodeId::new(value)?),
                "--http" => http = value.parse()?,
                "--host" => hosts.push(value),
                "--ip" => ip = value.parse()?,
                "--port" => port = value.parse()?,
                "--seed" => seeds.push(value),
                "--tls" => tls = Some(value.into()),
                "--console" => console = Some(value.parse()?),
                _ => return Err(USAGE.into()),
            }
        }
        let (name, nodes) = (name.ok_or(USAGE)?, SocketAddr::new(ip, port));
        Ok(Self { name, http, hosts, nodes, seeds, tls, console })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _logs = stentor_examples::log("info,ractor=warn,ractor_cluster=error,chitchat=warn");
    let arguments = Arguments::read()?;
    let cookie = std::env::var("STENTOR_COOKIE").map_err(|_| USAGE)?;
    // From the start: the first process of a container ignores the signals that it does not await.
    let terminated = tokio::spawn(signal::terminated());

    let mut cluster = ClusterConfig::new("stentor", cookie);
    (cluster.listen, cluster.gossip) = (arguments.nodes, arguments.nodes);
    cluster.seeds = arguments.seeds;
    cluster.tls = arguments.tls.as_deref().map(keys).transpose()?;
    let mut http = HttpConfig::new().health(true);
    if !arguments.hosts.is_empty() {
        http.origins = OriginPolicy::hosts(arguments.hosts);
    }

    let name = arguments.name.clone();
    let engine = Engine::builder("Stentor Node", env!("CARGO_PKG_VERSION"))
        .configure(|config| config.node = arguments.name)
        .tool(tool("where", move || answer(name.to_string())).description("Says which node ran it"))
        .tool(tool("work", work).description("Takes five seconds, and tells how far it is"))
        .start()
        .await?;
    let cluster = Cluster::join(&engine, cluster).await?;
    cluster.ready().await;
    // Of the whole cluster, on each node: an operator forwards the port.
    let _console = match arguments.console {
        Some(port) => {
            // Drained, it leaves first: its sessions go on at another node.
            let (leaving, ending) = (cluster.clone(), engine.clone());
            let config = ConsoleConfig::new().actions(true).drain(move || {
                let (cluster, engine) = (leaving.clone(), ending.clone());
                async move {
                    cluster.leave().await;
                    engine.shutdown().await;
                }
            });
            Some(console::serve(&engine, config, port).await?)
        }
        None => None,
    };
    let listener = TcpListener::bind(arguments.http).await?;
    stentor_examples::say(format!("Serving http://{}/mcp as {}.", arguments.http, cluster.node()));

    let leave = async move {
        let _ = terminated.await;
        stentor_examples::say("Leaving.");
        cluster.leave().await;
    };
    Ok(serve_on(engine, listener, http, leave).await?)
}

/// The keys that Kubernetes mounts from a secret of the type `kubernetes.io/tls`.
fn keys(folder: &Path) -> Result<ClusterTls, Box<dyn Error>> {
    let read = |file| std::fs::read(folder.join(file));
    Ok(ClusterTls::from_pem(&read("ca.crt")?, &read("tls.crt")?, &read("tls.key")?)?)
}

async fn answer(text: String) -> Result<String, ToolError> {
    Ok(text)
}

async fn work(ctx: Context) -> Result<&'static str, ToolError> {
    for step in 1..=20 {
        sleep(Duration::from_millis(250)).await;
        ctx.report_progress(f64::from(step), Some(20.0), "");
    }
    Ok("done")
}
