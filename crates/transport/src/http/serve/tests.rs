use std::sync::Arc;

use serde_json::json;
use stentor_delivery::policy::Class;
use stentor_engine::{Context, ToolError, tool};
use stentor_wire::meta_key;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

mod bounds;
mod ending;
mod expiry;
mod layered;
mod leaving;
mod streams;

/// How long connections may take to send their last bytes.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// The buffer of an in-memory connection in each direction, in bytes. It stands for the kernel's
/// buffers.
const PIPE: usize = 4 * 1024;

/// The length of each message of `chatter`, in characters.
const SAID: usize = 400;

/// The length of the response of `recite`, in characters.
const RECITED: usize = 100 * 1024;

/// An engine, and the `Notify` that calls of `quiet` and `hold` wait for.
async fn engine() -> (Engine, Arc<Notify>) {
    let released = Arc::new(Notify::new());
    let held = released.clone();
    let engine = Engine::builder("test", "1")
        .tool(tool("chatter", |ctx: Context| async move {
            loop {
                for _ in 0..50 {
                    ctx.info("x".repeat(SAID));
                }
                sleep(Duration::from_secs(1)).await;
            }
            #[expect(unreachable_code, reason = "it says what the tool returns")]
            "never"
        }))
        .tool(tool("recite", || async { "x".repeat(RECITED) }))
        .tool(tool("wait", std::future::pending::<Result<&str, ToolError>>))
        .tool(tool("quiet", {
            let held = held.clone();
            move || {
                let held = held.clone();
                async move {
                    held.notified().await;
                    "released"
                }
            }
        }))
        .tool(tool("hold", move |ctx: Context| {
            let held = held.clone();
            async move {
                ctx.info("waiting");
                held.notified().await;
                "released"
            }
        }))
        .start();
    (engine.await.unwrap(), released)
}

fn connections(engine: &Engine, config: &HttpConfig) -> Connections {
    let endpoint = Endpoint::new(engine.clone(), config.clone());
    Connections::new(endpoint, None, config.max_connections)
}

/// The bytes of a modern request, with one more header.
fn request(method: &str, name: &str, header: &str) -> String {
    let meta = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_INFO: {"name": "c", "version": "1"},
        meta_key::CLIENT_CAPABILITIES: {},
        meta_key::LOG_LEVEL: "info",
    });
    let params = json!({"name": name, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: {method}\r\nmcp-name: {name}\r\n{header}content-length: {}\r\n\r\n{body}",
        body.len(),
    )
}

/// Opens a connection and sends a call on it.
async fn call(connections: &mut Connections, tool: &str) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    send(&mut client, "tools/call", tool).await;
    client
}

async fn send(client: &mut (impl AsyncWrite + Unpin), method: &str, name: &str) {
    client.write_all(request(method, name, "").as_bytes()).await.unwrap();
}

/// Reads until `wanted` was read. Returns everything up to there.
async fn read_until(client: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if text.contains(wanted) {
            return text.into_owned();
        }
        assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "it ended");
    }
}

#[cfg(any(target_os = "android", target_os = "linux"))]
#[tokio::test]
async fn connections_are_tuned_whether_they_came_before_or_after_their_listener_was_tuned() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap());
    let gone_after = Duration::from_secs(7);
    let _before = connect().await.unwrap();
    tune(&SockRef::from(&listener), gone_after).unwrap();
    let _after = connect().await.unwrap();
    for inherited in [false, true] {
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(inherits(&stream, gone_after), inherited);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), MAX_UNSENT);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(gone_after));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_disconnected_and_counted() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let begun = Instant::now();
    let mut client = call(&mut connections, "chatter").await;
    connections.ended().await.unwrap();
    let lasted = begun.elapsed().as_secs();
    assert!((60..65).contains(&lasted), "{lasted} s");
    assert_eq!(engine.counters().closed, 1);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), PIPE, "what it had been sent");
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_but_steadily_is_not_disconnected() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "chatter").await;
    let reading = async {
        for _ in 0..20 {
            sleep(Duration::from_secs(59)).await;
            client.read_u8().await.unwrap();
        }
    };
    tokio::select! {
        () = reading => {}
        _ = connections.ended() => panic!("it was disconnected"),
    }
    assert_eq!(engine.counters().closed, 0);
    connections.ended().await.unwrap();
    assert_eq!(engine.counters().closed, 1, "it has stopped reading");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_not_counted() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    drop(call(&mut connections, "chatter").await);
    connections.ended().await.unwrap();
    assert_eq!(engine.counters().closed, 0);
}

#[tokio::test(start_paused = true)]
async fn requests_sent_ahead_of_a_response_are_answered_after_it() {
    let (engine, released) = engine().await;
    let config = HttpConfig { json_grace: Duration::from_secs(3600), ..HttpConfig::default() };
    let mut connections = connections(&engine, &config);
    let mut client = call(&mut connections, "quiet").await;
    for _ in 0..2 {
        send(&mut client, "tools/call", "unknown").await;
    }
    sleep(Duration::from_secs(1)).await;
    released.notify_one();
    let mut answers = String::new();
    while answers.matches("unknown tool").count() < 2 {
        answers += &read_until(&mut client, "unknown tool").await;
    }
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(answers.find("released") < answers.find("unknown tool"), "{answers}");
}

