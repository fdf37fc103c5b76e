//! Behaviour that depends on time, with paused time.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use stentor_engine::transport_api::{HttpSession, RequestSender};
use stentor_engine::{Context, tool};
use stentor_test::{Client, Notice, assert_silent};
use support::{engine, modern_meta};
use tokio::time::{Instant, sleep};

fn named(name: &str) -> stentor_engine::Tool {
    tool(name, || async { "" })
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_announced_at_once_and_the_rest_of_the_window_together() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let mut notices = client.notices().await;
    let began = Instant::now();
    engine.catalog().add(named("first")).await.unwrap();
    assert_eq!(notices.next().await, Notice::ToolsChanged);
    assert_eq!(began.elapsed(), Duration::ZERO);
    for n in 0..200 {
        engine.catalog().add(named(&format!("t{n}"))).await.unwrap();
    }
    assert_eq!(notices.next().await, Notice::ToolsChanged);
    assert!(began.elapsed() >= engine_window() && began.elapsed() < 3 * engine_window());
    assert_silent(&mut notices).await;
}

#[tokio::test(start_paused = true)]
async fn changes_that_do_not_follow_closely_do_not_wait() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let mut notices = client.notices().await;
    for n in 0..20 {
        let began = Instant::now();
        engine.catalog().add(named(&format!("t{n}"))).await.unwrap();
        assert_eq!(notices.next().await, Notice::ToolsChanged);
        assert_eq!(began.elapsed(), Duration::ZERO);
        sleep(Duration::from_millis(1)).await;
    }
    assert_silent(&mut notices).await;
}

fn engine_window() -> Duration {
    stentor_engine::Config::default().registry.coalesce_window
}

