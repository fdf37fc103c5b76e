//! A server is killed while its tasks run, and its clients ask for each task afterwards.
//!
//! With `STENTOR_SOAK` set there are ten times as many tasks.

// The tests print their measurements.
#![allow(clippy::print_stdout)]

#[path = "soak/http.rs"]
#[allow(dead_code, reason = "the soak suite uses more of it")]
mod http;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use http::{Http, Peer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_tests::META_CAPABILITIES;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// The time limit of every operation, on a machine that is busy with other work.
const BOUND: Duration = Duration::from_secs(60);
/// The number of connections that create tasks and ask for them.
const CLIENTS: usize = 32;
/// The steps of a resumable task.
const STEPS: u64 = 20;
/// The error of a task that cannot resume.
const RESTARTED: &str = "the server restarted while the task ran";

/// A directory that is deleted with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("tasks.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable_server"));
    command.arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(file: &Path) -> Self {
        let mut child = program(file).spawn().expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = timeout(BOUND, stdout.next_line()).await.expect("in time").expect("a pipe");
        let Some(line) = line else {
            let mut said = String::new();
            let _ = child.stderr.take().expect("a pipe").read_to_string(&mut said).await;
            panic!("the server does not start: {said}");
        };
        Self { child, address: line.parse().expect("an address") }
    }

    /// SIGKILL. When this returns, the process has ended.
    async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }
}

struct Client(Http);

