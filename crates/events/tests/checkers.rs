//! The loops of types with `check`: how many there are, when they end, and what webhooks get of them.

#[path = "support/faults.rs"]
mod faults;
#[path = "support/receiver.rs"]
mod receiver;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use receiver::{Receiver, World, start};
use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_events::{EventError, Events, MemoryEventsStore, Mode, TypeError};
use support::{FAILED, Job, Peer, engine_with, server, until};
use tokio::time::sleep;
use upstream::{EVERY, Mood, Upstream, now, of, quick, since};

#[tokio::test(start_paused = true)]
async fn there_is_one_loop_for_equal_arguments_of_a_principal() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let (mut ann, mut bob) = (Peer::named(&engine, "ann").await, Peer::named(&engine, "bob").await);
    for arguments in [json!({}), json!({"queue": "q"})] {
        let params = json!({"name": "job.done", "arguments": arguments});
        for client in [&mut ann, &mut bob] {
            client.opened(params.clone()).await;
            client.opened(params.clone()).await;
        }
    }
    // Each that opens asks once.
    assert_eq!(upstream.calls().len(), 8);
    sleep(EVERY * 10 + Duration::from_secs(1)).await;
    let calls = upstream.calls().split_off(8);
    assert_eq!(calls.len(), 40, "four loops, ten times each");
    let of_bob = calls.iter().filter(|it| it.principal.as_deref() == Some("bob")).count();
    assert_eq!((of_bob, calls.iter().filter(|it| it.queue.is_some()).count()), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn what_a_strong_credential_finds_is_not_for_a_weak_one() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut clients = Vec::new();
    for scopes in [&["read"][..], &["read", "admin"], &["admin", "read"]] {
        let identity = Identity::named("ann").scopes(scopes.iter().copied());
        let mut client = Peer::known(&engine, identity).await;
        client.opened(now()).await;
        clients.push(client);
    }
    let before = upstream.calls().len();
    sleep(EVERY + Duration::from_secs(1)).await;
    let calls = upstream.calls().split_off(before);
    let mut scopes: Vec<_> = calls.into_iter().map(|it| it.scopes).collect();
    scopes.sort();
    assert_eq!(scopes, ["admin read", "read"]);
}