#[tokio::test(start_paused = true)]
async fn a_million_announcements_of_a_tool_are_a_few_notices() {
    let engine = engine()
        .tool(tool("burst", |ctx: Context| async move {
            for _ in 0..1_000_000 {
                ctx.send_tool_list_changed();
                ctx.send_resource_updated("a://1");
            }
            "done"
        }))
        .start()
        .await
        .unwrap();
    let client = Client::legacy(&engine).await;
    let mut notices = client.notices().await;
    client.call_tool("burst", ()).await.unwrap();
    let told = notices.settled().await.len();
    assert!((1..=4).contains(&told), "{told} notices");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_calls_end_and_answers_waiting_requests() {
    let engine = engine()
        .tool(tool("second", || async {
            sleep(Duration::from_secs(1)).await;
            "done"
        }))
        .start()
        .await
        .unwrap();
    let mut client = support::Client::legacy(&engine).await;
    client.call(1, "second").await;
    client
        .send(json!({"jsonrpc": "2.0", "id": "L", "method": "subscriptions/listen", "params": {
            "_meta": modern_meta(), "notifications": {"toolsListChanged": true},
        }}))
        .await;
    let acknowledged = "notifications/subscriptions/acknowledged";
    assert_eq!(client.next().await.unwrap()["method"], acknowledged);
    let began = Instant::now();
    let ending = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown().await }
    });
    let (ended, _) = client.answer("L").await;
    assert_eq!(ended["result"]["resultType"], "complete");
    let (done, _) = client.answer(1).await;
    assert_eq!(done["result"]["content"][0]["text"], "done");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(client.next().await, None);
    ending.await.unwrap();
    assert!(engine.open_pipe().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlasts_the_drain_time_is_answered_with_an_error() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let call = client.start_tool("wait", ());
    client.settle().await;
    let began = Instant::now();
    engine.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(12));
    assert_eq!(call.reply().await.unwrap_err().message, "the server is shutting down");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_gets_one_more_turn_and_no_answer() {
    let told = Arc::new(AtomicBool::new(false));
    let says = told.clone();
    let notices = tool("notices", move |ctx: Context| {
        let says = says.clone();
        async move {
            ctx.cancelled().await;
            says.store(true, Ordering::Relaxed);
            "too late"
        }
    });
    let engine = engine().tool(notices).start().await.unwrap();
    let mut client = support::Client::legacy(&engine).await;
    for (id, tool) in [(1, "notices"), (2, "wait")] {
        client.call(id, tool).await;
        client
            .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {
                "requestId": id, "reason": "enough",
            }}))
            .await;
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(client.ping().await, Vec::<serde_json::Value>::new());
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
    assert!(told.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_ended() {
    let engine = engine()
        .configure(|config| config.calls.timeout = Some(Duration::from_secs(30)))
        .start()
        .await
        .unwrap();
    let client = Client::legacy(&engine).await;
    let began = Instant::now();
    let error = client.call_tool("wait", ()).await.unwrap_err();
    assert_eq!(error.message, "the call took too long");
    assert_eq!(began.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn an_idle_http_session_ends_and_an_open_stream_keeps_it() {
    let engine = engine()
        .configure(|config| config.sessions.idle_timeout = Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let (left, kept) = (open(&engine).await, open(&engine).await);
    let reading = kept.attach().await.unwrap();
    sleep(Duration::from_secs(200)).await;
    assert!(engine.http_session(left.id().as_str(), &RequestSender::default()).await.is_err());
    let is_there = || engine.sessions().iter().any(|session| session.id == *kept.id());
    // After a long stream, a client that loses its connection has the same time to return.
    drop(reading);
    sleep(Duration::from_secs(58)).await;
    assert!(is_there(), "its client may come back");
    sleep(Duration::from_secs(4)).await;
    assert!(!is_there());
    assert!(engine.http_session(kept.id().as_str(), &RequestSender::default()).await.is_err());
}

async fn open(engine: &stentor_engine::Engine) -> stentor_engine::transport_api::HttpSession {
    engine.open_http_session(RequestSender::default()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_the_last_few_abandoned_sessions_are_kept() {
    let engine =
        engine().configure(|config| config.sessions.max_unused_sessions = 2).start().await.unwrap();
    let initialize = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let mut sessions = Vec::new();
    for n in 0..6 {
        let session = engine.open_http_session(RequestSender::default()).await.unwrap();
        http::ask(&session, "initialize", initialize.clone()).await;
        sessions.push(session);
        sleep(Duration::from_millis(100 * n)).await;
        match n {
            // A client that listened for a while, and disconnected.
            0 => {
                let listening = sessions[0].attach().await.unwrap();
                sleep(Duration::from_secs(3)).await;
                drop(listening);
            }
            1 => http::ask(&sessions[1], "tools/list", json!({})).await,
            _ => {}
        }
    }
    sleep(Duration::from_secs(10)).await;
    let kept = engine.http_sessions();
    let left = sessions.iter().map(HttpSession::id).filter(|id| kept.contains(id));
    let left: Vec<_> = left.collect();
    let expected: Vec<_> = [0, 1, 4, 5].iter().map(|n| sessions[*n].id()).collect();
    assert_eq!(left, expected, "those that were used and the last two");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_disconnected_clients_are_evicted_at_once() {
    let engine =
        engine().configure(|config| config.sessions.max_left_sessions = 2).start().await.unwrap();
    let mut sessions = Vec::new();
    let begun = tokio::time::Instant::now();
    for _ in 0..4 {
        let session = open(&engine).await;
        drop(session.attach().await.unwrap());
        sessions.push(session);
    }
    // A session whose client returns, even only to listen, is not ended for others.
    let reading = sessions[2].attach().await.unwrap();
    for _ in 0..2 {
        let session = open(&engine).await;
        drop(session.attach().await.unwrap());
        sessions.push(session);
    }
    let stranger = RequestSender::default();
    let found = |n: usize| engine.http_session(sessions[n].id().as_str(), &stranger);
    let mut kept = Vec::new();
    for n in 0..sessions.len() {
        kept.push(found(n).await.is_ok());
    }
    assert_eq!(kept, [false, false, true, false, true, true]);
    assert_eq!(begun.elapsed(), Duration::ZERO, "before any sweep");
    drop(reading);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_returns_with_a_request_evicts_no_other() {
    let engine =
        engine().configure(|config| config.sessions.max_left_sessions = 2).start().await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..6 {
        let session = open(&engine).await;
        drop(session.attach().await.unwrap());
        // The clients of the first and the last session never return.
        if (1..5).contains(&n) {
            http::ask(&session, "ping", json!({})).await;
        }
        sessions.push(session);
    }
    for session in &sessions {
        assert!(
            engine.http_session(session.id().as_str(), &RequestSender::default()).await.is_ok()
        );
    }
}

mod http {
    use bytes::Bytes;
    use stentor_wire::Message;

    use super::{HttpSession, json};

    /// Sends a request and reads its answer.
    pub(super) async fn ask(session: &HttpSession, method: &str, params: serde_json::Value) {
        let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text.to_string())) else {
            panic!("no request: {text}");
        };
        let mut receiver = session.request(request).await.unwrap();
        let mut batch = Vec::new();
        assert!(receiver.next(&mut batch).await);
    }
}
