//! The store on a Redis server, each test with a server of its own.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stentor_cluster::{
    Cluster, ClusterConfig, NodeState, RedisConfig, RedisStore, RedisStoreError,
};
use stentor_engine::outlet::policy::{Class, Retention};
use stentor_engine::outlet::{EventStore as _, Frame, Inlet};
use stentor_engine::peers::{Conversation, Errand, Fact, Peers, Reach, Unreachable};
use stentor_engine::port::{HttpSession, Refused};
use stentor_engine::testing::{
    event_store_keeps_its_contract, event_store_outlives_its_process, session_record,
    session_store_keeps_its_contract,
};
use stentor_engine::{
    Claim, Context, EndReason, Engine, ListKind, NodeId, Seq, SessionStore as _, StreamId,
    ToolError, tool,
};
use stentor_wire::{Message, Request};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{sleep, timeout};

/// A server of the test's own, on loopback, which keeps nothing.
struct Server {
    program: PathBuf,
    port: u16,
    child: Mutex<Child>,
}

/// Tests that need a server are skipped where there is none, unless this is set.
const REQUIRE: &str = "STENTOR_REQUIRE_REDIS";

impl Server {
    async fn start() -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|path| path.join("redis-server"));
        let Some(program) = found.into_iter().find(|program| program.is_file()) else {
            assert!(std::env::var_os(REQUIRE).is_none(), "there is no redis-server");
            eprintln!("skipped, as there is no redis-server");
            return None;
        };
        // Somebody else may take the port in between.
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

    fn config(&self) -> RedisConfig {
        let mut config = RedisConfig::new(format!("redis://127.0.0.1:{}", self.port));
        config.timeout = Duration::from_millis(500);
        config
    }

    async fn connect(&self) -> Result<RedisStore, RedisStoreError> {
        RedisStore::connect(self.config()).await
    }

    /// Without a word, and all that it had is lost.
    fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    async fn again(&self) {
        *self.child.lock().unwrap() = run(&self.program, self.port);
        assert!(self.is_up().await);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.lock().unwrap().id();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// What a command says, as text.
    async fn ask(&self, command: &[&str]) -> String {
        let client = redis::Client::open(self.config().url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        format!("{:?}", asked.query_async::<redis::Value>(&mut connection).await.unwrap())
    }
}

fn run(program: &PathBuf, port: u16) -> Child {
    // It reads and writes no file: no configuration, no snapshots, and no log.
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
        // It may be gone already.
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[tokio::test]
async fn it_keeps_its_contracts() {
    let Some(server) = Server::start().await else { return };
    let (store, later) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    event_store_keeps_its_contract(&store).await;
    event_store_outlives_its_process(&store, &later).await;
    session_store_keeps_its_contract(&store).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_when_it_connects() {
    let wrong = RedisStore::connect(RedisConfig::new("nonsense:secret@")).await.unwrap_err();
    assert!(matches!(wrong, RedisStoreError::Address(_)) && !wrong.to_string().contains("secret"));
    let Some(server) = Server::start().await else { return };
    server.kill();
    let gone = server.connect().await.unwrap_err();
    assert!(matches!(gone, RedisStoreError::Unreachable(_)), "{gone}");
}

fn frame(seq: u64) -> (Seq, Class, Frame) {
    (Seq(seq), Class::Custom, Frame::Message(Bytes::from(vec![b'x'; 1_000])))
}

#[tokio::test]
async fn everything_expires_that_nobody_has_any_more() {
    let Some(server) = Server::start().await else { return };
    let mut config = server.config();
    (config.keep, config.prefix) = (Duration::from_secs(1), "mine:".to_owned());
    let store = RedisStore::connect(config).await.unwrap();
    let record = session_record(&NodeId::random());
    let mut log = store.open(record.id(), StreamId(0), Retention::default());
    log.append(&frame(0));
    store.save(&NodeId::random(), &record, Duration::from_secs(1)).await.unwrap();
    assert_eq!(log.replay(Seq(0)).await.events.len(), 1);
    let keys = server.ask(&["KEYS", "*"]).await;
    assert!(keys.contains("mine:events:") && keys.contains("mine:session:"), "{keys}");

    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(log.replay(Seq(0)).await.events.len(), 1, "one that is here stays");
    let keys = server.ask(&["KEYS", "*"]).await;
    assert!(!keys.contains("mine:session:"), "a session is saved again in time, or expires");
    log.leave();
    drop(log);
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(server.ask(&["DBSIZE"]).await, "int(0)");
}

#[tokio::test]
async fn a_slow_server_holds_nothing_up_and_what_waits_is_bounded() {
    let Some(server) = Server::start().await else { return };
    let mut config = server.config();
    config.max_waiting = 20_000;
    let store = RedisStore::connect(config).await.unwrap();
    let record = session_record(&NodeId::random());
    let mut log = store.open(record.id(), StreamId(0), Retention::default());
    log.append(&frame(0));
    assert!(log.replay(Seq(0)).await.complete);
    server.signal(Signal::STOP);
    let begun = Instant::now();
    for seq in 1..=100 {
        log.append(&frame(seq));
    }
    assert!(begun.elapsed() < Duration::from_millis(200), "nobody waits");
    assert!(log.held() <= 20_000 + 101 * 16, "{}", log.held());
    let replay = timeout(Duration::from_secs(10), log.replay(Seq(0))).await.unwrap();
    assert!(!replay.complete, "it is known that they are not all there");
    server.signal(Signal::CONT);

    log.append(&frame(101));
    let mut replay = log.replay(Seq(101)).await;
    for _ in 0..50 {
        if replay.complete {
            break;
        }
        sleep(Duration::from_millis(100)).await;
        // What was lost meanwhile is lost.
        let next = 200 + log.held() as u64;
        log.append(&frame(next));
        replay = log.replay(Seq(next)).await;
    }
    assert!(replay.complete && replay.events.len() == 1, "it goes on");
    assert!(!log.replay(Seq(50)).await.complete, "and what was lost stays so");
    log.leave();
    drop(log);
    let reopened = store.reopen(record.id(), StreamId(0), Retention::default()).await.unwrap();
    let mut log = reopened.log;
    assert!(!log.replay(Seq(50)).await.complete, "for who comes after, too");
}

/// Engines of one process as each other's nodes.
#[derive(Clone, Debug, Default)]
struct Nodes(Arc<Mutex<HashMap<NodeId, Engine>>>);

impl Peers for Nodes {
    fn reach(&self, node: &NodeId) -> Reach {
        let known = self.0.lock().unwrap().contains_key(node);
        if known { Reach::There(node.clone()) } else { Reach::Gone }
    }

    fn ask(&self, node: &NodeId, errand: Errand) -> Result<Conversation, Unreachable> {
        let engine = self.0.lock().unwrap().get(node).cloned();
        Ok(engine.ok_or_else(|| Unreachable(node.clone()))?.ask_itself(errand))
    }

    fn catalog_changed(&self, _lists: &[ListKind]) {}

    fn offer_shown(&self, _node: &NodeId, _seq: u64, _lists: &[ListKind]) {}

    fn registry_restarted(&self) {}

    fn tell(&self, _fact: Fact) {}
}

async fn lines(ctx: Context) -> Result<&'static str, ToolError> {
    for line in 0..100 {
        ctx.info(line);
    }
    Ok("all of them")
}

impl Nodes {
    async fn start(&self, name: &str, server: &Server) -> Engine {
        // A connection of its own, as it has in a process of its own.
        let store = Arc::new(server.connect().await.unwrap());
        let node = NodeId::new(name).unwrap();
        let builder = Engine::builder("test", "1").tool(tool("lines", lines)).configure(|config| {
            config.node = node.clone();
            config.session_store = Some(store.clone());
            config.event_store = store;
        });
        let engine = builder.start().await.unwrap();
        self.0.lock().unwrap().insert(node, engine.clone());
        engine.join_peers(Some(Arc::new(self.clone())));
        engine
    }

    async fn kill(&self, name: &str) {
        let engine = self.0.lock().unwrap().remove(&NodeId::new(name).unwrap()).unwrap();
        engine.actor().kill_and_wait(None).await.unwrap();
    }
}

fn request(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn some(inlet: &mut Inlet) -> Vec<(Seq, Value)> {
    let mut batch = Vec::new();
    inlet.next(&mut batch).await;
    let message = |(seq, _, frame): (Seq, _, Frame)| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        (seq, serde_json::from_slice(&out).expect("JSON"))
    };
    batch.into_iter().map(message).collect()
}

async fn all(inlet: &mut Inlet) -> Vec<(Seq, Value)> {
    let mut messages = Vec::new();
    loop {
        match some(inlet).await {
            more if more.is_empty() => return messages,
            more => messages.extend(more),
        }
    }
}

async fn opened(engine: &Engine) -> HttpSession {
    let session =
        engine.open_http_session(Some(std::sync::Arc::<str>::from("ann")).into()).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let request = request(0, "initialize", params);
    all(&mut session.request(request).await.unwrap()).await;
    session
}

async fn call(session: &HttpSession, id: i64) -> Inlet {
    let request = request(id, "tools/call", json!({"name": "lines"}));
    let inlet = session.request(request).await.unwrap();
    session.keep(&inlet, &[]);
    inlet
}

#[tokio::test]
async fn a_client_whose_node_dies_goes_on_at_another_and_misses_nothing() {
    let Some(server) = Server::start().await else { return };
    let nodes = Nodes::default();
    let (first, second) =
        (nodes.start("first", &server).await, nodes.start("second", &server).await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    let mut inlet = call(&session, 1).await;
    let (stream, said) = (inlet.stream(), all(&mut inlet).await);
    assert_eq!(said.len(), 101);
    let (mut seen, mut notices) = (Vec::new(), session.attach().await.unwrap());
    for n in 0..20 {
        first.notify_all("notifications/own", json!({"n": n})).await.unwrap();
        // The second half is on the way when the node dies.
        seen.extend(some(&mut notices).await.into_iter().filter(|_| n < 10));
    }
    // All of it is on the server once this is.
    let mut resumed = session.resume(StreamId(0), Seq(0)).await.unwrap();
    assert!(!some(&mut resumed).await.is_empty());
    let saved = async || server.ask(&["KEYS", "*session:*"]).await.contains(&id);
    while !saved().await {
        sleep(Duration::from_millis(10)).await;
    }
    nodes.kill("first").await;
    drop((notices, resumed, inlet, session));

    let bob = second.http_session(&id, Some("bob")).await;
    assert_eq!(bob.unwrap_err(), Refused::SessionEnded);
    let session = second.http_session(&id, Some("ann")).await.unwrap();
    let next = Seq(seen.last().unwrap().0.0 + 1);
    let mut notices = session.resume(StreamId(0), next).await.unwrap();
    while seen.len() < 23 {
        seen.extend(timeout(Duration::from_secs(5), some(&mut notices)).await.unwrap());
    }
    let own: Vec<_> = seen.iter().filter_map(|(_, it)| it["params"]["n"].as_u64()).collect();
    assert_eq!(own, (0..20).collect::<Vec<_>>(), "each of them once, in order");
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "no number twice");
    let mut resumed = session.resume(stream, Seq(7)).await.unwrap();
    assert_eq!(all(&mut resumed).await, said[7..], "and what was answered");

    session.end(EndReason::Deleted).await.unwrap();
    let begun = Instant::now();
    while server.ask(&["KEYS", "*session:*"]).await.contains(&id) {
        assert!(begun.elapsed() < Duration::from_secs(10), "what has ended is forgotten");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(second.http_session(&id, Some("ann")).await.unwrap_err(), Refused::SessionEnded);
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_ends_no_session() {
    let Some(server) = Server::start().await else { return };
    let nodes = Nodes::default();
    let engine = nodes.start("first", &server).await;
    let session = opened(&engine).await;
    server.kill();
    let mut inlet = timeout(Duration::from_secs(1), call(&session, 1)).await.unwrap();
    let said = timeout(Duration::from_secs(1), all(&mut inlet)).await.unwrap();
    assert_eq!(said.len(), 101, "nobody waits for it");
    let resumed = session.resume(inlet.stream(), Seq(5));
    timeout(Duration::from_secs(20), resumed)
        .await
        .expect("who comes back does not wait long")
        .unwrap();
    let unknown = engine.http_session("gone.xyz", None).await.unwrap_err();
    assert_eq!(unknown, Refused::Unreachable, "who has it is not known");
    let another = opened(&engine).await;

    server.again().await;
    let (store, begun) = (server.connect().await.unwrap(), Instant::now());
    let (own, other) = (NodeId::new("first").unwrap(), NodeId::new("other").unwrap());
    loop {
        let claims = [
            store.claim(session.id(), Some("ann"), &other, &other).await.unwrap(),
            store.claim(another.id(), Some("ann"), &other, &other).await.unwrap(),
        ];
        // What was not saved is, and what was lost is saved again.
        if claims.iter().all(|claim| matches!(claim, Claim::Held(node) if *node == own)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{claims:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let mut complete = false;
    while !complete && begun.elapsed() < Duration::from_secs(20) {
        let mut inlet = call(&session, 2).await;
        let said = all(&mut inlet).await;
        let mut resumed = session.resume(inlet.stream(), Seq(5)).await.unwrap();
        complete = all(&mut resumed).await == said[5..];
    }
    assert!(complete, "what is sent is kept again");
}

/// What says in the environment of a process that it is a node, and how.
const NODE: &str = "STENTOR_TEST_NODE";

/// Before what a node says, so that it is told from what the harness says.
const MARK: &str = "node: ";

/// An engine in a process of its own, in a cluster.
struct Process {
    child: tokio::process::Child,
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Process {
    async fn start(name: &str, server: &Server, seed: Option<&str>) -> (Self, String) {
        let settings = json!({"name": name, "redis": server.config().url, "seed": seed});
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_is_a_node", "--ignored", "--nocapture"])
            .env(NODE, settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, said };
        let gossip = process.heard().await["gossip"].as_str().unwrap().to_owned();
        (process, gossip)
    }

    async fn heard(&mut self) -> Value {
        loop {
            let line = timeout(Duration::from_secs(30), self.said.next_line()).await;
            let line = line.expect("in time").unwrap().expect("it goes on");
            // The harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return serde_json::from_str(said).unwrap();
            }
        }
    }

    async fn ask(&mut self, what: Value) -> Value {
        let line = format!("{what}\n");
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        self.heard().await
    }

    /// Reads on from a frame of a stream; waits while nobody knows where the session is.
    async fn resume(&mut self, id: &Value, stream: u64, next: u64) -> Vec<(u64, Value)> {
        let begun = Instant::now();
        loop {
            let said = self.ask(json!({"resume": [id, stream, next]})).await;
            if said != "unreachable" {
                return serde_json::from_value(said).unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it is not found");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn of_a_process_that_is_killed_clients_go_on_at_any_other() {
    let Some(server) = Server::start().await else { return };
    let (mut a, seed) = Process::start("a", &server, None).await;
    let (mut b, _) = Process::start("b", &server, Some(&seed)).await;
    let (mut c, _) = Process::start("c", &server, Some(&seed)).await;
    for node in [&mut a, &mut b, &mut c] {
        while node.ask(json!("nodes")).await != 2 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    let opened = a.ask(json!("open")).await;
    let (id, stream) = (&opened["id"], opened["stream"].as_u64().unwrap());
    let text = id.as_str().unwrap();
    let sizes = [
        ("XLEN", format!("stentor:events:{text}:0"), 20),
        ("XLEN", format!("stentor:events:{text}:{stream}"), 101),
        ("EXISTS", format!("stentor:session:{text}"), 1),
    ];
    for (command, key, size) in sizes {
        let begun = Instant::now();
        while server.ask(&[command, &key]).await != format!("int({size})") {
            assert!(begun.elapsed() < Duration::from_secs(10), "all of it is written");
            sleep(Duration::from_millis(20)).await;
        }
    }
    // As `kill -9`.
    a.child.kill().await.unwrap();

    // The client has seen half of it, and comes back to any node.
    let heard = b.resume(id, 0, 10).await;
    let own: Vec<_> = heard.iter().filter_map(|(_, it)| it["params"]["n"].as_u64()).collect();
    assert_eq!(own, (10..20).collect::<Vec<_>>(), "each of them once, in order");
    assert!(heard.is_sorted_by(|a, b| a.0 < b.0) && heard.len() == 13, "{heard:?}");
    let last = heard.last().unwrap().0;
    assert!(c.resume(id, 0, last + 1).await.is_empty(), "through any other it is the same session");
    let said = c.resume(id, stream, 1).await;
    let seqs: Vec<_> = said.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>());
    assert_eq!(said[99].1["result"]["content"][0]["text"], "all of them");
}

/// No test by itself: what the one above starts.
#[tokio::test]
#[ignore = "it is a node of another test"]
async fn a_process_that_is_a_node() {
    let Ok(settings) = std::env::var(NODE) else { return };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let store = RedisConfig::new(settings["redis"].as_str().unwrap());
    let store = Arc::new(RedisStore::connect(store).await.unwrap());
    let node = NodeId::new(settings["name"].as_str().unwrap()).unwrap();
    let builder = Engine::builder("test", "1").tool(tool("lines", lines)).configure(|config| {
        config.node = node;
        config.session_store = Some(store.clone());
        config.event_store = store;
    });
    let engine = builder.start().await.unwrap();
    let mut config = ClusterConfig::new("test", "what all nodes know");
    config.seeds.extend(settings["seed"].as_str().map(str::to_owned));
    config.give_up_after = Duration::from_millis(1_000);
    let cluster = Cluster::join(&engine, config).await.unwrap();
    let say = |said: Value| {
        // In one piece, and not where the test harness would keep it.
        let line = format!("{MARK}{said}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    say(json!({"gossip": cluster.gossip_address().unwrap().to_string()}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let asked: Value = serde_json::from_str(&line).unwrap();
        say(match asked.as_str() {
            Some("nodes") => {
                let up = cluster
                    .nodes()
                    .into_iter()
                    .filter(|it| it.state == NodeState::Alive && it.connected);
                json!(up.count())
            }
            Some("open") => {
                let session = opened(&engine).await;
                let mut inlet = call(&session, 1).await;
                all(&mut inlet).await;
                let mut notices = session.attach().await.unwrap();
                for n in 0..20 {
                    engine.notify_all("notifications/own", json!({"n": n})).await.unwrap();
                    assert_eq!(some(&mut notices).await.len(), 1);
                }
                json!({"id": session.id(), "stream": inlet.stream().0})
            }
            _ => {
                let asked = asked["resume"].clone();
                let (id, stream, next): (String, u64, u64) = serde_json::from_value(asked).unwrap();
                let heard = async {
                    let session = engine.http_session(&id, Some("ann")).await?;
                    session.resume(StreamId(stream), Seq(next)).await
                };
                match heard.await {
                    Err(Refused::Unreachable) => json!("unreachable"),
                    Err(other) => panic!("{other}"),
                    Ok(mut inlet) => {
                        let mut heard = Vec::new();
                        // Until nothing follows, or nothing for a while.
                        while let Ok(more) =
                            timeout(Duration::from_millis(500), some(&mut inlet)).await
                            && !more.is_empty()
                        {
                            heard.extend(more.into_iter().map(|(seq, message)| (seq.0, message)));
                        }
                        json!(heard)
                    }
                }
            }
        });
    }
}
