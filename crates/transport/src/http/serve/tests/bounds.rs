//! Limits of unfinished requests and of connections.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::Sleep;

use super::streams::{LAST_CHUNK, answer, say};
use super::*;
use crate::http::auth::Caller;
use crate::http::unfinished::OVERHEAD;
use crate::http::upload::Upload;
use crate::http::{RETRY_AFTER, handle};

/// A body that arrives in pieces, with a pause before each. After the last piece it ends, or stays
/// pending forever.
struct Dripping {
    pieces: VecDeque<(Duration, Bytes)>,
    timer: Option<Pin<Box<Sleep>>>,
    ends: bool,
}

impl Dripping {
    fn new(text: &str, size: usize, pause: Duration, ends: bool) -> Self {
        let pieces = text.as_bytes().chunks(size);
        let pieces = pieces.map(|piece| (pause, Bytes::copy_from_slice(piece))).collect();
        Self { pieces, timer: None, ends }
    }
}

impl Body for Dripping {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some((pause, _)) = self.pieces.front() else {
            return if self.ends { Poll::Ready(None) } else { Poll::Pending };
        };
        let pause = *pause;
        if !pause.is_zero() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(pause)));
            std::task::ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        let piece = self.pieces.pop_front().map(|(_, piece)| Ok(Frame::data(piece)));
        Poll::Ready(piece)
    }
}

/// The head of a call, as a router receives it, and its body.
fn parts() -> (http::request::Parts, String) {
    let text = request("tools/call", "unknown", "");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut request = http::Request::post("/mcp");
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    (request.body(()).unwrap().into_parts().0, body.to_owned())
}

/// Answers it as `router` does. Returns the status, the time it took, and whether the response
/// closes the connection.
async fn routed(endpoint: &Endpoint, body: Dripping) -> (u16, Duration, bool) {
    let (begun, (head, _)) = (Instant::now(), parts());
    let response = handle(endpoint, &mut Caller::new(&head, None), Upload::new(body, None)).await;
    let last = response.headers().contains_key("connection");
    (response.status().as_u16(), begun.elapsed(), last)
}

