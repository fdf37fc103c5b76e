//! A small balancer: each HTTP request goes to the next backend in turn, whoever it is from.
//!
//! It knows no sessions and keeps nobody at a node: what the nodes behind it make of that is what
//! is to be seen. Bodies of both directions are passed on as they come, chunk by chunk, so that
//! streams flow; a request whose client hangs up is hung up on at the backend.
//!
//! A backend that does not answer a probe gets no more requests as long as others do. It needs
//! nothing but tokio, so that tests can take it as it is.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections of clients at once; more wait to be accepted.
const MAX_CLIENTS: usize = 16_384;
/// Bytes of the head of a request or a response.
const MAX_HEAD: usize = 64 << 10;
/// Bytes that are read at once. What was read is written before more is.
const PIECE: usize = 16 << 10;
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// The header of each response that says which backend it is from.
pub(crate) const SERVED_BY: &str = "x-served-by";

/// A balancer that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Aborts what it holds when it is dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    backends: Mutex<Vec<Arc<Backend>>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    answers: AtomicBool,
    requests: AtomicUsize,
}

#[allow(dead_code, reason = "not every program that takes this file needs all of it")]
impl Balancer {
    /// Listens on an address; port 0 is any free one.
    pub(crate) async fn start(
        listen: SocketAddr,
        backends: impl IntoIterator<Item = SocketAddr>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        tasks.spawn(probe_all(shared.clone()));
        let balancer = Self { address, shared, _tasks: tasks };
        backends.into_iter().for_each(|backend| balancer.add(backend));
        Ok(balancer)
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A backend gets its share from now on.
    pub(crate) fn add(&self, address: SocketAddr) {
        let mut backends = self.shared.backends();
        if backends.iter().all(|backend| backend.address != address) {
            backends.push(Arc::new(Backend {
                address,
                answers: AtomicBool::new(true),
                requests: AtomicUsize::new(0),
            }));
        }
    }

    /// A backend gets no more requests. Those that it has go on.
    pub(crate) fn remove(&self, address: SocketAddr) {
        self.shared.backends().retain(|backend| backend.address != address);
    }

    /// All backends, and whether they answer, as far as is known.
    pub(crate) fn backends(&self) -> Vec<(SocketAddr, bool)> {
        let backends = self.shared.backends();
        let answers = |backend: &Backend| backend.answers.load(Ordering::Relaxed);
        backends.iter().map(|backend| (backend.address, answers(backend))).collect()
    }

    /// Whether a backend answers, as far as is known.
    pub(crate) fn answers(&self, address: SocketAddr) -> bool {
        let backends = self.shared.backends();
        let mut found = backends.iter().filter(|backend| backend.address == address);
        found.any(|backend| backend.answers.load(Ordering::Relaxed))
    }

    /// How many requests a backend has got.
    pub(crate) fn requests(&self, address: SocketAddr) -> usize {
        let backends = self.shared.backends();
        let found = backends.iter().find(|backend| backend.address == address);
        found.map_or(0, |backend| backend.requests.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn backends(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All backends, the one whose turn it is first, and those that do not answer last: better
    /// them than none.
    fn in_turn(&self) -> Vec<Arc<Backend>> {
        let (mut in_turn, silent): (Vec<_>, Vec<_>) = {
            let backends = self.backends();
            backends.iter().cloned().partition(|backend| backend.answers.load(Ordering::Relaxed))
        };
        if !in_turn.is_empty() {
            let first = self.next.fetch_add(1, Ordering::Relaxed) % in_turn.len();
            in_turn.rotate_left(first);
        }
        in_turn.extend(silent);
        in_turn
    }

    /// A new connection to the first backend that takes one. Nothing has been sent until then, so
    /// the next may be tried.
    async fn connect(&self) -> Option<(Arc<Backend>, TcpStream)> {
        for backend in self.in_turn() {
            if let Ok(Ok(stream)) =
                timeout(CONNECT_WITHIN, TcpStream::connect(backend.address)).await
            {
                let _ = stream.set_nodelay(true);
                backend.requests.fetch_add(1, Ordering::Relaxed);
                return Some((backend, stream));
            }
            backend.answers.store(false, Ordering::Relaxed);
        }
        None
    }
}

/// Finds out who answers, again and again.
async fn probe_all(shared: Arc<Shared>) {
    loop {
        let mut probes = JoinSet::new();
        for backend in shared.backends().iter().cloned() {
            probes.spawn(async move {
                let answer = timeout(PROBE_WITHIN, probe(backend.address)).await;
                backend.answers.store(matches!(answer, Ok(Ok(()))), Ordering::Relaxed);
            });
        }
        while probes.join_next().await.is_some() {}
        sleep(PROBE_EVERY).await;
    }
}

/// Any answer will do. A connection says nothing: a process that is stopped gets them, too.
async fn probe(backend: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(backend).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    stream.read_u8().await.map(drop)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    clients.spawn(serve(Client::new(stream), shared.clone()));
                }
                // Most likely there are too many open files.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// One direction of a connection, with what was read of it and not taken yet.
#[derive(Debug)]
struct Incoming {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
}

impl Incoming {
    /// Reads on; `false` is the end. Nothing is lost if the future is dropped.
    async fn more(&mut self) -> io::Result<bool> {
        self.unread.reserve(PIECE);
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }

    /// Up to the empty line, with it; `None` if it ends in good order before.
    async fn head(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            if self.unread.len() >= MAX_HEAD {
                return Err(Wrong::Said("431 Request Header Fields Too Large"));
            }
            if !self.more().await? {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(Wrong::Broken),
                };
            }
        }
    }

    /// Passes a body on, piece by piece.
    async fn pass(&mut self, mut body: Body, to: &mut OwnedWriteHalf) -> Result<(), Wrong> {
        loop {
            let length = body.take(&self.unread)?;
            to.write_all(&self.unread[..length]).await.map_err(|_| Wrong::Unread)?;
            self.unread.drain(..length);
            if body.is_over() {
                return Ok(());
            }
            if !self.more().await? {
                return match body {
                    Body::ToTheEnd => Ok(()),
                    _ => Err(Wrong::Broken),
                };
            }
        }
    }
}

#[derive(Debug)]
struct Client {
    incoming: Incoming,
    outgoing: OwnedWriteHalf,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        let (stream, outgoing) = stream.into_split();
        Self { incoming: Incoming { stream, unread: Vec::new() }, outgoing }
    }
}

/// Why a connection does not go on.
#[derive(Debug)]
enum Wrong {
    /// There is nobody left to tell.
    Broken,
    /// A body goes to somebody who does not read it to the end.
    Unread,
    /// The client is told this status, and that is all.
    Said(&'static str),
}

impl From<io::Error> for Wrong {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// One request after the other, as long as the connection lasts.
async fn serve(mut client: Client, shared: Arc<Shared>) {
    loop {
        match exchange(&mut client, &shared).await {
            Ok(true) => {}
            Ok(false) | Err(Wrong::Broken | Wrong::Unread) => break,
            Err(Wrong::Said(status)) => {
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = client.outgoing.write_all(answer.as_bytes()).await;
                break;
            }
        }
    }
    let _ = client.outgoing.shutdown().await;
}

/// A request and its response; says whether another may follow.
async fn exchange(client: &mut Client, shared: &Shared) -> Result<bool, Wrong> {
    let Some(head) = client.incoming.head().await? else { return Ok(false) };
    let head = latin_1(&head);
    let request = Head::parse(&head)?;
    if !request.first.ends_with(" HTTP/1.1") {
        return Err(Wrong::Said("505 HTTP Version Not Supported"));
    }
    let body = request.body(Body::Exactly(0))?;
    let bodiless = request.first.starts_with("HEAD ");
    let closes = request.closes();

    let connected = shared.connect().await;
    let (backend, stream) = connected.ok_or(Wrong::Said("502 Bad Gateway"))?;
    let (stream, mut to_backend) = stream.into_split();
    let mut from_backend = Incoming { stream, unread: Vec::new() };
    // A connection for each request: hanging up ends just that.
    let head = request.passed_on("connection: close\r\n");
    if to_backend.write_all(&head).await.is_err() {
        return Err(Wrong::Said("502 Bad Gateway"));
    }

    let mut sent = false;
    let keeps = {
        let up = pin!(upload(&mut client.incoming, body, &mut to_backend, &mut sent));
        let keep = if closes { "connection: close\r\n" } else { "" };
        let more = format!("{SERVED_BY}: {}\r\n{keep}", backend.address);
        let down = pin!(download(&mut from_backend, bodiless, &mut client.outgoing, &more));
        tokio::select! {
            keeps = down => keeps?,
            wrong = up => return Err(wrong),
        }
    };
    Ok(keeps && sent && !closes)
}

/// Sends the body of a request, and then watches for a client that hangs up.
async fn upload(
    from: &mut Incoming,
    body: Body,
    to: &mut OwnedWriteHalf,
    sent: &mut bool,
) -> Wrong {
    match from.pass(body, to).await {
        Ok(()) => *sent = true,
        // A backend may answer without having read everything.
        Err(Wrong::Unread) => {}
        Err(_) => return Wrong::Broken,
    }
    // What comes now is the next request. Of that there is room for one piece.
    while from.unread.len() < PIECE {
        if !matches!(from.more().await, Ok(true)) {
            return Wrong::Broken;
        }
    }
    std::future::pending().await
}

/// Passes the response on; says whether the connection can be used again.
async fn download(
    from: &mut Incoming,
    bodiless: bool,
    to: &mut OwnedWriteHalf,
    more: &str,
) -> Result<bool, Wrong> {
    const BAD: Wrong = Wrong::Said("502 Bad Gateway");
    loop {
        let Ok(Some(head)) = from.head().await else { return Err(BAD) };
        let text = latin_1(&head);
        let response = Head::parse(&text).map_err(|_| BAD)?;
        let status = response.first.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('1') && status != "101" {
            to.write_all(&head).await?;
            continue;
        }
        let body = match bodiless || status == "204" || status == "304" {
            true => Body::Exactly(0),
            false => response.body(Body::ToTheEnd).map_err(|_| BAD)?,
        };
        let lasts = !matches!(body, Body::ToTheEnd);
        to.write_all(&response.passed_on(more)).await?;
        // Once it has begun there is no other answer: a client sees that it is cut off.
        from.pass(body, to).await.map_err(|_| Wrong::Broken)?;
        return Ok(lasts);
    }
}

/// The head of a request or a response.
struct Head<'a> {
    first: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn parse(head: &'a str) -> Result<Self, Wrong> {
        const BAD: Wrong = Wrong::Said("400 Bad Request");
        let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
        let first = lines.next().ok_or(BAD)?;
        let header = |line: &'a str| match line.split_once(':') {
            Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => {
                // No other space: each character is a byte.
                Ok((name, value.trim_matches([' ', '\t'])))
            }
            _ => Err(BAD),
        };
        Ok(Self { first, headers: lines.map(header).collect::<Result<_, _>>()? })
    }

    fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a str> + 'b {
        let named = move |header: &&(&'a str, &'a str)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| *value)
    }

    fn closes(&self) -> bool {
        let mut tokens = self.all("connection").flat_map(|value| value.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
    }

    /// How long the body is. Whatever two readers could understand differently is refused.
    fn body(&self, otherwise: Body) -> Result<Body, Wrong> {
        const BAD: Wrong = Wrong::Said("400 Bad Request");
        let coding: Vec<_> = self.all("transfer-encoding").collect();
        let length: Vec<_> = self.all("content-length").collect();
        match (&*coding, &*length) {
            ([], []) => Ok(otherwise),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => {
                Ok(Body::Chunked(Chunk::Size { size: 0, digits: 0 }))
            }
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map(Body::Exactly).map_err(|_| BAD)
            }
            _ => Err(BAD),
        }
    }

    /// With what is meant for the next hop alone taken out, and something of ours put in.
    fn passed_on(&self, more: &str) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            let own = ["connection", "keep-alive", "proxy-connection", "upgrade", SERVED_BY];
            if own.iter().all(|own| !name.eq_ignore_ascii_case(own)) {
                head.extend([name, ": ", value, "\r\n"]);
            }
        }
        head.extend([more, "\r\n"]);
        // As it came: there is no other character in it.
        head.chars().map(|it| it as u8).collect()
    }
}

