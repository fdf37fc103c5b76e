//! Clients that disconnect, in every possible way.

use std::io;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stentor_tests::{Addresses, Census, Era, Process, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::http::{Http, Peer, Request, call, initialize, listen, message, modernize};
use crate::{server, size, until};

/// Clients that run concurrently.
const AT_ONCE: usize = 64;

/// A way to disconnect.
type Way = fn(Addresses) -> futures::future::BoxFuture<'static, io::Result<()>>;

macro_rules! ways {
    ($($way:ident),* $(,)?) => { &[$((stringify!($way), |to| Box::pin($way(to)))),*] };
}

const WAYS: &[(&str, Way)] = ways![
    deletes_its_session,
    deletes_it_while_it_listens_and_calls,
    closes_the_socket_in_a_call,
    closes_the_socket_in_a_modern_call,
    closes_the_stream_of_notices,
    closes_a_listen,
    cancels_a_call,
    does_not_wait_for_its_session,
    sends_half_a_body,
    sends_half_a_head,
    never_answers_a_question,
    closes_its_pipe_in_a_call,
    closes_its_pipe_in_a_listen,
    cancels_a_listen_and_closes_within_a_line,
];

async fn legacy(to: Addresses) -> io::Result<(Http, Peer)> {
    let mut http = Http::connect(to.http).await?;
    let peer = Peer::open(&mut http, Era::Legacy).await?;
    Ok((http, peer))
}

/// Starts a call that runs until it is cancelled, or for ever, and reads its first progress value.
async fn start_held_call(to: Addresses, peer: &Peer, tool: &str) -> io::Result<Http> {
    let mut http = Http::connect(to.http).await?;
    let arguments = json!({"name": "nobody releases it", "ms": 20});
    http.ask(&peer.call(1, tool, arguments)).await?;
    let progress = http.data().await?.unwrap_or_default();
    assert!(progress.contains("notifications/progress"), "{progress}");
    Ok(http)
}

async fn delete(http: &mut Http, peer: &Peer) -> io::Result<()> {
    let head = http.ask(&Request::delete(peer.session())).await?;
    assert_eq!(head.status, 204);
    Ok(())
}

async fn deletes_its_session(to: Addresses) -> io::Result<()> {
    let (mut http, peer) = legacy(to).await?;
    http.ask(&peer.request(1, "tools/list", json!({}))).await?;
    delete(&mut http, &peer).await
}

async fn deletes_it_while_it_listens_and_calls(to: Addresses) -> io::Result<()> {
    let (mut http, peer) = legacy(to).await?;
    let mut notices = Http::connect(to.http).await?;
    notices.ask(&peer.hear(&[])).await?;
    let mut call = start_held_call(to, &peer, "hold").await?;
    delete(&mut http, &peer).await?;
    let answer = call.message().await?.unwrap_or_default();
    assert!(answer["error"]["code"].is_i64(), "{answer}");
    assert_eq!(notices.data().await?, None);
    Ok(())
}

async fn closes_the_socket_in_a_call(to: Addresses) -> io::Result<()> {
    let (_, peer) = legacy(to).await?;
    // A legacy call continues after its client has disconnected.
    start_held_call(to, &peer, "nap").await?;
    Ok(())
}

async fn closes_the_socket_in_a_modern_call(to: Addresses) -> io::Result<()> {
    start_held_call(to, &Peer::Modern, "hold").await?;
    Ok(())
}

async fn closes_the_stream_of_notices(to: Addresses) -> io::Result<()> {
    let (mut http, peer) = legacy(to).await?;
    http.ask(&peer.hear(&[])).await?;
    Ok(())
}

async fn closes_a_listen(to: Addresses) -> io::Result<()> {
    let mut http = Http::connect(to.http).await?;
    http.ask(&Peer::Modern.hear(&[])).await?;
    http.data().await?;
    Ok(())
}

async fn cancels_a_call(to: Addresses) -> io::Result<()> {
    let (mut http, peer) = legacy(to).await?;
    let mut call = start_held_call(to, &peer, "hold").await?;
    http.ask(&peer.notification("notifications/cancelled", json!({"requestId": 1}))).await?;
    assert_eq!(call.data().await?, None, "its stream ends unanswered");
    Ok(())
}

async fn does_not_wait_for_its_session(to: Addresses) -> io::Result<()> {
    let mut http = Http::connect(to.http).await?;
    http.write(Request::initialize().to_bytes(to.http)).await
}

async fn sends_half_a_body(to: Addresses) -> io::Result<()> {
    let (mut http, peer) = legacy(to).await?;
    let request = peer.request(1, "tools/list", json!({})).to_bytes(to.http);
    http.write(&request[..request.len() - 5]).await
}

async fn sends_half_a_head(to: Addresses) -> io::Result<()> {
    let mut http = Http::connect(to.http).await?;
    http.write(&Request::initialize().to_bytes(to.http)[..30]).await
}

async fn never_answers_a_question(to: Addresses) -> io::Result<()> {
    let mut http = Http::connect(to.http).await?;
    http.ask(&Peer::Modern.call(1, "ask", json!({}))).await?;
    let answer = http.message().await?.unwrap_or_default();
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    Ok(())
}

struct Pipe(BufReader<TcpStream>);

impl Pipe {
    async fn open(to: Addresses) -> io::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(to.pipes).await?)))
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(text.as_ref()).await
    }

    async fn ask(&mut self, message: &Value) -> io::Result<Value> {
        self.write(format!("{message}\n")).await?;
        self.next().await
    }

    async fn next(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn listen(&mut self, id: u64) -> io::Result<()> {
        let mut request = message(id, "subscriptions/listen", listen(&[]));
        modernize(&mut request);
        let first = self.ask(&request).await?;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        Ok(())
    }
}

