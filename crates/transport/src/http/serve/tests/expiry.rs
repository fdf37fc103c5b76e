//! Streams that only wait for notices end some time after the credential of their client; calls do
//! not.

use std::time::SystemTime;

use http_body::Body as _;
use stentor_engine::identity::Identity;

use super::streams::{LAST_CHUNK, answer, get, say, session_with};
use super::*;
use crate::http::auth::Caller;
use crate::http::{StaticTokens, Upload, handle};

const SECRET: &str = "ann-secret-token-0001";

/// For how long the credential is good, with its leeway.
const GOOD: Duration = Duration::from_secs(100);

/// By how much the clock of the test may differ from that of the machine.
const SLACK: Duration = Duration::from_secs(5);

/// The credential is good for [`GOOD`] from now on.
fn config() -> HttpConfig {
    let expires = SystemTime::now() + GOOD / 2;
    let ann = Identity::named("ann").expires(expires, GOOD / 2);
    HttpConfig::new().auth(StaticTokens::new([(SECRET, ann)]).unwrap())
}

fn authorized(text: &str) -> String {
    text.replacen("\r\n", &format!("\r\nauthorization: Bearer {SECRET}\r\n"), 1)
}

pub(super) fn listen() -> String {
    let text = request("subscriptions/listen", "", "").replace("mcp-name: \r\n", "");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let notifications = "\"notifications\":{\"toolsListChanged\":true},\"name\"";
    let body = body.replace("\"name\"", notifications);
    let lines = head.lines().filter(|line| !line.starts_with("content-length"));
    let head = lines.collect::<Vec<_>>().join("\r\n");
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads a stream to its end, and says when that was. It must be in time.
async fn ends_in_time(client: &mut DuplexStream, begun: Instant) -> String {
    let read = answer(client, LAST_CHUNK).await;
    let lasted = begun.elapsed();
    assert!((GOOD - SLACK..GOOD + Duration::from_secs(30)).contains(&lasted), "{lasted:?}");
    read
}

#[tokio::test(start_paused = true)]
async fn streams_of_notices_end_with_the_credential_and_their_sessions_stay() {
    for keep_alive in [Duration::from_secs(15), Duration::from_secs(1_000), Duration::MAX] {
        let (engine, _) = engine().await;
        let config = config().keep_alive(keep_alive);
        let mut connections = connections(&engine, &config);
        let begun = Instant::now();
        let session = session_of_ann(&mut connections).await;
        let mut notices = say(&mut connections, PIPE, &authorized(&get(&session))).await;
        let mut listens = say(&mut connections, PIPE, &authorized(&listen())).await;
        read_until(&mut listens, "acknowledged").await;
        ends_in_time(&mut notices, begun).await;
        let read = ends_in_time(&mut listens, begun).await;
        assert!(!read.contains("\"result\""), "so the client listens again: {read}");
        assert_eq!(engine.http_sessions().len(), 1);
        // The connection is good for the next request.
        let text = authorized(&request("tools/call", "unknown", ""));
        notices.write_all(text.as_bytes()).await.unwrap();
        read_until(&mut notices, "unknown tool").await;
    }
}

async fn session_of_ann(connections: &mut Connections) -> String {
    session_with(connections, &format!("authorization: Bearer {SECRET}\r\n")).await
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_ends_in_time_too() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &config());
    let begun = Instant::now();
    let session = session_of_ann(&mut connections).await;
    let mut notices = say(&mut connections, PIPE, &authorized(&get(&session))).await;
    let tells = async {
        loop {
            engine.notify_all("test/told", json!({})).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };
    let read = tokio::select! {
        read = ends_in_time(&mut notices, begun) => read,
        () = tells => unreachable!(),
    };
    assert!(read.matches("test/told").count() > 500);
}

#[tokio::test(start_paused = true)]
async fn calls_go_on() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &config());
    let text = authorized(&request("tools/call", "hold", ""));
    let mut client = say(&mut connections, PIPE, &text).await;
    read_until(&mut client, "waiting").await;
    sleep(2 * GOOD).await;
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_come_back_all_at_once() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &config());
    let begun = Instant::now();
    let mut ends = Vec::new();
    for _ in 0..30 {
        let mut client = say(&mut connections, PIPE, &authorized(&listen())).await;
        ends.push(async move {
            ends_in_time(&mut client, begun).await;
            begun.elapsed().as_secs()
        });
    }
    let mut ends = futures::future::join_all(ends).await;
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 20, "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_something_else_serves_ends_in_time_too() {
    for keep_alive in [Duration::from_secs(15), Duration::MAX] {
        let (engine, _) = engine().await;
        let endpoint = Endpoint::new(engine, config().keep_alive(keep_alive));
        let text = authorized(&listen());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut request = http::Request::post("/mcp");
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let (head, body) = request.body(body.to_owned()).unwrap().into_parts();
        let begun = Instant::now();
        let response =
            handle(&endpoint, &mut Caller::new(&head, None), Upload::new(body, None)).await;
        assert_eq!(response.status(), 200);
        let mut body = std::pin::pin!(response.into_body().into_body(keep_alive, None));
        let mut read = String::new();
        let mut next = async || {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
            timeout(2 * GOOD, frame).await.expect("it ends")
        };
        while let Some(frame) = next().await {
            read.push_str(str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
        let lasted = begun.elapsed();
        assert!((GOOD - SLACK..GOOD + Duration::from_secs(30)).contains(&lasted), "{lasted:?}");
        assert!(read.contains("acknowledged") && !read.contains("\"result\""), "{read}");
        assert_eq!(read.contains("\n:\n"), keep_alive < GOOD);
    }
}
