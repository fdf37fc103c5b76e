//! Subscribers that go to any node, and come back with their cursors.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::post;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::OF_NODE;
use crate::http::{Http, Peer};

/// The nodes to which clients go.
pub(super) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// A node that says nothing for this time is left.
const SILENCE: Duration = Duration::from_secs(3);

/// What one subscriber has heard.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Numbers, with the ids of their occurrences.
    pub(super) heard: BTreeMap<u64, String>,
    pub(super) cursor: Option<String>,
    /// How often it was told that something may be missing.
    pub(super) gaps: usize,
    pub(super) returns: usize,
    /// How often it has heard of something again.
    pub(super) again: usize,
    /// What must not be.
    pub(super) wrong: Vec<String>,
    /// The last number of each node.
    last: BTreeMap<u64, u64>,
}

impl Record {
    /// Notes an occurrence, which must be a new one, in the order of its node.
    fn hear(&mut self, occurrence: &Value) {
        let (Some(n), Some(id)) =
            (occurrence["data"]["n"].as_u64(), occurrence["eventId"].as_str())
        else {
            return self.wrong.push(format!("no occurrence: {occurrence}"));
        };
        if self.heard.insert(n, id.to_owned()).is_some() {
            self.wrong.push(format!("{n} twice"));
        }
        let last = self.last.entry(n / OF_NODE).or_insert(n);
        if *last > n {
            self.wrong.push(format!("{n} after {last}"));
        }
        *last = n;
    }

    fn go_on(&mut self, told: &Value) {
        self.gaps += usize::from(told["truncated"] == true);
        if let Some(cursor) = told["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }
}

/// Connects to one of the nodes.
async fn connect(addresses: &Addresses) -> io::Result<Http> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let address = {
        let all = addresses.lock();
        all.get(turn % all.len().max(1)).copied()
    };
    let address = address.ok_or(io::ErrorKind::NotFound)?;
    timeout(SILENCE, Http::connect(address)).await?
}

/// Polls again and again, each time from any node.
pub(super) async fn poller(addresses: Addresses, record: Arc<Mutex<Record>>) {
    loop {
        let cursor = record.lock().cursor.clone();
        let polled = timeout(SILENCE, poll(&addresses, cursor)).await;
        let Ok(Ok(result)) = polled else {
            record.lock().returns += 1;
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let has_more = result["hasMore"] == true;
        {
            let mut record = record.lock();
            for occurrence in result["events"].as_array().into_iter().flatten() {
                record.hear(occurrence);
            }
            record.go_on(&result);
        }
        if !has_more {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn poll(addresses: &Addresses, cursor: Option<String>) -> io::Result<Value> {
    let mut http = connect(addresses).await?;
    let params = json!({"name": "happened", "cursor": cursor, "maxEvents": 100});
    http.ask(&Peer::Modern.request(1, "events/poll", params)).await?;
    let mut answer = http.message().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match answer["result"].take() {
        Value::Null => Err(io::Error::other(answer.to_string())),
        result => Ok(result),
    }
}

/// Keeps a stream open, and opens another one with the last cursor when it ends or is silent.
pub(super) async fn streamer(addresses: Addresses, record: Arc<Mutex<Record>>) {
    loop {
        if stream(&addresses, &record).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        record.lock().returns += 1;
    }
}

async fn stream(addresses: &Addresses, record: &Mutex<Record>) -> io::Result<()> {
    let cursor = record.lock().cursor.clone();
    let mut http = connect(addresses).await?;
    let params = json!({"name": "happened", "cursor": cursor});
    let request = Peer::Modern.request(1, "events/stream", params);
    timeout(SILENCE, http.ask(&request)).await??;
    // There is something to hear all the time.
    while let Some(message) = timeout(SILENCE, http.data()).await?? {
        let message: Value = serde_json::from_str(&message)?;
        let params = &message["params"];
        let mut record = record.lock();
        match message["method"].as_str() {
            Some("notifications/events/event") => {
                record.hear(params);
                record.go_on(params);
            }
            Some("notifications/events/active" | "notifications/events/heartbeat") => {
                record.go_on(params);
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// An endpoint that takes everything, some of it at the second attempt only.
pub(super) async fn endpoint() -> (String, Arc<Mutex<Record>>) {
    let record = Arc::<Mutex<Record>>::default();
    let (taken, refused) = (record.clone(), Arc::<Mutex<BTreeSet<u64>>>::default());
    let hook = post(move |body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let number = body["data"]["n"].as_u64().unwrap_or_default();
        if number % 20 == 1 && refused.lock().insert(number) {
            return (http::StatusCode::SERVICE_UNAVAILABLE, String::new());
        }
        let mut record = taken.lock();
        record.gaps += usize::from(body["type"] == "gap");
        if let (Some(n), Some(id)) = (body["data"]["n"].as_u64(), body["eventId"].as_str()) {
            record.again += usize::from(record.heard.insert(n, id.to_owned()).is_some());
        }
        (http::StatusCode::OK, json!({"challenge": body["challenge"]}).to_string())
    });
    // Nodes may be on networks of their own.
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let served = axum::serve(listener, axum::Router::new().route("/hook", hook));
    tokio::spawn(served.into_future());
    (format!("http://10.99.0.254:{port}"), record)
}

/// Subscribes the endpoint.
pub(super) async fn subscribe(addresses: &Addresses, endpoint: &str) {
    let mut http = connect(addresses).await.expect("a node");
    let delivery = json!({
        "url": format!("{endpoint}/hook"), "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    let params = json!({"name": "happened", "delivery": delivery});
    http.ask(&Peer::Modern.request(1, "events/subscribe", params)).await.expect("an answer");
    let answer = http.message().await.expect("an answer").expect("an answer");
    assert!(answer["result"]["id"].is_string(), "{answer}");
}
