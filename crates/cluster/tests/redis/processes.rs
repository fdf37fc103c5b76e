//! Nodes in processes of their own, one of which is killed.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stentor_cluster::{Cluster, ClusterConfig, NodeState, RedisConfig, RedisStore};
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::Refused;
use stentor_engine::{Engine, NodeId, Seq, StreamId, tool};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{sleep, timeout};

use crate::server::Server;
use crate::{all, call, lines, opened, some};

/// The environment variable with the settings of a node's process.
const NODE: &str = "STENTOR_TEST_NODE";

/// Distinguishes the lines of a node from those of the test harness.
const MARK: &str = "node: ";

/// An engine in its own process, in a cluster.
struct Process {
    child: tokio::process::Child,
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Process {
    async fn start(name: &str, server: &Server, seed: Option<&str>) -> (Self, String) {
        let settings = json!({"name": name, "redis": server.config().url, "seed": seed});
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::a_process_that_is_a_node", "--ignored", "--nocapture"])
            .env(NODE, settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, said };
        let gossip = process.read_reply().await["gossip"].as_str().unwrap().to_owned();
        (process, gossip)
    }

    async fn read_reply(&mut self) -> Value {
        loop {
            let line = timeout(Duration::from_secs(30), self.said.next_line()).await;
            let line = line.expect("in time").unwrap().expect("it goes on");
            // The harness may have written the beginning of the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return serde_json::from_str(said).unwrap();
            }
        }
    }

    async fn ask(&mut self, what: Value) -> Value {
        let line = format!("{what}\n");
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        self.read_reply().await
    }

    /// Resumes a stream from a frame; waits while no node knows where the session is.
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
async fn clients_of_a_killed_process_continue_on_any_other_node() {
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
    // The same as `kill -9`.
    a.child.kill().await.unwrap();

    // The client has read half of the frames, and resumes on any node.
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

/// Not a test itself: the process that the test above starts.
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
        config.sessions.store = Some(store.clone());
        config.event_store = store;
    });
    let engine = builder.start().await.unwrap();
    let mut config = ClusterConfig::new("test", "what all nodes know");
    config.seeds.extend(settings["seed"].as_str().map(str::to_owned));
    config.give_up_after = Duration::from_millis(1_000);
    let cluster = Cluster::join(&engine, config).await.unwrap();
    let print = |said: Value| {
        // In one write, and not to where the test harness captures output.
        let line = format!("{MARK}{said}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    print(json!({"gossip": cluster.gossip_address().unwrap().to_string()}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let asked: Value = serde_json::from_str(&line).unwrap();
        print(match asked.as_str() {
            Some("nodes") => {
                let up = cluster
                    .nodes()
                    .into_iter()
                    .filter(|it| it.state == NodeState::Alive && it.connected);
                json!(up.count())
            }
            Some("open") => {
                let session = opened(&engine).await;
                let mut receiver = call(&session, 1).await;
                all(&mut receiver).await;
                let mut notices = session.attach().await.unwrap();
                for n in 0..20 {
                    engine.notify_all("notifications/own", json!({"n": n})).await.unwrap();
                    assert_eq!(some(&mut notices).await.len(), 1);
                }
                json!({"id": session.id(), "stream": receiver.stream_id().0})
            }
            _ => {
                let asked = asked["resume"].clone();
                let (id, stream, next): (String, u64, u64) = serde_json::from_value(asked).unwrap();
                let heard = async {
                    let session = engine.http_session(&id, &sent_by("ann")).await?;
                    session.resume(StreamId(stream), Seq(next)).await
                };
                match heard.await {
                    Err(Refused::Unreachable) => json!("unreachable"),
                    Err(other) => panic!("{other}"),
                    Ok(mut receiver) => {
                        let mut heard = Vec::new();
                        // Until the stream ends, or sends nothing for a while.
                        while let Ok(more) =
                            timeout(Duration::from_millis(500), some(&mut receiver)).await
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
