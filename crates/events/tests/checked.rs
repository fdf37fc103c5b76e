//! Types whose author asks an upstream that has cursors of its own: what polls and streams get.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use stentor_events::{Checked, EmitError, Events, EventsConfig, Mode, event_type};
use support::{EVENT, FAILED, HEARTBEAT, Job, Peer, engine_with, polled, server};
use tokio::time::{Instant, sleep};
use upstream::{Mood, Upstream, ids, now, of, since};

#[tokio::test(start_paused = true)]
async fn a_poll_without_a_cursor_gets_the_position_of_now() {
    let upstream = Upstream::default();
    upstream.happens(1..=3);
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::named(&engine, "ann").await;
    let list = client.list(json!({})).await;
    assert_eq!(list["events"][0]["delivery"], json!(["poll", "push"]));
    for params in [now(), json!({"name": "job.done", "cursor": null, "maxAgeMs": 1})] {
        let answer = client.poll(params).await;
        assert_eq!((&answer["events"], &answer["cursor"]), (&json!([]), &json!("#3")));
        assert_eq!((&answer["truncated"], &answer["hasMore"]), (&json!(false), &json!(false)));
        assert_eq!(answer["nextPollMs"], 30_000);
    }
    assert_eq!(upstream.cursors(), [None, None]);
    let call = upstream.calls().remove(0);
    assert_eq!((call.principal.as_deref(), call.mode), (Some("ann"), Some(Mode::Poll)));
}

