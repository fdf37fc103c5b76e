//! Actors that die at random, while clients call, listen, and the catalog changes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor::SessionKind;
use stentor_engine::testing::{Victim, kill};
use stentor_tests::{Census, Era, Lane, Server, description};
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Http, Peer, Request, initialize, listen, message, modernize};
use crate::{size, until};

/// The longest that anybody may wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kills within a minute of registry, hub and stateless session together; with eleven the root
/// gives up.
const MOST_KILLS: usize = 10;
/// Restarts of a session after which it is left in peace, with one that may not be counted yet;
/// with six within a minute it ends.
const MOST_SESSION_KILLS: usize = 4;

/// Numbers that look random, the same for the same seed.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = match std::env::var("STENTOR_SOAK_SEED") {
            Ok(seed) => seed.parse().expect("a number"),
            Err(_) => {
                let now = std::time::SystemTime::now();
                let since = now.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                since.as_nanos() as u64
            }
        };
        println!("STENTOR_SOAK_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn fork(&mut self) -> Self {
        Self(self.below(usize::MAX) as u64)
    }

    async fn pause(&mut self, most_ms: usize) {
        sleep(Duration::from_millis(self.below(most_ms) as u64)).await;
    }
}

/// Has panics say nothing that are part of the test: there are many.
fn hush() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload_as_str().is_some_and(|text| text.contains("part of a test")) {
            report(panic);
        }
    }));
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Result,
    Error(i64),
    /// The response of HTTP was another one.
    Status(u16),
    /// The stream ended properly, without a response.
    NoResponse,
}

/// What all clients count together.
#[derive(Default)]
struct Score {
    stop: AtomicBool,
    ends: Mutex<BTreeMap<End, u64>>,
    reopened: AtomicU64,
    came: AtomicU64,
}

