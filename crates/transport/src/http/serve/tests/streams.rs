//! Event streams: each takes over its connection, and most give it back.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::*;

/// Reads one response. It ends with `end`.
pub(super) async fn answer(client: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let byte = timeout(Duration::from_secs(600), client.read_u8()).await;
        read.push(byte.expect("an answer").expect("an open connection").into());
    }
    read
}

/// Opens a connection with buffers of `pipe` bytes in each direction, and sends `text` on it.
pub(super) async fn say(connections: &mut Connections, pipe: usize, text: &str) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(pipe);
    connections.open(server);
    client.write_all(text.as_bytes()).await.unwrap();
    client
}

pub(super) const LAST_CHUNK: &str = "\r\n0\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn requests_after_a_stream_are_served_on_the_same_connection_even_if_sent_ahead() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "hold").await;
    read_until(&mut client, "waiting").await;
    // While the stream is open.
    for _ in 0..2 {
        send(&mut client, "tools/call", "unknown").await;
    }
    sleep(Duration::from_secs(1)).await;
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    for _ in 0..2 {
        let next = answer(&mut client, "\"}}").await;
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n") && next.contains("unknown tool"), "{next}");
    }
    send(&mut client, "tools/call", "hold").await;
    let head = read_until(&mut client, "waiting").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
}

fn chunks(mut body: &str) -> Vec<&str> {
    let mut chunks = Vec::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let (chunk, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
        chunks.push(chunk);
        body = rest.strip_prefix("\r\n").expect("the end of a chunk");
    }
    assert_eq!(body, "");
    chunks
}