#[tokio::test(start_paused = true)]
async fn a_poll_passes_the_cursor_on_and_returns_what_the_upstream_says() {
    let upstream = Upstream::default();
    let jobs = upstream.jobs();
    let engine = of(&jobs).await;
    let mut client = Peer::stranger(&engine).await;
    upstream.happens(1..=3);
    let answer = client.poll(since("#1")).await;
    assert_eq!((ids(&answer), &answer["cursor"]), (vec!["up-2", "up-3"], &json!("#3")));
    assert_eq!(answer["events"][0]["data"], json!({"number": 2, "queue": "q"}));
    assert_eq!((&answer["truncated"], &answer["hasMore"]), (&json!(false), &json!(false)));
    assert_eq!(client.poll(since("#1")).await, answer, "a poll changes nothing");
    assert_eq!(upstream.cursors(), vec![Some("#1".to_owned()); 2]);
    // What the upstream does not know is its business; what is too long does not come to it.
    for lost in ["nonsense", "~x y", "~", &"x".repeat(20_000), ""] {
        let answer = client.poll(since(lost)).await;
        assert_eq!((ids(&answer), &answer["cursor"]), (vec![], &json!("#3")), "{lost:.9}");
        assert_eq!(answer["truncated"], true, "{lost:.9}");
    }
    assert_eq!(upstream.calls().last().unwrap().cursor, None);
    let emitted = jobs.emit(Job::in_queue(9, "q")).await;
    assert_eq!(emitted, Err(EmitError::Checked("job.done".into())));
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_size_join_without_a_seam() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    upstream.happens(1..=30);
    for (size, page) in [(1, 0), (7, 0), (7, 10), (100, 4), (100, 0)] {
        upstream.0.lock().page = page;
        let (mut cursor, mut numbers) = ("#0".to_owned(), Vec::new());
        loop {
            let params = json!({"name": "job.done", "cursor": cursor, "maxEvents": size});
            let answer = client.poll(params).await;
            assert!(ids(&answer).len() <= size && answer["truncated"] == false);
            numbers.extend(polled(&answer));
            cursor = answer["cursor"].as_str().unwrap().to_owned();
            assert_eq!(answer["hasMore"], numbers.len() < 30, "{size} of {page}");
            if answer["hasMore"] == false {
                break;
            }
        }
        assert_eq!((numbers, &*cursor), ((1..=30).collect(), "#30"), "{size} of {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_there_is_room_for_comes_in_parts_by_poll_and_by_push() {
    let upstream = Upstream::default();
    let small = |it: &mut EventsConfig| it.max_poll_bytes = 1_000;
    let engine = engine_with(&[&upstream.jobs()], small).await;
    let mut client = Peer::stranger(&engine).await;
    for number in 1..=4 {
        upstream.has(Duration::ZERO, Job::in_queue(number, &"x".repeat(600)));
    }
    let first = client.poll(since("#0")).await;
    assert_eq!((polled(&first), &first["hasMore"]), (vec![1, 2], &json!(true)));
    let cursor = first["cursor"].as_str().unwrap();
    let rest = client.poll(since(cursor)).await;
    assert_eq!((polled(&rest), &rest["hasMore"]), (vec![3, 4], &json!(false)));
    assert_eq!(rest["cursor"], "#4");
    let (id, _) = client.opened(since(cursor)).await;
    assert_eq!(client.numbers(id, 2).await, [3, 4]);
    let (id, _) = client.opened(since("#0")).await;
    assert_eq!(client.numbers(id, 4).await, [1, 2, 3, 4]);
    // Very many come, too, however fast they are read.
    let many = Upstream::default();
    many.happens(1..=2_500);
    let engine = of(&many.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(since("#0")).await;
    let mut heard = 0;
    while heard < 2_500 {
        let (method, event) = client.next(id).await;
        if method == EVENT {
            let number = event["data"]["number"].as_u64().unwrap();
            assert!(number > heard, "in order");
            heard = number;
        } else {
            assert_eq!(event["truncated"], true, "a loss is told");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_an_error_of_a_poll_with_the_text_of_the_author() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs().check_limit(Duration::from_secs(7))).await;
    let mut client = Peer::stranger(&engine).await;
    let source = "the source of these events";
    for (mood, text) in [
        (Mood::Fails, "the tracker is away".to_owned()),
        (Mood::Panics, format!("{source} failed")),
        (Mood::Hangs, format!("{source} is too slow")),
    ] {
        upstream.is(mood);
        let began = Instant::now();
        let error = client.ask("events/poll", now()).await.unwrap_err();
        assert_eq!((&error["code"], &error["message"]), (&json!(-32603), &json!(text)));
        let limit = if mood == Mood::Hangs { 7 } else { 0 };
        assert_eq!(began.elapsed().as_secs(), limit);
        // So does a stream that opens now.
        let error = client.ask("events/stream", now()).await.unwrap_err();
        assert_eq!(error["code"], -32603);
    }
    upstream.is(Mood::Well);
    client.poll(now()).await;
    client.opened(now()).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_author_gives_wrongly_is_left_out_and_told() {
    let check = |_: Arc<()>, cursor: Option<String>| async move {
        let job = |number| Job::in_queue(number, "q");
        let at = SystemTime::now();
        let large = Job::in_queue(3, &"x".repeat(2_000));
        Ok(match cursor.as_deref() {
            Some("long") => Checked::new("x".repeat(20_000)),
            Some("none") => Checked::new(""),
            _ => {
                let some = Checked::new("end").event("1", at, job(1)).event("no id", at, job(2));
                some.event("3", at, large).event("4", at, job(4))
            }
        })
    };
    let jobs = event_type::<(), Job>("job.done").check_shared(check);
    let events = Events::new().add(&jobs).configure(|it| it.max_payload = 1_000);
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let answer = client.poll(since("some")).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![1, 4], &json!(true)));
    for cursor in ["long", "none"] {
        let error = client.ask("events/poll", since(cursor)).await.unwrap_err();
        assert_eq!(error["code"], -32603, "a client could not come back with it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_hears_what_happens_and_how_far_the_server_has_looked() {
    let upstream = Upstream::default();
    upstream.happens(1..=2);
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::named(&engine, "ann").await;
    let (id, active) = client.opened(now()).await;
    assert_eq!((&active["cursor"], &active["truncated"]), (&json!("#2"), &json!(false)));
    upstream.happens(3..=4);
    let mut cursors = Vec::new();
    for number in 3..=4 {
        let (method, event) = client.next(id).await;
        assert_eq!((method.as_str(), &event["data"]["number"]), (EVENT, &json!(number)));
        assert_eq!(event["eventId"], format!("up-{number}"));
        cursors.push(event["cursor"].as_str().unwrap().to_owned());
    }
    assert_eq!(cursors[1], "#4");
    // Both are good for a poll and for a stream.
    for (cursor, rest) in cursors.iter().zip([vec![4], vec![]]) {
        assert_eq!(polled(&client.poll(since(cursor)).await), rest);
        let (id, active) = client.opened(since(cursor)).await;
        assert_eq!(active["cursor"], **cursor);
        assert_eq!(client.numbers(id, rest.len()).await, rest);
    }
    let (method, beat) = client.next_with_beats(id).await;
    assert_eq!((method.as_str(), &beat["cursor"]), (HEARTBEAT, &json!("#4")));
    let calls = upstream.calls();
    let own: Vec<_> = calls.iter().filter(|it| it.mode != Some(Mode::Poll)).collect();
    assert!(own.iter().all(|it| it.principal.as_deref() == Some("ann")), "{own:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_cursor_hears_nothing_of_before() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    let (first, _) = client.opened(now()).await;
    sleep(Duration::from_secs(10)).await;
    // The loop has not looked yet.
    upstream.happens(1..=2);
    let (second, active) = client.opened(now()).await;
    assert_eq!(active["cursor"], "#2");
    upstream.happens([3]);
    assert_eq!(client.numbers(second, 1).await, [3]);
    assert_eq!(client.numbers(first, 3).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_resumes_from_a_cursor_whether_there_is_a_loop_or_not() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    upstream.happens(1..=5);
    let began = Instant::now();
    let (first, active) = client.opened(since("#2")).await;
    assert_eq!((&active["cursor"], &active["truncated"]), (&json!("#2"), &json!(false)));
    assert_eq!(client.numbers(first, 3).await, [3, 4, 5]);
    // The log has this one, and the upstream is not asked.
    let asked = upstream.calls().len();
    let (second, _) = client.opened(since("#2")).await;
    assert_eq!(client.numbers(second, 3).await, [3, 4, 5]);
    assert_eq!(upstream.calls().len(), asked);
    // This is before the log.
    let (third, _) = client.opened(since("#0")).await;
    assert_eq!(client.numbers(third, 5).await, [1, 2, 3, 4, 5]);
    assert_eq!(began.elapsed().as_secs(), 0, "at once");
    upstream.happens([6]);
    for id in [first, second, third] {
        assert_eq!(client.numbers(id, 1).await, [6]);
    }
    // The upstream does not know this one.
    let (lost, active) = client.opened(since("what")).await;
    assert_eq!(active["cursor"], "what");
    let (method, active) = client.next(lost).await;
    assert_eq!((method.as_str(), &active["truncated"]), (support::ACTIVE, &json!(true)));
    assert_eq!(active["cursor"], "#6");
    // And this is none at all.
    let (_, active) = client.opened(since(&"x".repeat(20_000))).await;
    assert_eq!((&active["cursor"], &active["truncated"]), (&json!("#6"), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_asked_for_is_left_out_and_that_is_told() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    upstream.has(Duration::from_secs(3_600), Job::in_queue(1, "q"));
    upstream.has(Duration::from_secs(60), Job::in_queue(2, "q"));
    let young = json!({"name": "job.done", "cursor": "#0", "maxAgeMs": 600_000});
    let answer = client.poll(young.clone()).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![2], &json!(true)));
    // Once with a new loop, once with one that has read all of it, and once with one of its own.
    let (all, _) = client.opened(since("#0")).await;
    assert_eq!(client.numbers(all, 2).await, [1, 2]);
    let (id, active) = client.opened(young.clone()).await;
    assert_eq!(active["truncated"], true);
    assert_eq!(client.numbers(id, 1).await, [2]);
    drop(client);
    let mut client = Peer::named(&engine, "ann").await;
    let (id, _) = client.opened(young).await;
    let mut heard = [client.next(id).await, client.next(id).await];
    heard.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(heard[0].1["truncated"], true);
    assert_eq!(heard[1].1["data"]["number"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_told_to_streams_which_stay_open() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs().check_limit(Duration::from_secs(7))).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(now()).await;
    upstream.happens([1]);
    for (mood, text) in [
        (Mood::Fails, "the tracker is away"),
        (Mood::Panics, "the source of these events failed"),
        (Mood::Hangs, "the source of these events is too slow"),
    ] {
        upstream.is(mood);
        let (method, notice) = client.next(id).await;
        assert_eq!(method, FAILED, "{notice}");
        assert_eq!(notice["error"]["code"], -32603);
        assert_eq!(notice["error"]["message"], text);
    }
    let before = upstream.calls().len();
    sleep(Duration::from_secs(3_600)).await;
    let calls = upstream.calls().split_off(before);
    assert!((10..=25).contains(&calls.len()), "it is asked seldom: {}", calls.len());
    assert!(calls.iter().all(|it| it.cursor.as_deref() == Some("#0")));
    let gaps = calls.windows(2).map(|it| it[1].at - it[0].at);
    assert!(gaps.max().unwrap() <= Duration::from_secs(5 * 60 + 8), "and not never");
    upstream.is(Mood::Well);
    loop {
        let (method, event) = client.next(id).await;
        if method == EVENT {
            assert_eq!(event["eventId"], "up-1", "nothing was lost");
            break;
        }
        assert_eq!(method, FAILED);
    }
}
