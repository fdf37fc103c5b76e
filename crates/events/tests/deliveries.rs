//! Deliveries that fail, and webhooks that end without being asked.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use receiver::{Reply, SECRET, Seen, World, echo};
use serde_json::json;
use support::{Job, emit, jobs, polled, without_replay};

#[tokio::test]
async fn a_retry_is_the_same_message_signed_anew() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let fails = Arc::new(AtomicBool::new(true));
    world.subscribed().await;
    world
        .receiver
        .answer_events(move |_| if fails.swap(false, Ordering::Relaxed) { 503 } else { 200 });
    emit(&jobs, [1]).await;
    world.receiver.until("a retry", |seen| seen.len() == 3).await;
    let [first, second] = &world.receiver.delivered()[..] else { panic!("two attempts") };
    assert_eq!(first.raw, second.raw);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    let passed = second.at - first.at;
    assert!((900..2_600).contains(&passed.as_millis()), "{passed:?}");
    assert!(second.header("webhook-timestamp") > first.header("webhook-timestamp"));
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
    assert!(first.is_signed_by(SECRET) && second.is_signed_by(SECRET));
    let view = world.handle.webhooks().remove(0);
    support::until("it is well again", || world.handle.webhooks()[0].last_error.is_none()).await;
    assert!(view.expires.is_some());
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, _) = world.subscribed().await;
    let refused = Arc::new(Mutex::new(BTreeSet::new()));
    world.receiver.answer_events(move |seen| match seen.number() {
        Some(1) => 410,
        Some(2) => 413,
        // Each of the others fails once. Their retries come when those of the two would.
        Some(number) if refused.lock().insert(number) => 503,
        _ => 204,
    });
    emit(&jobs, 1..=12).await;
    let all = |seen: &[Seen]| seen.iter().filter_map(Seen::number).count() == 2 + 2 * 10;
    world.receiver.until("all retries", all).await;
    let numbers = world.receiver.numbers();
    for number in 1..=12 {
        let attempts = if number <= 2 { 1 } else { 2 };
        assert_eq!(numbers.iter().filter(|it| **it == number).count(), attempts, "{numbers:?}");
    }
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["truncated"], false, "the endpoint itself has said no");
    assert_eq!(world.handle.webhooks().len(), 1, "the webhook stays");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let other = receiver::Receiver::new().await;
    world.handle.allow_origin(&other.origin()).unwrap();
    world.subscribed().await;
    let target = other.url();
    world.receiver.answer(move |_| Reply { location: Some(target.clone()), ..307.into() });
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    support::until("it has failed", || world.handle.webhooks()[0].last_error.is_some()).await;
    assert_eq!(world.handle.webhooks()[0].last_error, Some("http_4xx"));
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn no_cursor_is_ahead_of_what_is_open() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, first) = world.subscribed().await;
    let heals = Arc::new(AtomicBool::new(false));
    let healed = heals.clone();
    world.receiver.answer_events(move |seen| match seen.number() {
        Some(2) if !healed.load(Ordering::Relaxed) => 500,
        _ => 200,
    });
    emit(&jobs, 1..=6).await;
    world.receiver.until_number(6).await;
    for seen in world.receiver.delivered() {
        let number = seen.number().unwrap();
        let params = json!({"name": "job.done", "cursor": seen.body["cursor"]});
        let after = polled(&ann.poll(params).await);
        if number >= 2 {
            assert!(after.contains(&2), "of {number}: {after:?}");
        }
        assert!(after.contains(&number) || number == 1, "it is after its own cursor: {after:?}");
    }
    let refreshed = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    let params = json!({"name": "job.done", "cursor": refreshed["cursor"]});
    assert_eq!(polled(&ann.poll(params).await)[0], 2);
    assert_eq!(refreshed["deliveryStatus"]["active"], true);
    heals.store(true, Ordering::Relaxed);
    let twice = |seen: &[Seen]| seen.iter().filter(|it| it.number() == Some(2)).count() >= 2;
    world.receiver.until("the second attempt", twice).await;
    let mut after = vec![2];
    for _ in 0..500 {
        let refreshed = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
        let params = json!({"name": "job.done", "cursor": refreshed["cursor"]});
        after = polled(&ann.poll(params).await);
        if after.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(after.is_empty() && first["cursor"].is_string(), "{after:?}");
}

