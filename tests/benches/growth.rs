//! How memory and time of a server grow with the number of clients, from a hundred sessions on.
//!
//! The example `everything` runs in its own process. The clients, all of one era, open one stream
//! each, for changed lists or for an event type. Then a tool is changed several times, or something
//! happens, and each time all clients must receive the notice.
//! The benchmark fails if one does not.
//!
//! ```sh
//! ulimit -n "$(ulimit -Hn)"   # each session is a socket on either side
//! cargo bench -p stentor-tests --bench growth -- 100 1000 10000 50000 --out docs/performance/growth.tsv
//! ```
//!
//! `--server FILE` uses a server that is already built. Paths are relative to the root of the
//! workspace. Needs Linux, for `/proc`.

// The benchmark prints its results.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the suite `soak`")]
#[path = "../soak/http.rs"]
mod http;

#[path = "growth/audience.rs"]
mod audience;
#[path = "growth/server.rs"]
mod server;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use audience::{Audience, Hears};
use server::Server;

/// Sizes that fit into the default limit of open files on most machines.
const SIZES: [usize; 2] = [100, 500];
const CHANGES: usize = 20;

/// Changes that follow quickly are announced together; this pause separates them.
const PAUSE: Duration = Duration::from_millis(50);
/// Lets the work that opening the sessions has left behind finish.
const SETTLE: Duration = Duration::from_secs(1);

/// The time limit of every operation. A change that takes longer counts as lost.
const BOUND: Duration = Duration::from_secs(60);

/// Files that a process has open besides its sessions.
const OTHER_FILES: usize = 100;

struct Plan {
    sizes: Vec<usize>,
    changes: usize,
    /// Only checks that the benchmark works.
    is_test: bool,
    server: Option<PathBuf>,
    out: Option<PathBuf>,
}

impl Plan {
    fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self {
            sizes: Vec::new(),
            changes: CHANGES,
            // `cargo bench` passes `--bench`; without it the benchmark runs as a test.
            is_test: true,
            server: None,
            out: None,
        };
        let mut arguments = arguments.into_iter();
        let (mut benches, mut tests) = (false, false);
        while let Some(argument) = arguments.next() {
            // Cargo runs this in the directory of the package, but users type paths from the
            // workspace.
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let mut file = || arguments.next().map(|file| root.join(file)).ok_or("which file?");
            match argument.as_str() {
                "--bench" => benches = true,
                "--test" => tests = true,
                "--quiet" => {}
                "--server" => plan.server = Some(file()?),
                "--out" => plan.out = Some(file()?),
                size => match size.parse() {
                    Ok(size) => plan.sizes.push(size),
                    Err(_) => return Err(format!("neither an option nor a number: {size}")),
                },
            }
        }
        plan.is_test = tests || !benches;
        if plan.is_test {
            (plan.sizes, plan.changes) = (vec![20], 3);
        } else if plan.sizes.is_empty() {
            plan.sizes = SIZES.to_vec();
        }
        Ok(plan)
    }

    /// Fails at once, and not after an hour, if the sessions do not fit into the limit.
    fn check(&self) -> Result<(), String> {
        let largest = self.sizes.iter().max().copied().unwrap_or_default();
        let (needed, allowed) = (largest + OTHER_FILES, server::open_files());
        if needed <= allowed {
            return Ok(());
        }
        Err(format!(
            "{largest} sessions need {needed} open files, and {allowed} are allowed: \
             raise the limit (ulimit -n), or measure fewer"
        ))
    }
}

/// The measurements for one number of sessions.
struct Row {
    hears: Hears,
    sessions: usize,
    opened_per_second: f64,
    /// Of all sessions together.
    memory_kib: u64,
    /// From the call that changes a tool until the last session has received the notice.
    change: Duration,
    cpu_per_delivery: Duration,
}

impl Row {
    fn kib_per_session(&self) -> f64 {
        self.memory_kib as f64 / self.sessions as f64
    }
}

async fn measure(plan: &Plan, server: &Path, hears: Hears, sessions: usize) -> Row {
    // A new process each time: the allocator does not return all memory to the system.
    let mut server = Server::start(server).await;
    server.change(hears).await;
    let before = server.memory();

    let (mut audience, opening) = Audience::open(server.address, hears, sessions).await;
    sleep(if plan.is_test { PAUSE } else { SETTLE }).await;
    let memory_kib = server.memory().saturating_sub(before);

    // Not measured: caches are cold, and streams are about to send their first keep-alive.
    audience.hears_of(&mut server).await;
    let used = server.cpu();
    let mut changes = Vec::with_capacity(plan.changes);
    for _ in 0..plan.changes {
        sleep(PAUSE).await;
        changes.push(audience.hears_of(&mut server).await);
    }
    let deliveries = (plan.changes * sessions) as u32;
    let cpu_per_delivery = (server.cpu() - used) / deliveries;
    sleep(PAUSE).await;
    audience.heard_no_more();

    // The side that closes first keeps its ports for a minute; that side must be the server.
    server.end().await;
    changes.sort();
    Row {
        hears,
        sessions,
        opened_per_second: sessions as f64 / opening.as_secs_f64(),
        memory_kib,
        change: changes[changes.len() / 2],
        cpu_per_delivery,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// For humans. The column `lost` is always 0: a lost notice would have aborted the run.
fn table(rows: &[Row]) -> String {
    let mut table =
        "| era | sessions | opened a second | KiB a session | ms until all have a change \
                     | µs of CPU a delivery | lost |\n|---|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for row in rows {
        let (era, sessions, opened) = (row.hears.as_str(), row.sessions, row.opened_per_second);
        let (memory, change) = (row.kib_per_session(), milliseconds(row.change));
        let cpu = milliseconds(row.cpu_per_delivery) * 1e3;
        let _ = writeln!(
            table,
            "| {era} | {sessions} | {opened:.0} | {memory:.1} | {change:.1} | {cpu:.1} | 0 |"
        );
    }
    table
}

/// For `docs/performance/plot.py`.
fn tsv(rows: &[Row]) -> String {
    let mut tsv =
        "era\tsessions\topened_per_s\tmemory_kib\tchange_ms\tcpu_us_per_delivery\n".to_owned();
    for row in rows {
        let (era, sessions, opened) = (row.hears.as_str(), row.sessions, row.opened_per_second);
        let (memory, change) = (row.memory_kib, milliseconds(row.change));
        let cpu = milliseconds(row.cpu_per_delivery) * 1e3;
        let _ = writeln!(tsv, "{era}\t{sessions}\t{opened:.0}\t{memory}\t{change:.3}\t{cpu:.3}");
    }
    tsv
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let plan = Plan::read(std::env::args().skip(1))?;
    plan.check()?;
    // Created before the measurements, so that a wrong path does not waste them.
    let out = plan
        .out
        .as_ref()
        .map(|out| File::create(out).map_err(|error| format!("{}: {error}", out.display())));
    let out = out.transpose()?;
    let server = match &plan.server {
        Some(server) => server.clone(),
        None => server::build(plan.is_test),
    };
    let mut rows = Vec::new();
    for hears in Hears::ALL {
        for &sessions in &plan.sizes {
            rows.push(measure(&plan, &server, hears, sessions).await);
        }
    }
    println!("{}", table(&rows));
    match out {
        Some(mut out) => out.write_all(tsv(&rows).as_bytes()).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
