//! The connections of clients, and the requests that are forwarded to backends.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::message::{Body, Head, latin_1};
use super::{SERVED_BY, Shared};

/// The largest head of a request or a response, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// The size of one read, in bytes. Each piece is written before the next one is read.
const PIECE: usize = 16 << 10;

/// One direction of a connection, with the bytes that were read but not consumed.
#[derive(Debug)]
struct Incoming {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
}

impl Incoming {
    /// Reads more; `false` at the end of the stream. Cancel safe.
    async fn more(&mut self) -> io::Result<bool> {
        self.unread.reserve(PIECE);
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }

    /// Reads up to and including the empty line. `None` if the stream ends properly before it.
    async fn head(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            if self.unread.len() >= MAX_HEAD {
                return Err(Failed::Status("431 Request Header Fields Too Large"));
            }
            if !self.more().await? {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(Failed::Broken),
                };
            }
        }
    }

    /// Forwards a body, piece by piece.
    async fn pass(&mut self, mut body: Body, to: &mut OwnedWriteHalf) -> Result<(), Failed> {
        loop {
            let length = body.take(&self.unread)?;
            to.write_all(&self.unread[..length]).await.map_err(|_| Failed::Unread)?;
            self.unread.drain(..length);
            if body.is_over() {
                return Ok(());
            }
            if !self.more().await? {
                return match body {
                    Body::ToTheEnd => Ok(()),
                    _ => Err(Failed::Broken),
                };
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    incoming: Incoming,
    outgoing: OwnedWriteHalf,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (stream, outgoing) = stream.into_split();
        Self { incoming: Incoming { stream, unread: Vec::new() }, outgoing }
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection is broken, so no response can be sent.
    Broken,
    /// The receiver of a body stopped reading it.
    Unread,
    /// The client gets this status, and nothing else.
    Status(&'static str),
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Serves the requests of a connection, one after the other.
pub(super) async fn serve(mut client: Client, shared: Arc<Shared>) {
    loop {
        match exchange(&mut client, &shared).await {
            Ok(true) => {}
            Ok(false) | Err(Failed::Broken | Failed::Unread) => break,
            Err(Failed::Status(status)) => {
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = client.outgoing.write_all(answer.as_bytes()).await;
                break;
            }
        }
    }
    let _ = client.outgoing.shutdown().await;
}

/// Forwards a request and its response. Returns whether another request may follow.
async fn exchange(client: &mut Client, shared: &Shared) -> Result<bool, Failed> {
    let Some(head) = client.incoming.head().await? else { return Ok(false) };
    let head = latin_1(&head);
    let request = Head::parse(&head)?;
    if !request.first.ends_with(" HTTP/1.1") {
        return Err(Failed::Status("505 HTTP Version Not Supported"));
    }
    let body = request.body(Body::Exactly(0))?;
    let bodiless = request.first.starts_with("HEAD ");
    let closes = request.closes();

    let connected = shared.connect().await;
    let (backend, stream) = connected.ok_or(Failed::Status("502 Bad Gateway"))?;
    let (stream, mut to_backend) = stream.into_split();
    let mut from_backend = Incoming { stream, unread: Vec::new() };
    // One connection to the backend per request: closing it cancels just that request.
    let head = request.passed_on("connection: close\r\n");
    if to_backend.write_all(&head).await.is_err() {
        return Err(Failed::Status("502 Bad Gateway"));
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

/// Sends the body of a request, then waits for the client to disconnect.
async fn upload(
    from: &mut Incoming,
    body: Body,
    to: &mut OwnedWriteHalf,
    sent: &mut bool,
) -> Failed {
    match from.pass(body, to).await {
        Ok(()) => *sent = true,
        // A backend may answer without reading the whole body.
        Err(Failed::Unread) => {}
        Err(_) => return Failed::Broken,
    }
    // Further bytes are the next request. At most one piece of it is buffered.
    while from.unread.len() < PIECE {
        if !matches!(from.more().await, Ok(true)) {
            return Failed::Broken;
        }
    }
    std::future::pending().await
}

/// Forwards the response. Returns whether the connection can be used again.
async fn download(
    from: &mut Incoming,
    bodiless: bool,
    to: &mut OwnedWriteHalf,
    more: &str,
) -> Result<bool, Failed> {
    const BAD: Failed = Failed::Status("502 Bad Gateway");
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
        // Once the response has begun, no other status can be sent: the connection is cut.
        from.pass(body, to).await.map_err(|_| Failed::Broken)?;
        return Ok(lasts);
    }
}
