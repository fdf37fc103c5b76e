//! Webhooks: how they begin, what they are sent, how they are refreshed, and how they end.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::time::{Duration, SystemTime};

use receiver::{NEW_SECRET, Reply, SECRET, Seen, World, echo};
use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_events::{Emit, EventError, WebhookConfig};
use support::{Job, Peer, emit, jobs, object, polled};
use tokio::time::Instant;

#[tokio::test]
async fn an_endpoint_that_agrees_gets_signed_occurrences() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, answer) = world.subscribed().await;
    let id = answer["id"].as_str().unwrap();
    assert!(id.starts_with("sub_"), "{answer}");
    assert_eq!((&answer["resultType"], &answer["truncated"]), (&json!("complete"), &json!(false)));
    let expires = chrono::DateTime::parse_from_rfc3339(answer["refreshBefore"].as_str().unwrap());
    let left = SystemTime::from(expires.unwrap()).duration_since(SystemTime::now()).unwrap();
    assert!((3_590..=3_600).contains(&left.as_secs()), "an hour: {left:?}");
    assert_eq!(answer["cursor"], ann.poll(json!({"name": "job.done"})).await["cursor"]);

    let [challenge] = &world.receiver.seen()[..] else { panic!("one request") };
    assert!(challenge.is("verification") && challenge.is_signed_by(SECRET));
    assert_eq!(challenge.header("x-mcp-subscription-id"), id);
    assert!(challenge.header("webhook-id").starts_with("msg_"));

    let event_id = jobs.emit(Job::in_queue(1, "q")).await.unwrap();
    world.receiver.until_number(1).await;
    let seen = world.receiver.delivered().remove(0);
    assert!(seen.is_signed_by(SECRET) && !seen.is_signed_by(NEW_SECRET));
    assert_eq!(seen.header("webhook-id"), &*event_id);
    assert_eq!(seen.header("x-mcp-subscription-id"), id);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.path, "/hook?key=1", "the query is kept");
    assert_eq!(seen.body["eventId"], *event_id);
    assert_eq!(seen.body["name"], "job.done");
    assert_eq!(seen.body["data"], json!({"number": 1, "queue": "q"}));
    assert!(seen.body["timestamp"].is_string() && seen.body["cursor"].is_string());
    assert_eq!(seen.body.get("type"), None, "that would be a control body");
}

#[tokio::test]
async fn an_endpoint_that_does_not_agree_gets_nothing() {
    let jobs = jobs("job.done").max_webhooks(1);
    let world = World::with(&[&jobs], |it| it.attempt_timeout = Duration::from_millis(300)).await;
    let mut ann = world.ann().await;
    let canary = |status: u16| Reply { body: "canary-4711".to_owned(), ..status.into() };
    for (status, reason) in [
        (200, "challenge_failed"),
        (204, "challenge_failed"),
        (404, "http_4xx"),
        (503, "http_5xx"),
        (302, "http_4xx"),
    ] {
        world.receiver.answer(move |_| canary(status));
        let error = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap_err();
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32015), &json!(reason)));
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    let other = |seen: &Seen| Reply { body: json!({"challenge": "x"}).to_string(), ..echo(seen) };
    world.receiver.answer(other);
    let error = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap_err();
    assert_eq!(error["data"]["reason"], "challenge_failed");
    world.receiver.hold(true);
    let error = ann.ask("events/subscribe", world.params(json!({}))).await.unwrap_err();
    assert_eq!(error["data"]["reason"], "timeout");
    world.receiver.hold(false);
    world.handle.allow_origin("http://127.0.0.1:1").unwrap();
    let error = ann.ask("events/subscribe", receiver::params("http://127.0.0.1:1/h", json!({})));
    assert_eq!(error.await.unwrap_err()["data"]["reason"], "connection_refused");
    emit(&jobs, [1]).await;
    assert!(world.handle.webhooks().is_empty() && world.receiver.delivered().is_empty());
    // None of them counts.
    world.receiver.answer(echo);
    world.subscribed().await;
}

