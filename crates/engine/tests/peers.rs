//! Two engines that know each other: what a client of one notices of the other.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_engine::outlet::Inlet;
use stentor_engine::peers::{
    Act, Conversation, Errand, Fact, Peers, Reach, Said, Talkback, Unreachable,
};
use stentor_engine::port::{Answer, HttpSession, Refused};
use stentor_engine::{
    CallError, Context, EndReason, Engine, EngineBuilder, NodeId, Seq, SessionRecord, ToolError,
    prompt, resource, tool,
};
use stentor_wire::{Message, ProtocolVersion, Request, Response, meta_key};
use support::{Client, methods};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Engines of one process as each other's nodes. What they say goes through JSON, as it does
/// between processes.
#[derive(Clone, Debug, Default)]
struct Nodes(Arc<Mutex<HashMap<NodeId, Engine>>>, Arc<Mutex<Links>>);

/// The links between them.
#[derive(Debug, Default)]
struct Links {
    /// They cannot be used just now.
    away: bool,
    /// Cuts those that there are.
    cut: CancellationToken,
}

#[derive(Debug)]
struct Neighbours {
    own: NodeId,
    nodes: Nodes,
}

#[derive(Debug)]
struct Back(mpsc::UnboundedSender<Response>);

impl Talkback for Back {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        self.0.send(response).unwrap();
    }
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

impl Neighbours {
    fn others(&self) -> Vec<Engine> {
        let nodes = self.nodes.0.lock().unwrap();
        nodes.iter().filter(|(node, _)| **node != self.own).map(|(_, it)| it.clone()).collect()
    }
}

impl Peers for Neighbours {
    fn reach(&self, node: &NodeId) -> Reach {
        let known = self.nodes.0.lock().unwrap().contains_key(node);
        let away = self.nodes.1.lock().unwrap().away;
        match (known, away) {
            (true, false) => Reach::There(node.clone()),
            (true, true) => Reach::Away,
            (false, _) => Reach::Gone,
        }
    }

    fn ask(&self, node: &NodeId, errand: Errand) -> Result<Conversation, Unreachable> {
        let engine = self.nodes.0.lock().unwrap().get(node).cloned();
        let engine = engine.ok_or_else(|| Unreachable(node.clone()))?;
        let links = self.nodes.1.lock().unwrap();
        if links.away {
            return Err(Unreachable(node.clone()));
        }
        let (cut, errand) = (links.cut.clone(), through_json(&errand));
        let (say, said) = mpsc::channel::<Said>(4);
        let (answers, mut answered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut serving = engine.serve_peer(errand).await;
            loop {
                tokio::select! {
                    next = serving.next() => match next {
                        Some(next) => if say.send(through_json(&next)).await.is_err() { return },
                        None => return,
                    },
                    Some(response) = answered.recv() => serving.client_answers(response),
                    () = say.closed() => return,
                    () = cut.cancelled() => return,
                }
            }
        });
        Ok(Conversation::new(said, Box::new(Back(answers))))
    }

    fn offer_shown(&self, _node: &NodeId, _seq: u64, lists: &[stentor_engine::ListKind]) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned();
        own.unwrap().announce_lists(lists.to_vec());
    }

    fn catalog_changed(&self, lists: &[stentor_engine::ListKind]) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned();
        let Some(own) = own else { return };
        for other in self.others() {
            let definitions = through_json(&own.catalog().snapshot().definitions());
            other.peer_offers(self.own.clone(), 0, Some(definitions));
        }
        own.announce_lists(lists.to_vec());
    }

    fn registry_restarted(&self) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned().unwrap();
        for other in self.others() {
            let definitions = other.catalog().snapshot().definitions();
            own.peer_offers(other.node().clone(), 0, Some(definitions));
        }
    }

    fn tell(&self, fact: Fact) {
        for other in self.others() {
            other.peer_told(vec![through_json(&fact)]);
        }
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Nodes {
    async fn start(&self, name: &str, builder: EngineBuilder) -> Engine {
        let engine = builder.configure(|config| config.node = node(name)).start().await.unwrap();
        self.0.lock().unwrap().insert(node(name), engine.clone());
        let peers = Arc::new(Neighbours { own: node(name), nodes: self.clone() });
        engine.join_peers(Some(peers.clone()));
        peers.catalog_changed(&[]);
        for other in peers.others() {
            let definitions = other.catalog().snapshot().definitions();
            engine.peer_offers(other.node().clone(), 0, Some(definitions));
        }
        // What was offered is shown once this is applied.
        engine.catalog().remove_tool("none").await.unwrap();
        engine
    }

    /// Cuts all links, which can be used again at once, or not.
    fn cut(&self, away: bool) {
        let links = Links { away, cut: CancellationToken::new() };
        std::mem::replace(&mut *self.1.lock().unwrap(), links).cut.cancel();
    }

    fn lose(&self, name: &str) {
        let lost = self.0.lock().unwrap().remove(&node(name));
        for engine in self.0.lock().unwrap().values() {
            engine.peer_offers(node(name), 0, None);
        }
        drop(lost);
    }
}

/// One node without tools, and one with them.
async fn two() -> (Nodes, Engine, Engine) {
    let nodes = Nodes::default();
    let far =
        nodes.start("far", support::engine().tool(tool("ask", ask)).tool(tool("steps", steps)));
    let far = far.await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    (nodes, near, far)
}

async fn ask(ctx: Context) -> Result<String, CallError> {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Name {
        name: String,
    }
    let Name { name } = ctx.elicit("Who?").await?;
    Ok(format!("Hello, {name}!"))
}

async fn steps(ctx: Context) -> Result<&'static str, ToolError> {
    for step in 1..=100 {
        ctx.report_progress_paced(f64::from(step), Some(100.0), "").await;
        ctx.info(step);
    }
    ctx.notify("notifications/own", json!({"a": 1}));
    Ok("done")
}

