//! `events/poll`: reading the log of a type with a cursor.

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stentor_events::{Emit, EmitError, Events, Mode, Numbering};
use support::{Job, Peer, emit, engine, engine_with, jobs, polled, server, without_replay};
use tokio::time::{advance, sleep};

#[tokio::test(start_paused = true)]
async fn a_first_poll_begins_now_and_has_all_members() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    emit(&jobs, 1..=3).await;
    let mut client = Peer::stranger(&engine).await;
    let answer = client.poll(json!({"name": "job.done", "cursor": null})).await;
    assert_eq!(answer["resultType"], "complete");
    assert_eq!(answer["events"], json!([]));
    assert!(answer["cursor"].is_string(), "{answer}");
    assert_eq!((&answer["truncated"], &answer["hasMore"]), (&json!(false), &json!(false)));
    assert_eq!(answer["nextPollMs"], 5_000);
    let absent = client.poll(json!({"name": "job.done", "maxAgeMs": 0})).await;
    assert_eq!(absent, answer, "an absent cursor is a null one, and the age is ignored");
}

#[tokio::test(start_paused = true)]
async fn an_occurrence_says_what_when_and_which() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_547_200_042);
    let given = Emit::new(Job::in_queue(1, "q")).id("upstream-1").at(at);
    assert_eq!(&*jobs.emit_as(given).await.unwrap(), "upstream-1");
    let made = jobs.emit(Job::in_queue(2, "q")).await.unwrap();
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    let first = json!({
        "eventId": "upstream-1", "name": "job.done", "timestamp": "2025-12-01T00:00:00.042Z",
        "data": {"number": 1, "queue": "q"},
    });
    assert_eq!(answer["events"][0], first);
    assert_eq!(answer["events"][1]["eventId"], *made);
    for id in ["", "a b", "é", &"x".repeat(257)] {
        let wrong = Emit::new(Job::in_queue(3, "q")).id(id);
        assert_eq!(jobs.emit_as(wrong).await, Err(EmitError::Id));
    }
    let again = client.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await;
    assert_eq!(again["events"], json!([]), "nobody hears of one that was refused");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_not_emitted() {
    let list = stentor_events::event_type::<(), Vec<u8>>("list");
    let large = jobs("large");
    let events = Events::new().add(&list).add(&large).configure(|it| it.max_payload = 100);
    let not_running = large.emit(Job::in_queue(1, "q")).await;
    assert_eq!(not_running, Err(EmitError::NotRunning("large".into())));
    let engine = server().extension(events).start().await.unwrap();
    assert_eq!(list.emit(vec![1]).await, Err(EmitError::NoObject("list".into())));
    let error = large.emit(Job::in_queue(1, &"x".repeat(200))).await.unwrap_err();
    assert!(matches!(error, EmitError::TooLarge { max: 100, .. }), "{error}");
    assert!(large.emit(Job::in_queue(1, "q")).await.is_ok());
    engine.shutdown().await;
    let stopped = large.emit(Job::in_queue(1, "q")).await;
    assert_eq!(stopped, Err(EmitError::NotRunning("large".into())));
}