#[tokio::test]
async fn an_endpoint_is_asked_once_for_each_principal() {
    let world = World::new(&[&jobs("job.done")]).await;
    let (mut ann, first) = world.subscribed().await;
    let other = world.params(json!({"arguments": {"queue": "q"}}));
    let second = ann.ask("events/subscribe", other).await.unwrap();
    assert_ne!(first["id"], second["id"]);
    assert_eq!(world.receiver.of_kind("verification").len(), 1);
    let mut bob = Peer::named(&world.engine, "bob").await;
    let third = bob.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_ne!(first["id"], third["id"]);
    assert_eq!(world.receiver.of_kind("verification").len(), 2);
    // Whose webhook it is, is no parameter.
    let params = world.params(json!({"id": first["id"]}));
    assert_eq!(bob.ask("events/subscribe", params).await.unwrap()["id"], third["id"]);
    let id = world.handle.webhook_id("ann", "job.done", &object(json!({})), &world.receiver.url());
    assert_eq!(Value::from(id.unwrap()), first["id"]);
}

#[tokio::test]
async fn a_refresh_keeps_the_webhook_and_replaces_the_secret() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, first) = world.subscribed().await;
    let url = world.receiver.url();
    let params = world.params(json!({"delivery": {"url": url, "secret": NEW_SECRET}}));
    let again = ann.ask("events/subscribe", params).await.unwrap();
    assert_eq!(again["id"], first["id"]);
    assert_eq!((&again["truncated"], &again["cursor"]), (&json!(false), &first["cursor"]));
    assert_eq!(again["deliveryStatus"]["active"], true);
    assert_eq!(again["deliveryStatus"]["lastError"], Value::Null);
    assert_eq!(world.handle.webhooks().len(), 1);
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    let seen = world.receiver.delivered().remove(0);
    assert!(seen.is_signed_by(SECRET) && seen.is_signed_by(NEW_SECRET));
    assert_eq!(seen.header("webhook-signature").split(' ').count(), 2);
    // A cursor is of no use while the webhook lives.
    let params = world.params(json!({"cursor": first["cursor"]}));
    ann.ask("events/subscribe", params).await.unwrap();
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
    assert_eq!(world.receiver.numbers(), [1, 2]);
}

#[tokio::test]
async fn a_secret_that_was_replaced_signs_no_longer_than_its_grace() {
    let jobs = jobs("job.done");
    let world = World::with(&[&jobs], |it| it.rotation_grace = Duration::ZERO).await;
    let (mut ann, _) = world.subscribed().await;
    let url = world.receiver.url();
    let params = world.params(json!({"delivery": {"url": url, "secret": NEW_SECRET}}));
    ann.ask("events/subscribe", params).await.unwrap();
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    let seen = world.receiver.delivered().remove(0);
    assert!(!seen.is_signed_by(SECRET) && seen.is_signed_by(NEW_SECRET));
}

#[tokio::test]
async fn an_unsubscribe_ends_the_webhook() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (mut ann, _) = world.subscribed().await;
    let mut bob = Peer::named(&world.engine, "bob").await;
    let error = bob.ask("events/unsubscribe", world.params(json!({}))).await.unwrap_err();
    assert_eq!(
        (&error["code"], &error["data"]),
        (&json!(-32011), &json!({"kind": "subscription"}))
    );
    for wrong in [
        json!({"arguments": {"queue": "q"}}),
        json!({"name": "job.lost"}),
        json!({"delivery": {"url": "https://r.example/h"}}),
    ] {
        let error = ann.ask("events/unsubscribe", world.params(wrong)).await.unwrap_err();
        assert_eq!(error["data"]["kind"], "subscription");
    }
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    let answer = ann.ask("events/unsubscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(answer["resultType"], "complete");
    emit(&jobs, [2]).await;
    // One that came before the extension may do so twice.
    assert!(ann.ask("events/unsubscribe", world.params(json!({}))).await.is_ok());
    let mut ann = ann.declares();
    let error = ann.ask("events/unsubscribe", world.params(json!({}))).await.unwrap_err();
    assert_eq!(error["code"], -32023);
    // A mark that comes after what must not come.
    bob.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    emit(&jobs, [3]).await;
    world.receiver.until_number(3).await;
    assert_eq!(world.receiver.numbers(), [1, 3]);
    assert!(world.receiver.of_kind("terminated").is_empty(), "the client knows it");
}

