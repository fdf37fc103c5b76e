//! One of everything: the fixture server of the official MCP conformance suite, with more tools
//! for probes and measurements.
//!
//!     cargo run --release --example everything                  # http://127.0.0.1:8090/mcp
//!     cargo run --release --example everything -- --http ADDR
//!     cargo run --release --example everything -- --stdio
//!
//! Several of them are one server with `--node NAME --gossip ADDR` for each, and `--seed ADDR`, the
//! gossip address of another, for all but the first. With `--bare` a node offers nothing itself.
//!
//! With `--odd` it offers tools of every odd type instead, to see what clients make of them.

// Also a test has them, so that they say where their files are.
#[path = "parts.rs"]
mod parts;

use std::error::Error;
use std::net::SocketAddr;

use stentor::cluster::{Cluster, ClusterConfig};
use stentor::http::{HttpConfig, serve_on};
use stentor::{Engine, NodeId, signal};
use tokio::net::TcpListener;

const USAGE: &str = "usage: everything [--stdio | --http ADDR] [--odd] \
                     [--node NAME --gossip ADDR [--seed ADDR]... [--bare]]";

#[derive(Default)]
struct Arguments {
    stdio: bool,
    http: Option<String>,
    node: Option<NodeId>,
    gossip: Option<SocketAddr>,
    seeds: Vec<String>,
    bare: bool,
    odd: bool,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let (mut read, mut given) = (Self::default(), std::env::args().skip(1));
        while let Some(name) = given.next() {
            let mut value = || given.next().ok_or(USAGE);
            match &*name {
                "--stdio" => read.stdio = true,
                "--http" => read.http = Some(value()?),
                "--node" => read.node = Some(NodeId::new(value()?)?),
                "--gossip" => read.gossip = Some(value()?.parse()?),
                "--seed" => read.seeds.push(value()?),
                "--bare" => read.bare = true,
                "--odd" => read.odd = true,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(read)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Without a span for each actor, which nobody reads and every actor pays for.
    let _logs = stentor_examples::log("info,ractor=warn,ractor_cluster=error,chitchat=warn");
    let arguments = Arguments::read()?;
    // One client at the other end of a pipe gives one thread enough to do; a second one would be
    // woken for nothing with each request.
    let mut runtime = match arguments.stdio {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut server = Engine::builder("Stentor Everything", env!("CARGO_PKG_VERSION"));
    if !arguments.bare {
        server = if arguments.odd { parts::odd(server) } else { parts::everything(server) };
    }
    if let Some(node) = arguments.node {
        server = server.configure(|config| config.node = node);
    }
    let engine = server.start().await?;
    let cluster = match arguments.gossip {
        Some(gossip) => Some(join(&engine, gossip, arguments.seeds).await?),
        None => None,
    };
    if arguments.stdio {
        stentor::stdio::serve(&engine).await?;
        return Ok(());
    }
    let address = arguments.http.as_deref().unwrap_or("127.0.0.1:8090");
    stentor_examples::say(format!("Serving http://{address}/mcp. Ctrl-C ends it."));
    match cluster {
        None => stentor::http::serve(engine, address).await?,
        Some(cluster) => {
            let listener = TcpListener::bind(address).await?;
            let leave = async move {
                signal::terminated().await;
                cluster.leave().await;
            };
            serve_on(engine, listener, HttpConfig::default(), leave).await?;
        }
    }
    Ok(())
}

/// Becomes a node among others on this machine.
async fn join(
    engine: &Engine,
    gossip: SocketAddr,
    seeds: Vec<String>,
) -> Result<Cluster, Box<dyn Error>> {
    let mut config = ClusterConfig::new("everything", "a secret for demonstrations");
    config.gossip = gossip;
    config.seeds = seeds;
    let cluster = Cluster::join(engine, config).await?;
    cluster.ready().await;
    Ok(cluster)
}

#[cfg(test)]
mod tests;