#[tokio::test(start_paused = true)]
async fn each_cursor_replays_what_came_after_it() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let mut cursors = Vec::new();
    for number in 1..=10 {
        let answer = client.poll(json!({"name": "job.done"})).await;
        cursors.push(answer["cursor"].clone());
        emit(&jobs, [number]).await;
    }
    for (index, cursor) in cursors.iter().enumerate() {
        let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
        let expected: Vec<u64> = (index as u64 + 1..=10).collect();
        assert_eq!(polled(&answer), expected);
        assert_eq!((&answer["truncated"], &answer["hasMore"]), (&json!(false), &json!(false)));
        // A second time the same: a poll changes nothing.
        assert_eq!(client.poll(json!({"name": "job.done", "cursor": cursor})).await, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_size_join_without_a_seam() {
    let jobs = jobs("job.done");
    let engine = engine_with(&[&jobs], |it| it.max_events = 40).await;
    let mut client = Peer::stranger(&engine).await;
    let start = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&jobs, 1..=90).await;
    for size in [json!(1), json!(7), json!(89), json!(1_000_000), json!(2.5), json!(0), json!(-3)] {
        let (mut cursor, mut numbers, mut pages) = (start.clone(), Vec::new(), 0);
        loop {
            let params = json!({"name": "job.done", "cursor": cursor, "maxEvents": size});
            let answer = client.poll(params).await;
            let page = polled(&answer);
            let most = (size.as_f64().unwrap().max(1.0) as usize).min(40);
            assert!(page.len() <= most && !page.is_empty(), "{size}: {page:?}");
            numbers.extend(page);
            pages += 1;
            cursor = answer["cursor"].clone();
            assert_eq!(answer["hasMore"], numbers.len() < 90);
            if answer["hasMore"] == false {
                break;
            }
        }
        assert_eq!(numbers, (1..=90).collect::<Vec<_>>(), "{size}");
        assert!(pages >= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_after_many_bytes() {
    let jobs = jobs("job.done");
    let engine = engine_with(&[&jobs], |it| it.max_poll_bytes = 1_000).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    for number in 1..=4 {
        jobs.emit(Job::in_queue(number, &"x".repeat(600))).await.unwrap();
    }
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((polled(&answer), &answer["hasMore"]), (vec![1, 2], &json!(true)));
    let answer = client.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await;
    assert_eq!((polled(&answer), &answer["hasMore"]), (vec![3, 4], &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_asked_for_is_left_out_and_that_is_told() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    for number in 1..=4 {
        emit(&jobs, [number]).await;
        advance(Duration::from_secs(10)).await;
    }
    // They are 40, 30, 20 and 10 seconds old.
    let poll =
        |cursor: &Value, age: Value| json!({"name": "job.done", "cursor": cursor, "maxAgeMs": age});
    let answer = client.poll(poll(&cursor, json!(25_000))).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![3, 4], &json!(true)));
    let next = client.poll(poll(&answer["cursor"], json!(25_000))).await;
    assert_eq!((polled(&next), &next["truncated"]), (vec![], &json!(false)), "told once");
    let answer = client.poll(poll(&cursor, json!(60_000))).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![1, 2, 3, 4], &json!(false)));
    let answer = client.poll(poll(&cursor, json!(0))).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![], &json!(true)));
    // Nothing is skipped behind this one.
    let answer = client.poll(poll(&answer["cursor"], json!(-5))).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![], &json!(false)));
    let error = client.ask("events/poll", poll(&cursor, json!("old"))).await.unwrap_err();
    assert_eq!(error["code"], -32602);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_dropped_is_told_once() {
    let by_count = without_replay("count").replay(5, Duration::from_secs(3600));
    let by_age = without_replay("age").replay(100, Duration::from_secs(60));
    let by_bytes = jobs("bytes");
    let engine =
        engine_with(&[&by_count, &by_age, &by_bytes], |it| it.max_log_bytes = 10_000).await;
    let mut client = Peer::stranger(&engine).await;
    for jobs in [&by_count, &by_age, &by_bytes] {
        let name = jobs.name().to_owned();
        let cursor = client.poll(json!({"name": name})).await["cursor"].take();
        for number in 1..=10 {
            let queue = if name == "bytes" { "x".repeat(1_000) } else { "q".to_owned() };
            jobs.emit(Job::in_queue(number, &queue)).await.unwrap();
            if name == "age" {
                sleep(Duration::from_secs(10)).await;
            }
        }
        let answer = client.poll(json!({"name": name, "cursor": cursor})).await;
        let numbers = polled(&answer);
        assert_eq!(answer["truncated"], true, "{name}");
        assert!((2..10).contains(&numbers.len()), "{name}: {numbers:?}");
        assert_eq!(numbers, (11 - numbers.len() as u64..=10).collect::<Vec<_>>(), "{name}");
        let answer = client.poll(json!({"name": name, "cursor": answer["cursor"]})).await;
        assert_eq!((polled(&answer), &answer["truncated"]), (vec![], &json!(false)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_cursor_of_this_server_is_a_lost_position() {
    let jobs = jobs("job.done");
    let (engine, other) = (engine(&[&jobs]).await, engine(&[&support::jobs("job.done")]).await);
    let mut client = Peer::stranger(&engine).await;
    let mut stranger = Peer::stranger(&other).await;
    let remote = stranger.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&jobs, 1..=3).await;
    let lost = [json!(""), json!("%%% none"), json!("7.zz@a"), json!("x".repeat(100_000)), remote];
    for cursor in lost {
        let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
        assert_eq!((polled(&answer), &answer["truncated"]), (vec![], &json!(true)), "{cursor:.20}");
        let answer = client.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await;
        assert_eq!(answer["truncated"], false, "the position is a good one again");
    }
    for cursor in [json!(7), json!({}), json!(["a"]), json!(true)] {
        let wrong = json!({"name": "job.done", "cursor": cursor});
        assert_eq!(client.ask("events/poll", wrong).await.unwrap_err()["code"], -32602);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_an_engine_before_is_a_lost_position() {
    let jobs = jobs("job.done");
    let node = || stentor_engine::NodeId::new("judge").unwrap();
    let start = || {
        let events = Events::new().add(&jobs);
        server().configure(|config| config.node = node()).extension(events).start()
    };
    let before = start().await.unwrap();
    let mut client = Peer::stranger(&before).await;
    emit(&jobs, 1..=3).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    drop(client);
    before.shutdown().await;
    let engine = start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    emit(&jobs, 4..=5).await;
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![4, 5], &json!(true)));
    let answer = client.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await;
    assert_eq!((polled(&answer), &answer["truncated"]), (vec![], &json!(false)));
}

/// One that names more than has happened would hear of nothing for as long as that has not.
#[tokio::test(start_paused = true)]
async fn a_cursor_from_the_future_loses_nothing_silently() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    emit(&jobs, 1..=3).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    let (_, origin) = cursor.as_str().unwrap().split_once('.').unwrap();
    let cursor = json!(format!("999.{origin}"));
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    emit(&jobs, 4..=5).await;
    let next = client.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await;
    assert!(answer["truncated"] == true || polled(&next) == [4, 5], "{answer} {next}");
}

#[tokio::test(start_paused = true)]
async fn arguments_choose_what_a_poll_hears() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    for number in 1..=6 {
        jobs.emit(Job::in_queue(number, if number % 2 == 0 { "even" } else { "odd" }))
            .await
            .unwrap();
    }
    for (arguments, numbers) in [
        (json!({}), vec![1, 2, 3, 4, 5, 6]),
        (json!({"queue": null}), vec![1, 2, 3, 4, 5, 6]),
        (json!({"queue": "even"}), vec![2, 4, 6]),
        (json!({"queue": "none"}), vec![]),
    ] {
        let params = json!({"name": "job.done", "cursor": cursor, "arguments": arguments});
        let answer = client.poll(params).await;
        assert_eq!(polled(&answer), numbers, "{arguments}");
        // What was not for it is behind it, too.
        let params = json!({"name": "job.done", "cursor": answer["cursor"]});
        assert_eq!(polled(&client.poll(params).await), [0_u64; 0]);
    }
    // With less room than there is, the rest that does not fit is no reason to come back.
    let params = json!({
        "name": "job.done", "cursor": cursor, "arguments": {"queue": "even"}, "maxEvents": 3,
    });
    assert_eq!(client.poll(params).await["hasMore"], false);
}

#[tokio::test(start_paused = true)]
async fn wrong_parameters_are_refused() {
    let engine = engine(&[&jobs("job.done")]).await;
    let mut client = Peer::stranger(&engine).await;
    for params in [
        json!({}),
        json!({"name": 7}),
        json!({"name": "job.done", "arguments": "x"}),
        json!({"name": "job.done", "arguments": ["x"]}),
        json!({"name": "job.done", "arguments": {"queue": 7}}),
        json!({"name": "job.done", "maxEvents": "many"}),
        json!({"name": "job.done", "arguments": {"big": 9_007_199_254_740_993_u64}}),
    ] {
        for method in ["events/poll", "events/stream"] {
            if method == "events/stream" && params.get("maxEvents").is_some() {
                continue;
            }
            let error = client.ask(method, params.clone()).await.unwrap_err();
            assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_have_the_numbers_that_the_client_knows_and_say_more_in_their_data() {
    let poll_only = jobs("poll-only").delivery([Mode::Poll]);
    let push_only = jobs("push-only").delivery([Mode::Push]);
    for numbering in [Numbering::Auto, Numbering::Draft, Numbering::Sketch] {
        let engine = engine_with(&[&poll_only, &push_only], |it| it.numbering = numbering).await;
        for declares in [false, true] {
            let mut client = Peer::stranger(&engine).await;
            if declares {
                client = client.declares();
            }
            let draft = numbering == Numbering::Draft || (numbering == Numbering::Auto && declares);
            let number = |draft_code: i64, sketch: i64| if draft { draft_code } else { sketch };
            for (method, name, code, data) in [
                ("events/poll", "none", number(-32023, -32011), json!({"kind": "event"})),
                ("events/stream", "none", number(-32023, -32011), json!({"kind": "event"})),
                (
                    "events/poll",
                    "push-only",
                    number(-32026, -32014),
                    json!({"feature": "deliveryMode", "value": "poll"}),
                ),
                (
                    "events/stream",
                    "poll-only",
                    number(-32026, -32014),
                    json!({"feature": "deliveryMode", "value": "push"}),
                ),
            ] {
                let error = client.ask(method, json!({"name": name})).await.unwrap_err();
                assert_eq!(
                    (&error["code"], &error["data"]),
                    (&json!(code), &data),
                    "{method} {name}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_without_replay_has_no_cursors() {
    let plain = without_replay("plain").delivery([Mode::Poll, Mode::Push]);
    let engine = engine(&[&plain]).await;
    let mut client = Peer::stranger(&engine).await;
    for cursor in [json!(null), json!("anything")] {
        emit(&plain, [1]).await;
        let answer = client.poll(json!({"name": "plain", "cursor": cursor})).await;
        assert_eq!((polled(&answer), &answer["cursor"]), (vec![], &Value::Null));
        assert_eq!((&answer["truncated"], &answer["hasMore"]), (&json!(false), &json!(false)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_subscription_is_sent_no_poll_finds() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    let only: Arc<str> = "push_none".into();
    jobs.emit_as(Emit::new(Job::in_queue(1, "q")).only_for(only)).await.unwrap();
    emit(&jobs, [2]).await;
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!(polled(&answer), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_says_no_and_the_type_goes_on() {
    let panics = jobs("job.done").matches(|filter, job| {
        assert!(filter.queue.as_deref() != Some("trap"), "a bug");
        job.number != 2
    });
    let engine = engine(&[&panics]).await;
    let mut client = Peer::stranger(&engine).await;
    let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&panics, 1..=3).await;
    let trapped = json!({"name": "job.done", "cursor": cursor, "arguments": {"queue": "trap"}});
    assert_eq!(polled(&client.poll(trapped).await), [0_u64; 0]);
    let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!(polled(&answer), [1, 3]);
}