impl Score {
    fn ended(&self, end: End) {
        *self.ends.lock().entry(end).or_default() += 1;
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

async fn soon<T>(what: impl std::fmt::Display, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

fn end_of(response: &Value) -> End {
    match response["error"]["code"].as_i64() {
        Some(code) => End::Error(code),
        None => {
            assert!(response.get("result").is_some(), "neither a result nor an error: {response}");
            End::Result
        }
    }
}

fn acknowledged(first: &Value) {
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "first of all");
}

/// The change that a list shows.
fn change_in(list: &Value) -> Option<u64> {
    let tools = list["result"]["tools"].as_array()?;
    let tool = tools.iter().find(|tool| tool["name"] == "change")?;
    tool["description"].as_str()?.strip_prefix("change ")?.strip_suffix('.')?.parse().ok()
}

/// A client in one lane. It calls from several places at once.
enum Client {
    Http(SocketAddr, Peer),
    Pipe(Pipe),
}

impl Client {
    async fn connect(server: &Server, lane: Lane, score: &Arc<Score>) -> Arc<Self> {
        Arc::new(if lane.is_http() {
            let mut http = Http::connect(server.address).await.expect("a connection");
            let peer = Peer::open(&mut http, lane.era).await.expect("a client");
            Self::Http(server.address, peer)
        } else {
            let pipe = Pipe::open(server, lane.era, score);
            if lane.is_legacy() {
                pipe.ask(initialize).await.expect("an answer");
            }
            Self::Pipe(pipe)
        })
    }

    /// Sends a request and waits for its response, of which there is one at the most.
    async fn ask(&self, score: &Score, method: &str, params: Value) -> Option<Value> {
        static IDS: AtomicU64 = AtomicU64::new(1_000);
        let what = format!("the end of {method} {params}");
        let response = match self {
            Self::Http(address, peer) => {
                let id = IDS.fetch_add(1, Ordering::Relaxed);
                let mut http = Http::connect(*address).await.expect("a connection");
                let mut params = params;
                if method == "tools/call" {
                    params["_meta"] = json!({"progressToken": id});
                }
                let request = peer.request(id, method, params);
                let head = soon(&what, http.ask(&request)).await.expect("a response of HTTP");
                if head.status != 200 {
                    score.ended(End::Status(head.status));
                    return None;
                }
                let mut response = None;
                while let Some(message) = soon(&what, http.message()).await.expect("a stream") {
                    assert!(response.is_none(), "{message} follows {response:?}");
                    if message.get("method").is_none() {
                        assert_eq!(message["id"], id, "{message}");
                        response = Some(message);
                    }
                }
                response
            }
            Self::Pipe(pipe) => {
                let request = |id| {
                    let mut params = params.clone();
                    if method == "tools/call" {
                        params["_meta"] = json!({"progressToken": id});
                    }
                    message(id, method, params)
                };
                Some(soon(&what, pipe.ask(request)).await.expect("a response on the pipe"))
            }
        };
        score.ended(response.as_ref().map_or(End::NoResponse, end_of));
        response
    }

    /// The change that it reads in the list of tools.
    async fn reads(&self, score: &Score) -> u64 {
        loop {
            let list = self.ask(score, "tools/list", json!({})).await;
            if let Some(list) = list.filter(|list| list.get("result").is_some()) {
                return change_in(&list).unwrap_or_default();
            }
        }
    }

    /// Calls one tool after the other.
    async fn call(self: Arc<Self>, score: Arc<Score>, mut random: Random) {
        while score.goes_on() {
            let (tool, arguments) = match random.below(8) {
                0 => ("panic", json!({})),
                1 => ("panic_at_once", json!({})),
                2 => ("log", json!({})),
                3 => ("flood", json!({"n": 200})),
                4 => ("count", json!({"n": 50})),
                5 => ("count_paced", json!({"n": 500})),
                6 => ("nap", json!({"ms": random.below(300)})),
                _ => ("echo", json!({"text": "hello"})),
            };
            let params = json!({"name": tool, "arguments": arguments});
            self.ask(&score, "tools/call", params).await;
            random.pause(10).await;
        }
    }

    /// Hears of changes, and reads the list after each. Opens its stream anew where it ends.
    async fn listen(self: Arc<Self>, score: Arc<Score>, seen: watch::Sender<u64>) {
        let see = async || {
            let change = self.reads(&score).await;
            seen.send_if_modified(|seen| std::mem::replace(seen, change) < change);
        };
        match &*self {
            Self::Http(address, peer) => {
                let mut last_id: Option<String> = None;
                while score.goes_on() {
                    let mut http = Http::connect(*address).await.expect("a connection");
                    let request = match (peer, &last_id) {
                        (Peer::Legacy(session), Some(id)) => Request::get(session, Some(id)),
                        _ => peer.hear(&[]),
                    };
                    let head = soon("a stream of notices", http.ask(&request)).await;
                    assert_eq!(head.expect("a response of HTTP").status, 200);
                    if let Peer::Modern = peer {
                        let first = soon("an acknowledgment", http.message()).await;
                        acknowledged(&first.expect("a stream").unwrap_or_default());
                    }
                    see().await;
                    while let Some(notice) = http.message().await.expect("the stream is whole") {
                        if notice["method"] == "notifications/tools/list_changed" {
                            see().await;
                        }
                    }
                    last_id = http.last_id.take();
                    score.reopened.fetch_add(1, Ordering::Relaxed);
                }
            }
            Self::Pipe(pipe) => {
                let mut notices = pipe.notices.lock().take().expect("one listener");
                if pipe.era == Era::Modern {
                    let listens = pipe.send(|id| message(id, "subscriptions/listen", listen(&[])));
                    listens.await;
                    let first = soon("an acknowledgment", notices.recv()).await;
                    acknowledged(&first.unwrap_or_default());
                }
                see().await;
                while notices.recv().await.is_some() {
                    see().await;
                }
            }
        }
    }

    async fn leave(&self) {
        match self {
            Self::Http(_, Peer::Modern) => {}
            Self::Http(address, Peer::Legacy(session)) => {
                let mut http = Http::connect(*address).await.expect("a connection");
                let gone = http.ask(&Request::delete(session)).await.expect("a response");
                assert_eq!(gone.status, 204);
            }
            Self::Pipe(pipe) => {
                pipe.writer.lock().await.shutdown().await.expect("an open pipe");
                let reading = pipe.reading.lock().take().expect("left once");
                soon("the end of a pipe", reading).await.expect("what it read was right");
            }
        }
    }
}

/// Comes and goes, with a session or a listen at a time.
async fn come_and_go(address: SocketAddr, score: Arc<Score>, mut random: Random) {
    while score.goes_on() {
        let mut http = Http::connect(address).await.expect("a connection");
        if random.below(2) == 0 {
            let head = soon("a stream of notices", http.ask(&Peer::Modern.hear(&[]))).await;
            assert_eq!(head.expect("a response of HTTP").status, 200);
            let first = soon("an acknowledgment", http.message()).await.expect("a stream");
            acknowledged(&first.unwrap_or_default());
        } else {
            let head = soon("a session", http.ask(&Request::initialize())).await;
            // The session may have been killed before it could answer.
            if let Some(session) = head.expect("a response of HTTP").session {
                let mut notices = Http::connect(address).await.expect("a connection");
                let get = Request::get(&session, None);
                let head = soon("a stream of notices", notices.ask(&get)).await;
                assert_eq!(head.expect("a response of HTTP").status, 200);
                random.pause(10).await;
                let gone = soon("a session to end", http.ask(&Request::delete(&session))).await;
                assert_eq!(gone.expect("a response of HTTP").status, 204);
                let ended =
                    async { while notices.data().await.expect("the stream is whole").is_some() {} };
                soon("the end of a stream of notices", ended).await;
            }
        }
        score.came.fetch_add(1, Ordering::Relaxed);
        random.pause(10).await;
    }
}

/// A pipe, on which every request is answered once.
struct Pipe {
    era: Era,
    ids: AtomicU64,
    writer: tokio::sync::Mutex<WriteHalf<DuplexStream>>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Value>>>>,
    /// What concerns the lists of tools: the acknowledgment of a listen, and changes.
    notices: Mutex<Option<mpsc::UnboundedReceiver<Value>>>,
    reading: Mutex<Option<JoinHandle<()>>>,
}

impl Pipe {
    fn open(server: &Server, era: Era, score: &Arc<Score>) -> Self {
        let (near, _) = server.pipe(1 << 20);
        let (reader, writer) = tokio::io::split(near);
        let (to, notices) = mpsc::unbounded_channel();
        let open = Arc::default();
        let reading = tokio::spawn(route(reader, Arc::clone(&open), to, score.clone()));
        let (notices, reading) = (Mutex::new(Some(notices)), Mutex::new(Some(reading)));
        let writer = tokio::sync::Mutex::new(writer);
        Self { era, ids: AtomicU64::new(1), writer, open, notices, reading }
    }

    async fn send(&self, request: impl FnOnce(u64) -> Value) -> mpsc::UnboundedReceiver<Value> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut request = request(id);
        if self.era == Era::Modern {
            modernize(&mut request);
        }
        let (to, from) = mpsc::unbounded_channel();
        self.open.lock().insert(id, to);
        let line = format!("{request}\n");
        self.writer.lock().await.write_all(line.as_bytes()).await.expect("an open pipe");
        from
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Value) -> Option<Value> {
        self.send(request).await.recv().await
    }
}

/// Reads a pipe, and checks that each response is one to an open request.
async fn route(
    reader: ReadHalf<DuplexStream>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Value>>>>,
    notices: mpsc::UnboundedSender<Value>,
    score: Arc<Score>,
) {
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await.expect("lines of UTF-8") {
        let message: Value = serde_json::from_str(&line).expect("a line is a message");
        match message["method"].as_str() {
            None => {
                let id = message["id"].as_u64().expect("the id of a request");
                let to = open.lock().remove(&id);
                // Nobody may wait for the end of a listen.
                let _ = to.expect("one response to a request").send(message);
            }
            Some("notifications/progress" | "notifications/message") => {}
            // The listener may have stopped.
            Some(_) => drop(notices.send(message)),
        }
    }
    assert!(!score.goes_on(), "the pipe ended early");
}

/// Kills whatever it meets, and says how often it did.
#[derive(Debug, Default)]
struct Killer {
    /// When the last of the actors died whose restarts the root counts.
    counted: Vec<Instant>,
    killed: BTreeMap<&'static str, u64>,
}

impl Killer {
    async fn run(mut self, server: Arc<Server>, score: Arc<Score>, mut random: Random) -> Self {
        while score.goes_on() {
            random.pause(60).await;
            match random.below(5) {
                0 => self.kill_one_of_all(&server, &mut random).await,
                1 | 2 => self.kill_a_session(&server, &mut random).await,
                _ => self.cancel_a_call(&server, &mut random),
            }
        }
        self
    }