#[tokio::test]
async fn a_webhook_that_is_refreshed_with_another_credential_goes_on_with_that() {
    let upstream = Upstream::default();
    let world = World::new(&[&quick(&upstream)]).await;
    let ann = |scope: &str| Identity::named("ann").scopes([scope.to_owned()]);
    let mut strong = Peer::known(&world.engine, ann("admin")).await;
    let first = strong.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    upstream.happens([1]);
    world.receiver.until_number(1).await;
    let mut weak = Peer::known(&world.engine, ann("read")).await;
    let second = weak.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!((&second["id"], &second["truncated"]), (&first["id"], &json!(false)));
    assert_eq!(world.handle.webhooks().len(), 1);
    let before = upstream.calls().len();
    upstream.happens([2]);
    world.receiver.until_number(2).await;
    until("it was asked", || upstream.calls().len() > before + 2).await;
    let calls = upstream.calls().split_off(before + 1);
    assert!(calls.iter().all(|it| it.scopes == "read"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shared_loop_is_for_all_principals_and_rights_and_payloads_are_their_own() {
    let upstream = Upstream::default();
    let jobs = upstream
        .shared_jobs()
        .allow(|subscriber, _| subscriber.principal() != Some("eve"))
        .transform(|subscriber, _, job| {
            Some(Job::in_queue(job.number, subscriber.principal().unwrap_or("nobody")))
        });
    let engine = of(&jobs).await;
    let mut streams = Vec::new();
    for name in ["ann", "bob"] {
        let mut client = Peer::named(&engine, name).await;
        let (id, _) = client.opened(now()).await;
        streams.push((name, client, id));
    }
    let mut eve = Peer::named(&engine, "eve").await;
    for method in ["events/poll", "events/stream"] {
        assert_eq!(eve.ask(method, now()).await.unwrap_err()["code"], -32012);
    }
    assert_eq!(upstream.calls().len(), 2);
    upstream.happens([1]);
    for (name, client, id) in &mut streams {
        assert_eq!(client.next(*id).await.1["data"], json!({"number": 1, "queue": *name}));
        let answer = client.poll(since("#0")).await;
        assert_eq!(answer["events"][0]["data"]["queue"], *name);
    }
    sleep(EVERY * 3 + Duration::from_secs(1)).await;
    let loops = upstream.calls().iter().filter(|it| it.cursor.as_deref() == Some("#1")).count();
    assert_eq!(loops, 3, "one for all");
}

#[tokio::test(start_paused = true)]
async fn the_loop_ends_when_the_last_stream_does() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    let (first, _) = client.opened(now()).await;
    let (second, _) = client.opened(now()).await;
    let is_asked = async || {
        let before = upstream.calls().len();
        sleep(EVERY * 2).await;
        upstream.calls().len() > before
    };
    assert!(is_asked().await);
    client.cancel(first).await;
    assert!(is_asked().await);
    client.cancel(second).await;
    client.poll(now()).await;
    assert!(!is_asked().await);
    // Also in the middle of a call, and a new one begins anew.
    upstream.happens([1]);
    let (third, active) = client.opened(now()).await;
    assert_eq!(active["cursor"], "#1");
    upstream.is(Mood::Hangs);
    let before = upstream.calls().len();
    until("it hangs", || upstream.calls().len() > before).await;
    client.cancel(third).await;
    assert!(!is_asked().await);
    upstream.is(Mood::Well);
    client.opened(now()).await;
    assert!(is_asked().await);
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_loops() {
    let upstream = Upstream::default();
    let engine = engine_with(&[&upstream.jobs()], |it| it.max_branches = 2).await;
    let mut client = Peer::stranger(&engine).await;
    let of = |queue: &str| json!({"name": "job.done", "arguments": {"queue": queue}});
    let (first, _) = client.opened(of("a")).await;
    client.opened(of("b")).await;
    client.opened(of("b")).await;
    let error = client.ask("events/stream", of("c")).await.unwrap_err();
    assert_eq!(error["data"], json!({"limit": "checks", "max": 2}));
    client.poll(of("c")).await;
    client.cancel(first).await;
    client.poll(of("c")).await;
    client.opened(of("c")).await;
}

#[tokio::test(start_paused = true)]
async fn who_may_not_any_longer_is_told_and_not_asked_for() {
    let upstream = Upstream::default();
    let allowed = Arc::new(Mutex::new(true));
    let asked = allowed.clone();
    let jobs = upstream
        .jobs()
        .allow(move |subscriber, _| subscriber.principal() != Some("bob") || *asked.lock());
    let engine = of(&jobs).await;
    let mut clients = Vec::new();
    for name in ["ann", "bob", "cyd"] {
        let mut client = Peer::named(&engine, name).await;
        let (id, _) = client.opened(now()).await;
        clients.push((client, id));
    }
    engine.revoke("ann").await;
    *allowed.lock() = false;
    let before = upstream.calls().len();
    for (client, id) in &mut clients[..2] {
        assert_eq!(client.terminated(*id).await["code"], -32012);
    }
    sleep(EVERY * 3).await;
    let calls = upstream.calls().split_off(before);
    assert!(calls.iter().all(|it| it.principal.as_deref() == Some("cyd")), "{calls:?}");
    upstream.happens([1]);
    let (cyd, id) = &mut clients[2];
    assert_eq!(cyd.numbers(*id, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_goes_on_when_an_actor_has_crashed() {
    let upstream = Upstream::default();
    let engine = of(&upstream.jobs()).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(now()).await;
    let keeper = faults::keeper(&engine);
    let actors = faults::below(&keeper);
    let [_, of_branch, checker] = &actors[..] else { panic!("{actors:?}") };
    // In the middle of a call, for which somebody waits.
    upstream.is(Mood::Hangs);
    let waits = client.stream(now()).await;
    until("it hangs", || upstream.calls().len() == 2).await;
    upstream.is(Mood::Well);
    upstream.happens([1]);
    checker.kill();
    let (method, active) = client.next(waits).await;
    assert_eq!((method.as_str(), &active["cursor"]), (support::ACTIVE, &json!("#1")));
    assert_eq!(client.numbers(id, 1).await, [1]);
    // With the actor of a branch its streams end, and come back.
    of_branch.kill();
    client.ended(id).await;
    client.ended(waits).await;
    upstream.happens([2]);
    let (id, _) = client.opened(since("#0")).await;
    assert_eq!(client.numbers(id, 2).await, [1, 2]);
    faults::keeper(&engine).kill();
    client.ended(id).await;
    upstream.happens([3]);
    let (id, _) = client.opened(since("#1")).await;
    assert_eq!(client.numbers(id, 2).await, [2, 3]);
    upstream.happens([4]);
    assert_eq!(client.numbers(id, 1).await, [4], "there is one loop");
}

#[tokio::test(start_paused = true)]
async fn what_ends_or_concerns_a_type_concerns_its_branches() {
    let (upstream, other) = (Upstream::default(), Upstream::default());
    let jobs = upstream.jobs();
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let _engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&_engine).await;
    let (id, _) = client.opened(now()).await;
    jobs.report_failure("an outage");
    assert_eq!(client.next(id).await.0, FAILED);
    jobs.report_gap();
    assert_eq!(client.next(id).await.1["truncated"], true);
    let refused = handle.replace(&upstream.shared_jobs()).await;
    assert_eq!(refused, Err(TypeError::Check("job.done".into())));
    assert!(handle.replace(&support::jobs("job.done")).await.is_err());
    handle.replace(&other.jobs()).await.unwrap();
    other.happens([7]);
    assert_eq!(client.numbers(id, 1).await, [7], "the new function is asked");
    jobs.end_subscriptions(EventError::Failed("that was all".to_owned()));
    assert_eq!(client.terminated(id).await["message"], "that was all");
    let (id, _) = client.opened(now()).await;
    handle.remove("job.done").await.unwrap();
    assert_eq!(client.terminated(id).await["data"]["kind"], "event");
    let before = other.calls().len();
    sleep(EVERY * 3).await;
    assert_eq!(other.calls().len(), before);
}

#[tokio::test]
async fn ids_and_cursors_are_the_same_in_all_ways() {
    let upstream = Upstream::default();
    let world = World::new(&[&quick(&upstream)]).await;
    let (mut ann, answer) = world.subscribed().await;
    assert_eq!((&answer["cursor"], &answer["truncated"]), (&json!("#0"), &json!(false)));
    let (id, _) = ann.opened(now()).await;
    let started = upstream.calls().len();
    upstream.happens(1..=3);
    world.receiver.until_number(3).await;
    let polled = ann.poll(since("#0")).await;
    for number in 1..=3_usize {
        let (_, mut event) = ann.next(id).await;
        let body = world.receiver.delivered().into_iter();
        let body = body.map(|it| it.body).find(|it| it["data"]["number"] == number).unwrap();
        let members = event.as_object_mut().unwrap();
        members.remove("_meta");
        for it in [&*members, body.as_object().unwrap()] {
            let mut it = it.clone();
            assert!(it.remove("cursor").unwrap().is_string());
            assert_eq!(Value::Object(it), polled["events"][number - 1]);
        }
    }
    let loops = upstream.calls().split_off(started).into_iter();
    let loops: Vec<_> = loops.filter(|it| it.mode != Some(Mode::Poll)).collect();
    assert!(
        loops.windows(2).all(|it| it[1].at - it[0].at >= Duration::from_millis(90)),
        "one loop"
    );
    // Once all are taken, a refresh tells the upstream's cursor.
    until("it rests", || !world.handle.webhooks().is_empty()).await;
    for attempt in 0.. {
        let params = world.params(json!({}));
        let answer = ann.ask("events/subscribe", params).await.unwrap();
        if answer["cursor"] == "#3" {
            break;
        }
        assert!(attempt < 200, "{answer}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn webhooks_resume_from_their_cursors_and_fail_with_their_own_endpoint_only() {
    let upstream = Upstream::default();
    let world = World::new(&[&quick(&upstream)]).await;
    upstream.happens(1..=4);
    let mut ann = world.ann().await;
    let answer = ann.ask("events/subscribe", world.params(json!({"cursor": "#2"}))).await.unwrap();
    assert_eq!((&answer["cursor"], &answer["truncated"]), (&json!("#2"), &json!(false)));
    world.receiver.until_number(4).await;
    assert_eq!(world.receiver.numbers().iter().min(), Some(&3));
    // While the upstream fails nothing comes, and nothing is lost.
    upstream.is(Mood::Fails);
    upstream.happens([5]);
    let failed = upstream.calls().len();
    until("it has failed", || upstream.calls().len() > failed + 1).await;
    upstream.is(Mood::Well);
    world.receiver.until_number(5).await;
    assert!(world.receiver.of_kind("gap").is_empty());
    // The others of the type, in another branch, hear nothing of it twice.
    let mut bob = Peer::named(&world.engine, "bob").await;
    bob.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    upstream.happens([6]);
    world
        .receiver
        .until("both", |seen| seen.iter().filter(|it| it.number() == Some(6)).count() >= 2)
        .await;
    assert_eq!(world.receiver.numbers().iter().filter(|it| **it < 6).count(), 3);
    // An upstream that has lost its place is a gap.
    upstream.0.lock().jobs.clear();
    let params = world.params(json!({"arguments": {"queue": "q"}, "cursor": "lost"}));
    ann.ask("events/subscribe", params).await.unwrap();
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
}

#[tokio::test]
async fn a_webhook_goes_on_from_its_watermark_after_a_restart() {
    let upstream = Upstream::default();
    let jobs = quick(&upstream);
    let (receiver, store) = (Receiver::new().await, Arc::new(MemoryEventsStore::default()));
    let over = async || {
        let store = store.clone();
        start(&receiver, &[&jobs], |_| (), |events| events.store(store), |builder| builder).await
    };
    let (engine, _) = over().await;
    let mut ann = Peer::named(&engine, "ann").await;
    let params = receiver::params(&receiver.url(), json!({}));
    ann.ask("events/subscribe", params.clone()).await.unwrap();
    upstream.happens(1..=2);
    receiver.until_number(2).await;
    receiver.answer_events(|_| 503);
    upstream.happens([3]);
    receiver.until_number(3).await;
    drop(ann);
    engine.shutdown().await;
    let stopped = upstream.calls().len();
    upstream.happens([4]);
    receiver.answer_events(|_| 200);
    let before = receiver.delivered().len();
    let (engine, handle) = over().await;
    receiver.until_number(4).await;
    let later: Vec<_> = receiver.delivered().split_off(before);
    let mut ids: Vec<_> = later.iter().map(|it| it.header("webhook-id").to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["up-3", "up-4"]);
    let cursor = upstream.calls().split_off(stopped).remove(0).cursor;
    assert!(cursor.is_some(), "nothing is left out");
    // And it ends.
    let mut ann = Peer::known(&engine, Identity::named("ann")).await;
    ann.ask("events/unsubscribe", params).await.unwrap();
    until("it has ended", || handle.webhooks().is_empty()).await;
    let ended = upstream.calls().len();
    for _ in 0..30 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(upstream.calls().len() <= ended + 1, "the loop, too");
}