impl Client {
    async fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self(Http::connect(to).await?))
    }

    /// The result of a request, or an error if the server has ended.
    async fn ask(&mut self, method: &str, mut params: Value) -> io::Result<Value> {
        let takes = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
        params["_meta"] = json!({ META_CAPABILITIES: takes });
        self.0.ask(&Peer::Modern.request(1, method, params)).await?;
        let message = self.0.message().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        assert!(message["result"].is_object(), "{method}: {message}");
        Ok(message["result"].clone())
    }

    async fn begin(&mut self, kind: Kind) -> io::Result<Begun> {
        let (tool, arguments) = match kind {
            Kind::Short(n) => ("work", json!({"n": n, "ms": 1})),
            Kind::Long => ("work", json!({"n": 0, "ms": 600_000})),
            Kind::Steps => ("steps", json!({"count": STEPS, "ms": 100})),
        };
        let params = json!({"name": tool, "arguments": arguments});
        let task = self.ask("tools/call", params).await?;
        assert_eq!(task["resultType"], "task", "{task}");
        Ok(Begun { id: task["taskId"].as_str().expect("an id").to_owned(), kind, saved: 0 })
    }

    async fn status_of(&mut self, id: &str) -> io::Result<Value> {
        self.ask("tasks/get", json!({ "taskId": id })).await
    }

    async fn ended(&mut self, id: &str) -> io::Result<Value> {
        let begun = Instant::now();
        loop {
            let task = self.status_of(id).await?;
            if task["status"] != "working" {
                return Ok(task);
            }
            assert!(begun.elapsed() < BOUND, "{task}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Ends at once, with this number as its result.
    Short(u64),
    /// Still runs when the server is killed.
    Long,
    /// Resumes after a restart.
    Steps,
}

/// A task that a client has received.
#[derive(Clone, Debug)]
struct Begun {
    id: String,
    kind: Kind,
    /// The last step that it is known to have saved.
    saved: u64,
}

impl Begun {
    /// Checks that the task ended as it should after a restart, or in the process `first` before
    /// the restart. Returns the step from which its last run began.
    fn check(&self, task: &Value, first: &str) -> Option<u64> {
        let text = task["result"]["content"][0]["text"].as_str();
        match (self.kind, task["status"].as_str()) {
            (Kind::Short(n), Some("completed")) => assert_eq!(text, Some(&*n.to_string())),
            (Kind::Steps, Some("completed")) => {
                let (from, process) = text.and_then(|it| it.split_once(' ')).expect("two numbers");
                let from = from.parse().expect("a number");
                assert!(from >= self.saved || process == first, "from {from} on: {self:?}");
                return Some(from);
            }
            (Kind::Short(_) | Kind::Long, Some("failed")) => {
                assert_eq!(task["error"]["message"], RESTARTED);
            }
            _ => panic!("{self:?} became {task}"),
        }
        None
    }
}

/// Creates tasks on many connections, for as long as the server runs.
fn load(server: &Server, begun: &Arc<Mutex<Vec<Begun>>>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (address, begun) = (server.address, begun.clone());
        clients.spawn(async move {
            let Ok(mut server) = Client::connect(address).await else { return };
            for n in (client as u64..).step_by(CLIENTS) {
                let kind = match n % 4 {
                    0 => Kind::Short(n),
                    1 => Kind::Long,
                    _ => Kind::Steps,
                };
                let Ok(task) = server.begin(kind).await else { return };
                begun.lock().push(task);
            }
        });
    }
    clients
}

/// Polls all tasks on many connections until each has ended.
async fn all_ended(server: &Server, begun: &[Begun]) -> Vec<Value> {
    let ask = |some: Vec<Begun>| async move {
        let mut client = Client::connect(server.address).await?;
        let mut ended = Vec::new();
        for task in some {
            ended.push(client.ended(&task.id).await?);
        }
        Ok::<_, io::Error>(ended)
    };
    let share = begun.len().div_ceil(CLIENTS);
    let asked = try_join_all(begun.chunks(share).map(|some| ask(some.to_vec()))).await;
    asked.expect("the server runs").concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_that_a_client_was_given_survives_kill_9() {
    let count = if std::env::var_os("STENTOR_SOAK").is_some() { 10_000 } else { 1_000 };
    let scratch = Scratch::new("kill");
    let server = Server::start(&scratch.file()).await;
    let first = server.child.id().expect("it runs").to_string();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let started = Instant::now();
    let clients = load(&server, &begun);
    while begun.lock().len() < count {
        assert!(started.elapsed() < 4 * BOUND, "{} tasks", begun.lock().len());
        sleep(Duration::from_millis(5)).await;
    }
    println!("{count} tasks begun in {:?}", started.elapsed());
    // A step must be saved before its client sees it.
    let mut client = Client::connect(server.address).await.expect("a connection");
    let mut steps: Vec<_> = begun.lock().clone();
    steps.retain(|task| matches!(task.kind, Kind::Steps));
    let mut known = Vec::new();
    for task in steps.iter().rev().step_by(steps.len() / 50) {
        let said = client.status_of(&task.id).await.expect("an answer");
        let ended = said["status"] == "completed";
        let saved = said["statusMessage"].as_str().and_then(|text| text.parse().ok());
        // A task that is nearly done may end before the server is killed.
        let in_the_middle = |saved: &u64| !ended && *saved < STEPS / 2;
        known.push(Begun { saved: saved.filter(in_the_middle).unwrap_or(0), ..task.clone() });
    }
    // Other tasks are being created and saved at this moment; this one was just created.
    let last = client.begin(Kind::Steps).await.expect("an answer");
    server.kill().await;
    clients.join_all().await;
    begun.lock().push(last);
    begun.lock().extend(known);
    let begun = begun.lock().clone();

    // Killed once more while the tasks resume.
    let started = Instant::now();
    let server = Server::start(&scratch.file()).await;
    println!("started again with {} tasks in {:?}", begun.len(), started.elapsed());
    let mut client = Client::connect(server.address).await.expect("a connection");
    for task in begun.iter().rev().take(10) {
        client.status_of(&task.id).await.expect("an answer");
    }
    server.kill().await;

    let server = Server::start(&scratch.file()).await;
    let ended = all_ended(&server, &begun).await;
    let from = begun.iter().zip(&ended).filter_map(|(task, ended)| task.check(ended, &first));
    let from: Vec<_> = from.collect();
    let gone_on = from.iter().filter(|from| **from > 0).count();
    let failed = ended.iter().filter(|task| task["status"] == "failed").count();
    println!("{} tasks: {failed} failed, {gone_on} went on in the middle", begun.len());
    assert!(gone_on > 0 && failed >= count / 5, "{failed} {gone_on}");
    println!("all have ended {:?} after the first restart", started.elapsed());

    // Ended tasks do not change any more.
    server.kill().await;
    let server = Server::start(&scratch.file()).await;
    assert_eq!(all_ended(&server, &begun).await, ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_file_does_not_start_and_does_not_disturb_the_first() {
    let scratch = Scratch::new("second");
    let first = Server::start(&scratch.file()).await;
    let second = program(&scratch.file()).output();
    let second = timeout(BOUND, second).await.expect("in time").expect("it runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("InUse"), "{said}");
    let mut client = Client::connect(first.address).await.expect("a connection");
    let task = client.begin(Kind::Short(7)).await.expect("an answer");
    let ended = client.ended(&task.id).await.expect("an answer");
    assert_eq!(ended["status"], "completed");
}
