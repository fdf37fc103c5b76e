//! Clients that do not read.

use std::time::Duration;

use serde_json::{Value, json};
use stentor_tests::{
    Call, Client, Lane, MARK, META_CAPABILITIES, META_LOG_LEVEL, META_VERSION, MODERN_VERSION,
    RawPipe, Server, eventually, soon,
};

/// More messages than all buffers between the server and a client can hold.
const FLOOD: u32 = 30_000;

/// A modern call of `flood`.
fn flood() -> Value {
    let meta = json!({
        META_VERSION: MODERN_VERSION, META_CAPABILITIES: {}, META_LOG_LEVEL: "info",
    });
    json!({"name": "flood", "arguments": {"n": FLOOD}, "_meta": meta})
}

/// Checks the messages that a slow client finally reads: in order, with gaps, ending with the
/// newest, and the response last. Returns the number of messages.
fn check_flood(messages: &[Value]) -> u64 {
    let (response, logs) = messages.split_last().expect("messages");
    assert_eq!(response["result"]["content"][0]["text"], "flooded");
    let number = |log: &Value, key| log["params"]["data"][key].as_u64();
    let numbers: Vec<_> = logs.iter().filter_map(|log| number(log, "n")).collect();
    let told: u64 = logs.iter().filter_map(|log| number(log, "dropped")).sum();
    assert_eq!(numbers.len() as u64 + told, u64::from(FLOOD), "the client is told how many");
    assert!(numbers.is_sorted_by(|a, b| a < b));
    // The oldest messages were dropped: the newest hundred are left.
    let newest = u64::from(FLOOD) - 99..=u64::from(FLOOD);
    assert!(numbers.ends_with(&newest.collect::<Vec<_>>()));
    assert!(numbers.len() < FLOOD as usize, "it was more than the buffers hold");
    numbers.len() as u64
}

/// Waits until the flood has ended, and checks that other clients are served meanwhile.
async fn serve_others(server: &Server) {
    let other = Client::connect(server, Lane::STDIO_LEGACY).await;
    let mut notices = other.hear(&[]).await;
    eventually("the flood to be over", async || {
        assert_eq!(other.call("echo", json!({"text": "hello"})).await.text(), "hello");
        server.engine.observe().await.expect("the engine runs").running_calls == 0
    })
    .await;
    other.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["tools/list_changed"]);
}

/// Floods a pipe that nobody reads, and returns the messages that are left to read.
async fn flooded_pipe(server: &Server) -> Vec<Value> {
    let mut pipe = RawPipe::sized(server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(server).await;
    let mut messages = Vec::new();
    while messages.last().is_none_or(|last: &Value| last.get("method").is_some()) {
        messages.push(pipe.next().await.expect("another message"));
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_loses_messages_but_not_the_result() {
    let server = Server::start().await;
    check_flood(&flooded_pipe(&server).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_that_is_lost_is_counted() {
    let server = Server::start().await;
    let received = check_flood(&flooded_pipe(&server).await);
    let lost = server.activity().await.lost_logs;
    assert_eq!(received + lost, u64::from(FLOOD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_of_a_pipe_that_nobody_reads_is_bounded() {
    let server = Server::start().await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(&server).await;
    let limit = stentor::config::Config::default().limits.frames + 1;
    let sessions = server.activity().await.sessions;
    let unread = sessions.iter().map(|session| session.unread).max().expect("sessions");
    assert!(unread <= limit, "{unread} messages wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_loses_messages_but_not_the_result() {
    let server = Server::start().await;
    let call = Call::modern(&json!(1), "tools/call", flood());
    let mut reply = call.send(server.address).await;
    serve_others(&server).await;
    let mut messages = Vec::new();
    while let Some(message) = reply.message().await {
        messages.push(message);
    }
    check_flood(&messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_reads_one_of_its_streams_too_slowly_is_served_on_the_others() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let stalled = client.start("flood", json!({"n": FLOOD})).await;
    serve_others(&server).await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await.text(), "hello");
    assert_eq!(notices.heard().await, "tools/list_changed");
    assert_eq!(notices.heard().await, format!("resources/updated {MARK}"));
    assert_eq!(stalled.answer().await.text(), "flooded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_hold_up_a_shutdown() {
    let mut server = Server::start().await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    let _stalled = Call::modern(&json!(1), "tools/call", flood()).send(server.address).await;
    serve_others(&server).await;
    server.begin_shutdown().await;
    soon("the engine to stop", server.engine.shutdown()).await;
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_any_more_ends_with_its_input() {
    let server = Server::tuned(|config, _| config.drain_timeout = Duration::from_millis(50)).await;
    let mut pipe = RawPipe::sized(&server, 4_096);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": flood()});
    pipe.line(call.to_string()).await;
    serve_others(&server).await;
    pipe.close().await;
    // The client keeps its reading end open meanwhile.
    let _ = pipe.served().await;
}
