//! Layers around the endpoint: what they may do to responses, and what becomes of streams.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tower::timeout::TimeoutLayer;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_layer::layer_fn;

use super::expiry::listen;
use super::streams::{LAST_CHUNK, answer, get, say, session};
use super::*;
use crate::http::ResponseBody;

mod requests;

type Answer = Response<ResponseBody>;

/// As `connections`, with a layer around the endpoint.
fn layered<L, B>(engine: &Engine, config: &HttpConfig, layer: L) -> Connections
where
    L: Layer<EndpointService> + Send + 'static,
    L::Service: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BodyError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    let endpoint = Endpoint::new(engine.clone(), config.clone());
    let layers = wrap(layer)(EndpointService::new(endpoint.clone()));
    Connections::new(endpoint, Some(layers), config.max_connections)
}

/// Changes each response.
fn changes(change: fn(&mut Answer)) -> MapResponseLayer<impl Fn(Answer) -> Answer + Clone> {
    MapResponseLayer::new(move |mut response: Answer| {
        change(&mut response);
        response
    })
}

fn marks(response: &mut Answer) {
    response.headers_mut().insert("x-layer", HeaderValue::from_static("seen"));
}

/// A body around another one, which changes nothing.
struct Around<B>(B);

impl<B: Body + Unpin> Body for Around<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Opens a stream of each kind, each on a connection of its own: a legacy GET, a legacy call, a
/// modern listen and a modern call. Returns the clients with what they have read.
async fn streams(connections: &mut Connections) -> Vec<(DuplexStream, String)> {
    let session = session(connections).await;
    let params = json!({"name": "hold", "arguments": {}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let legacy = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\nmcp-session-id: {session}\r\ncontent-length: {}\r\n\r\n\
         {body}",
        body.to_string().len(),
    );
    let mut opened = Vec::new();
    for (text, begins) in [
        (get(&session), "retry: "),
        (legacy, "waiting"),
        (listen(), "acknowledged"),
        (request("tools/call", "hold", ""), "waiting"),
    ] {
        let mut client = say(connections, PIPE, &text).await;
        let read = read_until(&mut client, begins).await;
        assert!(read.starts_with("HTTP/1.1 200 OK\r\n"), "{read}");
        opened.push((client, read));
    }
    opened
}

#[tokio::test(start_paused = true)]
async fn streams_whose_bodies_are_untouched_are_taken_over_whatever_their_kind() {
    let (engine, released) = engine().await;
    let mut connections = layered(&engine, &HttpConfig::default(), changes(marks));
    let mut opened = streams(&mut connections).await;
    assert_eq!(connections.taken(), opened.len());
    for (_, read) in &opened {
        assert_eq!(read.matches("x-layer: seen\r\n").count(), 1, "{read}");
        assert_eq!(read.matches("date: ").count(), 1, "{read}");
    }
    // They go on, and their connections serve further requests.
    engine.notify_all("test/told", json!({})).await.unwrap();
    read_until(&mut opened[0].0, "test/told").await;
    released.notify_waiters();
    for call in [1, 3] {
        let client = &mut opened[call].0;
        assert!(answer(client, LAST_CHUNK).await.contains("released"));
        send(client, "tools/call", "unknown").await;
        let next = answer(client, "\"}}").await;
        assert!(next.contains("unknown tool") && next.contains("x-layer"), "{next}");
    }
    let open = connections.open.len();
    drop(opened);
    for _ in 0..open {
        connections.ended().await.unwrap();
    }
    assert_eq!(engine.counters().closed, 0);
}

#[tokio::test(start_paused = true)]
async fn streams_with_another_body_are_written_whole_by_hyper() {
    let (engine, released) = engine().await;
    let around = MapResponseLayer::new(|response: Answer| response.map(Around));
    let mut connections = layered(&engine, &HttpConfig::default(), around);
    let mut opened = streams(&mut connections).await;
    for index in 0..100 {
        let params = json!({ "index": index, "text": "x".repeat(SAID) });
        engine.notify_all("test/told", params).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let read = read_until(&mut opened[0].0, "\"index\":99,").await;
    let told = read.split("\"index\":").skip(1).map(|rest| rest.split(',').next().unwrap());
    assert!(told.eq((0..100).map(|index| index.to_string())), "{read}");
    // Comments are written, too.
    sleep(Duration::from_secs(60)).await;
    released.notify_waiters();
    for call in [1, 3] {
        let client = &mut opened[call].0;
        let rest = answer(client, LAST_CHUNK).await;
        assert!(rest.contains("\r\n:\n\n") && rest.contains("released"), "{rest}");
        send(client, "tools/call", "unknown").await;
        assert!(answer(client, "\"}}").await.contains("unknown tool"));
    }
    assert_eq!(connections.taken(), 0);
    // Who leaves is noticed at once.
    let (begun, open) = (Instant::now(), connections.open.len());
    drop(opened);
    for _ in 0..open {
        connections.ended().await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(engine.counters().closed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_counted_whatever_the_body() {
    let (engine, _) = engine().await;
    let mut untouched = layered(&engine, &HttpConfig::default(), changes(marks));
    let around = MapResponseLayer::new(|response: Answer| response.map(Around));
    let mut other = layered(&engine, &HttpConfig::default(), around);
    for (connections, closed) in [(&mut untouched, 1), (&mut other, 2)] {
        let begun = Instant::now();
        let _client = call(connections, "chatter").await;
        connections.ended().await.unwrap();
        let lasted = begun.elapsed().as_secs();
        assert!((60..65).contains(&lasted), "{lasted} s");
        assert_eq!(engine.counters().closed, closed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_layers_say_of_the_framing_of_a_stream_does_not_break_it() {
    let (engine, released) = engine().await;
    let wrong = changes(|response| {
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, 3.into());
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        *response.status_mut() = StatusCode::ACCEPTED;
    });
    let mut connections = layered(&engine, &HttpConfig::default(), wrong);
    let mut client = call(&mut connections, "hold").await;
    let read = read_until(&mut client, "waiting").await;
    assert!(read.starts_with("HTTP/1.1 202 Accepted\r\n"), "{read}");
    assert!(!read.contains("content-length") && !read.contains("yesterday"), "{read}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    assert_eq!(connections.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_layer_may_close_the_connection_after_a_stream() {
    let (engine, released) = engine().await;
    let closing = changes(|response| {
        let close = HeaderValue::from_static("Keep-Alive, Close");
        response.headers_mut().insert(CONNECTION, close);
    });
    let mut connections = layered(&engine, &HttpConfig::default(), closing);
    let mut client = call(&mut connections, "hold").await;
    let head = read_until(&mut client, "waiting").await;
    assert_eq!(head.matches("connection: ").count(), 1, "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    connections.ended().await.unwrap();
    assert_eq!(connections.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_written_where_no_body_may_be() {
    let (engine, _) = engine().await;
    // A layer that answers HEAD by what it would answer to GET, and one that hides a body.
    let as_get = MapRequestLayer::new(|mut request: Request<RequestBody>| {
        if request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        request
    });
    let mut connections = layered(&engine, &HttpConfig::default(), as_get);
    let opened = session(&mut connections).await;
    let head = get(&opened).replace("GET ", "HEAD ");
    let mut client = say(&mut connections, PIPE, &head).await;
    assert!(answer(&mut client, "\r\n\r\n").await.contains("text/event-stream"));
    send(&mut client, "tools/call", "unknown").await;
    let next = answer(&mut client, "\"}}").await;
    assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{next}");

    let none = changes(|response| *response.status_mut() = StatusCode::NO_CONTENT);
    let mut connections = layered(&engine, &HttpConfig::default(), none);
    let mut client = call(&mut connections, "hold").await;
    answer(&mut client, "\r\n\r\n").await;
    send(&mut client, "tools/call", "unknown").await;
    assert!(answer(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    assert_eq!(connections.taken(), 0);
    assert_eq!(engine.observe().await.unwrap().running_calls, 0, "nobody reads the stream");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let (engine, released) = engine().await;
    let mut connections = layered(&engine, &HttpConfig::default(), changes(marks));
    let text = request("tools/call", "hold", "").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = say(&mut connections, PIPE, &text).await;
    let head = read_until(&mut client, "waiting").await;
    assert!(!head.contains("transfer-encoding") && head.contains("x-layer"), "{head}");
    released.notify_one();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("\n\n") && rest.contains("released"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_gives_up_is_answered_for_and_the_call_is_cancelled() {
    let (engine, _) = engine().await;
    let config = HttpConfig { json_grace: Duration::from_secs(3600), ..HttpConfig::default() };
    let limit = TimeoutLayer::new(Duration::from_secs(5));
    let mut connections = layered(&engine, &config, limit);
    let begun = Instant::now();
    let mut client = call(&mut connections, "wait").await;
    let answered = answer(&mut client, "\"}}").await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert!(answered.starts_with("HTTP/1.1 500"), "{answered}");
    assert!(answered.contains("-32603"), "{answered}");
    while engine.observe().await.unwrap().running_calls > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // The request was read to its end, so the connection goes on.
    send(&mut client, "tools/call", "unknown").await;
    assert!(answer(&mut client, "\"}}").await.contains("unknown tool"));
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_breaks_its_connection_and_nothing_else() {
    let (engine, _) = engine().await;
    let panics = MapRequestLayer::new(|request: Request<RequestBody>| {
        assert!(!request.headers().contains_key("x-panic"), "as the request wants it");
        request
    });
    let mut connections = layered(&engine, &HttpConfig::default(), panics);
    let (mut other, server) = tokio::io::duplex(PIPE);
    connections.open(server);
    for _ in 0..2 {
        let text = request("tools/call", "unknown", "x-panic: 1\r\n");
        let mut client = say(&mut connections, PIPE, &text).await;
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        connections.ended().await.unwrap();
        send(&mut other, "tools/call", "unknown").await;
        assert!(answer(&mut other, "\"}}").await.contains("unknown tool"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_within_layers() {
    let (engine, released) = engine().await;
    let around = MapResponseLayer::new(|response: Answer| response.map(Around));
    let mut untouched = layered(&engine, &HttpConfig::default(), changes(marks));
    let mut other = layered(&engine, &HttpConfig::default(), around);
    let mut clients = [call(&mut untouched, "hold").await, call(&mut other, "hold").await];
    for client in &mut clients {
        read_until(client, "waiting").await;
    }
    let closing = [untouched, other].map(|it| tokio::spawn(it.close(LAST_BYTES)));
    sleep(Duration::from_secs(1)).await;
    released.notify_waiters();
    for client in &mut clients {
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("released") && rest.ends_with(LAST_CHUNK), "{rest}");
    }
    for closing in closing {
        closing.await.unwrap();
    }
}