#[tokio::test(start_paused = true)]
async fn a_body_has_to_arrive_at_a_rate_however_it_is_served() {
    let (engine, _) = engine().await;
    let config = HttpConfig {
        body_grace: Duration::from_secs(10),
        min_body_rate: 100,
        ..HttpConfig::default()
    };
    let endpoint = Endpoint::new(engine.clone(), config.clone());
    let (_, body) = parts();
    let (second, length) = (Duration::from_secs(1), body.len());
    // The text, the size of a piece, the pause before each, whether the body ends; the status, and
    // after how many seconds it is sent.
    for (text, size, pause, ends, status, took) in [
        (&body[..], length, Duration::ZERO, true, 200, 0),
        (&body[..], 50, Duration::ZERO, true, 200, 0),
        // Just fast enough after the grace period, and at any speed within it.
        (&body[..], 101, second, true, 200, length.div_ceil(101) as u64),
        (&body[..], length, 9 * second, true, 200, 9),
        (&body[..], length, 11 * second, true, 408, 10),
        // Bodies that never end: one without a byte, one that stops, and two that are too slow.
        ("", 1, second, false, 408, 10),
        (&body[..200], 200, Duration::ZERO, false, 408, 12),
        (&body[..], 1, second, false, 408, 10),
        (&body[..], 1, 60 * second, false, 408, 10),
    ] {
        let body = Dripping::new(text, size, pause, ends);
        let (answered, after, last) = routed(&endpoint, body).await;
        assert_eq!((answered, after.as_secs()), (status, took), "{size} {pause:?} {ends}");
        assert_eq!(last, status != 200, "what is left of the body is not read");
    }
    assert_eq!(endpoint.unfinished.bytes(), 0);

    // The same over a connection.
    let mut connections = connections(&engine, &config);
    let text = request("tools/call", "unknown", "");
    let mut client = say(&mut connections, PIPE, &text[..text.len() - 20]).await;
    let begun = Instant::now();
    let told = answer(&mut client, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 408") && told.contains("connection: close"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_of_unfinished_bodies_has_one_bound_and_the_greediest_give_way() {
    let (engine, _) = engine().await;
    let config = HttpConfig {
        body_grace: Duration::from_secs(3600),
        max_unfinished: 200 * 1024,
        ..HttpConfig::default()
    };
    let endpoint = Arc::new(Endpoint::new(engine.clone(), config));
    let send = |bytes: usize| {
        let endpoint = endpoint.clone();
        let text = "x".repeat(bytes);
        tokio::spawn(async move {
            let body = Dripping::new(&text, 1024, Duration::ZERO, false);
            routed(&endpoint, body).await.0
        })
    };
    let (old_large, old_small) = (send(60 * 1024), send(1024));
    sleep(Duration::from_secs(60)).await;
    // Each takes a power of two, plus the overhead.
    assert_eq!(endpoint.unfinished.bytes(), 64 * 1024 + OVERHEAD + 1024 + OVERHEAD);
    let new_large = send(60 * 1024);
    sleep(Duration::from_secs(1)).await;
    assert!(!old_large.is_finished(), "there is room for it");
    let another = send(60 * 1024);
    assert_eq!(old_large.await.unwrap(), 503);
    sleep(Duration::from_secs(1)).await;
    assert!(!new_large.is_finished() && !another.is_finished() && !old_small.is_finished());
    assert!(endpoint.unfinished.bytes() <= 200 * 1024);

    // A body that is too large for the whole budget gives way itself.
    assert_eq!(send(300 * 1024).await.unwrap(), 503);
    // Many requests that keep almost nothing are bounded, too.
    let many: Vec<_> = (0..200).map(|_| send(1)).collect();
    sleep(Duration::from_secs(1)).await;
    let left = many.iter().filter(|one| !one.is_finished()).count();
    assert!((5..200 * 1024 / OVERHEAD).contains(&left), "{left}");
    assert!(endpoint.unfinished.bytes() <= 200 * 1024);
    for one in many {
        one.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn unfinished_heads_count_in_the_same_budget() {
    let (engine, _) = engine().await;
    let config = HttpConfig { max_unfinished: 10 * OVERHEAD, ..HttpConfig::default() };
    let mut connections = connections(&engine, &config);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let half = format!("POST /mcp HTTP/1.1\r\nx: {}", "x".repeat(1_000));
        clients.push(say(&mut connections, PIPE, &half).await);
        sleep(Duration::from_secs(1)).await;
    }
    connections.sweep();
    assert_eq!(connections.open.len(), 8);
    // The oldest requests have given way, and the others are served.
    assert_eq!(clients[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    let last = clients.last_mut().unwrap();
    let rest = request("tools/call", "unknown", "");
    last.write_all(b"\r\n").await.unwrap();
    last.write_all(rest.split_once("\r\n").unwrap().1.as_bytes()).await.unwrap();
    read_until(last, "unknown tool").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_with_a_content_length_over_the_limit_is_refused_before_it_arrives() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "unknown", "");
    let (head, _) = text.split_once("content-length").unwrap();
    let text = format!("{head}content-length: 5000000\r\n\r\n");
    let mut client = say(&mut connections, PIPE, &text).await;
    let told = answer(&mut client, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("connection: close"), "{told}");
}

/// The length of a refused body: more than the kernel buffers for a client that does not read.
const UNREAD: usize = 4_000_000;

// Over TCP, because there a connection that is closed with unread bytes is reset.
#[tokio::test]
async fn a_refusal_of_an_unread_body_closes_the_connection_and_can_be_read() {
    let (engine, _) = engine().await;
    let (address, _stop, _serving) = served(&engine, HttpConfig::default()).await;
    let good = request("tools/call", "unknown", "");
    let (head, _) = good.split_once("content-length").unwrap();
    for (wrong, instead, status) in [
        ("host: localhost", "host: example.com", "403"),
        ("POST /mcp", "POST /other", "404"),
        ("POST /mcp", "PUT /mcp", "405"),
        ("accept: application/json, text/event-stream", "accept: text/html", "406"),
        ("content-type: application/json", "content-type: text/plain", "415"),
        ("host: localhost", &format!("host: localhost\r\nx: {}", "x".repeat(17_000)), "431"),
        ("host: localhost", &format!("host: localhost\r\nx: {}", "x".repeat(40_000)), "431"),
    ] {
        let head = head.replace(wrong, instead);
        let mut client = TcpStream::connect(address).await.unwrap();
        let text = format!("{head}content-length: {UNREAD}\r\n\r\n{}", "x".repeat(UNREAD));
        let (mut reads, mut writes) = client.split();
        // As a client that reads only after it has sent everything.
        let sent = writes.write_all(text.as_bytes());
        let _ = timeout(Duration::from_secs(10), sent).await.unwrap();
        let mut told = Vec::new();
        let read = timeout(Duration::from_secs(10), reads.read_to_end(&mut told)).await.unwrap();
        read.unwrap_or_else(|error| panic!("{status}: {error}"));
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {told}");
        assert!(told.contains("connection: close"), "{told}");
    }
}

// With the real clock: a paused clock would advance while the kernel is working.
#[tokio::test]
async fn one_connection_too_many_replaces_the_connection_that_is_idle_the_longest() {
    let (engine, _) = engine().await;
    let config = HttpConfig { max_connections: 4, ..HttpConfig::default() };
    let (address, _stop, _serving) = served(&engine, config).await;
    let connect = async || {
        let client = TcpStream::connect(address).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        client
    };
    // Four connections: one with a running call, one without a request, one with half a head, and
    // one whose call has finished.
    let mut busy = connect().await;
    send(&mut busy, "tools/call", "hold").await;
    read_until(&mut busy, "waiting").await;
    let mut said_nothing = connect().await;
    let mut half = connect().await;
    half.write_all(b"POST /mcp HT").await.unwrap();
    let mut idle = connect().await;
    send(&mut idle, "tools/call", "unknown").await;
    read_until(&mut idle, "unknown tool").await;
    sleep(Duration::from_millis(20)).await;
    for oldest in [&mut said_nothing, &mut half, &mut idle] {
        let mut newcomer = connect().await;
        send(&mut newcomer, "tools/call", "hold").await;
        let served = timeout(Duration::from_secs(5), read_until(&mut newcomer, "waiting")).await;
        served.expect("it is served at once");
        let closed = timeout(Duration::from_secs(5), oldest.read(&mut [0; 1])).await;
        assert_eq!(closed.expect("it was closed").unwrap_or(0), 0);
        // Keeps the connection open.
        std::mem::forget(newcomer);
    }
    // No connection is idle any more: the next one waits, and no connection is closed for it.
    let mut newcomer = connect().await;
    send(&mut newcomer, "tools/call", "unknown").await;
    let served = timeout(Duration::from_millis(400), read_until(&mut newcomer, "unknown")).await;
    assert!(served.is_err(), "it waits");
    drop(busy);
    timeout(Duration::from_secs(5), read_until(&mut newcomer, "unknown tool")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_for_another_only_while_its_client_waits_for_nothing() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    assert!(!connections.cut_idle(), "there is none");
    let calls = request("tools/call", "hold", "");
    let half_a_body = &calls[..calls.len() - 20];
    let mut uploads = say(&mut connections, PIPE, half_a_body).await;
    let mut streams = say(&mut connections, PIPE, &calls).await;
    let _never_reads = say(&mut connections, PIPE, &request("tools/call", "recite", "")).await;
    let mut old = say(&mut connections, PIPE, &calls.replace("HTTP/1.1", "HTTP/1.0")).await;
    sleep(Duration::from_secs(1)).await;
    // A connection whose body has stopped arriving is closed last, and none of the others may be
    // closed.
    assert!(connections.cut_idle());
    assert_eq!(uploads.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(!connections.cut_idle());
    // Once its stream has ended, a connection is idle.
    released.notify_waiters();
    assert!(answer(&mut streams, LAST_CHUNK).await.contains("released"));
    let mut rest = String::new();
    old.read_to_string(&mut rest).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(connections.cut_idle());
    assert!(!connections.cut_idle());
    connections.ended().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    connections.sweep();
    assert_eq!((connections.open.len(), connections.cut), (1, 0), "who does not read is there");
}

#[tokio::test(start_paused = true)]
async fn the_connections_that_are_idle_the_longest_are_closed_first() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut clients = VecDeque::new();
    for _ in 0..200 {
        clients.push_back(say(&mut connections, PIPE, "").await);
        sleep(Duration::from_millis(2)).await;
    }
    while let Some(mut oldest) = clients.pop_front() {
        assert!(connections.cut_idle());
        assert_eq!(oldest.read(&mut [0; 1]).await.unwrap(), 0, "with {} left", clients.len());
    }
    assert!(!connections.cut_idle());
}

#[test]
fn the_limit_of_connections_is_below_the_limit_of_open_files() {
    for (files, connections) in
        [(0, 1), (1, 1), (17, 1), (64, 48), (256, 240), (1_024, 960), (20_000, 19_744)]
    {
        assert_eq!(less_reserve(files), connections);
    }
    assert!(most_by_files() > 1);
}

#[tokio::test(start_paused = true)]
async fn refused_clients_get_different_retry_times() {
    let (engine, _) = engine().await;
    let endpoint = Endpoint::new(engine.clone(), HttpConfig::default());
    engine.shutdown().await;
    let mut told = Vec::new();
    for _ in 0..1_000 {
        let request = http::Request::post("/mcp")
            .header("host", "localhost")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25", "capabilities": {},
                "clientInfo": {"name": "c", "version": "1"},
            },
        })
        .to_string();
        let body = Dripping::new(&body, 10_000, Duration::ZERO, true);
        let response =
            handle(&endpoint, &mut Caller::new(&head, None), Upload::new(body, None)).await;
        assert_eq!(response.status(), 503);
        // Over a new connection the client may reach another server.
        assert_eq!(response.headers()["connection"], "close");
        let after = response.headers()["retry-after"].to_str().unwrap();
        told.push(after.parse::<u32>().unwrap());
    }
    for seconds in RETRY_AFTER {
        let share = told.iter().filter(|told| **told == seconds).count();
        assert!((240..260).contains(&share), "{seconds} s: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_whose_streams_end_get_different_retry_times() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let session = super::streams::session(&mut connections).await;
    let mut told = Vec::new();
    for _ in 0..100 {
        let mut client = say(&mut connections, PIPE, &super::streams::get(&session)).await;
        let head = answer(&mut client, "data:\n\n").await;
        let (_, retry) = head.split_once("retry: ").unwrap();
        told.push(retry.lines().next().unwrap().parse::<u64>().unwrap());
        drop(client);
        connections.ended().await.unwrap();
    }
    told.sort_unstable();
    assert!(told[0] >= 250 && told[99] < 750, "{told:?}");
    told.dedup();
    assert!(told.len() > 90, "{told:?}");
}