#[tokio::test]
async fn what_is_abandoned_is_told_as_a_gap_and_at_the_next_refresh() {
    let jobs = jobs("job.done");
    let world = World::with(&[&jobs], |it| it.max_attempts = 1).await;
    let (mut ann, _) = world.subscribed().await;
    world.receiver.answer_events(|seen| if seen.number() == Some(1) { 500 } else { 200 });
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    support::until("it has failed", || world.handle.webhooks()[0].last_error.is_some()).await;
    emit(&jobs, [2]).await;
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["truncated"], true);
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["truncated"], false, "told once");
    emit(&jobs, [3]).await;
    world.receiver.until_number(3).await;
    assert_eq!(world.receiver.of_kind("gap").len(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_not_sent_and_that_is_told() {
    let jobs = jobs("job.done");
    let world = World::with(&[&jobs], |it| it.max_body = 500).await;
    world.subscribed().await;
    jobs.emit(Job::in_queue(1, &"x".repeat(1_000))).await.unwrap();
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
    assert_eq!(world.receiver.numbers(), [2]);
}

#[tokio::test]
async fn a_dead_endpoint_holds_up_nobody_and_only_so_much_is_open() {
    let jobs = without_replay("job.done").replay(10_000, Duration::from_secs(3600));
    let world = World::with(&[&jobs], |it| it.max_open = 4).await;
    let dead = receiver::Receiver::new().await;
    world.handle.allow_origin(&dead.origin()).unwrap();
    let (mut ann, _) = world.subscribed().await;
    let params = receiver::params(&dead.url(), json!({}));
    ann.ask("events/subscribe", params).await.unwrap();
    dead.answer_events(|_| 500);
    emit(&jobs, 1..=100).await;
    world.receiver.until("all", |seen| seen.iter().filter_map(Seen::number).count() == 100).await;
    dead.until("the first ones", |seen| seen.len() > 2).await;
    assert!(dead.numbers().iter().all(|number| *number <= 4), "{:?}", dead.numbers());
}

#[tokio::test]
async fn an_endpoint_that_always_fails_is_left_alone_until_a_refresh() {
    let jobs = without_replay("job.done").replay(1_000, Duration::from_secs(3600));
    let world = World::with(&[&jobs], |it| it.max_attempts = 1).await;
    let (mut ann, _) = world.subscribed().await;
    world.receiver.answer_events(|_| 500);
    emit(&jobs, 1..=150).await;
    support::until("it is left alone", || world.handle.webhooks()[0].is_paused).await;
    let tried = world.receiver.numbers().len();
    assert!((100..=110).contains(&tried), "{tried}");
    world.receiver.answer_events(|_| 200);
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["deliveryStatus"]["active"], false, "it was not until now");
    assert_eq!(answer["deliveryStatus"]["lastError"], "http_5xx");
    assert!(answer["deliveryStatus"]["failedSince"].is_string());
    world.receiver.until_number(150).await;
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["deliveryStatus"]["active"], true);
}

#[tokio::test]
async fn a_type_that_is_removed_ends_its_webhooks_and_tells_them() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, _) = world.subscribed().await;
    world.handle.remove("job.done").await.unwrap();
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    let end = world.receiver.of_kind("terminated").remove(0);
    assert_eq!(end.body["error"]["code"], -32011);
    assert_eq!(end.body["error"]["data"], json!({"kind": "event"}));
    assert!(world.handle.webhooks().is_empty());
    let error = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap_err();
    assert_eq!(error["data"]["kind"], "event");
}

#[tokio::test]
async fn who_may_not_any_longer_is_told_after_a_recheck() {
    let allowed = Arc::new(AtomicBool::new(true));
    let asks = allowed.clone();
    let jobs = jobs("job.done").allow(move |_, _| asks.load(Ordering::Relaxed));
    let world = World::new(&[&jobs]).await;
    world.subscribed().await;
    allowed.store(false, Ordering::Relaxed);
    world.handle.recheck();
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    assert_eq!(world.receiver.of_kind("terminated")[0].body["error"]["code"], -32012);
    assert!(world.handle.webhooks().is_empty());
    emit(&jobs, [1]).await;
    assert_eq!(world.receiver.numbers(), [0_u64; 0]);
}

