//! One of everything: the fixture server of the official MCP conformance suite, with more tools for
//! tests and measurements.
//!
//!     cargo run --release -p stentor-examples --example everything                  # http://127.0.0.1:8090/mcp
//!     cargo run --release -p stentor-examples --example everything -- --http ADDR
//!     cargo run --release -p stentor-examples --example everything -- --stdio
//!
//! Several processes form one server if each has `--node NAME --gossip ADDR`, and all but the first
//! have `--seed ADDR`, the gossip address of another. With `--bare` a node has no items of its own.
//!
//! Webhooks and the log of one event type are kept in the file that `--events` names; without it they
//! end with the process.
//!
//! With `--tokens` the tokens `the-token-of-ann` and `the-token-of-bob` count, and who has none can have no webhooks.
//!
//! With `--console PORT` a live view of it is on that port of the loopback interface.
//!
//! With `--odd` it has tools with unusual types instead, to test how clients handle them.

// A test includes this module, too, so its files need explicit paths.
#[path = "events.rs"]
mod events;
#[path = "parts.rs"]
mod parts;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stentor::cluster::{Cluster, ClusterConfig};
use stentor::console::{self, ConsoleConfig};
use stentor::http::{HttpConfig, StaticTokens, serve_on};
use stentor::identity::Identity;
use stentor::{Engine, session::NodeId, signal};
use tokio::net::TcpListener;

use events::Restarts;

const USAGE: &str = "usage: everything [--stdio | --http ADDR] [--odd] [--events FILE] [--tokens] \
                     [--console PORT] \
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
    events: Option<String>,
    tokens: bool,
    console: Option<u16>,
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
                "--tokens" => read.tokens = true,
                "--events" => read.events = Some(value()?),
                "--console" => read.console = Some(value()?.parse()?),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(read)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Turns off the spans of actors: nobody reads them, and each actor pays for them.
    let _logs = stentor_examples::log("info,ractor=warn,ractor_cluster=error,chitchat=warn");
    let arguments = Arguments::read()?;
    // One client on a pipe needs only one thread; a second thread would be woken uselessly for each
    // request.
    let mut runtime = match arguments.stdio {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let restarts = Restarts::new(arguments.events.as_deref()).await?;
    while run_once(&arguments, &restarts).await? {}
    Ok(())
}

/// Runs until the server ends. `true` if it is to be started again.
async fn run_once(arguments: &Arguments, restarts: &Restarts) -> Result<bool, Box<dyn Error>> {
    let mut server = Engine::builder("Stentor Everything", env!("CARGO_PKG_VERSION"));
    let mut view = ConsoleConfig::new().actions(true);
    let tokens = arguments.tokens;
    if arguments.odd {
        server = parts::odd(server);
    } else {
        let (with_events, events) = match arguments.bare {
            true => events::offer_nothing(server, tokens),
            false => events::offer(parts::everything(server), restarts, tokens, !arguments.stdio)?,
        };
        (server, view) = (with_events, view.events(events));
    }
    if let Some(node) = &arguments.node {
        server = server.configure(|config| config.node = node.clone());
    }
    let engine = server.start().await?;
    let cluster = match arguments.gossip {
        Some(gossip) => Some(join(&engine, gossip, arguments.seeds.clone()).await?),
        None => None,
    };
    restarts.begun();
    let console = match arguments.console {
        Some(port) => Some(console::serve(&engine, view, port).await?),
        None => None,
    };
    if let Some(console) = &console {
        stentor_examples::say(format!("Console: http://{}/", console.address()));
    }
    if arguments.stdio {
        stentor::stdio::serve(&engine).await?;
        return Ok(false);
    }
    let address = arguments.http.as_deref().unwrap_or("127.0.0.1:8090");
    stentor_examples::say(format!("Serving http://{address}/mcp. Ctrl-C ends it."));
    let listener = TcpListener::bind(address).await?;
    let (again, is_again) = (restarts.clone(), Arc::new(AtomicBool::new(false)));
    let restarted = is_again.clone();
    let end = async move {
        tokio::select! {
            () = signal::terminated() => {}
            () = again.asked() => restarted.store(true, Ordering::Relaxed),
        }
        if let Some(cluster) = cluster {
            cluster.leave().await;
        }
    };
    let mut config = HttpConfig::new();
    if arguments.tokens {
        let tokens = [
            ("the-token-of-ann", Identity::named("ann")),
            ("the-token-of-bob", Identity::named("bob")),
        ];
        config = config.auth(StaticTokens::new(tokens)?).allow_anonymous(true);
    }
    serve_on(engine, listener, config, end).await?;
    Ok(is_again.load(Ordering::Relaxed))
}

/// Joins a cluster of nodes on this machine.
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
