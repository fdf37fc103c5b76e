//! Layers around the endpoint: what they may do to requests, and what becomes of connections.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use stentor_engine::identity::Identity;

use super::*;

type ByHand =
    dyn Fn(EndpointService, Request<RequestBody>) -> BoxFuture<'static, Answer> + Send + Sync;

/// A service that answers by a function of the endpoint and the request.
#[derive(Clone)]
struct Answers(Arc<ByHand>, EndpointService);

impl Service<Request<RequestBody>> for Answers {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        (self.0)(self.1.clone(), request).map(Ok).boxed()
    }
}

fn by_hand<F, A>(answer: F) -> impl Layer<EndpointService, Service = Answers> + Send + 'static
where
    F: Fn(EndpointService, Request<RequestBody>) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let answer: Arc<ByHand> = Arc::new(move |endpoint, request| answer(endpoint, request).boxed());
    layer_fn(move |endpoint| Answers(answer.clone(), endpoint))
}

/// The answer of the endpoint.
async fn ask<B>(mut endpoint: EndpointService, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    endpoint.call(request).await.unwrap()
}

fn refusal() -> Answer {
    let mut response = Response::new(ResponseBody::from("who are you?"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_refuses_leaves_the_connection_open_unless_a_body_is_unread() {
    let (engine, _) = engine().await;
    let refuses = by_hand(|_, _: Request<RequestBody>| async { refusal() });
    let mut connections = layered(&engine, &HttpConfig::default(), refuses);
    // Requests without bodies: one after the other, and ahead.
    let (mut client, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    for times in [1, 3] {
        client.write_all(get("any").repeat(times).as_bytes()).await.unwrap();
        for _ in 0..times {
            let refused = answer(&mut client, "who are you?").await;
            assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
            assert!(!refused.contains("connection: "), "{refused}");
        }
    }
    // Bodies, short and long, that arrive with the head or later.
    let whole = request("tools/call", "unknown", "");
    let long = format!("{whole}{}", "x".repeat(500_000)).replace("content-length: ", "x-was: ");
    let long = long.replacen("\r\n\r\n", "\r\ncontent-length: 500000\r\n\r\n", 1);
    let (head, _) = whole.split_once("\r\n\r\n").unwrap();
    for text in [whole.clone(), long, format!("{head}\r\n\r\n")] {
        let (mut client, server) = tokio::io::duplex(PIPE);
        connections.open(server);
        let (mut reads, mut writes) = tokio::io::split(&mut client);
        let mut read = String::new();
        let begun = Instant::now();
        // Nothing more may be written after the server has stopped waiting.
        let writing = async { drop(writes.write_all(text.as_bytes()).await) };
        let (_, all) = tokio::join!(writing, reads.read_to_string(&mut read));
        all.unwrap();
        assert!(read.ends_with("who are you?"), "the refusal can be read: {read}");
        assert!(read.contains("connection: close\r\n"), "{read}");
        assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn an_identity_of_a_layer_counts_where_no_authenticator_is() {
    let (engine, released) = engine().await;
    let names = MapRequestLayer::new(|mut request: Request<RequestBody>| {
        if let Some(name) = request.headers().get("x-name") {
            let name = name.to_str().unwrap().to_owned();
            request.extensions_mut().insert(Identity::named(name));
        }
        request
    });
    let config = HttpConfig::new().require_identity(true);
    let mut connections = layered(&engine, &config, names);
    let mut client = call(&mut connections, "hold").await;
    let refused = answer(&mut client, "\"}}").await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("Bearer"), "{refused}");
    let text = request("tools/call", "hold", "x-name: ann\r\n");
    let mut client = say(&mut connections, PIPE, &text).await;
    read_until(&mut client, "waiting").await;
    assert_eq!(connections.taken(), 1);
    let calls = engine.calls();
    assert_eq!(calls.len(), 1);
    released.notify_one();
    answer(&mut client, LAST_CHUNK).await;
}

#[tokio::test(start_paused = true)]
async fn layers_see_every_path_and_the_other_end() {
    let (engine, _) = engine().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let logs = MapRequestLayer::new(move |request: Request<RequestBody>| {
        let peer = request.extensions().get::<axum::extract::ConnectInfo<SocketAddr>>();
        log.lock().push((request.uri().path().to_owned(), peer.map(|peer| peer.0)));
        request
    });
    let mut connections = layered(&engine, &HttpConfig::default(), logs);
    let (mut client, server) = tokio::io::duplex(PIPE);
    let other_end = SocketAddr::from(([192, 0, 2, 7], 4711));
    connections.open_from(Some(other_end), server);
    for path in ["/mcp/", "/.well-known/oauth-protected-resource", "/"] {
        let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.write_all(text.as_bytes()).await.unwrap();
        assert!(answer(&mut client, "}}").await.starts_with("HTTP/1.1 404"));
    }
    let paths = ["/mcp/", "/.well-known/oauth-protected-resource", "/"];
    assert_eq!(*seen.lock(), paths.map(|path| (path.to_owned(), Some(other_end))));
    // The same path with a body, which nobody reads.
    let text = request("tools/call", "unknown", "").replace("/mcp", "/other");
    client.write_all(text.as_bytes()).await.unwrap();
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    assert!(read.starts_with("HTTP/1.1 404") && read.contains("connection: close"), "{read}");
}

/// The ways in which a layer may pass the body of a request on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Passed {
    AsItIs,
    Boxed,
    /// As a body that does not know when it is over.
    Around,
    /// Read to its end before.
    Whole,
}

const PASSED: [Passed; 4] = [Passed::AsItIs, Passed::Boxed, Passed::Around, Passed::Whole];

fn passes(how: Passed) -> impl Layer<EndpointService, Service = Answers> + Send + 'static {
    by_hand(move |endpoint, request| async move {
        match how {
            Passed::AsItIs => ask(endpoint, request).await,
            Passed::Boxed => ask(endpoint, request.map(RequestBody::boxed_unsync)).await,
            Passed::Around => ask(endpoint, request.map(Around)).await,
            Passed::Whole => {
                let (head, body) = request.into_parts();
                let Ok(read) = body.collect().await else { return refusal() };
                ask(endpoint, Request::from_parts(head, Full::new(read.to_bytes()))).await
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn requests_go_on_and_streams_are_taken_over_however_the_body_is_passed_on() {
    for how in PASSED {
        let (engine, released) = engine().await;
        let mut connections = layered(&engine, &HttpConfig::default(), passes(how));
        let opened = session(&mut connections).await;
        let unknown = request("tools/call", "unknown", "");
        let all = [&unknown, &unknown, &request("tools/call", "hold", ""), &unknown, &get(&opened)];
        let mut client = say(&mut connections, 64 * 1024, &all.map(String::as_str).concat()).await;
        for _ in 0..2 {
            let next = answer(&mut client, "\"}}").await;
            assert!(next.contains("unknown tool") && !next.contains("connection: "), "{next}");
        }
        read_until(&mut client, "waiting").await;
        released.notify_one();
        assert!(answer(&mut client, LAST_CHUNK).await.contains("released"), "{how:?}");
        let next = answer(&mut client, "\"}}").await;
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{how:?}: {next}");
        let head = answer(&mut client, "\r\n\r\n").await;
        assert!(head.contains("text/event-stream") && !head.contains("connection: "), "{head}");
        engine.notify_all("test/told", json!({})).await.unwrap();
        read_until(&mut client, "test/told").await;
        assert_eq!(connections.taken(), 2, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_awaited_piece_by_piece_and_one_that_stops_is_not() {
    let limit = Duration::from_secs(5);
    let config = HttpConfig { read_timeout: limit, min_body_rate: 0, ..HttpConfig::default() };
    for how in PASSED {
        let (engine, released) = engine().await;
        let mut connections = layered(&engine, &config, passes(how));
        let whole = request("tools/call", "hold", "");
        let (begins, ends) = whole.split_at(whole.len() - 20);
        let mut client = say(&mut connections, PIPE, begins).await;
        for piece in ends.as_bytes().chunks(5) {
            sleep(limit - Duration::from_millis(100)).await;
            client.write_all(piece).await.unwrap();
        }
        read_until(&mut client, "waiting").await;
        sleep(10 * limit).await;
        released.notify_one();
        answer(&mut client, LAST_CHUNK).await;
        assert_eq!(connections.taken(), 1);
        // The connection waits for the next request as long as for the first.
        assert_eq!(closed_after(client).await, limit, "{how:?}");

        let client = say(&mut connections, PIPE, begins).await;
        assert_eq!(closed_after(client).await, limit, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_may_take_its_time_before_it_passes_a_request_on() {
    let limit = Duration::from_secs(5);
    let config = HttpConfig { read_timeout: limit, ..HttpConfig::default() };
    let (engine, released) = engine().await;
    let waits = by_hand(|endpoint, request| async {
        sleep(Duration::from_secs(600)).await;
        ask(endpoint, request).await
    });
    let mut connections = layered(&engine, &config, waits);
    let whole = request("tools/call", "hold", "");
    let (begins, ends) = whole.split_at(whole.len() - 20);
    let mut client = say(&mut connections, PIPE, begins).await;
    sleep(Duration::from_secs(60)).await;
    assert!(!connections.cut_idle(), "nobody waits for the client");
    client.write_all(ends.as_bytes()).await.unwrap();
    let opened = async { read_until(&mut client, "waiting").await };
    timeout(Duration::from_secs(700), opened).await.unwrap();
    released.notify_one();
    answer(&mut client, LAST_CHUNK).await;
    assert_eq!(connections.taken(), 1);

    // A client that closes its connection meanwhile may still read, for all that is known.
    drop(client);
    connections.ended().await.unwrap();
    let begun = Instant::now();
    drop(say(&mut connections, PIPE, &whole).await);
    connections.ended().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_body_is_awaited_gives_way_to_another_one() {
    for how in PASSED {
        let (engine, _) = engine().await;
        let mut connections = layered(&engine, &HttpConfig::default(), passes(how));
        let whole = request("tools/call", "unknown", "");
        let mut client = say(&mut connections, PIPE, &whole[..whole.len() - 20]).await;
        sleep(Duration::from_secs(1)).await;
        assert!(connections.cut_idle(), "{how:?}");
        connections.ended().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(connections.cut, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_replaces_a_body_unread_closes_the_connection_after_the_response() {
    let (engine, released) = engine().await;
    let replaces = by_hand(|endpoint, request: Request<RequestBody>| async {
        let mut request = request.map(drop);
        request.headers_mut().remove(CONTENT_LENGTH);
        let text = self::request("tools/call", "hold", "");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        ask(endpoint, request.map(|()| Full::new(Bytes::from(body.to_owned())))).await
    });
    let mut connections = layered(&engine, &HttpConfig::default(), replaces);
    let mut client = call(&mut connections, "hold").await;
    let head = read_until(&mut client, "waiting").await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    released.notify_one();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("released") && rest.ends_with(LAST_CHUNK), "{rest}");
    assert_eq!(connections.taken(), 0, "hyper has not read the request to its end");
}

#[tokio::test(start_paused = true)]
async fn a_response_may_be_made_of_the_request_while_it_arrives() {
    let (engine, _) = engine().await;
    let echoes = layer_fn(|_: EndpointService| {
        tower::service_fn(|request: Request<RequestBody>| async {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        })
    });
    let mut connections = layered(&engine, &HttpConfig::default(), echoes);
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 12\r\n\r\n";
    let mut client = say(&mut connections, PIPE, head).await;
    let begins = answer(&mut client, "\r\n\r\n").await;
    assert!(begins.contains("connection: close\r\n"), "{begins}");
    for piece in ["ping", "pong", "ping"] {
        sleep(Duration::from_secs(60)).await;
        client.write_all(piece.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut client, piece).await, piece);
    }
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_a_layer_keeps_after_its_answer_keeps_no_connection() {
    let (engine, _) = engine().await;
    let (kept, polls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (keeps, counts) = (kept.clone(), polls.clone());
    let leaks = by_hand(move |_, request: Request<RequestBody>| {
        let counts = counts.clone();
        if counts.fetch_add(1, Ordering::Relaxed) == 0 {
            keeps.lock().push(request.into_body());
        } else {
            // Something else goes on to read it.
            tokio::spawn(async move { request.into_body().collect().await.map(drop) });
        }
        async { refusal() }
    });
    let mut connections = layered(&engine, &HttpConfig::default(), leaks);
    let whole = request("tools/call", "unknown", "");
    for _ in 0..2 {
        let client = say(&mut connections, PIPE, &whole[..whole.len() - 20]).await;
        // The client may read for a moment before.
        assert!(closed_after(client).await <= Duration::from_secs(2));
        connections.ended().await.unwrap();
    }
    assert_eq!(kept.lock().len(), 1);
}
