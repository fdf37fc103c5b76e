//! A node dies without notice: another node takes its sessions over from the session store.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::identity::Identity;
use stentor_engine::remote::{
    Fact, PeerEvent, PeerFacts, PeerRequest, PeerStream, Peers, Reach, ResponseControl, SessionOp,
    Unreachable,
};
use stentor_engine::testing::{SharedStore, sent_by, session_record};
use stentor_engine::transport_api::{HttpSession, Refused, RequestSender};
use stentor_engine::{
    Context, EndReason, Engine, NodeId, Seq, SessionRecord, StreamId, ToolError, tool,
};
use stentor_wire::{Message, ProtocolVersion, Request, Response, code};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Engines of one process as each other's nodes.
#[derive(Clone, Debug, Default)]
struct Nodes {
    engines: Arc<Mutex<HashMap<NodeId, Engine>>>,
    /// Nodes that others cannot reach and have given up.
    lost: Arc<Mutex<HashSet<NodeId>>>,
    /// Cuts all links.
    cut: CancellationToken,
    /// Nodes that run, but that others cannot reach at the moment.
    away: Arc<Mutex<HashSet<NodeId>>>,
    store: SharedStore,
}

#[derive(Debug)]
struct Silent;

impl ResponseControl for Silent {
    fn took(&self, _count: usize) {}

    fn answer(&self, _response: Response) {}
}

impl Peers for Nodes {
    fn reach(&self, node: &NodeId) -> Reach {
        if self.lost.lock().unwrap().contains(node) {
            return Reach::Dead;
        }
        if self.away.lock().unwrap().contains(node) {
            return Reach::Unreachable;
        }
        let known = self.engines.lock().unwrap().contains_key(node);
        if known { Reach::Remote(node.clone()) } else { Reach::Dead }
    }

    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable> {
        let engine = self.engines.lock().unwrap().get(node).cloned();
        let mut asked = engine.ok_or_else(|| Unreachable(node.clone()))?.ask_itself(peer_request);
        let ((say, said), cut) = (mpsc::channel(1), self.cut.clone());
        tokio::spawn(async move {
            let speak = async {
                while let Some(next) = asked.next().await {
                    if say.send(next).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = speak => {}
                () = say.closed() => {}
                () = cut.cancelled() => {}
            }
        });
        Ok(PeerStream::new(said, Box::new(Silent)))
    }
}

impl PeerFacts for Nodes {
    fn catalog_changed(&self, _changes: stentor_engine::ListChanges) {}

    fn offer_shown(&self, _node: &NodeId, _seq: u64, _changes: stentor_engine::ListChanges) {}

    fn registry_restarted(&self) {}