    async fn kill_one_of_all(&mut self, server: &Server, random: &mut Random) {
        // Somewhat longer than the root remembers.
        self.counted.retain(|at| at.elapsed() < Duration::from_secs(63));
        if self.counted.len() >= MOST_KILLS {
            return;
        }
        let victims = [
            ("registry", Victim::Registry),
            ("hub", Victim::Hub),
            ("session of stateless calls", Victim::Stateless),
        ];
        let (name, victim) = victims[random.below(3)].clone();
        self.counted.push(Instant::now());
        kill(&server.engine, victim).await.expect("there always is one");
        *self.killed.entry(name).or_default() += 1;
    }

    async fn kill_a_session(&mut self, server: &Server, random: &mut Random) {
        let mut sessions = server.engine.sessions();
        sessions.retain(|session| {
            session.kind != SessionKind::Stateless && session.recent_restarts < MOST_SESSION_KILLS
        });
        if sessions.is_empty() {
            return;
        }
        let id = sessions.swap_remove(random.below(sessions.len())).id;
        if kill(&server.engine, Victim::Session(id)).await.is_ok() {
            *self.killed.entry("session").or_default() += 1;
        }
    }

    fn cancel_a_call(&mut self, server: &Server, random: &mut Random) {
        let calls = server.engine.calls();
        if !calls.is_empty() && server.engine.cancel_call(calls[random.below(calls.len())].call.id)
        {
            *self.killed.entry("call").or_default() += 1;
        }
    }
}

/// Changes the catalog again and again, and waits until everybody knows.
async fn change(
    server: &Server,
    random: &mut Random,
    listeners: &mut [(Lane, watch::Receiver<u64>)],
    lasts: Duration,
) -> u64 {
    let (begun, mut last) = (Instant::now(), 0);
    while begun.elapsed() < lasts {
        // Some come close together.
        for _ in 0..=random.below(4) {
            last += 1;
            let tool = || Server::tool("change").description(description(last));
            // The registry may die of it.
            while server.engine.catalog().put(tool()).await.is_err() {
                sleep(Duration::from_millis(1)).await;
            }
        }
        for (lane, seen) in &mut *listeners {
            let what = format!("a listener ({lane:?}) to know of change {last}");
            soon(what, seen.wait_for(|seen| *seen >= last)).await.expect("it listens");
        }
        random.pause(50).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_that_die_at_random_cost_no_client_an_answer_or_the_news_of_a_change() {
    let (lasts, of_each) = size((Duration::from_secs(8), 1), (Duration::from_secs(600), 4));
    let mut random = Random::seeded();
    hush();
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(200)).await;
    let server = Arc::new(server);
    sleep(Duration::from_millis(100)).await;
    let empty = Census::take(&server).await.expect("nobody was killed yet");

    let score = Arc::new(Score::default());
    let (mut clients, mut listeners) = (Vec::new(), Vec::new());
    let (mut calling, mut listening) = (JoinSet::new(), JoinSet::new());
    for lane in Lane::ALL.repeat(of_each) {
        let client = Client::connect(&server, lane, &score).await;
        for _ in 0..3 {
            calling.spawn(client.clone().call(score.clone(), random.fork()));
        }
        let (see, seen) = watch::channel(0);
        listening.spawn(client.clone().listen(score.clone(), see));
        listeners.push((lane, seen));
        clients.push(client);
    }
    for _ in 0..2 * of_each {
        calling.spawn(come_and_go(server.address, score.clone(), random.fork()));
    }
    let killing = tokio::spawn(Killer::default().run(server.clone(), score.clone(), random.fork()));
    let changes = change(&server, &mut random, &mut listeners, lasts).await;

    score.stop.store(true, Ordering::Relaxed);
    let killer = killing.await.expect("there was always somebody to kill");
    while let Some(called) = calling.join_next().await {
        called.expect("every request ended");
    }
    listening.shutdown().await;
    for client in clients {
        client.leave().await;
    }
    until("everything to be as before", async || match Census::take(&server).await {
        Some(census) if census == empty => Ok(()),
        census => Err(format!("{census:?} is not {empty:?}")),
    })
    .await;
    let Killer { killed, .. } = killer;
    println!("killed {killed:?}; {changes} changes; requests ended so: {:?}", score.ends.lock());
    let [reopened, came] = [&score.reopened, &score.came].map(|it| it.load(Ordering::Relaxed));
    println!("{came} sessions came and went; {reopened} streams of notices were opened anew");
    assert!(killed.len() >= 3, "{killed:?}");
}
