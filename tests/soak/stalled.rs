//! Clients that stop reading, next to clients that read.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use stentor_tests::{Command, Era, Process, Settings, description, long_uri};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Http, Peer, Request};
use crate::{BOUND, server, size};

const CHANGED: &str = "tools/list_changed";
/// Resources whose updates fill the sockets of modern clients.
const URIS: u32 = 8;
/// Connections that are opened concurrently.
const AT_ONCE: usize = 64;

fn settings() -> Settings {
    let hour = Duration::from_secs(3_600);
    Settings { idle: hour, stall: hour, patience: Duration::from_secs(10), tokens: false }
}

fn era(n: usize) -> Era {
    if n.is_multiple_of(2) { Era::Legacy } else { Era::Modern }
}

/// Which clients were notified of the last change, and after how long.
struct Deliveries(Mutex<Round>, Notify);

struct Round {
    begun: Instant,
    heard: Vec<bool>,
    left: usize,
    took: Vec<Duration>,
}

/// Clients that read their notices at once.
struct Fast {
    deliveries: Arc<Deliveries>,
    peers: Vec<Peer>,
    readers: JoinSet<()>,
}

impl Fast {
    async fn open(server: &Process, count: usize) -> Self {
        let round =
            Round { begun: Instant::now(), heard: vec![true; count], left: 0, took: Vec::new() };
        let deliveries = Arc::new(Deliveries(Mutex::new(round), Notify::new()));
        let (mut peers, mut readers) = (Vec::new(), JoinSet::new());
        for n in 0..count {
            let mut http = Http::connect(server.addresses.http).await.expect("a connection");
            let peer = Peer::open(&mut http, era(n)).await.expect("a client");
            let head = http.ask(&peer.hear(&[])).await.expect("a stream");
            assert_eq!(head.status, 200);
            if let Peer::Modern = peer {
                let first = http.data().await.expect("a stream").expect("an acknowledgment");
                assert!(first.contains("acknowledged"), "{first}");
            }
            peers.push(peer);
            let deliveries = deliveries.clone();
            readers.spawn(async move {
                while let Some(notice) = http.data().await.expect("the stream goes on") {
                    if notice.contains(CHANGED) {
                        deliveries.heard(n);
                    }
                }
            });
        }
        Self { deliveries, peers, readers }
    }

    /// Changes the catalog, and waits until all clients were notified.
    async fn change(&mut self, server: &mut Process, n: u64) {
        {
            let mut round = self.deliveries.0.lock();
            round.begun = Instant::now();
            round.heard.fill(false);
            round.left = round.heard.len();
        }
        server.run(Command::Change(n)).await;
        if timeout(BOUND, self.deliveries.1.notified()).await.is_err() {
            let left = self.deliveries.0.lock().left;
            panic!("{left} clients never heard of change {n}");
        }
        // The next change gets its own window.
        sleep(Duration::from_millis(15)).await;
    }

    /// Makes this many changes, and returns the 99th percentile of the time to be notified.
    async fn changes(&mut self, server: &mut Process, next: &mut u64, count: usize) -> Duration {
        self.deliveries.0.lock().took.clear();
        for _ in 0..count {
            *next += 1;
            self.change(server, *next).await;
        }
        let mut took = std::mem::take(&mut self.deliveries.0.lock().took);
        assert_eq!(took.len(), count * self.peers.len(), "everybody heard of every change");
        took.sort();
        took[took.len() * 99 / 100]
    }

    async fn check_all_lists(&self, server: &Process, change: u64) {
        for peer in &self.peers {
            assert!(shows(server, peer, change).await, "{peer:?} does not see change {change}");
        }
    }
}

impl Deliveries {
    fn heard(&self, n: usize) {
        let mut round = self.0.lock();
        if !std::mem::replace(&mut round.heard[n], true) {
            let took = round.begun.elapsed();
            round.took.push(took);
            round.left -= 1;
            if round.left == 0 {
                self.1.notify_one();
            }
        }
    }
}

/// Whether the list that this client reads shows the change.
async fn shows(server: &Process, peer: &Peer, change: u64) -> bool {
    let mut http = Http::connect(server.addresses.http).await.expect("a connection");
    let head = http.ask(&peer.request(7, "tools/list", json!({}))).await.expect("a list");
    assert_eq!(head.status, 200);
    http.data().await.expect("a list").expect("a list").contains(&description(change))
}

struct Stalled {
    peer: Peer,
    http: Http,
}

impl Stalled {
    /// Opens a client. The test reads one notice of it, then none.
    async fn open(server: &Process, era: Era, uris: &[String]) -> Self {
        let mut http = Http::connect_narrow(server.addresses.http).await.expect("a connection");
        let peer = Peer::open(&mut http, era).await.expect("a client");
        let head = http.ask(&peer.hear(uris)).await.expect("a stream");
        assert_eq!(head.status, 200);
        Self { peer, http }
    }