    fn tell(&self, _fact: Fact) {}
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Nodes {
    async fn start(&self, name: &str) -> Engine {
        let steps = tool("steps", |ctx: Context| async move {
            for step in 0..10 {
                ctx.info(step);
            }
            "all of them"
        });
        let endless = tool("endless", |ctx: Context| async move {
            ctx.info(1);
            ctx.info(2);
            std::future::pending::<Result<&str, ToolError>>().await
        });
        let store = Arc::new(self.store.clone());
        let engine = support::engine().tool(steps).tool(endless).configure(|config| {
            config.node = node(name);
            config.sessions.store = Some(store.clone());
            config.event_store = store;
        });
        let engine = engine.start().await.unwrap();
        self.engines.lock().unwrap().insert(node(name), engine.clone());
        engine.join_peers(Some(Arc::new(self.clone())));
        engine
    }

    async fn kill(&self, name: &str) {
        let engine = self.engines.lock().unwrap().remove(&node(name)).unwrap();
        engine.actor().kill_and_wait(None).await.unwrap();
    }

    async fn owned_by(&self, session: &HttpSession, owner: &str) {
        let owner = node(owner);
        until(|| self.store.owners().get(session.id()) == Some(&owner)).await;
    }
}

async fn until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 20, "it does not come to this");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn request(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn some(receiver: &mut StreamReceiver) -> Vec<(Seq, Value)> {
    let mut batch = Vec::new();
    receiver.next(&mut batch).await;
    let message = |stentor_delivery::Delivered { seq, frame, .. }| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        (seq, serde_json::from_slice(&out).expect("JSON"))
    };
    batch.into_iter().map(message).collect()
}

async fn all(receiver: &mut StreamReceiver) -> Vec<(Seq, Value)> {
    let mut messages = Vec::new();
    loop {
        match some(receiver).await {
            more if more.is_empty() => return messages,
            more => messages.extend(more),
        }
    }
}

async fn ask(session: &HttpSession, id: i64, method: &str, params: Value) -> Vec<(Seq, Value)> {
    let request = request(id, method, params);
    let mut receiver = session.request(request).await.unwrap();
    session.keep(&receiver, &[]);
    all(&mut receiver).await
}

async fn opened(engine: &Engine) -> HttpSession {
    let session = engine.open_http_session(sent_by("ann")).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    ask(&session, 0, "initialize", params).await;
    session
}

#[tokio::test]
async fn a_client_whose_node_dies_continues_on_another_and_misses_nothing() {
    let nodes = Nodes::default();
    let (first, second) = (nodes.start("first").await, nodes.start("second").await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    ask(&session, 1, "logging/setLevel", json!({"level": "error"})).await;
    ask(&session, 2, "resources/subscribe", json!({"uri": "test://watched"})).await;
    nodes.owned_by(&session, "first").await;

    let (stream, mut seen) = (StreamId(0), Vec::new());
    let mut notices = session.attach().await.unwrap();
    for n in 0..5 {
        first.notify_all("notifications/own", json!({"n": n})).await.unwrap();
        let heard = some(&mut notices).await;
        assert_eq!(heard.len(), 1);
        // The last two are in flight when the node dies.
        seen.extend(heard.into_iter().filter(|_| n < 3));
    }
    assert_eq!(
        first.http_session(&id, &sent_by("ann")).await.unwrap().version(),
        session.version()
    );
    nodes.kill("first").await;
    drop((notices, session));

    let bob = second.http_session(&id, &sent_by("bob")).await;
    assert_eq!(bob.unwrap_err(), Refused::SessionEnded, "it is ann's");
    let session = second.http_session(&id, &sent_by("ann")).await.unwrap();
    assert_eq!(session.version(), Some(ProtocolVersion::V2025_11_25));
    let next = Seq(seen.last().unwrap().0.0 + 1);
    let mut notices = session.resume(stream, next).await.unwrap();
    let heard_by_now = |seen: &[(Seq, Value)]| {
        seen.iter().any(|(_, message)| message["method"] == "notifications/resources/updated")
    };
    while !heard_by_now(&seen) {
        seen.extend(some(&mut notices).await);
    }
    let own: Vec<_> = seen.iter().filter_map(|(_, it)| it["params"]["n"].as_u64()).collect();
    assert_eq!(own, [0, 1, 2, 3, 4], "each of them once, in order");
    let seqs: Vec<_> = seen.iter().map(|(seq, _)| seq.0).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "no number twice: {seqs:?}");
    let lists =
        seen.iter().filter(|(_, it)| it["method"].as_str().unwrap().ends_with("list_changed"));
    assert_eq!(lists.count(), 3, "what it may have missed is told: {seen:?}");

    // The session has kept its state.
    let said = ask(&session, 3, "tools/call", json!({"name": "log"})).await;
    assert_eq!(said.len(), 2, "its log level, too: {said:?}");
    second.send_resource_updated("test://watched");
    assert_eq!(some(&mut notices).await[0].1["method"], "notifications/resources/updated");
    nodes.owned_by(&session, "second").await;

    // It can be taken over any number of times.
    let (third, before) = (nodes.start("third").await, seqs.last().copied().unwrap());
    nodes.kill("second").await;
    let session = third.http_session(&id, &sent_by("ann")).await.unwrap();
    let mut notices = session.resume(stream, Seq(before + 1)).await.unwrap();
    assert!(some(&mut notices).await[0].0.0 > before);
    session.end(EndReason::Deleted).await.unwrap();
    until(|| nodes.store.owners().is_empty()).await;
    let ended = session.id().clone();
    drop((notices, session));
    until(|| !nodes.store.streams(&ended).contains(&stream)).await;
    assert_eq!(third.http_session(&id, &sent_by("ann")).await.unwrap_err(), Refused::SessionEnded);
}

/// Callers that know only the session id: another principal, one with nearly the same name, and two
/// without a name.
const STRANGERS: [Option<&str>; 4] = [Some("bob"), Some("ann "), Some(""), None];

#[tokio::test]
async fn a_stranger_with_the_id_of_a_session_hears_that_it_is_unknown_and_moves_nothing() {
    let nodes = Nodes::default();
    let (first, second) = (nodes.start("first").await, nodes.start("second").await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    nodes.owned_by(&session, "first").await;
    let call = request(1, "tools/call", json!({"name": "wait"}));
    let running = session.request(call).await.unwrap();
    let calls = || first.calls().len();
    until(|| calls() == 1).await;

    // The node of the session runs, but this node has given it up, as in a network split.
    nodes.lost.lock().unwrap().insert(node("first"));
    let unknown = session_record(&node("first")).id().clone();
    for stranger in STRANGERS {
        let stranger = RequestSender::from(stranger.map(Identity::named));
        let own = second.http_session(&id, &stranger).await.unwrap_err();
        let other = second.http_session(unknown.as_str(), &stranger).await.unwrap_err();
        assert_eq!((&own, &other), (&Refused::SessionEnded, &Refused::SessionEnded));
        // The same when another node asks for the session.
        for session in [session.id(), &unknown] {
            let (session, sender) = (session.clone(), stranger.clone());
            let peer_request = PeerRequest::Session { session, sender, op: SessionOp::Attach };
            let said = second.ask_itself(peer_request).next().await;
            assert!(matches!(said, Some(PeerEvent::Refused(Refused::SessionEnded))), "{said:?}");
        }
    }
    let moves = nodes.store.session(session.id()).unwrap().moves();
    assert_eq!(moves, 0, "nobody has moved it");
    nodes.owned_by(&session, "first").await;
    assert!(second.http_sessions().is_empty());
    // Each change is saved: a node that had lost the session would notice that and end the call.
    ask(&session, 2, "logging/setLevel", json!({"level": "error"})).await;
    let level = |record: &SessionRecord| {
        serde_json::to_value(record).unwrap()["client"]["level"] == json!("error")
    };
    until(|| nodes.store.session(session.id()).as_ref().is_some_and(level)).await;
    assert_eq!((first.http_sessions().len(), calls()), (1, 1), "it goes on, and so does its call");

    // A node that has the session after a takeover reveals as little, even while it is unreachable.
    let ann = second.http_session(&id, &sent_by("ann")).await.unwrap();
    nodes.owned_by(&ann, "second").await;
    let third = nodes.start("third").await;
    nodes.away.lock().unwrap().insert(node("second"));
    for stranger in STRANGERS {
        let stranger = RequestSender::from(stranger.map(Identity::named));
        let own = third.http_session(&id, &stranger).await.unwrap_err();
        let other = third.http_session(unknown.as_str(), &stranger).await.unwrap_err();
        assert_eq!((own, other), (Refused::SessionEnded, Refused::SessionEnded));
    }
    assert_eq!(third.http_session(&id, &sent_by("ann")).await.unwrap_err(), Refused::Unreachable);
    drop(running);
}

#[tokio::test]
async fn an_answer_that_was_sent_can_be_read_at_another_node() {
    let nodes = Nodes::default();
    let (first, second) = (nodes.start("first").await, nodes.start("second").await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    nodes.owned_by(&session, "first").await;
    let call = request(1, "tools/call", json!({"name": "steps"}));
    let mut receiver = session.request(call).await.unwrap();
    session.keep(&receiver, &[]);
    let (stream, said) = (receiver.stream_id(), all(&mut receiver).await);
    assert_eq!(said.len(), 11);
    let call = request(2, "tools/call", json!({"name": "wait"}));
    let unanswered = session.request(call).await.unwrap();
    session.keep(&unanswered, &[]);
    let is_known = |record: &SessionRecord| {
        let record = serde_json::to_value(record).unwrap();
        record["unanswered"] == json!([[unanswered.stream_id().0, 2]])
    };
    until(|| nodes.store.session(session.id()).as_ref().is_some_and(is_known)).await;
    nodes.kill("first").await;

    let session = second.http_session(&id, &sent_by("ann")).await.unwrap();
    let mut resumed = session.resume(stream, Seq(4)).await.unwrap();
    assert_eq!(all(&mut resumed).await, said[4..]);
    let mut resumed = session.resume(stream, Seq(11)).await.unwrap();
    assert!(all(&mut resumed).await.is_empty(), "it has read all of it");
    for _ in 0..2 {
        let mut resumed = session.resume(unanswered.stream_id(), Seq(0)).await.unwrap();
        let said = all(&mut resumed).await;
        assert_eq!((said.len(), &said[0].1["id"]), (1, &json!(2)), "{said:?}");
        assert_eq!(said[0].1["error"]["code"], code::UNAVAILABLE, "it is answered: {said:?}");
    }
    let mut notices = session.resume(StreamId(99), Seq(0)).await.unwrap();
    assert_eq!(notices.stream_id(), StreamId(0), "there was no such stream");
    assert!(!some(&mut notices).await.is_empty());
    let call = request(3, "tools/call", json!({"name": "echo"}));
    let receiver = session.request(call).await.unwrap();
    assert!(receiver.stream_id() > unanswered.stream_id(), "no name is given out twice");
}

#[tokio::test]
async fn a_client_that_reads_through_another_node_gets_one_answer_when_its_session_is_taken_over() {
    for stored in [true, false] {
        let nodes = Nodes::default();
        let (first, second) = (nodes.start("first").await, nodes.start("second").await);
        let session = opened(&first).await;
        let id = session.id().as_str().to_owned();
        nodes.owned_by(&session, "first").await;
        let through = second.http_session(&id, &sent_by("ann")).await.unwrap();
        let call = request(1, "tools/call", json!({"name": "endless"}));
        let mut receiver = through.request(call).await.unwrap();
        let (stream, mut seen) = (receiver.stream_id(), Vec::new());
        while seen.len() < 2 {
            seen.extend(some(&mut receiver).await);
        }
        let is_known = |record: &SessionRecord| {
            serde_json::to_value(record).unwrap()["unanswered"] == json!([[stream.0, 1]])
        };
        until(|| nodes.store.session(session.id()).as_ref().is_some_and(is_known)).await;
        nodes.cut.cancel();
        if !stored {
            // The node dies before it has stored anything of the stream.
            nodes.store.forget_stream(session.id(), stream);
        }
        nodes.kill("first").await;
        seen.extend(all(&mut receiver).await);
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.is_sorted_by(|(a, _), (b, _)| a < b), "no number twice: {seen:?}");
        let (last, answer) = seen.last().unwrap();
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(1), &json!(code::UNAVAILABLE))
        );
        assert_eq!(second.http_sessions().len(), 1, "it goes on here");

        let nodes = Nodes { cut: CancellationToken::new(), ..nodes };
        second.join_peers(Some(Arc::new(nodes.clone())));
        let third = nodes.start("third").await;
        for engine in [&second, &third] {
            let session = engine.http_session(&id, &sent_by("ann")).await.unwrap();
            let mut resumed = session.resume(stream, Seq(last.0 + 1)).await.unwrap();
            assert!(all(&mut resumed).await.is_empty(), "it has read all of it");
        }
    }
}