/// A head as a text: a character for each byte, as headers may have any but a few.
fn latin_1(head: &[u8]) -> String {
    head.iter().copied().map(char::from).collect()
}

/// What is left of a body.
#[derive(Debug)]
enum Body {
    Exactly(u64),
    Chunked(Chunk),
    /// Until the connection ends.
    ToTheEnd,
}

/// Where in a chunked body we are.
#[derive(Debug)]
enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    Data { left: u64 },
    DataEnd,
    Trailer { empty: bool },
    Over,
}

impl Body {
    fn is_over(&self) -> bool {
        matches!(self, Self::Exactly(0) | Self::Chunked(Chunk::Over))
    }

    /// How many of these bytes belong to the body; they count as read.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        match self {
            Self::ToTheEnd => Ok(bytes.len()),
            Self::Exactly(left) => Ok(take_up_to(left, bytes.len())),
            Self::Chunked(chunk) => {
                let mut taken = 0;
                while taken < bytes.len() && !matches!(chunk, Chunk::Over) {
                    taken += chunk.step(&bytes[taken..])?;
                }
                Ok(taken)
            }
        }
    }
}

fn take_up_to(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left -= taken as u64;
    taken
}

impl Chunk {
    /// Reads one byte, or more of the data; there is at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        const BAD: Wrong = Wrong::Said("400 Bad Request");
        let byte = bytes[0];
        match self {
            Self::Data { left } => {
                let taken = take_up_to(left, bytes.len());
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                return Ok(taken);
            }
            Self::Size { size, digits } => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(_)) if *digits == 15 => return Err(BAD),
                (_, Some(digit)) => {
                    *size = *size << 4 | u64::from(digit);
                    *digits += 1;
                }
                _ if *digits == 0 => return Err(BAD),
                (b'\n', _) => *self = Self::after_size(*size),
                (b'\r', _) => {}
                (b';' | b' ' | b'\t', _) => *self = Self::Extension { size: *size },
                _ => return Err(BAD),
            },
            Self::Extension { size } if byte == b'\n' => *self = Self::after_size(*size),
            Self::Extension { .. } => {}
            Self::DataEnd => match byte {
                b'\r' => {}
                b'\n' => *self = Self::Size { size: 0, digits: 0 },
                _ => return Err(BAD),
            },
            Self::Trailer { empty } => match byte {
                b'\r' => {}
                b'\n' if *empty => *self = Self::Over,
                b'\n' => *empty = true,
                _ => *empty = false,
            },
            Self::Over => return Ok(0),
        }
        Ok(1)
    }

    fn after_size(size: u64) -> Self {
        match size {
            0 => Self::Trailer { empty: true },
            _ => Self::Data { left: size },
        }
    }
}