#[tokio::test]
async fn an_unsubscribe_may_be_lenient() {
    let world = World::with(&[&jobs("job.done")], |it| it.lenient_unsubscribe = true).await;
    let mut ann = world.ann().await.declares();
    assert!(ann.ask("events/unsubscribe", world.params(json!({}))).await.is_ok());
}

#[tokio::test]
async fn an_unsubscribe_wins_over_a_challenge_that_runs() {
    let jobs = jobs("job.done").max_webhooks(1);
    let world = World::new(&[&jobs]).await;
    let (mut ann, mut other) = (world.ann().await, world.ann().await);
    world.receiver.hold(true);
    let subscribe = ann.send("events/subscribe", world.params(json!({}))).await;
    world.receiver.until("a challenge", |seen| seen.len() == 1).await;
    assert!(other.ask("events/unsubscribe", world.params(json!({}))).await.is_ok());
    world.receiver.hold(false);
    let error = ann.answer(subscribe).await.unwrap_err();
    assert_eq!(error["data"]["kind"], "subscription", "{error}");
    assert!(world.handle.webhooks().is_empty());
    emit(&jobs, [1]).await;
    let (_, answer) = world.subscribed().await;
    assert_eq!(answer["truncated"], false);
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
    assert_eq!(world.receiver.numbers(), [2]);
}

#[tokio::test]
async fn subscribes_at_once_make_one_webhook() {
    let jobs = jobs("job.done");
    // A machine with much to do may take its time.
    let change = |it: &mut WebhookConfig| it.attempt_timeout = Duration::from_secs(20);
    let world = World::with(&[&jobs], change).await;
    world.receiver.hold(true);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut ann = world.ann().await;
        let id = ann.send("events/subscribe", world.params(json!({}))).await;
        clients.push((ann, id));
    }
    world.receiver.until("a challenge", |seen| !seen.is_empty()).await;
    world.receiver.hold(false);
    let mut ids = Vec::new();
    for (ann, id) in &mut clients {
        ids.push(ann.answer(*id).await.unwrap()["id"].to_string());
    }
    ids.dedup();
    assert_eq!((ids.len(), world.handle.webhooks().len()), (1, 1));
    emit(&jobs, 1..=3).await;
    world.receiver.until_number(3).await;
    world.receiver.until("all", |seen| seen.iter().filter_map(Seen::number).count() == 3).await;
}

#[tokio::test]
async fn a_webhook_that_is_not_refreshed_expires() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let mut ann = world.ann().await;
    let params = world.params(json!({"ttlMs": 700}));
    ann.ask("events/subscribe", params.clone()).await.unwrap();
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    let begun = Instant::now();
    support::until("it expires", || world.handle.webhooks().is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    emit(&jobs, [2]).await;
    let (_, answer) = world.subscribed().await;
    assert_eq!(answer.get("deliveryStatus"), None, "it is a new one: {answer}");
    emit(&jobs, [3]).await;
    world.receiver.until_number(3).await;
    assert_eq!(world.receiver.numbers(), [1, 3]);
    assert!(world.receiver.of_kind("terminated").is_empty());
}

#[tokio::test]
async fn any_time_to_live_is_granted_within_bounds() {
    let world = World::with(&[&jobs("job.done")], |it| {
        it.min_ttl = Duration::from_secs(60);
        it.max_ttl = Duration::from_secs(86_400);
    })
    .await;
    let mut ann = world.ann().await;
    for (asked, granted) in [
        (json!(0), 60),
        (json!(-5), 60),
        (json!(120_000), 120),
        (json!(1e300), 86_400),
        (json!(null), 86_400),
    ] {
        let params = world.params(json!({"ttlMs": asked}));
        let answer = ann.ask("events/subscribe", params).await.unwrap();
        let text = answer["refreshBefore"].as_str().unwrap();
        let until = SystemTime::from(chrono::DateTime::parse_from_rfc3339(text).unwrap());
        let left = until.duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((granted - 5..=granted).contains(&left), "{asked}: {left}");
    }
    for wrong in [json!("60000"), json!([]), json!(true)] {
        let params = world.params(json!({"ttlMs": wrong}));
        assert_eq!(ann.ask("events/subscribe", params).await.unwrap_err()["code"], -32602);
    }
}