#[tokio::test(start_paused = true)]
async fn the_bytes_buffered_for_a_client_that_does_not_read_are_bounded() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let _client = call(&mut connections, "chatter").await;
    sleep(Duration::from_secs(5)).await;
    let taken = engine.counters().delivered(Class::Log);
    sleep(Duration::from_secs(50)).await;
    assert_eq!(engine.counters().delivered(Class::Log), taken, "the body is still read");
    assert!(engine.counters().dropped(Class::Log) > 1_000, "much more was said");
    // Each message is longer than its text.
    let buffers = PIPE + 20 * 1024 + 16 * 1024;
    let most = buffers / SAID;
    assert!(taken <= most as u64, "{taken} messages were taken");
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_head_is_not_awaited_forever() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let (mut client, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    let begun = Instant::now();
    let head = request("tools/call", "hold", "");
    let dripping = async {
        for byte in head.bytes() {
            let _ = client.write_u8(byte).await;
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = dripping => panic!("it was waited for"),
        _ = connections.ended() => {}
    }
    assert_eq!(begun.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_not_closed_by_any_timeout() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut client = call(&mut connections, "hold").await;
    let release = async {
        sleep(Duration::from_secs(24 * 60 * 60)).await;
        released.notify_one();
    };
    let (_, read) = tokio::join!(release, read_until(&mut client, "released"));
    assert!(read.contains("\r\n:\n\n"), "it was kept alive");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_refused_with_a_clear_message() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    for (length, words) in [(17_000, "the headers are larger"), (100_000, "HTTP/1.1 431")] {
        let (mut client, server) = tokio::io::duplex(2 * length);
        connections.open(server);
        let long = format!("x-padding: {}\r\n", "x".repeat(length));
        client.write_all(request("tools/call", "hold", &long).as_bytes()).await.unwrap();
        let answer = read_until(&mut client, words).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

/// A server on a free port, and the sender that stops it.
async fn served(
    engine: &Engine,
    config: HttpConfig,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Result<(), ServeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap() };
    let serving = tokio::spawn(serve_on(engine.clone(), listener, config, stopped));
    (address, stop, serving)
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_and_finishes_responses() {
    let (engine, released) = engine().await;
    let (address, stop, serving) = served(&engine, HttpConfig::default()).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    send(&mut idle, "tools/call", "unknown").await;
    read_until(&mut idle, "\"error\"").await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    send(&mut busy, "tools/call", "hold").await;
    read_until(&mut busy, "waiting").await;

    let begun = std::time::Instant::now();
    stop.send(()).unwrap();
    engine.draining().await;
    released.notify_one();
    let read = read_until(&mut busy, "\r\n0\r\n\r\n").await;
    assert!(read.contains("released"), "{read}");
    for mut connection in [busy, idle, silent] {
        assert_eq!(connection.read(&mut [0; 1]).await.unwrap(), 0, "it was closed");
    }
    serving.await.unwrap().unwrap();
    assert!(begun.elapsed() < LAST_BYTES, "nothing was waited for");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_sends_pending_responses_to_clients_that_read_in_time() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let mut reads = call(&mut connections, "recite").await;
    let _never_reads = call(&mut connections, "recite").await;
    sleep(Duration::from_secs(1)).await;
    engine.shutdown().await;
    let begun = Instant::now();
    let mut answer = Vec::new();
    let (read, ()) = tokio::join!(reads.read_to_end(&mut answer), connections.close(LAST_BYTES));
    assert!(read.unwrap() > RECITED);
    assert_eq!(begun.elapsed().as_secs(), LAST_BYTES.as_secs());
}

/// How long the server takes to close a connection on which nothing more is sent.
async fn closed_after(mut client: DuplexStream) -> Duration {
    let begun = Instant::now();
    let read = timeout(Duration::from_secs(600), client.read_to_end(&mut Vec::new())).await;
    read.expect("it is closed").unwrap();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_in_time() {
    let (engine, released) = engine().await;
    let limit = Duration::from_secs(5);
    // With this configuration a body may be slow, if it keeps arriving.
    let config = HttpConfig { read_timeout: limit, min_body_rate: 0, ..HttpConfig::default() };
    let mut connections = connections(&engine, &config);

    let (silent, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    assert_eq!(closed_after(silent).await, limit);

    // A head that arrives byte by byte gets no more time.
    let (mut slow, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    let begun = Instant::now();
    for byte in request("tools/call", "unknown", "").bytes() {
        if slow.write_u8(byte).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(300)).await;
    }
    assert!((limit..limit + Duration::from_secs(1)).contains(&begun.elapsed()), "{begun:?}");

    // A body that stops arriving gets no more time. A body that keeps arriving does.
    let whole = request("tools/call", "unknown", "");
    let (begins, ends) = whole.split_at(whole.len() - 20);
    let (mut vanished, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    vanished.write_all(begins.as_bytes()).await.unwrap();
    assert_eq!(closed_after(vanished).await, limit);
    let (mut slow, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    slow.write_all(begins.as_bytes()).await.unwrap();
    for piece in ends.as_bytes().chunks(5) {
        sleep(limit - Duration::from_millis(100)).await;
        slow.write_all(piece).await.unwrap();
    }
    read_until(&mut slow, "\"error\"").await;

    // After each response the connection gets the whole time again.
    let (mut idle, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    for _ in 0..3 {
        sleep(limit - Duration::from_millis(100)).await;
        send(&mut idle, "tools/call", "unknown").await;
        read_until(&mut idle, "\"error\"").await;
    }
    assert_eq!(closed_after(idle).await, limit);

    // A call may take longer, and so may a stream.
    for tool in ["quiet", "hold"] {
        let mut long = call(&mut connections, tool).await;
        sleep(3 * limit).await;
        released.notify_one();
        read_until(&mut long, "released").await;
        assert_eq!(closed_after(long).await, limit, "{tool}");
    }
}