#[tokio::test(start_paused = true)]
async fn each_chunk_of_a_stream_is_as_long_as_it_says() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "hold").await;
    sleep(Duration::from_secs(20)).await;
    released.notify_one();
    let whole = answer(&mut client, LAST_CHUNK).await;
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    let chunks = chunks(body);
    assert!(chunks[0].starts_with("data: {") && chunks[0].contains("waiting"), "{chunks:?}");
    assert_eq!(chunks[1], ":\n\n", "it was quiet");
    assert!(chunks[2].contains("released"), "{chunks:?}");
    assert_eq!(chunks[3..], [""]);
    // The same head that other servers write.
    for header in ["content-type: text/event-stream", "cache-control: no-store", "date: "] {
        assert!(head.contains(header), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_a_stream_is_quiet_is_noticed_at_once() {
    let (engine, _released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "hold").await;
    read_until(&mut client, "waiting").await;
    let begun = Instant::now();
    drop(client);
    connections.ended().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(engine.counters().closed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_to_close_is_disconnected_after_the_stream() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "hold", "connection: close\r\n");
    let mut client = say(&mut connections, PIPE, &text).await;
    let head = read_until(&mut client, "waiting").await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    connections.ended().await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_during_a_shutdown_is_the_last_response_of_its_connection() {
    let (engine, released) = engine().await;
    let config = HttpConfig { json_grace: Duration::from_secs(2), ..HttpConfig::default() };
    let mut connections = connections(&engine, &config);
    let text = request("tools/call", "quiet", "");
    let mut client = say(&mut connections, PIPE, &text).await;
    sleep(Duration::from_secs(1)).await;
    let closing = tokio::spawn(connections.close(LAST_BYTES));
    let head = answer(&mut client, "\r\n\r\n").await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    closing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "hold", "").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = say(&mut connections, PIPE, &text).await;
    let head = read_until(&mut client, "waiting").await;
    assert!(!head.contains("transfer-encoding"), "{head}");
    released.notify_one();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("\n\n") && rest.contains("released"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_that_leaves_is_noticed_at_once() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "hold", "").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = say(&mut connections, PIPE, &text).await;
    read_until(&mut client, "waiting").await;
    let left = Instant::now();
    drop(client);
    connections.ended().await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_still_being_written_is_not_lost_to_the_next_stream() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let both = request("tools/call", "recite", "") + &request("tools/call", "hold", "");
    let mut client = say(&mut connections, PIPE, &both).await;
    sleep(Duration::from_secs(30)).await;
    let first = answer(&mut client, "\"}]").await;
    assert!(first.len() > RECITED);
    let stream = read_until(&mut client, "waiting").await;
    assert!(stream.contains("}HTTP/1.1 200 OK\r\n"), "{stream}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
}

#[tokio::test(start_paused = true)]
async fn no_request_that_is_sent_ahead_is_lost() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let ahead = 25;
    // All at once: hyper reads more of them than a stream keeps.
    let text =
        request("tools/call", "hold", "") + &request("tools/call", "unknown", "").repeat(ahead);
    let mut client = say(&mut connections, 2 * text.len(), &text).await;
    read_until(&mut client, "waiting").await;
    sleep(Duration::from_secs(1)).await;
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    for _ in 0..ahead {
        let next = answer(&mut client, "\"}}").await;
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n") && next.contains("unknown tool"), "{next}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_also_while_it_does_not_read() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let client = call(&mut connections, "chatter").await;
    sleep(Duration::from_secs(30)).await;
    assert!(engine.counters().dropped(Class::Log) > 0, "it waits for the client");
    let begun = Instant::now();
    drop(client);
    connections.ended().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(engine.counters().closed, 0);
}

/// The head of the response to a GET of a session's stream.
async fn head_of_stream(connections: &mut Connections, session: &str, more: &str) -> Vec<String> {
    let text = format!(
        "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
         mcp-session-id: {session}\r\n{more}"
    );
    let mut client = say(connections, PIPE, &text).await;
    let head = answer(&mut client, "\r\n\r\n").await;
    drop(client);
    connections.ended().await.unwrap();
    let lines = head.trim_end().lines();
    let mut lines: Vec<_> =
        lines.filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect();
    assert_eq!(lines.len() + 1, head.trim_end().lines().count(), "it has a date");
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_same_head_as_one_that_hyper_writes() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let session = session(&mut connections).await;
    let own = head_of_stream(&mut connections, &session, "\r\n").await;
    // A request with a body that is never read: hyper keeps such a connection.
    let mut of_hyper =
        head_of_stream(&mut connections, &session, "content-length: 100\r\n\r\n").await;
    of_hyper.retain(|line| line != "connection: close");
    assert_eq!(own, of_hyper);
    assert_eq!(own.len(), 5, "{own:?}");
}

/// Opens a legacy session, and returns its id.
pub(super) async fn session(connections: &mut Connections) -> String {
    session_with(connections, "").await
}

/// As `session`, with one more header.
pub(super) async fn session_with(connections: &mut Connections, header: &str) -> String {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        },
    })
    .to_string();
    let text = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n\
         {body}",
        body.len(),
    );
    let mut client = say(connections, PIPE, &text).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    connections.ended().await.unwrap();
    let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
    id.expect("a session").to_owned()
}

#[tokio::test(start_paused = true)]
async fn messages_sent_at_once_are_written_in_few_chunks() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "chatter", "");
    let mut client = say(&mut connections, 256 * 1024, &text).await;
    sleep(Duration::from_millis(900)).await;
    let mut read = vec![0; 256 * 1024];
    let length = client.read(&mut read).await.unwrap();
    let read = str::from_utf8(&read[..length]).unwrap();
    let (_, body) = read.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches("data: ").count(), 50);
    let chunks = chunks(body);
    assert!(chunks.len() <= 3, "{} chunks", chunks.len());
}

/// The bytes of a GET that opens the stream of a session's notices.
pub(super) fn get(session: &str) -> String {
    format!(
        "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
         mcp-session-id: {session}\r\n\r\n"
    )
}

/// Opens the stream of a session's notices on a connection of its own.
async fn notices(connections: &mut Connections, session: &str) -> DuplexStream {
    let mut client = say(connections, PIPE, &get(session)).await;
    answer(&mut client, "\r\n\r\n").await;
    client
}

