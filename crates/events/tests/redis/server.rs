//! A Redis server for one test, and a proxy in front of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use redis::FromRedisValue;
use rustix::process::{Pid, Signal, kill_process};
use stentor_events::{RedisEventsConfig, RedisEventsStore, StoreKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Without a `redis-server`, the tests are skipped, unless this variable is set.
const REQUIRE: &str = "STENTOR_REQUIRE_REDIS";

/// How long the stores of tests wait for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) const KEY: [u8; 32] = [7; 32];

/// A server on loopback, with a directory of its own.
pub(crate) struct Server {
    program: PathBuf,
    port: u16,
    directory: PathBuf,
    child: Mutex<Child>,
}

impl Server {
    /// A server that has each write on its disk before it answers.
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
            let name = format!("stentor-events-redis-{}-{port}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            let child = Mutex::new(run(&program, port, &directory));
            let server = Self { program: program.clone(), port, directory, child };
            if server.is_up().await {
                return Some(server);
            }
        }
        panic!("the server does not start");
    }

    async fn is_up(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if self.child.lock().try_wait().unwrap().is_some() {
                return false;
            }
            // It answers with an error while it loads its files.
            if self.try_ask::<String>(&["PING"]).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub(crate) fn config(&self) -> RedisEventsConfig {
        config(self.port)
    }

    pub(crate) async fn store(&self) -> RedisEventsStore {
        RedisEventsStore::connect(self.config(), StoreKey::new(KEY)).await.unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends the server without a warning.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts the server again, with what it had on its disk.
    pub(crate) async fn again(&self) {
        *self.child.lock() = run(&self.program, self.port, &self.directory);
        assert!(self.is_up().await);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.lock().id();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    async fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.config().url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]).query_async(&mut connection).await
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.unwrap()
    }
}

fn config(port: u16) -> RedisEventsConfig {
    RedisEventsConfig::new(format!("redis://127.0.0.1:{port}")).timeout(TIMEOUT)
}

fn run(program: &Path, port: u16, directory: &Path) -> Child {
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"])
        .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended already.
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What becomes of the first connection through a proxy.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Passes,
    /// What the client sends is held.
    Held,
    /// The client has lost the connection; what was held is still under way.
    Lost,
    /// What was held arrives.
    Arrives,
    /// The server has answered to what was held.
    Arrived,
}

/// A network that delivers what was sent on the first connection after it was lost.
pub(crate) struct Proxy {
    port: u16,
    fate: watch::Sender<Fate>,
}

impl Proxy {
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        let fate = watch::channel(Fate::Passes).0;
        let of_first = fate.clone();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            tokio::spawn(first(client, server, of_first));
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, fate }
    }

    pub(crate) async fn store(&self) -> RedisEventsStore {
        RedisEventsStore::connect(config(self.port), StoreKey::new(KEY)).await.unwrap()
    }

    pub(crate) fn hold(&self) {
        self.fate.send_replace(Fate::Held);
    }

    pub(crate) fn lose(&self) {
        self.fate.send_replace(Fate::Lost);
    }

    /// Delivers what was held, and waits until the server has looked at it.
    pub(crate) async fn deliver(&self) {
        self.fate.send_replace(Fate::Arrives);
        let mut fate = self.fate.subscribe();
        let arrived = becomes(&mut fate, Fate::Arrived);
        timeout(Duration::from_secs(20), arrived).await.unwrap();
    }
}

async fn becomes(fate: &mut watch::Receiver<Fate>, wanted: Fate) {
    // The sender may be gone at the end of a test.
    let _ = fate.wait_for(|fate| *fate == wanted).await;
}

async fn first(mut client: TcpStream, mut server: TcpStream, fate: watch::Sender<Fate>) {
    let (mut changes, mut held) = (fate.subscribe(), Vec::new());
    let (mut sent, mut answered) = ([0; 4_096], [0; 4_096]);
    loop {
        tokio::select! {
            () = becomes(&mut changes, Fate::Lost) => break,
            read = client.read(&mut sent) => {
                let sent = &sent[..read.unwrap()];
                if *fate.borrow() == Fate::Held {
                    held.extend_from_slice(sent);
                } else {
                    server.write_all(sent).await.unwrap();
                }
            }
            read = server.read(&mut answered) => {
                client.write_all(&answered[..read.unwrap()]).await.unwrap();
            }
        }
    }
    drop(client);
    assert!(!held.is_empty());
    becomes(&mut changes, Fate::Arrives).await;
    // The answer to this comes after all others.
    held.extend_from_slice(b"ECHO all-of-it\r\n");
    server.write_all(&held).await.unwrap();
    let mut answers = Vec::new();
    while !answers.windows(9).any(|it| it == b"all-of-it") {
        let read = server.read(&mut answered).await.unwrap();
        assert!(read > 0);
        answers.extend_from_slice(&answered[..read]);
    }
    fate.send_replace(Fate::Arrived);
}