async fn closes_its_pipe_in_a_call(to: Addresses) -> io::Result<()> {
    let mut pipe = Pipe::open(to).await?;
    pipe.ask(&initialize(0)).await?;
    let hold = call(1, "hold", json!({"name": "nobody releases it"}));
    let progress = pipe.ask(&message(1, "tools/call", hold)).await?;
    assert_eq!(progress["method"], "notifications/progress");
    Ok(())
}

async fn closes_its_pipe_in_a_listen(to: Addresses) -> io::Result<()> {
    let mut pipe = Pipe::open(to).await?;
    pipe.listen(1).await
}

async fn cancels_a_listen_and_closes_within_a_line(to: Addresses) -> io::Result<()> {
    let mut pipe = Pipe::open(to).await?;
    pipe.listen(1).await?;
    let params = json!({"requestId": 1});
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    pipe.write(format!("{cancelled}\n")).await?;
    // The id is free again.
    pipe.listen(1).await?;
    pipe.write(r#"{"jsonrpc": "2.0", "id": 2, "meth"#).await
}

/// Runs this many clients. When they have disconnected, the server must contain nothing of them.
async fn round(server: &mut Process, empty: Census, clients: usize) -> u64 {
    let begun = Instant::now();
    let to = server.addresses;
    let coming = (0..clients).map(|n| {
        let (name, way) = WAYS[n % WAYS.len()];
        async move { way(to).await.map_err(|error| format!("a client that {name}: {error}")) }
    });
    let gone = stream::iter(coming).buffer_unordered(AT_ONCE).try_collect::<()>().await;
    gone.unwrap_or_else(|error| panic!("{error}"));
    let took = begun.elapsed();
    until("everything to be as before", async || match server.census().await {
        census if census == empty => Ok(()),
        census => Err(format!("{census:?} is not {empty:?}")),
    })
    .await;
    let (rate, memory) = (clients as f64 / took.as_secs_f64(), server.memory());
    println!("{clients} clients in {took:?}, {rate:.0} a second; then {memory} KiB");
    memory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_in_any_way_leave_nothing_behind() {
    let clients = size(30 * WAYS.len(), 2_400 * WAYS.len());
    let short = Duration::from_millis(500);
    let settings =
        Settings { idle: short, stall: Duration::from_secs(60), patience: short, tokens: false };
    let mut server = server(settings).await;
    // By then the runtime has started its own tasks.
    sleep(Duration::from_millis(100)).await;
    let empty = server.census().await;
    assert_eq!(Census { tasks: 0, ..empty }, Census::default());
    round(&mut server, empty, clients).await;
    let second = round(&mut server, empty, clients).await;
    let third = round(&mut server, empty, clients).await;
    assert!(third < second + second / 20 + 4 * 1_024, "{second} KiB, then {third} KiB");
}