#[tokio::test]
async fn concurrent_lookups_of_a_session_all_find_the_same_one() {
    let nodes = Nodes::default();
    let first = nodes.start("first").await;
    let others = [nodes.start("a").await, nodes.start("b").await, nodes.start("c").await];
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    nodes.owned_by(&session, "first").await;
    nodes.kill("first").await;
    let asks = (0..30).map(|index| {
        let (engine, id) = (others[index % 3].clone(), id.clone());
        tokio::spawn(async move {
            let session = engine.http_session(&id, &sent_by("ann")).await.unwrap();
            let call = request(index as i64, "tools/call", json!({"name": "echo"}));
            let mut receiver = session.request(call).await.unwrap();
            all(&mut receiver).await.pop().unwrap().1
        })
    });
    for answer in futures::future::join_all(asks).await {
        let answer = answer.unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], "echo", "{answer}");
    }
    let here = others.iter().filter(|engine| !engine.http_sessions().is_empty());
    assert_eq!(here.count(), 1, "one node has it");
}

#[tokio::test]
async fn a_node_that_was_given_up_and_returns_drops_the_sessions_of_others() {
    let nodes = Nodes::default();
    let (first, second) = (nodes.start("first").await, nodes.start("second").await);
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    nodes.owned_by(&session, "first").await;
    nodes.lost.lock().unwrap().insert(node("first"));
    second.http_session(&id, &sent_by("ann")).await.unwrap();
    nodes.owned_by(&session, "second").await;
    nodes.lost.lock().unwrap().clear();

    ask(&session, 1, "logging/setLevel", json!({"level": "error"})).await;
    until(|| first.http_sessions().is_empty()).await;
    nodes.owned_by(&session, "second").await;
    // The node in the session's name finds it on the other node.
    let session = first.http_session(&id, &sent_by("ann")).await.unwrap();
    let said = ask(&session, 2, "tools/call", json!({"name": "echo"})).await;
    assert_eq!(said[0].1["result"]["content"][0]["text"], "echo", "{said:?}");
    assert_eq!(second.http_sessions().len(), 1);
}

#[tokio::test]
async fn a_node_that_restarts_under_its_name_has_its_sessions() {
    let nodes = Nodes::default();
    let first = nodes.start("first").await;
    let session = opened(&first).await;
    let id = session.id().as_str().to_owned();
    nodes.owned_by(&session, "first").await;
    // The order in which the parts of a node end does not matter.
    nodes.engines.lock().unwrap().clear();
    first.shutdown().await;
    let again = nodes.start("first").await;
    let session = again.http_session(&id, &sent_by("ann")).await.unwrap();
    assert_eq!(ask(&session, 1, "ping", json!({})).await.len(), 1);
    again.end_session(session.id());
    let ended = again.http_session(&id, &sent_by("ann")).await;
    assert_eq!(ended.unwrap_err(), Refused::SessionEnded, "what has ended does not come back");
    until(|| nodes.store.owners().is_empty()).await;
    let ended = again.http_session(&id, &sent_by("ann")).await;
    assert_eq!(ended.unwrap_err(), Refused::SessionEnded);
}
