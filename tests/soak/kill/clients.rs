//! Clients that call, listen, come and go, and check what they receive.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_tests::{Era, Lane, Server};
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{End, Random, Totals, soon};
use crate::http::{Http, Peer, Request, initialize, listen, message, modernize};

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

/// The number of the change that a list shows.
fn change_in(list: &Value) -> Option<u64> {
    let tools = list["result"]["tools"].as_array()?;
    let tool = tools.iter().find(|tool| tool["name"] == "change")?;
    tool["description"].as_str()?.strip_prefix("change ")?.strip_suffix('.')?.parse().ok()
}

/// A client in one lane. Several tasks send requests through it concurrently.
pub(super) enum Client {
    Http(SocketAddr, Peer),
    Pipe(Pipe),
}

impl Client {
    pub(super) async fn connect(server: &Server, lane: Lane, totals: &Arc<Totals>) -> Arc<Self> {
        Arc::new(if lane.is_http() {
            let mut http = Http::connect(server.address).await.expect("a connection");
            let peer = Peer::open(&mut http, lane.era).await.expect("a client");
            Self::Http(server.address, peer)
        } else {
            let pipe = Pipe::open(server, lane.era, totals);
            if lane.is_legacy() {
                pipe.ask(initialize).await.expect("an answer");
            }
            Self::Pipe(pipe)
        })
    }

    /// Sends a request and waits for its response. There is at most one.
    async fn ask(&self, totals: &Totals, method: &str, params: Value) -> Option<Value> {
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
                    totals.ended(End::Status(head.status));
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
        totals.ended(response.as_ref().map_or(End::NoResponse, end_of));
        response
    }

    /// Reads the list of tools, and returns the number of the change that it shows.
    async fn read_change(&self, totals: &Totals) -> u64 {
        loop {
            let list = self.ask(totals, "tools/list", json!({})).await;
            if let Some(list) = list.filter(|list| list.get("result").is_some()) {
                return change_in(&list).unwrap_or_default();
            }
        }
    }

    pub(super) async fn call(self: Arc<Self>, totals: Arc<Totals>, mut random: Random) {
        while totals.is_running() {
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
            self.ask(&totals, "tools/call", params).await;
            random.pause(10).await;
        }
    }

    /// Receives notices of changes, and reads the list after each. Reopens its stream when it ends.
    pub(super) async fn listen(self: Arc<Self>, totals: Arc<Totals>, seen: watch::Sender<u64>) {
        let see = async || {
            let change = self.read_change(&totals).await;
            seen.send_if_modified(|seen| std::mem::replace(seen, change) < change);
        };
        match &*self {
            Self::Http(address, peer) => {
                let mut last_id: Option<String> = None;
                while totals.is_running() {
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
                    totals.reopened.fetch_add(1, Ordering::Relaxed);
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

    pub(super) async fn leave(&self) {
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

/// Opens and closes sessions or listens in a loop.
pub(super) async fn open_and_close_sessions(
    address: SocketAddr,
    totals: Arc<Totals>,
    mut random: Random,
) {
    while totals.is_running() {
        let mut http = Http::connect(address).await.expect("a connection");
        if random.below(2) == 0 {
            let head = soon("a stream of notices", http.ask(&Peer::Modern.hear(&[]))).await;
            assert_eq!(head.expect("a response of HTTP").status, 200);
            let first = soon("an acknowledgment", http.message()).await.expect("a stream");
            acknowledged(&first.unwrap_or_default());
        } else {
            let head = soon("a session", http.ask(&Request::initialize())).await;
            // The session may have been killed before it answered.
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
        totals.came.fetch_add(1, Ordering::Relaxed);
        random.pause(10).await;
    }
}

/// A pipe on which every request is answered exactly once.
pub(super) struct Pipe {
    era: Era,
    ids: AtomicU64,
    writer: tokio::sync::Mutex<WriteHalf<DuplexStream>>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Value>>>>,
    /// Messages about the list of tools: the acknowledgment of a listen, and notices.
    notices: Mutex<Option<mpsc::UnboundedReceiver<Value>>>,
    reading: Mutex<Option<JoinHandle<()>>>,
}

impl Pipe {
    fn open(server: &Server, era: Era, totals: &Arc<Totals>) -> Self {
        let (near, _) = server.pipe(1 << 20);
        let (reader, writer) = tokio::io::split(near);
        let (to, notices) = mpsc::unbounded_channel();
        let open = Arc::default();
        let reading = tokio::spawn(route(reader, Arc::clone(&open), to, totals.clone()));
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

/// Reads a pipe, and checks that each response belongs to an open request.
async fn route(
    reader: ReadHalf<DuplexStream>,
    open: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Value>>>>,
    notices: mpsc::UnboundedSender<Value>,
    totals: Arc<Totals>,
) {
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await.expect("lines of UTF-8") {
        let message: Value = serde_json::from_str(&line).expect("a line is a message");
        match message["method"].as_str() {
            None => {
                let id = message["id"].as_u64().expect("the id of a request");
                let to = open.lock().remove(&id);
                // The receiver of a listen's response may have been dropped.
                let _ = to.expect("one response to a request").send(message);
            }
            Some("notifications/progress" | "notifications/message") => {}
            // The listener may have stopped.
            Some(_) => drop(notices.send(message)),
        }
    }
    assert!(!totals.is_running(), "the pipe ended early");
}
