//! The measured server, in its own process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use stentor_tests::{PATIENCE, resident};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::BOUND;
use crate::audience::{Hears, TYPE};
use crate::http::{Http, Peer};

/// A started server. Dropping it kills the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) async fn start(program: &Path) -> Self {
        // The port was free a moment ago, so it is almost certainly still free.
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = free.local_addr().expect("a bound address");
        drop(free);
        let mut command = Command::new(program);
        command.args(["--http", &address.to_string()]).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "the server has ended: {ended:?}");
            assert!(begun.elapsed() < PATIENCE, "the server does not listen at {address}");
            sleep(Duration::from_millis(10)).await;
        }
        Self { address, child }
    }

    /// Changes the list of tools, or emits an occurrence. Returns when the call began, without the time to connect.
    pub(crate) async fn change(&mut self, hears: Hears) -> Instant {
        let mut http = Http::connect(self.address).await.expect("the server listens");
        // Replaces the same tool each time, so that the list does not grow.
        let call = match hears {
            Hears::Lists(_) => Peer::Modern.call(1, "add_tool", json!({"name": "grown"})),
            Hears::Events => {
                let emit = json!({"name": TYPE, "count": 1});
                Peer::Modern.call(1, "events_conformance_emit", emit)
            }
        };
        let begun = Instant::now();
        let answered = async {
            let head = http.ask(&call).await?;
            std::io::Result::Ok((head, http.message().await?.unwrap_or_default()))
        };
        let answered = timeout(BOUND, answered).await.expect("an answer in time");
        let (head, answer) = answered.expect("a response");
        let done = head.status == 200 && answer["result"]["isError"] != json!(true);
        assert!(done && answer["result"].is_object(), "{head:?} {answer}");
        begun
    }

    pub(crate) fn memory(&self) -> u64 {
        resident(self.id())
    }

    /// The CPU time of the process so far, in nanoseconds: `stat` is too coarse for a few sessions.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("Linux");
        let spent = threads.map(|thread| {
            let file = thread.expect("a thread").path().join("schedstat");
            // A thread may end during this loop.
            let times = std::fs::read_to_string(file).unwrap_or_default();
            times.split(' ').next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or_default()
        });
        Duration::from_nanos(spent.sum())
    }

    pub(crate) async fn end(mut self) {
        self.child.kill().await.expect("a child");
    }

    fn id(&self) -> u32 {
        self.child.id().expect("the server runs")
    }
}

/// Builds the example `everything` next to this program, and returns its path.
pub(crate) fn build(is_test: bool) -> PathBuf {
    let this = std::env::current_exe().expect("a program");
    // target/release/deps/growth
    let target = this.ancestors().nth(3).expect("built by cargo");
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "stentor-examples", "--example", "everything"]);
    cargo.arg("--target-dir").arg(target);
    // A test run measures nothing, so it uses the debug build.
    let profile = if is_test { "dev" } else { "dist" };
    cargo.args(["--profile", profile]);
    assert!(cargo.status().expect("cargo runs").success(), "the server is not built");
    target.join(if is_test { "debug" } else { "dist" }).join("examples/everything")
}

/// The limit of open files of this process. Processes that it starts inherit it.
pub(crate) fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let number = line.and_then(|line| line.split_whitespace().next()).expect("a limit");
    // The only other value is `unlimited`.
    number.parse().unwrap_or(usize::MAX)
}