    async fn open_many(server: &Process, count: usize) -> Vec<Self> {
        let uris: Vec<_> = (0..URIS).map(long_uri).collect();
        let opening = (0..count).map(|n| Self::open(server, era(n), &uris));
        stream::iter(opening).buffered(AT_ONCE).collect().await
    }

    /// A call whose stream nobody reads.
    async fn call(server: &Process, tool: &str, n: u32) -> Http {
        let mut http = Http::connect_narrow(server.addresses.http).await.expect("a connection");
        let call = Peer::Modern.call(1, tool, json!({"n": n}));
        http.write(call.to_bytes(server.addresses.http)).await.expect("a connection");
        http
    }

    /// Resumes the stream on another connection while the old one is still open, and reads until it
    /// is notified of changed tools.
    async fn come_back(&self, server: &Process) {
        let mut http = Http::connect(server.addresses.http).await.expect("a connection");
        let resume = Request::get(self.peer.session(), self.http.last_id.as_deref());
        let head = http.ask(&resume).await.expect("a stream");
        assert_eq!(head.status, 200, "it takes over its stream");
        loop {
            let notice = http.data().await.expect("a stream").expect("another notice");
            if notice.contains(CHANGED) {
                return;
            }
        }
    }
}

/// Makes the server send a lot that nobody reads.
async fn flood(server: &mut Process) {
    let log = join_all((0..4).map(|_| Stalled::call(server, "flood", 2_000))).await;
    let progress = join_all((0..4).map(|_| Stalled::call(server, "count", 50_000))).await;
    server.run(Command::Notify { count: 100, bytes: 1_000 }).await;
    for _ in 0..size(4, 12) {
        server.run(Command::Touch(URIS)).await;
        // Longer than a window, so that the next update is announced separately.
        sleep(Duration::from_millis(12)).await;
    }
    // The calls run to their end although nobody reads.
    crate::until("the calls to end", async || match server.census().await.running {
        0 => Ok(()),
        running => Err(format!("{running} run")),
    })
    .await;
    drop((log, progress));
}

async fn floods(server: &mut Process, count: usize) {
    for _ in 0..count {
        flood(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_delay_nobody_and_receive_changes_when_they_return() {
    let (clients, changes, warm) = size((20, 30, 1), (1_000, 1_000, 15));
    let mut server = server(settings()).await;
    let mut last = 0;
    let mut fast = Fast::open(&server, clients).await;
    fast.changes(&mut server, &mut last, changes / 10).await;
    let alone = fast.changes(&mut server, &mut last, changes).await;

    let mut stalled = Stalled::open_many(&server, clients).await;
    last += 1;
    fast.change(&mut server, last).await;
    for client in &mut stalled {
        client.http.data().await.expect("a stream").expect("a first notice");
    }
    floods(&mut server, warm).await;
    let before = server.memory();
    let with = fast.changes(&mut server, &mut last, changes).await;
    floods(&mut server, warm * 10).await;
    let after = server.memory();
    fast.check_all_lists(&server, last).await;

    let legacy = stalled.iter().step_by(2);
    stream::iter(legacy).for_each_concurrent(AT_ONCE, |it| it.come_back(&server)).await;
    drop(stalled);
    let again = fast.changes(&mut server, &mut last, changes).await;
    fast.check_all_lists(&server, last).await;
    assert_eq!(fast.readers.try_join_next().map(|_| ()), None, "every stream goes on");

    let ratio = with.as_secs_f64() / alone.min(again).as_secs_f64();
    println!(
        "{clients} fast clients hear of a change in (99 %) {alone:?}; with {clients} stalled ones \
         {with:?}; without them again {again:?}: {ratio:.2} times"
    );
    println!("memory after the first floods {before} KiB, after ten times as many {after} KiB");
    assert!(with < alone.max(again) * 3 + Duration::from_millis(200), "{alone:?}, {with:?}");
    assert!(after < before + before / 5 + 16 * 1_024, "{before} KiB, then {after} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_clients_that_stop_reading_is_bounded() {
    let (clients, most) = size((40, 128 * 1_024), (10_000, 1_024 * 1_024));
    let mut server = server(settings()).await;
    let stalled = Stalled::open_many(&server, clients).await;
    let mut sizes = vec![server.memory()];
    // Memory is flat once three floods in a row add less than one percent each.
    let mut flat = 0;
    while flat < 3 {
        assert!(sizes.len() < 200, "it grows and grows: {sizes:?} KiB");
        floods(&mut server, 1).await;
        let (before, after) = (sizes[sizes.len() - 1], server.memory());
        sizes.push(after);
        flat = if after <= before + before / 100 { flat + 1 } else { 0 };
    }
    let held = server.census().await.held;
    println!("{clients} stalled clients: {sizes:?} KiB after each flood; {held} bytes are queued");
    let largest = sizes.iter().max().copied().unwrap_or_default();
    assert!(largest < most, "{largest} KiB");
    drop(stalled);
}
