//! A Redis server for one test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use stentor_cluster::{RedisConfig, RedisStore, RedisStoreError};
use tokio::time::sleep;

/// A server for one test, on loopback, that stores nothing on disk.
pub(crate) struct Server {
    program: PathBuf,
    port: u16,
    child: Mutex<Child>,
}

/// Without a `redis-server`, the tests are skipped, unless this variable is set.
const REQUIRE: &str = "STENTOR_REQUIRE_REDIS";

impl Server {
    pub(crate) async fn start() -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|path| path.join("redis-server"));
        let Some(program) = found.into_iter().find(|program| program.is_file()) else {
            assert!(std::env::var_os(REQUIRE).is_none(), "there is no redis-server");
            eprintln!("skipped, as there is no redis-server");
            return None;
        };
        // Another process may take the port in between.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = Mutex::new(run(&program, port));
            let server = Self { program: program.clone(), port, child };
            if server.is_up().await {
                return Some(server);
            }
        }
        panic!("the server does not start");
    }

    async fn is_up(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if self.child.lock().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.connect().await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub(crate) fn config(&self) -> RedisConfig {
        let mut config = RedisConfig::new(format!("redis://127.0.0.1:{}", self.port));
        config.timeout = Duration::from_millis(500);
        config
    }

    pub(crate) async fn connect(&self) -> Result<RedisStore, RedisStoreError> {
        RedisStore::connect(self.config()).await
    }

    /// Kills the server; its data is lost.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn again(&self) {
        *self.child.lock().unwrap() = run(&self.program, self.port);
        assert!(self.is_up().await);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.lock().unwrap().id();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    pub(crate) async fn ask(&self, command: &[&str]) -> String {
        let client = redis::Client::open(self.config().url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        format!("{:?}", asked.query_async::<redis::Value>(&mut connection).await.unwrap())
    }
}

fn run(program: &PathBuf, port: u16) -> Child {
    // The server reads and writes no files: no configuration, no snapshots, and no log.
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended already.
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
