//! Clients whose tokens end while they listen: nothing is lost, they do not all come back at once, and
//! the server's memory stays the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use stentor_tests::{Addresses, Command, Era, Process, Settings, token};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::http::{Http, Peer, Request};
use crate::{server, size, until};

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Notices that the list of tools has changed, and the times that it read the list anew.
    changes: AtomicU64,
}

/// Connections that were made, in the whole run and in this second.
#[derive(Debug, Default)]
struct Connections {
    all: AtomicUsize,
    now: AtomicUsize,
}

impl Connections {
    async fn connect(&self, to: Addresses, name: &str, life: Duration) -> io::Result<Http> {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
        let http = Http::connect(to.http).await?;
        Ok(http.with_token(token(name, life)))
    }
}

/// A legacy client resumes its stream each time with another token.
async fn legacy(
    to: Addresses,
    (name, life): (String, Duration),
    seen: Arc<Seen>,
    connections: Arc<Connections>,
) -> io::Result<()> {
    let mut http = connections.connect(to, &name, life).await?;
    let peer = Peer::open(&mut http, Era::Legacy).await?;
    let mut last_id = None;
    loop {
        let mut http = connections.connect(to, &name, life).await?;
        let head = http.ask(&Request::get(peer.session(), last_id.as_deref())).await?;
        assert_eq!(head.status, 200, "the session goes on");
        while let Some(data) = http.data().await? {
            if data.contains("tools/list_changed") {
                seen.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
        last_id = http.last_id.take().or(last_id);
    }
}

/// A modern client listens again. It reads its lists anew, because notices are not kept for it.
async fn modern(
    to: Addresses,
    (name, life): (String, Duration),
    seen: Arc<Seen>,
    connections: Arc<Connections>,
) -> io::Result<()> {
    loop {
        let mut http = connections.connect(to, &name, life).await?;
        let head = http.ask(&Peer::Modern.hear(&[])).await?;
        assert_eq!(head.status, 200);
        while let Some(data) = http.data().await? {
            assert!(!data.contains("\"result\""), "it would mean: do not come back");
            // The acknowledgment, after which the list would be read; or a notice.
            seen.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_the_tokens_of_their_clients() {
    let (clients, life) = size((30, Duration::from_millis(200)), (1_000, Duration::from_secs(60)));
    let (whole, interval) = size(
        (Duration::from_secs(3), Duration::from_millis(500)),
        (Duration::from_secs(600), Duration::from_secs(5)),
    );
    let long = Duration::from_secs(3_600);
    let settings = Settings { idle: long, stall: long, patience: long, tokens: true };
    let mut server: Process = server(settings).await;
    let (to, connections) = (server.addresses, Arc::<Connections>::default());
    let (mut all, mut running) = (Vec::new(), JoinSet::new());
    for index in 0..clients {
        let (seen, who) = (Arc::<Seen>::default(), (format!("user{index}"), life));
        all.push((index, seen.clone()));
        let connections = connections.clone();
        match index % 2 {
            0 => running.spawn(legacy(to, who, seen, connections)),
            _ => running.spawn(modern(to, who, seen, connections)),
        };
    }
    until("all streams", async || {
        let open = connections.all.load(Ordering::Relaxed);
        // A legacy client has two connections by then.
        if open >= clients + clients / 2 { Ok(()) } else { Err(format!("{open} connections")) }
    })
    .await;
    sleep(interval).await;

    let (begun, first) = (Instant::now(), connections.all.load(Ordering::Relaxed));
    let (mut change, mut busiest, mut memory) = (0, 0, Vec::new());
    while begun.elapsed() < whole {
        let before: Vec<_> =
            all.iter().map(|(_, seen)| seen.changes.load(Ordering::Relaxed)).collect();
        change += 1;
        server.run(Command::Change(change)).await;
        let end = Instant::now() + interval;
        while Instant::now() < end {
            connections.now.store(0, Ordering::Relaxed);
            sleep(Duration::from_secs(1).min(interval)).await;
            busiest = busiest.max(connections.now.load(Ordering::Relaxed));
        }
        until(format!("everybody to hear of change {change}"), async || {
            let deaf = all
                .iter()
                .zip(&before)
                .find(|((_, seen), before)| seen.changes.load(Ordering::Relaxed) == **before);
            deaf.map_or(Ok(()), |((client, _), _)| Err(format!("client {client} has not")))
        })
        .await;
        memory.push(server.memory());
        if let Some(ended) = running.try_join_next() {
            panic!("a client has ended: {ended:?}");
        }
    }
    let came_back = connections.all.load(Ordering::Relaxed) - first;
    println!(
        "{clients} streams, {change} changes, {came_back} came back, {busiest} in the busiest second; \
         {} KiB after a fifth of the time, {} KiB at the end",
        memory[memory.len() / 5],
        memory[memory.len() - 1]
    );
    assert!(came_back > 0, "tokens have ended");
    // Spread over half a minute, each second sees a thirtieth of them; by chance a few more.
    assert!(busiest <= size(clients, clients / 6), "{busiest} at once");
    assert!(memory[memory.len() - 1] < memory[memory.len() / 5] * size(20, 12) / 10, "{memory:?}");
}