#[tokio::test]
async fn there_are_only_so_many() {
    let (capped, other) = (jobs("job.done").max_webhooks(2), jobs("other"));
    let world = World::with(&[&capped, &other], |it| it.max_of_principal = 3).await;
    let mut ann = world.ann().await;
    let of = |name: &str, queue: &str| {
        world.params(json!({"name": name, "arguments": {"queue": queue}}))
    };
    for queue in ["a", "b", "a"] {
        ann.ask("events/subscribe", of("job.done", queue)).await.unwrap();
    }
    let error = ann.ask("events/subscribe", of("job.done", "c")).await.unwrap_err();
    let data = json!({"limit": "subscriptions", "max": 2});
    assert_eq!((&error["code"], &error["data"]), (&json!(-32013), &data));
    ann.ask("events/subscribe", of("other", "a")).await.unwrap();
    let error = ann.ask("events/subscribe", of("other", "b")).await.unwrap_err();
    assert_eq!(error["data"]["max"], 3);
    let mut bob = Peer::named(&world.engine, "bob").await;
    bob.ask("events/subscribe", of("job.done", "a")).await.unwrap();
    ann.ask("events/unsubscribe", of("job.done", "a")).await.unwrap();
    ann.ask("events/subscribe", of("job.done", "c")).await.unwrap();
    assert_eq!(world.handle.webhooks().len(), 4);
}

#[tokio::test]
async fn what_is_no_callback_is_refused_and_not_connected_to() {
    let world = World::new(&[&jobs("job.done")]).await;
    let canary = receiver::Receiver::new().await;
    let mut ann = world.ann().await;
    let loopback = canary.origin();
    let urls = [
        loopback.clone(),
        loopback.replace("http:", "https:"),
        "https://10.0.0.1/h".to_owned(),
        "https://[::1]/h".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        "https://localhost/h".to_owned(),
        "https://user:pass@r.example/h".to_owned(),
        "https://r.example/h#part".to_owned(),
        "http://r.example/h".to_owned(),
        "ftp://r.example/h".to_owned(),
        "no url".to_owned(),
        String::new(),
    ];
    for url in &urls {
        let error = ann.ask("events/subscribe", receiver::params(url, json!({}))).await;
        assert_eq!(error.unwrap_err()["code"], -32602, "{url}");
    }
    for delivery in [
        json!({"url": world.receiver.url()}),
        json!({"url": world.receiver.url(), "secret": "whsec_AAAA"}),
        json!({"url": world.receiver.url(), "secret": "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}),
        json!({"url": world.receiver.url(), "secret": 7}),
        json!({"secret": SECRET}),
    ] {
        let params = world.params(json!({"delivery": delivery}));
        let error = ann.ask("events/subscribe", params).await.unwrap_err();
        assert_eq!(error["code"], -32602, "{delivery}");
        assert!(!error.to_string().contains("C2FVs"), "no secret is told: {error}");
    }
    let url = world.receiver.url();
    let push = json!({"mode": "push", "url": url, "secret": SECRET});
    let error = ann.ask("events/subscribe", world.params(json!({"delivery": push}))).await;
    assert_eq!(error.unwrap_err()["data"], json!({"feature": "deliveryMode", "value": "push"}));
    assert!(canary.seen().is_empty() && world.receiver.seen().is_empty());
}

#[tokio::test]
async fn a_webhook_may_begin_with_what_was_before_it() {
    let few = support::without_replay("job.done").replay(3, Duration::from_secs(3600));
    let world = World::new(&[&few]).await;
    let mut ann = world.ann().await;
    let start = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&few, [1]).await;
    let later = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&few, 2..=4).await;
    let params = world.params(json!({"cursor": later}));
    let answer = ann.ask("events/subscribe", params).await.unwrap();
    assert_eq!((&answer["cursor"], &answer["truncated"]), (&later, &json!(false)));
    world.receiver.until_number(4).await;
    let params = world.params(json!({"cursor": start, "arguments": {"queue": "q"}}));
    let answer = ann.ask("events/subscribe", params).await.unwrap();
    assert_eq!(answer["truncated"], true);
    assert_eq!(
        polled(&ann.poll(json!({"name": "job.done", "cursor": answer["cursor"]})).await),
        [2, 3, 4]
    );
    world.receiver.until("both", |seen| seen.iter().filter_map(Seen::number).count() == 6).await;
}