#[tokio::test]
async fn a_legacy_call_of_a_tool_elsewhere_is_a_call_like_any_other() {
    let (_nodes, near, _far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await;
    let (listed, _) = client.answer(1).await;
    assert!(listed.to_string().contains(r#""steps""#), "{listed}");

    client.call(2, "steps").await;
    let (answer, before) = client.answer(2).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    let of = |method: &str| before.iter().filter(|it| it["method"] == method).collect::<Vec<_>>();
    let progress: Vec<_> =
        of("notifications/progress").iter().map(|it| it["params"]["progress"].as_f64()).collect();
    assert_eq!(progress, (1..=100).map(|step| Some(f64::from(step))).collect::<Vec<_>>());
    assert_eq!(of("notifications/progress")[0]["params"]["progressToken"], 2);
    assert_eq!(of("notifications/message").len(), 100);
    assert_eq!(before.last().unwrap()["method"], "notifications/own");

    client.call(3, "panic").await;
    let (answer, _) = client.answer(3).await;
    assert_eq!(answer["error"]["message"], "the tool 'panic' panicked");
}

#[tokio::test]
async fn a_question_of_a_tool_elsewhere_reaches_the_client_and_its_answer_the_tool() {
    let (_nodes, near, _far) = two().await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "ask").await;
    let question = client.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({"action": "accept", "content": {"name": "Ann"}});
    client.send(json!({"jsonrpc": "2.0", "id": question["id"], "result": answer})).await;
    let (answer, _) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "Hello, Ann!", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_a_tool_elsewhere_gives_up_is_taken_back() {
    let nodes = Nodes::default();
    let far = support::engine()
        .tool(tool("ask", ask))
        .configure(|config| config.ask_timeout = std::time::Duration::from_secs(5));
    let _far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "ask").await;
    let question = client.next().await.unwrap();
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let taken_back = before.iter().find(|it| it["method"] == "notifications/cancelled");
    assert_eq!(taken_back.unwrap()["params"]["requestId"], question["id"]);
}

#[tokio::test(start_paused = true)]
async fn questions_of_a_tool_elsewhere_wait_there_for_a_client_that_does_not_read() {
    let (nodes, asked) = (Nodes::default(), Arc::new(AtomicUsize::new(0)));
    let far = support::engine().tool(support::impatient(10_000, asked.clone()));
    let far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy_that(&near, json!({"elicitation": {}})).await;
    client.call(1, "impatient").await;
    while asked.load(Ordering::Relaxed) < 10_000 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    for engine in [&near, &far] {
        let held = engine.tally().held;
        assert!(held < (1 << 20) + (1 << 17), "{} {held}", engine.node());
    }
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "nobody is there");
    let count = |method: &str| before.iter().filter(|it| it["method"] == method).count();
    assert_eq!(count("elicitation/create"), count("notifications/cancelled"));
}

fn modern(id: i64, method: &str, mut params: Value, capabilities: Value) -> Box<Request> {
    params["_meta"] = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: capabilities,
    });
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn answered(engine: &Engine, request: Box<Request>) -> Value {
    let version = ProtocolVersion::V2026_07_28;
    match engine.answer(version, request, None).await.unwrap() {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut inlet) => all(&mut inlet).await.pop().unwrap(),
    }
}

