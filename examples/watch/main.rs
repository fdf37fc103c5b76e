//! A terminal client for any MCP server. It connects over Streamable HTTP, calls the given tools
//! and prints what arrives at once: a bar for each running call, log lines, changes in the lists of
//! tools, prompts and resources, and updates of the resources that existed at the start. Without a
//! terminal it prints a line for each progress value.
//!
//!     cargo run --release -p stentor-watch --example watch -- URL [--call TOOL JSON]... [--era modern|legacy]
//!     cargo run --release -p stentor-watch --example watch -- URL --events NAME [--args JSON] [--cursor CURSOR]
//!
//! With `--events` it shows what the server pushes of this event type (SEP-3415), in the place of
//! changes: `active`, each `event` with its time, its `eventId` and its data, the last `heartbeat`,
//! and each `gap` and `error`. When the stream ends, and not with `terminated`, it opens the next
//! one at its last cursor.
//!
//! Exit code: 0 if all calls succeeded, 1 if one did not or the stream was refused or terminated, 2
//! for usage and connection errors.
#![allow(deprecated, reason = "MCP deprecates its log messages, but servers still send them")]

mod client;
mod events;
mod screen;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::process::ExitCode;
use std::time::Duration;

use client::{PATIENCE, reason};
use events::Events;
use rmcp::model::JsonObject;
use rmcp::service::ServiceError;
use screen::Screen;
use tokio::{task::JoinSet, time::timeout};
use watch::Watch;

const USAGE: &str = "usage: watch URL [--call TOOL JSON]... [--era modern|legacy]
       [--events NAME [--args JSON] [--cursor CURSOR]]";

struct Options {
    url: String,
    calls: Vec<(String, JsonObject)>,
    era: String,
    events: Option<Events>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut url, mut calls, mut era) = (None, Vec::new(), String::new());
    let (mut events, mut arguments, mut cursor) = (None, None, None);
    while let Some(arg) = args.next() {
        if arg == "--call" {
            let needs = "--call needs a tool and a JSON object";
            let (tool, json) = (args.next().ok_or(needs)?, args.next().ok_or(needs)?);
            calls.push((tool, serde_json::from_str(&json).map_err(|e| format!("{needs}: {e}"))?));
        } else if arg == "--era" {
            let known = args.next().filter(|era| ["modern", "legacy"].contains(&era.as_str()));
            era = known.ok_or("--era needs modern or legacy")?;
        } else if arg == "--events" {
            events = Some(args.next().ok_or("--events needs the name of an event type")?);
        } else if arg == "--args" {
            let needs = "--args needs a JSON object";
            let json = args.next().ok_or(needs)?;
            arguments = Some(serde_json::from_str(&json).map_err(|e| format!("{needs}: {e}"))?);
        } else if arg == "--cursor" {
            cursor = Some(args.next().ok_or("--cursor needs a cursor")?);
        } else if arg.starts_with('-') || url.is_some() {
            return Err(format!("unexpected argument: {arg}"));
        } else {
            url = Some(arg);
        }
    }
    if events.is_none() && (arguments.is_some() || cursor.is_some()) {
        return Err("--args and --cursor need --events".to_owned());
    }
    let events = events.map(|name| Events::new(name, arguments.unwrap_or_default(), cursor));
    Ok(Options { url: url.ok_or("no URL given")?, calls, era, events })
}

async fn run(options: Options) -> Result<bool, String> {
    let (mut client, inbox) = client::connect(&options.url, &options.era).await?;
    let info = client.peer_info().ok_or("the server has not introduced itself")?;
    let mut watch = Watch {
        peer: client.peer().clone(),
        inbox,
        legacy: info.protocol_version.has_initialize(),
        screen: Screen::new(),
        bars: HashMap::new(),
        answers: JoinSet::new(),
        lists: HashMap::new(),
        outdated: BTreeSet::new(),
        events: options.events,
        failed: false,
    };
    let can = &info.capabilities;
    let can = [can.tools.is_some(), can.prompts.is_some(), can.resources.is_some()];
    for (kind, can) in ["tools", "prompts", "resources"].into_iter().zip(can) {
        if can {
            watch.list(kind).await.map_err(|e| format!("no list of {kind}: {}", reason(e)))?;
        }
    }
    let name = info.server_info.as_ref().map(|s| format!("{} {}", s.name, s.version));
    let name = name.as_deref().unwrap_or("a server without a name");
    let tools = watch.lists.get("tools").map_or(0, BTreeSet::len);
    let version = &info.protocol_version;
    watch.screen.line(&format!("connected to {name}, protocol {version}, {tools} tools"));

    let resources = watch.lists.get("resources").into_iter().flatten().cloned();
    let listen = if let Some(events) = &mut watch.events {
        events.open(client.peer(), Duration::ZERO);
        None
    } else {
        let listen = timeout(PATIENCE, client::listen(&client, &info, resources)).await;
        let listen = listen.unwrap_or(Err(ServiceError::Timeout { timeout: PATIENCE }));
        listen.unwrap_or_else(|e| {
            watch.screen.line(&format!("not everything can be watched here: {}", reason(e)));
            None
        })
    };
    for (tool, arguments) in &options.calls {
        watch.call(tool, arguments).await?;
    }
    let ended = watch.run(listen).await;
    // Waits until the session is deleted on a legacy server.
    let _ = client.close_with_timeout(PATIENCE).await;
    ended
}

// One thread, because rmcp handles each notification in its own task and would reorder them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Only a second installation can fail, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let ended = match parse(args) {
        Ok(options) => run(options).await,
        Err(e) => Err(format!("{e}\n{USAGE}")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("watch: {e}");
            ExitCode::from(2)
        }
    }
}
