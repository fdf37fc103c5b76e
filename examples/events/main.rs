//! Incidents of a server reach three clients, over real HTTP: one polls, one has a stream, and one
//! has a webhook, whose receiver runs here, too. Each line says who hears what, with the `eventId`
//! that is the same for all. Then the poller goes away, and comes back with its cursor. Ends by itself
//! after some seconds, with a table; the exit code is 1 if somebody missed something.
//!
//!     cargo run --release -p stentor-examples --example events
//!     cargo run --release -p stentor-examples --example events -- --serve    # only the server, until Ctrl-C
//!
//! The second form is for `watch`; it says how.

mod mcp;
mod poller;
mod push;
mod server;
mod stage;
mod webhook;

use std::process::ExitCode;
use std::time::Duration;

use stage::{Failure, Stage, Way};
use tokio::time::sleep;

const USAGE: &str = "usage: events [--serve]";

/// A pause, so that a human can follow.
const BREATH: Duration = Duration::from_millis(700);

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let _logs = stentor_examples::log("warn");
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show().await,
        ["--serve"] => server::serve_alone().await.map(|()| ExitCode::SUCCESS),
        _ => Err(USAGE.into()),
    }
}

async fn show() -> Result<ExitCode, Failure> {
    let stage = Stage::new();
    stage.title("A server with incidents, and three clients");
    let receiver = webhook::Receiver::start(&stage).await?;
    let server = server::start(&receiver.origin, &stage).await?;
    let mcp = mcp::Mcp::new(&server.url)?;
    let mut poller = poller::Poller::start(&mcp, &stage).await?;
    let push = push::open(&mcp, "high", &stage).await?;
    let push = tokio::spawn(push.run());
    receiver.subscribe(&mcp).await?;
    sleep(BREATH).await;

    stage.title("Each incident reaches them in three ways, under one eventId");
    let incidents = async {
        for severity in ["high", "low", "high"] {
            server.incident(severity).await?;
            sleep(BREATH).await;
        }
        Ok(())
    };
    tokio::try_join!(incidents, poller.run_for(4 * BREATH))?;

    stage.title("The poller goes away, and misses two");
    stage.say(Way::Poll, format_args!("is away, and keeps its cursor {}", poller.cursor()));
    for severity in ["high", "low"] {
        server.incident(severity).await?;
        sleep(BREATH).await;
    }

    stage.title("The poller comes back with its cursor");
    poller.run_for(BREATH).await?;
    server.incident("high").await?;
    poller.run_for(BREATH).await?;

    stage.title("The end");
    receiver.unsubscribe(&mcp).await?;
    server.shutdown().await?;
    push.await??;
    let nothing_missed = stage.table();
    Ok(if nothing_missed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