async fn all(inlet: &mut Inlet) -> Vec<Value> {
    let (mut batch, mut messages) = (Vec::new(), Vec::new());
    while inlet.next(&mut batch).await {
        for (_, _, frame) in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            messages.push(serde_json::from_slice(&out).unwrap());
        }
    }
    messages
}

#[tokio::test]
async fn a_modern_retry_finds_the_call_that_waits_through_any_node() {
    let (nodes, near, far) = two().await;
    let third = nodes.start("third", Engine::builder("test", "1")).await;
    let capabilities = json!({"elicitation": {}});
    let params = json!({"name": "ask"});
    let asked = answered(&near, modern(1, "tools/call", params, capabilities.clone())).await;
    let result = &asked["result"];
    assert_eq!(result["resultType"], "input_required", "{asked}");
    let key = result["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let params = json!({
        "name": "ask", "requestState": result["requestState"],
        "inputResponses": {key: {"action": "accept", "content": {"name": "Ann"}}},
    });
    let done = answered(&third, modern(2, "tools/call", params, capabilities)).await;
    assert_eq!(done["result"]["content"][0]["text"], "Hello, Ann!", "{done}");
    assert_eq!(done["id"], 2);
    assert_eq!(far.calls().len(), 0);
}

#[tokio::test]
async fn a_call_elsewhere_is_cancelled_when_its_client_says_so_or_goes() {
    let (_nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "wait").await;
    until(|| far.calls().len() == 1).await;
    let params = json!({"requestId": 1});
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
        .await;
    until(|| far.calls().is_empty()).await;
    assert_eq!(methods(&client.ping().await), [""; 0], "nothing follows");

    let request = modern(1, "tools/call", json!({"name": "wait"}), json!({}));
    let answer = near.answer(ProtocolVersion::V2026_07_28, request, None).await.unwrap();
    until(|| far.calls().len() == 1).await;
    drop(answer);
    until(|| far.calls().is_empty()).await;
}

async fn until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 20, "it does not come to this");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn when_the_node_goes_its_callers_hear_so_at_once() {
    let (nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "wait").await;
    until(|| far.calls().len() == 1).await;
    nodes.lose("far");
    far.actor().kill();
    let (answer, before) = client.answer(1).await;
    let mut heard = methods(&before);
    heard.sort_unstable();
    let lists = ["notifications/resources/list_changed", "notifications/tools/list_changed"];
    assert_eq!(heard, lists);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("shutting down") || message.contains("has gone"), "{answer}");
    client.call(2, "wait").await;
    let (answer, _) = client.answer(2).await;
    assert_eq!(answer["error"]["message"], "unknown tool: wait");
}

