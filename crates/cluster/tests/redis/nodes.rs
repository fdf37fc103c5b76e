//! Engines of one process that share the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use stentor_engine::identity::{Identity, Owner};
use stentor_engine::remote::{Fact, PeerFacts, PeerRequest, PeerStream, Peers, Reach, Unreachable};
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::{Refused, RequestSender};
use stentor_engine::{EndReason, Engine, NodeId, Seq, SessionStore as _, StreamId, TakeOver, tool};
use tokio::time::{sleep, timeout};

use crate::server::Server;
use crate::{all, call, lines, opened, some};

/// Engines of one process that are peers of each other.
#[derive(Clone, Debug, Default)]
struct Nodes(Arc<Mutex<HashMap<NodeId, Engine>>>);

impl Peers for Nodes {
    fn reach(&self, node: &NodeId) -> Reach {
        let known = self.0.lock().unwrap().contains_key(node);
        if known { Reach::Remote(node.clone()) } else { Reach::Dead }
    }

    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable> {
        let engine = self.0.lock().unwrap().get(node).cloned();
        Ok(engine.ok_or_else(|| Unreachable(node.clone()))?.ask_itself(peer_request))
    }
}

impl PeerFacts for Nodes {
    fn catalog_changed(&self, _changes: stentor_engine::ListChanges) {}

    fn offer_shown(&self, _node: &NodeId, _seq: u64, _changes: stentor_engine::ListChanges) {}

    fn registry_restarted(&self) {}

    fn tell(&self, _fact: Fact) {}
}

impl Nodes {
    async fn start(&self, name: &str, server: &Server) -> Engine {
        // Each engine has its own connection, as in a process of its own.
        let store = Arc::new(server.connect().await.unwrap());
        let node = NodeId::new(name).unwrap();
        let builder = Engine::builder("test", "1").tool(tool("lines", lines)).configure(|config| {
            config.node = node.clone();
            config.sessions.store = Some(store.clone());
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

#[tokio::test]
async fn a_client_of_a_dead_node_continues_on_another_node_and_misses_nothing() {
    let Some(server) = Server::start().await else { return };
    let nodes = Nodes::default();
    let (first, second) =
        (nodes.start("first", &server).await, nodes.start("second", &server).await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    let mut receiver = call(&session, 1).await;
    let (stream, said) = (receiver.stream_id(), all(&mut receiver).await);
    assert_eq!(said.len(), 101);
    let (mut seen, mut notices) = (Vec::new(), session.attach().await.unwrap());
    for n in 0..20 {
        first.notify_all("notifications/own", json!({"n": n})).await.unwrap();
        // The second half is in flight when the node dies.
        seen.extend(some(&mut notices).await.into_iter().filter(|_| n < 10));
    }
    // A replay waits until all frames are on the server.
    let mut resumed = session.resume(StreamId(0), Seq(0)).await.unwrap();
    assert!(!some(&mut resumed).await.is_empty());
    let saved = async || server.ask(&["KEYS", "*session:*"]).await.contains(&id);
    while !saved().await {
        sleep(Duration::from_millis(10)).await;
    }
    nodes.kill("first").await;
    drop((notices, resumed, receiver, session));

    let bob = second.http_session(&id, &sent_by("bob")).await;
    assert_eq!(bob.unwrap_err(), Refused::SessionEnded);
    let session = second.http_session(&id, &sent_by("ann")).await.unwrap();
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
    assert_eq!(second.http_session(&id, &sent_by("ann")).await.unwrap_err(), Refused::SessionEnded);
}

#[tokio::test]
async fn a_redis_server_that_restarts_ends_no_session() {
    let Some(server) = Server::start().await else { return };
    let nodes = Nodes::default();
    let engine = nodes.start("first", &server).await;
    let session = opened(&engine).await;
    server.kill();
    let mut receiver = timeout(Duration::from_secs(1), call(&session, 1)).await.unwrap();
    let said = timeout(Duration::from_secs(1), all(&mut receiver)).await.unwrap();
    assert_eq!(said.len(), 101, "nobody waits for it");
    let resumed = session.resume(receiver.stream_id(), Seq(5));
    timeout(Duration::from_secs(20), resumed)
        .await
        .expect("who comes back does not wait long")
        .unwrap();
    let unknown = engine.http_session("gone.xyz", &RequestSender::default()).await.unwrap_err();
    assert_eq!(unknown, Refused::Unreachable, "who has it is not known");
    let another = opened(&engine).await;

    server.again().await;
    let (store, begun) = (server.connect().await.unwrap(), Instant::now());
    let ann = Owner::of(&Identity::named("ann"));
    let (own, other) = (NodeId::new("first").unwrap(), NodeId::new("other").unwrap());
    loop {
        let claims = [
            store.take_over(session.id(), &ann, &other, &other).await.unwrap(),
            store.take_over(another.id(), &ann, &other, &other).await.unwrap(),
        ];
        // A session that was not saved is saved now, and one that was lost is saved again.
        if claims.iter().all(|take_over| matches!(take_over, TakeOver::Held(node) if *node == own))
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{claims:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let mut complete = false;
    while !complete && begun.elapsed() < Duration::from_secs(20) {
        let mut receiver = call(&session, 2).await;
        let said = all(&mut receiver).await;
        let mut resumed = session.resume(receiver.stream_id(), Seq(5)).await.unwrap();
        complete = all(&mut resumed).await == said[5..];
    }
    assert!(complete, "what is sent is kept again");
}
