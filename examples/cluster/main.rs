//! Three nodes form one server behind a load balancer that sends each request to the next node,
//! with clients of both eras. Nodes change, freeze, crash, rejoin and leave, while the clients
//! print their notices. Ends by itself; the exit code is 1 if a client missed a change.
//!
//!     cargo run --release -p stentor-examples --example cluster
//!     cargo run --release -p stentor-examples --example cluster -- --nodes 5 --clients 20
//!     cargo run --release -p stentor-examples --example cluster -- --serve    # for clients of your own, until Ctrl-C
//!     cargo run --release -p stentor-examples --example cluster -- balance 127.0.0.1:8080 127.0.0.1:8001 127.0.0.1:8002
//!
//! The last form is the balancer alone, in front of running servers.
//!
//! Each node is a process: this program, started once more. Needs `kill`, so it runs on Unix only.

mod balancer;
mod client;
mod http;
mod node;
mod nodes;
mod show;
mod stage;
mod table;

use std::net::SocketAddr;
use std::process::ExitCode;

use balancer::Balancer;
use show::Show;
use stage::Failure;

const USAGE: &str =
    "usage: cluster [--nodes N] [--clients N] [--serve] | cluster balance ADDR SERVER...";

struct Options {
    nodes: usize,
    clients: usize,
    serve: bool,
}

impl Options {
    fn read(given: Vec<String>) -> Result<Self, Failure> {
        let mut options = Self { nodes: 3, clients: 6, serve: false };
        let mut given = given.into_iter();
        while let Some(name) = given.next() {
            let mut number =
                || -> Result<usize, Failure> { Ok(given.next().ok_or(USAGE)?.parse()?) };
            match &*name {
                "--nodes" => options.nodes = number()?,
                "--clients" => options.clients = number()?,
                "--serve" => options.serve = true,
                _ => return Err(USAGE.into()),
            }
        }
        if options.nodes < 3 || options.clients == 0 {
            return Err("the show needs 3 nodes and a client".into());
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let mut given: Vec<_> = std::env::args().skip(1).collect();
    if given.first().is_some_and(|first| first == "node") {
        let filter =
            "off,stentor=warn,stentor_engine=warn,stentor_transport=warn,stentor_cluster=warn";
        let _logs = stentor_examples::log_as(filter, |logs| {
            logs.with_ansi(false).with_target(false).without_time().init();
        });
        let seeds = given.split_off(2.min(given.len()));
        node::run(given.get(1).ok_or(USAGE)?, seeds).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if given.first().is_some_and(|first| first == "balance") {
        return balance(&given[1..]).await;
    }
    let options = Options::read(given)?;
    let mut show = Show::begin(options.nodes).await?;
    let acts = async {
        match options.serve {
            true => show.serve().await,
            false => show.run(options.clients).await,
        }
    };
    tokio::select! {
        went_well = acts => Ok(if went_well? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        // The nodes are killed when the show is dropped.
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    }
}

/// Balances between running servers until Ctrl-C or SIGTERM.
async fn balance(addresses: &[String]) -> Result<ExitCode, Failure> {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let (listen, servers) = addresses.split_first().ok_or(USAGE)?;
    let balancer = Balancer::start(*listen, servers.iter().copied()).await?;
    stentor_examples::say(format!("Serving http://{}/mcp. Ctrl-C ends it.", balancer.address()));
    stentor::signal::terminated().await;
    Ok(ExitCode::SUCCESS)
}