#[tokio::test(start_paused = true)]
async fn what_a_client_takes_only_in_part_is_written_to_its_end_and_nothing_is_lost() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let session = session(&mut connections).await;
    let mut client = notices(&mut connections, &session).await;
    let told = 100;
    for index in 0..told {
        // More than the connection's buffers, so that some of it waits for the client.
        let params = json!({ "index": index, "text": "x".repeat(SAID) });
        engine.notify_all("test/told", params).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let mut read = String::new();
    while read.matches("data: {").count() < told || !read.ends_with("\r\n") {
        let byte = timeout(Duration::from_secs(5), client.read_u8()).await;
        read.push(byte.expect("the rest").unwrap().into());
    }
    let events = chunks(&read).concat();
    let events = events.split("\n\n").filter_map(|event| Some(event.split_once("data: {")?.1));
    for (index, event) in events.enumerate() {
        assert!(event.contains(&format!("\"index\":{index},")), "{index}: {event}");
    }
    assert_eq!(engine.counters().dropped(Class::Custom), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn streams_that_many_write_to_at_once_are_in_order() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let told: usize = 300;
    let mut clients = Vec::new();
    // More streams than the hub serves in one batch.
    for _ in 0..130 {
        let session = session(&mut connections).await;
        let mut client = notices(&mut connections, &session).await;
        clients.push(tokio::spawn(async move {
            let mut read = String::new();
            let mut bytes = [0; 512];
            while read.matches("data: {").count() < told || !read.ends_with("\r\n") {
                let length = timeout(Duration::from_secs(60), client.read(&mut bytes)).await;
                let length = length.expect("it is woken").unwrap();
                assert_ne!(length, 0, "it ended");
                read.push_str(str::from_utf8(&bytes[..length]).unwrap());
            }
            read
        }));
    }
    for index in 0..told {
        engine.notify_all("test/told", json!({ "index": index })).await.unwrap();
    }
    for client in clients {
        let read = client.await.unwrap();
        let events = chunks(&read).concat();
        let events = events.split("\n\n").filter(|event| !event.is_empty());
        for (index, event) in events.enumerate() {
            // The id of an event names the following frame; the first event is empty.
            assert!(event.starts_with(&format!("id: 0-{index}\n")), "{index}: {event}");
            let told = index.checked_sub(1).map(|told| format!("{{\"index\":{told}}}"));
            assert!(event.contains(&told.unwrap_or_default()), "{index}: {event}");
        }
    }
    released.notify_one();
}

/// A connection that counts how often it was polled for reading. Its task does so each time that it
/// is polled.
struct Polled {
    io: DuplexStream,
    looks: Arc<AtomicUsize>,
}

impl AsyncRead for Polled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Polled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_to_all_is_written_while_the_task_of_a_connection_sleeps() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let session = session(&mut connections).await;
    let (mut client, io) = tokio::io::duplex(PIPE);
    let looks = Arc::new(AtomicUsize::new(0));
    connections.open(Polled { io, looks: looks.clone() });
    client.write_all(get(&session).as_bytes()).await.unwrap();
    answer(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_millis(1)).await;
    let before = looks.load(Ordering::Relaxed);
    for index in 0..3 {
        engine.notify_all("test/told", json!({ "index": index })).await.unwrap();
        assert!(
            answer(&mut client, "}}\n\n\r\n").await.contains(&format!("{{\"index\":{index}}}"))
        );
    }
    assert_eq!(looks.load(Ordering::Relaxed), before);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_sending_half_after_a_stream_gets_its_response() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "hold").await;
    read_until(&mut client, "waiting").await;
    released.notify_one();
    answer(&mut client, LAST_CHUNK).await;
    // The connection's task does not run between these two.
    let text = request("tools/call", "unknown", "");
    poll_once(client.write_all(text.as_bytes()));
    poll_once(client.shutdown());
    let next = answer(&mut client, "\"}}").await;
    assert!(next.contains("unknown tool"), "{next}");
}

/// Polls a future that must be ready at once.
fn poll_once(future: impl Future<Output = io::Result<()>>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(pin!(future).poll(&mut cx), Poll::Ready(Ok(()))));
}