#[tokio::test]
async fn resources_prompts_and_completion_are_found_where_they_are() {
    let nodes = Nodes::default();
    let template = stentor_engine::resource_template(
        "a://{x}",
        "a",
        |vars: stentor_engine::TemplateVars, _ctx| async move {
            Ok::<_, stentor_engine::ResourceError>(format!("it is {}", vars["x"]))
        },
    );
    let far = Engine::builder("test", "1")
        .resource(resource("b://1", "b", |_ctx| async {
            Ok::<_, stentor_engine::ResourceError>("far away".to_owned())
        }))
        .resource_template(template.complete(|_asked| async { vec!["xyz".to_owned()] }))
        .prompt(prompt("greet", |_ctx: Context| async {
            Ok::<_, stentor_engine::PromptError>("Hello")
        }));
    let _far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;

    for (uri, text) in [("b://1", "far away"), ("a://7", "it is 7")] {
        let read =
            answered(&near, modern(1, "resources/read", json!({"uri": uri}), json!({}))).await;
        assert_eq!(read["result"]["contents"][0]["text"], text, "{read}");
    }
    let got = answered(&near, modern(1, "prompts/get", json!({"name": "greet"}), json!({}))).await;
    assert_eq!(got["result"]["messages"][0]["content"]["text"], "Hello", "{got}");
    let params = json!({
        "ref": {"type": "ref/resource", "uri": "a://{x}"}, "argument": {"name": "x", "value": "x"},
    });
    let completed = answered(&near, modern(1, "completion/complete", params, json!({}))).await;
    assert_eq!(completed["result"]["completion"]["values"], json!(["xyz"]), "{completed}");
    let params = json!({"uri": "c://1"});
    let missing = answered(&near, modern(1, "resources/read", params, json!({}))).await;
    assert_eq!(missing["error"]["code"], -32602, "{missing}");
}

