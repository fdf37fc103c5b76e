//! `events/stream`: what comes on a stream, in which order, and how fast it may be read.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_events::{Emit, Events};
use support::{
    ACTIVE, EVENT, FAILED, HEARTBEAT, Job, Peer, TERMINATED, emit, engine, engine_with, jobs,
    server, until, without_replay,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_stream_is_active_then_replays_then_is_live() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&jobs, 1..=5).await;
    let (id, active) = client.opened(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((&active["cursor"], &active["truncated"]), (&cursor, &json!(false)));
    emit(&jobs, 6..=8).await;
    let mut cursors = vec![cursor];
    for number in 1..=8 {
        let (method, event) = client.next(id).await;
        assert_eq!(method, EVENT);
        assert_eq!(event["data"], json!({"number": number, "queue": "q"}));
        assert_eq!(event["name"], "job.done");
        assert!(event["eventId"].is_string() && event["timestamp"].is_string(), "{event}");
        assert_eq!(event.get("type"), None, "that would be a control body");
        cursors.push(event["cursor"].clone());
    }
    // Whoever comes back with any of the cursors hears the rest, by a stream and by polls.
    for (index, cursor) in cursors.iter().enumerate() {
        let params = json!({"name": "job.done", "cursor": cursor});
        let rest: Vec<u64> = (index as u64 + 1..=8).collect();
        assert_eq!(support::polled(&client.poll(params.clone()).await), rest);
        let (id, _) = client.opened(params).await;
        assert_eq!(client.numbers(id, rest.len()).await, rest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_cursor_begins_now() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    emit(&jobs, 1..=5).await;
    for params in [
        json!({"name": "job.done"}),
        json!({"name": "job.done", "cursor": null, "maxAgeMs": 3_600_000}),
    ] {
        let (id, active) = client.opened(params).await;
        assert!(active["cursor"].is_string() && active["truncated"] == false, "{active}");
        emit(&jobs, [6]).await;
        assert_eq!(client.numbers(id, 1).await, [6]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_position_is_told_in_the_first_message() {
    let jobs = jobs("job.done");
    let few = without_replay("few").replay(3, Duration::from_secs(3600));
    let engine = engine(&[&jobs, &few]).await;
    let mut client = Peer::stranger(&engine).await;
    let start = client.poll(json!({"name": "few"})).await["cursor"].take();
    emit(&few, 1..=5).await;
    let (id, active) = client.opened(json!({"name": "few", "cursor": start})).await;
    assert_eq!(active["truncated"], true);
    assert_eq!(client.numbers(id, 3).await, [3, 4, 5]);
    let (again, _) = client.opened(json!({"name": "few", "cursor": active["cursor"]})).await;
    assert_eq!(client.numbers(again, 3).await, [3, 4, 5], "the cursor is before them");

    emit(&jobs, 1..=2).await;
    let (id, active) = client.opened(json!({"name": "job.done", "cursor": "%%%"})).await;
    assert!(active["truncated"] == true && active["cursor"].is_string());
    emit(&jobs, [3]).await;
    assert_eq!(client.numbers(id, 1).await, [3]);
    let start = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&jobs, [4]).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    emit(&jobs, [5]).await;
    let young = json!({"name": "job.done", "cursor": start, "maxAgeMs": 5_000});
    let (id, active) = client.opened(young).await;
    assert_eq!(active["truncated"], true);
    assert_eq!(client.numbers(id, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_type_without_replay_has_no_cursor_in_any_message() {
    let plain = without_replay("plain");
    let engine = engine(&[&plain]).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, active) = client.opened(json!({"name": "plain", "cursor": "anything"})).await;
    assert_eq!((&active["cursor"], &active["truncated"]), (&Value::Null, &json!(false)));
    emit(&plain, [1]).await;
    let (method, event) = client.next(id).await;
    assert_eq!((method.as_str(), &event["cursor"]), (EVENT, &Value::Null));
    let (method, beat) = client.next_with_beats(id).await;
    assert_eq!((method.as_str(), beat.get("cursor")), (HEARTBEAT, Some(&Value::Null)));
}

#[tokio::test(start_paused = true)]
async fn each_message_names_its_request_as_the_client_wrote_it() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut raw = stentor_test::Client::builder(&engine).raw().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "t", "io.modelcontextprotocol/logLevel": "debug",
    });
    for id in [json!("7"), json!(7), json!("a b")] {
        raw.request(id.clone(), "events/stream", json!({"name": "job.done", "_meta": meta})).await;
        let active = raw.next().await.unwrap();
        assert_eq!(active["method"], ACTIVE);
        assert_eq!(active["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    }
    emit(&jobs, [1]).await;
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let event = raw.next().await.unwrap();
        assert_eq!(event["method"], EVENT);
        let meta = &event["params"]["_meta"];
        ids.insert(meta["io.modelcontextprotocol/subscriptionId"].to_string());
    }
    assert_eq!(ids, ["\"7\"", "\"a b\"", "7"].map(str::to_owned).into());
}

/// The times between the heartbeats of a stream, each with the cursor.
async fn beats(client: &mut Peer, id: i64, count: usize) -> Vec<(Duration, Value)> {
    let (mut beats, mut last) = (Vec::new(), Instant::now());
    while beats.len() < count {
        let (method, mut params) = client.next_with_beats(id).await;
        if method == HEARTBEAT {
            beats.push((last.elapsed(), params["cursor"].take()));
            last = Instant::now();
        } else {
            assert_eq!(method, EVENT);
        }
    }
    beats
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_on_quiet_and_on_busy_streams() {
    let (quiet, busy) = (jobs("quiet"), jobs("busy"));
    let engine = engine_with(&[&quiet, &busy], |it| it.heartbeat = Duration::from_secs(12)).await;
    let mut client = Peer::stranger(&engine).await;
    // One that opens between two beats waits no longer for its first one.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (id, active) = client.opened(json!({"name": "quiet"})).await;
    for (passed, cursor) in beats(&mut client, id, 5).await {
        assert!(passed <= Duration::from_millis(12_100), "{passed:?}");
        assert_eq!(cursor, active["cursor"], "nothing has happened");
    }
    let emitting = busy.clone();
    let busy_task = tokio::spawn(async move {
        for number in 1.. {
            emit(&emitting, [number]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (id, _) = client.opened(json!({"name": "busy", "arguments": {"queue": "none"}})).await;
    let mut before = Value::Null;
    for (passed, cursor) in beats(&mut client, id, 5).await {
        assert!(passed <= Duration::from_millis(12_100), "{passed:?}");
        assert_ne!(cursor, before, "it says how far the server has looked");
        let answer = client.poll(json!({"name": "busy", "cursor": cursor})).await;
        assert_eq!(answer["truncated"], false);
        before = cursor;
    }
    let (id, _) = client.opened(json!({"name": "busy"})).await;
    for (passed, _) in beats(&mut client, id, 5).await {
        assert!(passed <= Duration::from_millis(12_100), "{passed:?}");
    }
    busy_task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_a_cursor_from_the_future_is_not_silent() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    let (_, origin) = cursor.as_str().unwrap().split_once('.').unwrap();
    let params = json!({"name": "job.done", "cursor": format!("999.{origin}")});
    let (id, _) = client.opened(params).await;
    let (passed, _) = beats(&mut client, id, 1).await.remove(0);
    assert!(passed <= Duration::from_secs(30), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_with_different_arguments_hear_what_concerns_them() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let (mut one, mut other) = (Peer::stranger(&engine).await, Peer::named(&engine, "ann").await);
    let of = |queue: &str| json!({"name": "job.done", "arguments": {"queue": queue}});
    let (even, _) = one.opened(of("even")).await;
    let (odd, _) = one.opened(of("odd")).await;
    let (all, _) = one.opened(json!({"name": "job.done"})).await;
    let (even_too, _) = other.opened(of("even")).await;
    for number in 1..=6 {
        let queue = if number % 2 == 0 { "even" } else { "odd" };
        jobs.emit(Job::in_queue(number, queue)).await.unwrap();
    }
    assert_eq!(one.numbers(all, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(one.numbers(even, 3).await, [2, 4, 6]);
    assert_eq!(one.numbers(odd, 3).await, [1, 3, 5]);
    assert_eq!(other.numbers(even_too, 3).await, [2, 4, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_streams_hear_everything_in_order() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Peer::stranger(&engine).await;
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(client.opened(json!({"name": "job.done"})).await.0);
        }
        clients.push((client, ids));
    }
    emit(&jobs, 1..=30).await;
    for (client, ids) in &mut clients {
        for id in ids {
            assert_eq!(client.numbers(*id, 30).await, (1..=30).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_opens_as_soon_as_the_engine_has_started_hears_everything() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [1]).await;
    assert_eq!(client.numbers(id, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_opens_as_soon_as_its_type_exists_hears_everything() {
    let events = Events::new();
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    // The keeper is still busy with the others.
    let many: Vec<_> = (0..300).map(|number| jobs(&format!("type-{number}"))).collect();
    for event_type in &many {
        handle.add(event_type).await.unwrap();
    }
    let (mut id, active) = client.opened(json!({"name": "type-299"})).await;
    let params = json!({"name": "type-299", "cursor": active["cursor"]});
    emit(&many[299], [1]).await;
    // It may end, and then its client comes back.
    for _ in 0..100 {
        let (method, message) = client.next(id).await;
        if method == EVENT {
            assert_eq!(message["data"]["number"], 1);
            return;
        }
        assert_eq!(method, "result");
        id = client.opened(params.clone()).await.0;
    }
    panic!("it does not hear of it");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stream_hears_nothing_more() {
    let ended = Arc::new(Mutex::new(0));
    let count = ended.clone();
    let jobs = jobs("job.done").on_unsubscribe(move |_| {
        *count.lock() += 1;
        async {}
    });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let queue = |queue: &str| json!({"name": "job.done", "arguments": {"queue": queue}});
    let (cancelled, _) = client.opened(queue("q")).await;
    let (mark, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [1]).await;
    assert_eq!(client.numbers(cancelled, 1).await, [1]);
    client.cancel(cancelled).await;
    until("on_unsubscribe runs", || *ended.lock() == 1).await;
    emit(&jobs, [2, 3]).await;
    assert_eq!(client.numbers(mark, 3).await, [1, 2, 3]);
    let of_it =
        |it: &&Value| it["params"]["_meta"].to_string().contains(&format!(":{cancelled}}}"));
    assert_eq!(client.unread().filter(of_it).count(), 0);
    assert_eq!(*ended.lock(), 1, "the other one is still there");
}

#[tokio::test(start_paused = true)]
async fn a_stream_counts_as_no_call() {
    let jobs = jobs("job.done");
    let events = Events::new().add(&jobs);
    let engine = server().extension(events).configure(|config| {
        config.calls.timeout = Some(Duration::from_secs(1));
        config.sessions.max_requests = 2;
    });
    let engine = engine.start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.opened(json!({"name": "job.done"})).await.0);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(client.list(json!({})).await["events"][0]["name"], "job.done");
    emit(&jobs, [1]).await;
    for id in ids {
        assert_eq!(client.numbers(id, 1).await, [1]);
    }
}

/// What a stream has brought to who has read nothing for a while.
#[derive(Debug, Default)]
struct Heard {
    numbers: Vec<u64>,
    /// How many occurrences came before each gap.
    gaps: Vec<usize>,
    bytes_before_gap: usize,
}

async fn hear_up_to(client: &mut Peer, id: i64, last: u64) -> Heard {
    let mut heard = Heard::default();
    loop {
        let (method, params) = client.next(id).await;
        if heard.gaps.is_empty() {
            heard.bytes_before_gap += params.to_string().len();
        }
        match method.as_str() {
            EVENT => heard.numbers.push(params["data"]["number"].as_u64().unwrap()),
            ACTIVE => {
                assert_eq!(params["truncated"], true);
                heard.gaps.push(heard.numbers.len());
            }
            other => panic!("{other} {params}"),
        }
        if heard.numbers.last() == Some(&last) {
            return heard;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_of_a_gap_and_goes_on() {
    const LIMIT: usize = 20_000;
    for replays in [true, false] {
        let plain = without_replay("job.done");
        let jobs = if replays { plain.replay(50, Duration::from_secs(3600)) } else { plain };
        let events = Events::new().add(&jobs);
        let engine = server().extension(events).configure(|config| config.limits.bytes = LIMIT);
        let engine = engine.start().await.unwrap();
        let (mut slow, mut quick) = (Peer::stranger(&engine).await, Peer::stranger(&engine).await);
        let (id, _) = slow.opened(json!({"name": "job.done"})).await;
        let (mark, _) = quick.opened(json!({"name": "job.done"})).await;
        let all = 3_000;
        for number in 1..=all {
            jobs.emit(Job::in_queue(number, &"x".repeat(1_000))).await.unwrap();
            // The slow one does not slow down the other.
            assert_eq!(quick.numbers(mark, 1).await, [number]);
        }
        let heard = hear_up_to(&mut slow, id, all).await;
        let [gap] = heard.gaps[..] else { panic!("{replays}: {:?}", heard.gaps) };
        let (before, after) = heard.numbers.split_at(gap);
        assert_eq!(before, (1..=gap as u64).collect::<Vec<_>>());
        assert!(heard.bytes_before_gap < 3 * LIMIT, "so much has waited: {heard:?}");
        let first = all + 1 - after.len() as u64;
        assert_eq!(after, (first..=all).collect::<Vec<_>>());
        assert!(after.len() >= 50, "all that was kept: {}", after.len());
        emit(&jobs, [5_001, 5_002]).await;
        assert_eq!(slow.numbers(id, 2).await, [5_001, 5_002], "it keeps up again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_for_a_while_misses_nothing_that_is_kept() {
    let jobs = without_replay("job.done").replay(5_000, Duration::from_secs(3600));
    let events = Events::new().add(&jobs);
    let engine = server().extension(events).configure(|config| config.limits.bytes = 10_000);
    let engine = engine.start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    let (other, _) = client.opened(json!({"name": "job.done", "arguments": {"queue": "q"}})).await;
    emit(&jobs, 1..=2_000).await;
    assert_eq!(client.numbers(id, 2_000).await, (1..=2_000).collect::<Vec<_>>());
    assert_eq!(client.numbers(other, 2_000).await, (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn failures_and_gaps_are_told_and_the_stream_goes_on() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, active) = client.opened(json!({"name": "job.done"})).await;
    jobs.report_failure("the queue is out of reach");
    let (method, failed) = client.next(id).await;
    assert_eq!((method.as_str(), &failed["error"]["code"]), (FAILED, &json!(-32603)));
    assert_eq!(failed["error"]["message"], "the queue is out of reach");
    jobs.report_gap();
    let (method, gap) = client.next(id).await;
    assert_eq!((method.as_str(), &gap["truncated"]), (ACTIVE, &json!(true)));
    assert_eq!(gap["cursor"], active["cursor"]);
    emit(&jobs, [1]).await;
    assert_eq!(client.numbers(id, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn one_stream_alone_hears_what_is_for_it_only() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let seen = ids.clone();
    let jobs = jobs("job.done").allow(move |subscriber, _| {
        seen.lock().extend(subscriber.id().map(str::to_owned));
        true
    });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (one, _) = client.opened(json!({"name": "job.done"})).await;
    let (other, _) = client.opened(json!({"name": "job.done", "arguments": {"queue": "z"}})).await;
    let chosen = ids.lock()[1].clone();
    assert_ne!(chosen, ids.lock()[0]);
    jobs.emit_as(Emit::new(Job::in_queue(1, "q")).only_for(chosen)).await.unwrap();
    jobs.emit(Job::in_queue(2, "z")).await.unwrap();
    assert_eq!(client.numbers(other, 2).await, [1, 2], "its arguments are not asked");
    assert_eq!(client.numbers(one, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_authors_function_ends_no_stream() {
    let jobs = jobs("job.done").matches(|filter, job| {
        assert!(job.number != 2 || filter.queue.is_none(), "a bug");
        true
    });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (trapped, _) =
        client.opened(json!({"name": "job.done", "arguments": {"queue": "q"}})).await;
    let (well, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, 1..=3).await;
    assert_eq!(client.numbers(trapped, 2).await, [1, 3]);
    assert_eq!(client.numbers(well, 3).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_opens_nothing() {
    let begun = Arc::new(Mutex::new(0));
    let count = begun.clone();
    let jobs = jobs("job.done").allow(|_, filter| filter.queue.is_none()).on_subscribe(move |_| {
        *count.lock() += 1;
        async {}
    });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let id = client.stream(json!({"name": "job.done", "arguments": {"queue": "q"}})).await;
    let (kind, error) = client.next(id).await;
    assert_eq!((kind.as_str(), &error["code"]), ("refused", &json!(-32012)));
    emit(&jobs, [1]).await;
    let (mark, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [2]).await;
    assert_eq!(client.numbers(mark, 1).await, [2]);
    assert!(!client.unread().any(|it| it["method"] == EVENT || it["method"] == TERMINATED));
    assert_eq!(*begun.lock(), 1, "of the second one");
}
