//! Many clients that only listen.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use stentor_tests::Era;
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::BOUND;
use crate::http::{Http, Peer, Request};
use crate::server::Server;

/// What the clients hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    /// Changes of the list of tools, in one era.
    Lists(Era),
    /// Occurrences of an event type, each on an `events/stream`.
    Events,
}

impl Hears {
    pub(crate) const ALL: [Self; 3] =
        [Self::Lists(Era::Legacy), Self::Lists(Era::Modern), Self::Events];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lists(Era::Legacy) => "legacy",
            Self::Lists(Era::Modern) => "modern",
            Self::Events => "events",
        }
    }

    fn era(self) -> Era {
        match self {
            Self::Lists(era) => era,
            Self::Events => Era::Modern,
        }
    }

    fn request(self, peer: &Peer) -> Request {
        match self {
            Self::Lists(_) => peer.hear(&[]),
            Self::Events => peer.request(1, "events/stream", json!({"name": TYPE})),
        }
    }

    /// What the first message contains that says that the stream is open.
    fn first(self) -> Option<&'static str> {
        match self {
            Self::Lists(Era::Legacy) => None,
            Self::Lists(Era::Modern) => Some("notifications/subscriptions/acknowledged"),
            Self::Events => Some("notifications/events/active"),
        }
    }

    /// What each notice contains.
    fn notice(self) -> &'static str {
        match self {
            Self::Lists(_) => "notifications/tools/list_changed",
            Self::Events => "notifications/events/event",
        }
    }
}

/// An event type of `everything` that happens only when it is told to, and is in no store.
pub(crate) const TYPE: &str = "conformance.small";

/// Sessions that are opened concurrently.
const AT_ONCE: usize = 64;

/// Connections per source address: the kernel has about 28,000 ports for each.
const PORTS: usize = 10_000;

/// Clients with one open stream each.
pub(crate) struct Audience {
    hears: Hears,
    sessions: usize,
    heard: Arc<Received>,
    _reading: JoinSet<()>,
}

/// What all clients together have received.
#[derive(Default)]
struct Received {
    /// Changes made so far.
    changes: AtomicUsize,
    /// Notices that all clients together must have received by now.
    due: AtomicUsize,
    notices: AtomicUsize,
    /// Notices beyond the number of changes, received by one client.
    too_many: AtomicUsize,
    ended: AtomicUsize,
    /// Notified when all clients have received all notices, or when one stream has ended.
    all: Notify,
    /// When the last notice arrived.
    at: Mutex<Option<Instant>>,
}

impl Audience {
    /// Opens the sessions, and returns how long that took.
    pub(crate) async fn open(to: SocketAddr, hears: Hears, sessions: usize) -> (Self, Duration) {
        let begun = Instant::now();
        let opening = stream::iter(0..sessions).map(|n| open(to, hears, n));
        let streams: Vec<_> = opening
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .unwrap_or_else(|error| panic!("a session could not be opened: {error}"));
        let took = begun.elapsed();
        let heard = Arc::<Received>::default();
        let reading =
            streams.into_iter().map(|stream| listen(stream, hears.notice(), heard.clone()));
        (Self { hears, sessions, _reading: reading.collect(), heard }, took)
    }

    /// Makes one change, and returns how long it took until all clients were notified.
    pub(crate) async fn hears_of(&mut self, server: &mut Server) -> Duration {
        let heard = &self.heard;
        let change = heard.changes.fetch_add(1, Ordering::SeqCst) + 1;
        heard.due.store(change * self.sessions, Ordering::SeqCst);
        let begun = server.change(self.hears).await;
        let _ = timeout(BOUND, heard.all.notified()).await;
        self.heard_no_more();
        let at = heard.at.lock().expect("nobody panics").take();
        at.unwrap_or_else(|| self.lost(change)).duration_since(begun)
    }

    fn lost(&self, change: usize) -> ! {
        let lost = change * self.sessions - self.heard.notices.load(Ordering::SeqCst);
        let (all, ended) = (self.sessions, self.heard.ended.load(Ordering::SeqCst));
        panic!("{lost} of {all} did not hear of change {change}, and {ended} streams ended");
    }

    /// Checks that no client was notified of a change twice.
    pub(crate) fn heard_no_more(&self) {
        let too_many = self.heard.too_many.load(Ordering::SeqCst);
        assert_eq!(too_many, 0, "some heard of a change twice");
    }
}

/// Opens a client's stream. All further messages on it are notices of changes.
async fn open(to: SocketAddr, hears: Hears, n: usize) -> io::Result<Http> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + n / PORTS).map_err(io::Error::other)?;
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    let mut http = Http::on(stream, to);
    let peer = Peer::open(&mut http, hears.era()).await?;
    let head = http.ask(&hears.request(&peer)).await?;
    if head.status != 200 {
        return Err(io::Error::other(format!("{head:?}")));
    }
    if let Some(wanted) = hears.first() {
        let first = http.data().await?.unwrap_or_default();
        if !first.contains(wanted) {
            return Err(io::Error::other(first));
        }
    }
    Ok(http)
}

async fn listen(mut http: Http, notice: &str, heard: Arc<Received>) {
    let mut notices = 0;
    while let Ok(Some(message)) = http.data().await {
        if !message.contains(notice) {
            continue;
        }
        notices += 1;
        if notices > heard.changes.load(Ordering::SeqCst) {
            heard.too_many.fetch_add(1, Ordering::SeqCst);
        } else if heard.notices.fetch_add(1, Ordering::SeqCst) + 1
            == heard.due.load(Ordering::SeqCst)
        {
            *heard.at.lock().expect("nobody panics") = Some(Instant::now());
            heard.all.notify_one();
        }
    }
    heard.ended.fetch_add(1, Ordering::SeqCst);
    heard.all.notify_one();
}