#[tokio::test]
async fn what_one_application_tells_everybody_hears_wherever_they_are() {
    let (_nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.subscribe("s", "test://watched").await;
    far.send_resource_updated("test://watched");
    let heard = client.next().await.unwrap();
    assert_eq!(heard["method"], "notifications/resources/updated", "{heard}");
    far.notify_all("notifications/own", json!({"a": 1})).await.unwrap();
    assert_eq!(client.next().await.unwrap()["params"]["a"], 1);
    far.send_prompt_list_changed();
    assert_eq!(client.next().await.unwrap()["method"], "notifications/prompts/list_changed");
    far.catalog().add(tool("new", || async { Ok::<_, ToolError>("") })).await.unwrap();
    assert_eq!(client.next().await.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(methods(&client.ping().await), [""; 0], "each of it once");
}

fn legacy(id: i64, method: &str, params: Value) -> Box<Request> {
    let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
    request
}

async fn opened(engine: &Engine) -> HttpSession {
    let session = engine.open_http_session(Some(Arc::<str>::from("ann")).into()).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let request = legacy(0, "initialize", params);
    all(&mut session.request(request).await.unwrap()).await;
    session
}

#[tokio::test]
async fn a_session_is_served_through_any_node() {
    let (_nodes, near, far) = two().await;
    let id = opened(&far).await.id().as_str().to_owned();
    assert!(id.starts_with("far."), "{id}");
    let through = near.http_session(&id, Some("ann")).await.unwrap();
    let request = legacy(1, "tools/call", json!({"name": "echo"}));
    let said = all(&mut through.request(request).await.unwrap()).await;
    assert_eq!(said[0]["result"]["content"][0]["text"], "echo", "{said:?}");

    let mut notices = through.attach().await.unwrap();
    assert_eq!(through.version(), Some(ProtocolVersion::V2025_11_25));
    // The newest one has it, wherever it comes from.
    let mut taken = std::mem::replace(&mut notices, through.attach().await.unwrap());
    let mut batch = Vec::new();
    assert!(!taken.next(&mut batch).await, "it is taken over: {batch:?}");
    assert!(notices.next(&mut batch).await);
    assert_eq!(batch.len(), 3, "what was on its way may be lost");
    far.send_tool_list_changed();
    let mut batch = Vec::new();
    assert!(notices.next(&mut batch).await);
    assert_eq!(batch.len(), 1);
    let (seq, stream) = (batch[0].0, notices.stream());
    drop(notices);

    // It comes back through the node that has it, and reads on where it was.
    far.send_prompt_list_changed();
    let next = stentor_engine::Seq(seq.0 + 1);
    let mut resumed =
        far.http_session(&id, Some("ann")).await.unwrap().resume(stream, next).await.unwrap();
    batch.clear();
    assert!(resumed.next(&mut batch).await);
    assert_eq!((batch.len(), batch[0].0), (1, next));

    let bob = near.http_session(&id, Some("bob")).await.unwrap();
    let request = legacy(2, "tools/call", json!({"name": "echo"}));
    assert_eq!(bob.request(request).await.unwrap_err(), Refused::SessionEnded);
    through.end(EndReason::Deleted).await.unwrap();
    until(|| far.http_sessions().is_empty()).await;
    let request = legacy(3, "tools/call", json!({"name": "echo"}));
    assert_eq!(through.request(request).await.unwrap_err(), Refused::SessionEnded);
}

#[tokio::test]
async fn a_request_whose_session_is_lost_is_answered_with_an_error() {
    let (nodes, near, far) = two().await;
    let id = opened(&far).await.id().as_str().to_owned();
    let through = near.http_session(&id, Some("ann")).await.unwrap();
    let request = legacy(1, "tools/call", json!({"name": "wait"}));
    let mut inlet = through.request(request).await.unwrap();
    nodes.lose("far");
    far.actor().kill();
    let said = all(&mut inlet).await;
    assert_eq!((said.len(), &said[0]["id"]), (1, &json!(1)), "{said:?}");
    assert!(near.http_session(&id, Some("ann")).await.is_err());
}

/// One node, and one with a session on which a call has said two things that were read through the
/// first, and waits.
struct Relayed {
    nodes: Nodes,
    near: Engine,
    far: Engine,
    id: String,
    inlet: Inlet,
    go_on: Arc<Notify>,
    read: Vec<(Seq, Value)>,
}

async fn some(inlet: &mut Inlet, read: &mut Vec<(Seq, Value)>) -> bool {
    let mut batch = Vec::new();
    let some = inlet.next(&mut batch).await;
    for (seq, _, frame) in batch {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        read.push((seq, serde_json::from_slice(&out).unwrap()));
    }
    some
}

impl Relayed {
    async fn call() -> Self {
        let (nodes, go_on) = (Nodes::default(), Arc::new(Notify::new()));
        let waits = go_on.clone();
        let lines = tool("lines", move |ctx: Context| {
            let waits = waits.clone();
            async move {
                ctx.info(1);
                ctx.info(2);
                waits.notified().await;
                ctx.info(3);
                Ok::<_, ToolError>("done")
            }
        });
        let far = nodes.start("far", support::engine().tool(lines)).await;
        let near = nodes.start("near", Engine::builder("test", "1")).await;
        let id = opened(&far).await.id().as_str().to_owned();
        let through = near.http_session(&id, Some("ann")).await.unwrap();
        let request = legacy(1, "tools/call", json!({"name": "lines"}));
        let (mut inlet, mut read) = (through.request(request).await.unwrap(), Vec::new());
        while read.len() < 2 {
            assert!(some(&mut inlet, &mut read).await);
        }
        Self { nodes, near, far, id, inlet, go_on, read }
    }

    async fn read_on(&mut self) {
        while some(&mut self.inlet, &mut self.read).await {}
    }

    /// What a client reads who comes back to the stream through one of the nodes.
    async fn resumed(&self, through: &Engine, next: Seq) -> Vec<Value> {
        let session = through.http_session(&self.id, Some("ann")).await.unwrap();
        all(&mut session.resume(self.inlet.stream(), next).await.unwrap()).await
    }

    /// The number after that of the last frame, which is the answer; no frame has that of another.
    fn next(&self) -> Seq {
        assert!(self.read.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", self.read);
        let answers = self.read.iter().filter(|(_, it)| it["id"] == 1);
        assert_eq!(answers.count(), 1, "{:?}", self.read);
        let (seq, last) = self.read.last().unwrap();
        assert_eq!(last["id"], 1, "{:?}", self.read);
        Seq(seq.0 + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_while_a_session_elsewhere_answers_takes_nothing_of_the_answer() {
    for away in [false, true] {
        let mut relayed = Relayed::call().await;
        relayed.nodes.cut(away);
        relayed.go_on.notify_one();
        if away {
            let read_on = relayed.read_on();
            assert!(timeout(Duration::from_secs(5), read_on).await.is_err(), "it waits");
            relayed.nodes.cut(false);
        }
        relayed.read_on().await;
        let next = relayed.next();
        assert_eq!((relayed.read.len(), next), (4, Seq(4)), "{:?}", relayed.read);
        assert_eq!(relayed.read[3].1["result"]["content"][0]["text"], "done");
        for through in [&relayed.near, &relayed.far] {
            assert_eq!(relayed.resumed(through, next).await, [Value::Null; 0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_made_up_is_the_last_that_is_heard_of_its_stream() {
    let mut relayed = Relayed::call().await;
    relayed.nodes.cut(true);
    let begun = Instant::now();
    relayed.read_on().await;
    // Within the time that is configured.
    assert!((10..11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let next = relayed.next();
    assert!(relayed.read[2].1["error"]["message"].as_str().unwrap().contains("has gone"));
    assert!(next.0 < 1 << 53, "a client may keep it as a floating point number");
    // The node was there all the time, and its call goes on.
    relayed.nodes.cut(false);
    relayed.go_on.notify_one();
    for through in [&relayed.near, &relayed.far] {
        assert_eq!(relayed.resumed(through, next).await, [Value::Null; 0]);
    }
    // Who has not heard the one answer gets the other.
    let rest = relayed.resumed(&relayed.near, Seq(2)).await;
    assert_eq!(rest[1]["result"]["content"][0]["text"], "done", "{rest:?}");
}

#[tokio::test]
async fn an_answer_that_is_made_up_for_a_node_that_is_gone_has_no_number_of_another_frame() {
    let mut relayed = Relayed::call().await;
    relayed.nodes.lose("far");
    relayed.nodes.cut(false);
    relayed.read_on().await;
    relayed.next();
    assert!(relayed.near.http_session(&relayed.id, Some("ann")).await.is_err());
}

#[tokio::test]
async fn a_slow_client_holds_up_the_tool_elsewhere_that_waits_for_it() {
    let nodes = Nodes::default();
    let (reported, all_reported) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0_u32)));
    let count = all_reported.clone();
    let floods = tool("floods", move |ctx: Context| {
        let (reported, count) = (reported.clone(), count.clone());
        async move {
            for step in 1..=100_000 {
                ctx.report_progress_paced(f64::from(step), None, "").await;
                *count.lock().unwrap() = step;
            }
            reported.notify_one();
            Ok::<_, ToolError>("done")
        }
    });
    let _far = nodes.start("far", Engine::builder("test", "1").tool(floods)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let mut client = Client::legacy(&near).await;
    client.call(1, "floods").await;
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 200 {
        tokio::task::yield_now().await;
    }
    assert!(*all_reported.lock().unwrap() < 50_000, "it is far ahead of its client");
    let (answer, before) = client.answer(1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    assert_eq!(before.len(), 100_000, "and loses nothing");
}

#[tokio::test]
async fn a_session_goes_on_on_another_node_and_its_client_misses_nothing() {
    let (_nodes, near, far) = two().await;
    let session = opened(&far).await;
    let id = session.id().clone();
    let request = legacy(1, "logging/setLevel", json!({"level": "error"}));
    all(&mut session.request(request).await.unwrap()).await;
    let request = legacy(2, "resources/subscribe", json!({"uri": "test://watched"}));
    all(&mut session.request(request).await.unwrap()).await;
    let request = legacy(3, "tools/call", json!({"name": "steps"}));
    let mut inlet = session.request(request).await.unwrap();
    session.keep(&inlet, &[]);
    let stream = inlet.stream();
    assert_eq!(all(&mut inlet).await.len(), 2, "its notification and the result");

    // One notice is read, the next one is not.
    let mut notices = session.attach().await.unwrap();
    far.send_tool_list_changed();
    let mut batch = Vec::new();
    assert!(notices.next(&mut batch).await);
    let read = batch[0].0;
    drop(notices);
    far.notify_all("notifications/own", json!({"n": 1})).await.unwrap();
    until(|| far.sessions().iter().any(|it| it.unread == 1)).await;

    let mut leaving = far.release_session(&id, std::time::Duration::from_secs(1)).await.unwrap();
    let record = through_json(&leaving.take().unwrap());
    // While nobody else has it yet.
    far.notify_all("notifications/own", json!({"n": 2})).await.unwrap();
    let looking = tokio::spawn({
        let (far, id) = (far.clone(), id.clone());
        async move { far.http_session(id.as_str(), Some("ann")).await.map(drop) }
    });
    let mut adopted = near.serve_peer(Errand::Adopt(Box::new(record))).await;
    assert!(matches!(adopted.next().await, Some(Said::Over)));
    assert!(!looking.is_finished(), "who looks for it meanwhile waits");
    leaving.arrived();
    assert_eq!(looking.await.unwrap().unwrap_err(), Refused::SessionEnded);

    let bob = near.http_session(id.as_str(), Some("bob")).await.unwrap();
    let request = legacy(9, "ping", json!({}));
    assert_eq!(bob.request(request).await.unwrap_err(), Refused::SessionEnded);
    // While both listen.
    far.notify_all("notifications/own", json!({"n": 3})).await.unwrap();
    until(|| near.sessions().iter().any(|it| it.unread >= 5)).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(leaving.heard_since());
        tokio::task::yield_now().await;
    }
    let (session, act) = (id.clone(), Act::Heard(through_json(&heard)));
    let errand = Errand::Session { session, principal: leaving.principal(), act };
    assert!(matches!(near.serve_peer(errand).await.next().await, Some(Said::Over)));
    drop(leaving);
    let session = near.http_session(id.as_str(), Some("ann")).await.unwrap();
    assert_eq!(session.version(), Some(ProtocolVersion::V2025_11_25));
    let mut notices =
        session.resume(stentor_engine::StreamId(0), stentor_engine::Seq(read.0)).await.unwrap();
    let (mut heard, mut batch) = (Vec::new(), Vec::new());
    near.send_resource_updated("test://watched");
    while heard.len() < 8 {
        assert!(notices.next(&mut batch).await);
        for (seq, _, frame) in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            let message: Value = serde_json::from_slice(&out).unwrap();
            let method = message["method"].as_str().unwrap().to_owned();
            heard.push((seq.0 - read.0, method, message["params"]["n"].as_u64()));
        }
    }
    let seqs: Vec<_> = heard.iter().map(|(seq, ..)| *seq).collect();
    let mut own: Vec<_> = heard.iter().filter_map(|(_, _, n)| *n).collect();
    own.sort_unstable();
    assert_eq!(own, [1, 2, 3], "each once: {heard:?}");
    let methods: Vec<_> = heard.into_iter().map(|(_, method, _)| method).collect();
    assert_eq!(seqs, (0..8).collect::<Vec<_>>(), "without gaps");
    assert_eq!(methods[..2], ["notifications/tools/list_changed", "notifications/own"]);
    // What may have changed on the way is told once more.
    assert!(methods[2..].contains(&"notifications/resources/updated".to_owned()), "{methods:?}");

    let mut past = session.resume(stream, stentor_engine::Seq(0)).await.unwrap();
    assert_eq!(all(&mut past).await.len(), 2, "what was answered can be read again");
    let request = legacy(4, "tools/call", json!({"name": "log"}));
    let said = all(&mut session.request(request).await.unwrap()).await;
    assert_eq!(said[0]["params"]["data"], "above it", "its log level is what it was: {said:?}");
    assert_eq!(said.len(), 2);
}

#[tokio::test]
async fn of_a_session_that_is_too_large_to_be_handed_over_an_answer_is_lost_and_nothing_else() {
    let nodes = Nodes::default();
    let long = tool("long", || async { Ok::<_, ToolError>("x".repeat(9_000)) });
    let far = nodes.start("far", support::engine().tool(long)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let session = opened(&far).await;
    let mut streams = Vec::new();
    for (id, name) in [(1, "long"), (2, "echo")] {
        let params = json!({"name": name});
        let inlet = session.request(legacy(id, "tools/call", params)).await.unwrap();
        session.keep(&inlet, &[]);
        streams.push(inlet.stream());
    }
    until(|| far.calls().is_empty()).await;
    let mut leaving =
        far.release_session(session.id(), Duration::from_secs(1)).await.expect("it is there");
    let mut record = leaving.take().unwrap();
    let size = |record: &SessionRecord| serde_json::to_string(record).unwrap().len();
    assert!(size(&record) > 9_000, "nobody has read the answer");
    while size(&record) > 5_000 {
        assert!(record.leave_out_some(), "there is something to leave out");
    }
    let mut adopted = near.serve_peer(Errand::Adopt(Box::new(through_json(&record)))).await;
    assert!(matches!(adopted.next().await, Some(Said::Over)));
    leaving.arrived();
    let session = near.http_session(session.id().as_str(), Some("ann")).await.unwrap();
    let mut answers = Vec::new();
    for stream in streams {
        let mut resumed = session.resume(stream, Seq(0)).await.unwrap();
        answers.extend(all(&mut resumed).await);
    }
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers[0]["error"]["message"].as_str().unwrap().contains("too large"), "{answers:?}");
    assert_eq!(answers[1]["result"]["content"][0]["text"], "echo");
    // In the end there is nothing left that could be left out.
    while record.leave_out_some() {}
}

#[tokio::test]
async fn a_task_elsewhere_is_asked_for_and_listened_to_through_any_node() {
    let nodes = Nodes::default();
    let go = Arc::new(Notify::new());
    let waits = tool("waits", {
        let go = go.clone();
        move || {
            let go = go.clone();
            async move {
                go.notified().await;
                Ok::<_, ToolError>("done")
            }
        }
    });
    let waits = waits.as_task(stentor_engine::AsTask::Always);
    let _far = nodes.start("far", Engine::builder("test", "1").tool(waits)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ask = |id, method, params| modern(id, method, params, capabilities.clone());

    let created = answered(&near, ask(1, "tools/call", json!({"name": "waits"}))).await;
    let task = created["result"]["taskId"].as_str().expect("a task").to_owned();
    assert!(task.starts_with("far."), "{created}");
    let got = answered(&near, ask(2, "tasks/get", json!({"taskId": task}))).await;
    assert_eq!(got["result"]["status"], "working", "{got}");

    let unknown = format!("{task}x");
    let params = json!({"notifications": {"taskIds": [task, unknown], "toolsListChanged": true}});
    let request = ask(3, "subscriptions/listen", params);
    let answer = near.answer(ProtocolVersion::V2026_07_28, request, None).await.unwrap();
    let Answer::Stream(mut inlet) = answer else { panic!("no stream") };
    let (mut heard, mut batch) = (Vec::<Value>::new(), Vec::new());
    go.notify_one();
    while heard.last().is_none_or(|last| last["params"]["status"] != "completed") {
        assert!(inlet.next(&mut batch).await);
        for (_, _, frame) in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            heard.push(serde_json::from_slice(&out).unwrap());
        }
    }
    let acknowledged = &heard[0]["params"];
    assert_eq!(acknowledged["notifications"]["taskIds"], json!([task]), "{heard:?}");
    for message in &heard {
        assert_eq!(message["params"]["_meta"][meta_key::SUBSCRIPTION_ID], 3, "{message}");
    }
    let told: Vec<_> = heard.iter().filter(|it| it["method"] == "notifications/tasks").collect();
    assert!(told.iter().all(|it| it["params"]["taskId"] == *task), "{told:?}");
    assert_eq!(told.last().unwrap()["params"]["result"]["content"][0]["text"], "done");
    drop(inlet);
}

#[tokio::test]
async fn what_a_node_offered_while_the_registry_crashed_is_shown_by_the_next_one() {
    let (_nodes, near, far) = two().await;
    // It is told to a registry that is dead and not yet replaced.
    let kill = stentor_engine::testing::kill(&near, stentor_engine::testing::Victim::Registry);
    let new = tool("new", || async { Ok::<_, ToolError>("") });
    let catalog = far.catalog();
    let (killed, added) = tokio::join!(kill, catalog.add(new));
    killed.unwrap();
    added.unwrap();
    until(|| near.catalog().snapshot().tool_names().any(|name| name == "new")).await;
    let names = |engine: &Engine| -> Vec<String> {
        engine.catalog().snapshot().tool_names().map(str::to_owned).collect()
    };
    assert_eq!(names(&near), names(&far));
}
