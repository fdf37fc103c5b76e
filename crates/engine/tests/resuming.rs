//! Legacy clients that lose their connection and resume.

mod support;

use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::transport_api::HttpSession;
use stentor_engine::{Context, Engine, EngineEvent, Seq, StreamId, tool};
use support::{http_session, request};
use tokio::time::sleep;

const LINES: u64 = 10_000;

async fn engine() -> Engine {
    Engine::builder("test", "1")
        .tool(tool("lines", |ctx: Context| async move {
            for line in 0..LINES {
                ctx.info(line);
                tokio::task::yield_now().await;
            }
            "done"
        }))
        .tool(tool("poll", |ctx: Context| async move {
            ctx.info("before");
            ctx.close_stream();
            sleep(Duration::from_secs(1)).await;
            ctx.info("meanwhile");
            "done"
        }))
        .start()
        .await
        .unwrap()
}

async fn call(session: &HttpSession, tool: &str) -> StreamReceiver {
    let receiver = session.request(request(1, "tools/call", json!({"name": tool}))).await.unwrap();
    session.keep(&receiver, &[]);
    receiver
}

async fn read(receiver: &mut StreamReceiver) -> Vec<(Seq, Value)> {
    let mut batch = Vec::new();
    receiver.next(&mut batch).await;
    let message = |stentor_delivery::Delivered { seq, frame, .. }| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        (seq, serde_json::from_slice(&out).expect("JSON"))
    };
    batch.into_iter().map(message).collect()
}

/// A client that loses its connection a thousand times, each time after it has read only a part of
/// what was sent, gets each line once and in order, and the result.
#[tokio::test]
async fn a_client_that_comes_back_a_thousand_times_misses_nothing_and_hears_nothing_twice() {
    let engine = engine().await;
    let session = http_session(&engine).await;
    let mut receiver = call(&session, "lines").await;
    let stream = receiver.stream_id();
    let (mut seen, mut next, mut drops, mut seed) = (Vec::new(), Seq(0), 0, 7_u64);
    'call: loop {
        let frames = read(&mut receiver).await;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let lost_after = (seed >> 33) as usize % 20;
        for (seq, message) in frames.into_iter().take(lost_after) {
            assert_eq!(seq, next, "a gap or a repeat");
            next = Seq(seq.0 + 1);
            match message.get("id") {
                Some(_) => break 'call,
                None => seen.push(message["params"]["data"].as_u64().unwrap()),
            }
        }
        drop(receiver);
        drops += 1;
        receiver = session.resume(stream, next).await.unwrap();
    }
    assert_eq!(seen, (0..LINES).collect::<Vec<_>>());
    assert!(drops >= 500, "{drops} drops");
    assert_eq!(engine.counters().dropped(stentor_delivery::policy::Class::Log), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_closed_by_the_server_resumes_where_it_stopped() {
    let engine = engine().await;
    let session = http_session(&engine).await;
    let mut receiver = call(&session, "poll").await;
    let mut before = Vec::new();
    loop {
        let frames = read(&mut receiver).await;
        if frames.is_empty() {
            break;
        }
        before.extend(frames);
    }
    assert!(before.len() <= 1, "the rest comes later: {before:?}");
    let next = before.last().map_or(Seq(0), |(seq, _)| Seq(seq.0 + 1));
    let mut receiver = session.resume(receiver.stream_id(), next).await.unwrap();
    let mut after = Vec::new();
    while after.last().is_none_or(|(_, message): &(Seq, Value)| message.get("id").is_none()) {
        after.extend(read(&mut receiver).await);
    }
    let said: Vec<_> =
        before.iter().chain(&after).map(|(_, m)| m["params"]["data"].clone()).collect();
    assert_eq!(said[..2], [json!("before"), json!("meanwhile")]);
    assert_eq!(after.last().unwrap().1["result"]["content"][0]["text"], "done");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resumes_too_late_is_notified_that_all_lists_changed() {
    let engine = engine().await;
    let session = http_session(&engine).await;
    let mut receiver = session.resume(StreamId(77), Seq(5)).await.unwrap();
    assert_eq!(read(&mut receiver).await.len(), 3);
    // A client that reconnects without an event id while its old connection still seems open.
    let mut second = session.attach().await.unwrap();
    assert_eq!(read(&mut receiver).await, [], "it is taken over");
    assert_eq!(read(&mut second).await.len(), 3);
    engine.send_tool_list_changed();
    assert_eq!(read(&mut second).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_missed_too_much_still_gets_the_result() {
    let engine = engine().await;
    let session = http_session(&engine).await;
    let mut receiver = call(&session, "lines").await;
    let stream = receiver.stream_id();
    while !read(&mut receiver).await.is_empty() {}
    let mut receiver = session.resume(stream, Seq(1)).await.unwrap();
    let (mut rest, mut some) = (Vec::new(), read(&mut receiver).await);
    while !some.is_empty() {
        rest.extend(some);
        some = read(&mut receiver).await;
    }
    assert!(rest[0].0 > Seq(1), "the beginning is gone");
    assert_eq!(rest.last().unwrap().1["result"]["content"][0]["text"], "done");
    let mut notices = session.attach().await.unwrap();
    assert_eq!(read(&mut notices).await.len(), 3, "all lists are told as changed");
}

#[tokio::test(start_paused = true)]
async fn replay_never_crosses_sessions() {
    let engine = engine().await;
    let (ann, bob) = (http_session(&engine).await, http_session(&engine).await);
    let mut receiver = call(&ann, "poll").await;
    while !read(&mut receiver).await.is_empty() {}
    sleep(Duration::from_secs(2)).await;
    let mut stolen = bob.resume(receiver.stream_id(), Seq(0)).await.unwrap();
    let heard = read(&mut stolen).await;
    assert!(
        heard.iter().all(|(_, m)| m["method"].as_str().unwrap().ends_with("list_changed")),
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_closed_and_replayed_on_return() {
    let engine = Engine::builder("test", "1")
        .configure(|config| config.stall_timeout = Duration::from_secs(20))
        .start()
        .await
        .unwrap();
    let mut events = engine.events(64);
    let session = http_session(&engine).await;
    let mut keeps_up = http_session(&engine).await.attach().await.unwrap();
    let mut receiver = session.attach().await.unwrap();
    engine.send_prompt_list_changed();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(read(&mut keeps_up).await.len(), 1);
    assert_eq!(read(&mut receiver).await.len(), 1, "late, but there");
    engine.send_tool_list_changed();
    assert_eq!(read(&mut keeps_up).await.len(), 1);
    sleep(Duration::from_secs(25)).await;
    assert!(read(&mut receiver).await.is_empty(), "its stream was closed");
    assert_eq!(engine.counters().closed, 1);
    let closed = loop {
        match events.next().await {
            Some(EngineEvent::StreamsClosed { session, count }) => break (session, count),
            Some(_) => {}
            None => panic!("the engine runs"),
        }
    };
    assert_eq!(closed, (Some(session.id().clone()), 1));
    let mut back = session.resume(StreamId::STANDALONE, Seq(1)).await.unwrap();
    let told = read(&mut back).await;
    assert_eq!(told[0].1["method"], "notifications/tools/list_changed");
    engine.send_resource_list_changed();
    assert_eq!(read(&mut keeps_up).await.len(), 1, "nobody else was closed");
}
