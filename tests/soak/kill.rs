//! Actors die at random, while clients call and listen, and the catalog changes.

#[path = "kill/clients.rs"]
mod clients;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clients::{Client, open_and_close_sessions};
use parking_lot::Mutex;
use stentor::faults::{FaultTarget, kill};
use stentor_tests::{Census, Lane, Server, description};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::{size, until};

/// The time limit of every operation.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most kills of registry, hub and stateless session together within a minute. After eleven the
/// supervisor gives up.
const MOST_KILLS: usize = 10;
/// Sessions with this many restarts are not killed again; one more restart may not be counted yet.
/// After six restarts within a minute a session ends.
const MOST_SESSION_KILLS: usize = 4;

/// A pseudo-random generator: the same seed gives the same numbers.
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

/// Silences the many panics that are part of the test.
fn silence_expected_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload_as_str().is_some_and(|text| text.contains("part of a test")) {
            report(panic);
        }
    }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Result,
    Error(i64),
    /// An HTTP status other than 200.
    Status(u16),
    /// The stream ended properly, without a response.
    NoResponse,
}

/// The counts of all clients together.
#[derive(Default)]
struct Totals {
    stop: AtomicBool,
    ends: Mutex<BTreeMap<End, u64>>,
    reopened: AtomicU64,
    came: AtomicU64,
}

impl Totals {
    fn ended(&self, end: End) {
        *self.ends.lock().entry(end).or_default() += 1;
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

async fn soon<T>(what: impl std::fmt::Display, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Kills random actors, and counts the kills.
#[derive(Debug, Default)]
struct Killer {
    /// When the supervisor's counted actors were killed.
    counted: Vec<Instant>,
    killed: BTreeMap<&'static str, u64>,
}

impl Killer {
    async fn run(mut self, server: Arc<Server>, totals: Arc<Totals>, mut random: Random) -> Self {
        while totals.is_running() {
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
        // A little longer than the minute that the supervisor counts over.
        self.counted.retain(|at| at.elapsed() < Duration::from_secs(63));
        if self.counted.len() >= MOST_KILLS {
            return;
        }
        let targets = [
            ("registry", FaultTarget::Registry),
            ("hub", FaultTarget::Hub),
            ("task actors", FaultTarget::TaskActors),
        ];
        let (name, target) = targets[random.below(3)].clone();
        self.counted.push(Instant::now());
        // There may be no task actor just now.
        if kill(&server.engine, target).await.is_ok() {
            *self.killed.entry(name).or_default() += 1;
        }
    }

    async fn kill_a_session(&mut self, server: &Server, random: &mut Random) {
        let mut sessions = server.engine.sessions();
        sessions.retain(|session| session.recent_restarts < MOST_SESSION_KILLS);
        if sessions.is_empty() {
            return;
        }
        let id = sessions.swap_remove(random.below(sessions.len())).id;
        if kill(&server.engine, FaultTarget::Session(id)).await.is_ok() {
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

/// Changes the catalog in a loop, and waits each time until all listeners have seen the change.
async fn change(
    server: &Server,
    random: &mut Random,
    listeners: &mut [(Lane, watch::Receiver<u64>)],
    lasts: Duration,
) -> u64 {
    let (begun, mut last) = (Instant::now(), 0);
    while begun.elapsed() < lasts {
        // Some changes come close together.
        for _ in 0..=random.below(4) {
            last += 1;
            let tool = || Server::tool("change").description(description(last));
            // The registry may be killed during the change.
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
async fn clients_miss_no_answer_and_no_change_when_actors_die_at_random() {
    let (lasts, of_each) = size((Duration::from_secs(8), 1), (Duration::from_secs(600), 4));
    let mut random = Random::seeded();
    silence_expected_panics();
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(200)).await;
    let server = Arc::new(server);
    sleep(Duration::from_millis(100)).await;
    let empty = Census::take(&server).await.expect("nobody was killed yet");

    let totals = Arc::new(Totals::default());
    let (mut clients, mut listeners) = (Vec::new(), Vec::new());
    let (mut calling, mut listening) = (JoinSet::new(), JoinSet::new());
    for lane in Lane::ALL.repeat(of_each) {
        let client = Client::connect(&server, lane, &totals).await;
        for _ in 0..3 {
            calling.spawn(client.clone().call(totals.clone(), random.fork()));
        }
        let (see, seen) = watch::channel(0);
        listening.spawn(client.clone().listen(totals.clone(), see));
        listeners.push((lane, seen));
        clients.push(client);
    }
    for _ in 0..2 * of_each {
        calling.spawn(open_and_close_sessions(server.address, totals.clone(), random.fork()));
    }
    let killing =
        tokio::spawn(Killer::default().run(server.clone(), totals.clone(), random.fork()));
    let changes = change(&server, &mut random, &mut listeners, lasts).await;

    totals.stop.store(true, Ordering::Relaxed);
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
    println!("killed {killed:?}; {changes} changes; requests ended so: {:?}", totals.ends.lock());
    let [reopened, came] = [&totals.reopened, &totals.came].map(|it| it.load(Ordering::Relaxed));
    println!("{came} sessions came and went; {reopened} streams of notices were opened anew");
    assert!(killed.len() >= 3, "{killed:?}");
}