#[tokio::test]
async fn each_webhook_gets_what_is_for_it() {
    let jobs = jobs("job.done").transform(|subscriber, _, job| {
        Some(Job::in_queue(job.number, subscriber.principal().unwrap_or("nobody")))
    });
    let world = World::new(&[&jobs]).await;
    let (_, anns) = world.subscribed().await;
    let mut bob = Peer::named(&world.engine, "bob").await;
    let bobs = bob.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    emit(&jobs, [1]).await;
    let only = Emit::new(Job::in_queue(2, "as it is")).only_for(bobs["id"].as_str().unwrap());
    jobs.emit_as(only).await.unwrap();
    world.receiver.until("three", |seen| seen.iter().filter_map(Seen::number).count() == 3).await;
    let of = |answer: &Value| {
        let id = answer["id"].as_str().unwrap().to_owned();
        let own = world.receiver.delivered();
        let own = own.into_iter().filter(|it| it.header("x-mcp-subscription-id") == id);
        let mut own: Vec<_> = own.map(|it| it.body["data"].to_string()).collect();
        own.sort();
        own
    };
    assert_eq!(of(&anns), [json!({"number": 1, "queue": "ann"}).to_string()]);
    let expected =
        [json!({"number": 1, "queue": "bob"}), json!({"number": 2, "queue": "as it is"})];
    assert_eq!(of(&bobs), expected.map(|it| it.to_string()));
}

#[tokio::test]
async fn an_application_may_add_webhooks_and_end_them() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let (handle, url) = (&world.handle, world.receiver.url());
    let add =
        handle.subscribe_as(Identity::named("ann"), "job.done", object(json!({})), &url, SECRET);
    let id = add.await.unwrap();
    assert!(world.receiver.seen().is_empty(), "nobody is asked");
    let view = handle.webhook(&id).unwrap();
    assert_eq!((&*view.principal, &*view.event_type), ("ann", "job.done"));
    assert_eq!(view.origin, world.receiver.origin());
    assert!(handle.report_gap(&id) && !handle.report_gap("sub_none"));
    world.receiver.until("a gap", |seen| seen.iter().any(|it| it.is("gap"))).await;
    let gap = world.receiver.of_kind("gap").remove(0);
    assert!(gap.body["cursor"].is_string() && gap.is_signed_by(SECRET));
    assert!(gap.header("webhook-id").starts_with("msg_gap_"));
    let why = EventError::Forbidden("no more".to_owned());
    assert!(handle.end_webhook(&id, &why) && !handle.end_webhook(&id, &why));
    world.receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    let end = world.receiver.of_kind("terminated").remove(0);
    assert_eq!(end.body["error"]["data"]["reason"], "no more");
    assert!(end.header("webhook-id").starts_with("msg_terminated_") && end.is_signed_by(SECRET));
    assert!(handle.webhook(&id).is_none());
    let wrong =
        handle.subscribe_as(Identity::named("ann"), "none", object(json!({})), &url, SECRET);
    assert_eq!(wrong.await, Err(EventError::UnknownType("none".to_owned())));
}

#[tokio::test]
async fn everybody_may_have_webhooks_where_nobody_is_known() {
    let jobs = jobs("job.done");
    let world = World::with(&[&jobs], |it| it.everybody = Some("everybody".into())).await;
    let mut client = Peer::stranger(&world.engine).await;
    client.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(&*world.handle.webhooks()[0].principal, "everybody");
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
}