#[tokio::test]
async fn who_may_not_any_longer_is_told_after_a_while() {
    let allowed = Arc::new(AtomicBool::new(true));
    let asks = allowed.clone();
    let jobs = jobs("job.done").allow(move |_, _| asks.load(Ordering::Relaxed));
    let world = World::new(&[&jobs]).await;
    world.subscribed().await;
    allowed.store(false, Ordering::Relaxed);
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
}

#[tokio::test]
async fn who_is_revoked_has_no_webhooks() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    world.subscribed().await;
    world.engine.revoke("ann").await;
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    emit(&jobs, [1]).await;
    assert!(world.handle.webhooks().is_empty() && world.receiver.numbers().is_empty());
}

#[tokio::test]
async fn who_is_revoked_has_no_webhooks_after_a_recheck() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (_, answer) = world.subscribed().await;
    world.engine.revoke("ann").await;
    world.handle.recheck();
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    let end = world.receiver.of_kind("terminated").remove(0);
    assert_eq!(end.body["error"]["code"], -32012);
    assert_eq!(end.header("x-mcp-subscription-id"), answer["id"].as_str().unwrap());
}

/// What begins while its principal is locked out must not be there afterwards.
#[tokio::test]
async fn a_revocation_wins_over_a_challenge_that_runs() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let mut ann = world.ann().await;
    world.receiver.hold(true);
    ann.send("events/subscribe", world.params(json!({}))).await;
    world.receiver.until("a challenge", |seen| seen.len() == 1).await;
    world.engine.revoke("ann").await;
    world.handle.recheck();
    world.receiver.answer(echo);
    world.receiver.hold(false);
    let mut bob = support::Peer::named(&world.engine, "bob").await;
    bob.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    let is_bobs = || world.handle.webhooks().iter().all(|it| &*it.principal == "bob");
    support::until("only bob has one", is_bobs).await;
}

/// A type may drop from its log what no webhook has looked at.
#[tokio::test]
async fn what_was_dropped_before_a_webhook_was_woken_is_told() {
    let jobs = jobs("job.done");
    let few =
        |events: stentor_events::Events| events.configure(|config| config.max_log_bytes = 20_000);
    let world = World::build(&[&jobs], |_| (), few, |builder| builder).await;
    let (mut ann, _) = world.subscribed().await;
    for number in 1..=20 {
        jobs.emit(Job::in_queue(number, &"x".repeat(2_000))).await.unwrap();
    }
    world.receiver.until_number(20).await;
    let answer = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    let numbers = world.receiver.numbers();
    let is_told = answer["truncated"] == true || !world.receiver.of_kind("gap").is_empty();
    assert!(is_told || numbers.contains(&1), "{numbers:?}");
}

#[tokio::test]
async fn an_emit_does_not_wait_for_what_was_before_the_first_webhook() {
    let jobs = without_replay("job.done").replay(10, Duration::from_secs(3600));
    let world = World::new(&[&jobs]).await;
    emit(&jobs, 1..=20).await;
    world.subscribed().await;
    let emitted = tokio::time::timeout(Duration::from_secs(5), emit(&jobs, [21]));
    assert!(emitted.await.is_ok(), "it waits for longer than five seconds");
    world.receiver.until_number(21).await;
    assert_eq!(world.receiver.numbers(), [21]);
}

/// Two reports in a row make two deliverers, and each of them delivers the next occurrence.
#[tokio::test]
async fn a_webhook_has_one_deliverer() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (_, answer) = world.subscribed().await;
    let id = answer["id"].as_str().unwrap();
    world.receiver.hold(true);
    assert!(world.handle.report_gap(id) && world.handle.report_gap(id));
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    world.receiver.hold(false);
    for number in 2..=5 {
        emit(&jobs, [number]).await;
        world.receiver.until_number(number).await;
    }
    let numbers = world.receiver.numbers();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "each once, as all were taken at once");
}
