//! Who may know of a type, who may subscribe to it, and what of a payload each one sees.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::Engine;
use stentor_engine::identity::{Identity, Labels};
use stentor_events::{Events, Mode, WebhookConfig};
use support::{EVENT, Job, Jobs, Peer, emit, engine, jobs, polled, server};

/// A parameter object that fits each method.
fn params(name: &str) -> Value {
    json!({
        "name": name, "arguments": {},
        "delivery": {"url": "https://r.example/h", "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
    })
}

async fn with_webhooks(types: &[&Jobs]) -> Engine {
    let events = types.iter().fold(Events::new(), |events, it| events.add(it));
    let mut webhooks = WebhookConfig::new();
    webhooks.agreed = vec!["https://r.example/".into()];
    let builder = server().extension(events.webhooks(webhooks));
    builder.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_hidden_does_not_exist() {
    let hidden = jobs("hidden").access(|rules| rules.only_for(["auditor"]));
    let engine = with_webhooks(&[&hidden]).await;
    let auditor = Identity::named("ann").roles(["auditor"]);
    let mut client = Peer::named(&engine, "bob").await;
    for method in ["events/poll", "events/stream", "events/subscribe"] {
        let [refused, unknown] = [
            client.ask(method, params("hidden")).await.unwrap_err(),
            client.ask(method, params("hiddem")).await.unwrap_err(),
        ];
        assert_eq!(
            (&refused["code"], &refused["data"]),
            (&json!(-32011), &json!({"kind": "event"}))
        );
        assert_eq!((&unknown["code"], &unknown["data"]), (&refused["code"], &refused["data"]));
        let [refused, unknown] = [&refused, &unknown].map(|it| it["message"].to_string());
        assert_eq!(refused, unknown.replace("hiddem", "hidden"), "nothing tells them apart");
    }
    let mut auditor = Peer::known(&engine, auditor).await;
    assert!(auditor.ask("events/poll", params("hidden")).await.is_ok());
    assert!(auditor.ask("events/subscribe", params("hidden")).await.is_ok());
    auditor.opened(params("hidden")).await;
}

#[tokio::test(start_paused = true)]
async fn who_lacks_a_scope_is_told_which() {
    let jobs = jobs("job.done").access(|rules| rules.require_scope("jobs:read"));
    let engine = with_webhooks(&[&jobs]).await;
    let list = Peer::stranger(&engine).await.list(json!({})).await;
    assert_eq!(list["events"][0]["name"], "job.done", "it is seen");
    let mut client = Peer::known(&engine, Identity::named("ann").scopes(["jobs:write"])).await;
    for method in ["events/poll", "events/stream", "events/subscribe"] {
        let error = client.ask(method, params("job.done")).await.unwrap_err();
        let data = json!({"reason": "insufficient_scope", "scope": "jobs:read"});
        assert_eq!((&error["code"], &error["data"]), (&json!(-32012), &data), "{method}");
    }
    let mut client = client.declares();
    let error = client.ask("events/poll", params("job.done")).await.unwrap_err();
    assert_eq!(error["code"], -32024);
    let mut reader = Peer::known(&engine, Identity::named("bob").scopes(["jobs:read"])).await;
    assert!(reader.ask("events/poll", params("job.done")).await.is_ok());
    assert!(reader.ask("events/subscribe", params("job.done")).await.is_ok());
    reader.opened(params("job.done")).await;
}

#[tokio::test(start_paused = true)]
async fn scopes_may_depend_on_the_arguments() {
    let jobs = jobs("job.done").access(|rules| {
        rules.require(|request| request.text("queue").map(|queue| format!("queue:{queue}")))
    });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::known(&engine, Identity::named("ann").scopes(["queue:a"])).await;
    let of = |queue: &str| json!({"name": "job.done", "arguments": {"queue": queue}});
    client.opened(of("a")).await;
    client.opened(json!({"name": "job.done"})).await;
    for method in ["events/poll", "events/stream"] {
        let error = client.ask(method, of("b")).await.unwrap_err();
        assert_eq!(error["data"]["scope"], "queue:b");
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_arguments_and_modes_are_told_before_the_rights() {
    let jobs = jobs("job.done").delivery([Mode::Poll]).allow(|_, _| false);
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let code = async |client: &mut Peer, method: &str, arguments: Value| {
        let params = json!({"name": "job.done", "arguments": arguments});
        client.ask(method, params).await.unwrap_err()["code"].take()
    };
    assert_eq!(code(&mut client, "events/stream", json!({"queue": 1})).await, -32014);
    assert_eq!(code(&mut client, "events/poll", json!({"queue": 1})).await, -32602);
    assert_eq!(code(&mut client, "events/poll", json!({})).await, -32012);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_allows_nobody() {
    let jobs = jobs("job.done").allow(|_, _| panic!("a bug"));
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    for method in ["events/poll", "events/stream"] {
        let error = client.ask(method, json!({"name": "job.done"})).await.unwrap_err();
        assert_eq!(error["code"], -32012);
    }
}

#[tokio::test(start_paused = true)]
async fn labels_that_change_hide_a_type_from_who_has_it() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let is_staff = Arc::new(AtomicBool::new(true));
    let asks = is_staff.clone();
    let jobs = jobs("job.done").access(|rules| rules.only_for(["staff"]));
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let labels = move |identity: &Identity| {
        let mut labels = Labels::of(identity);
        if asks.load(Ordering::Relaxed) {
            labels.extend(["staff"]);
        }
        labels
    };
    let engine = server().labels(labels).extension(events).start().await.unwrap();
    let mut client = Peer::named(&engine, "ann").await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    is_staff.store(false, Ordering::Relaxed);
    engine.refresh_visibility("ann").await;
    handle.recheck();
    assert_eq!(client.terminated(id).await["code"], -32012);
    let error = client.ask("events/poll", json!({"name": "job.done"})).await.unwrap_err();
    assert_eq!(error["code"], -32011);
}

/// A type whose payload names who it is for; nobody else hears of what is in the queue `private`.
fn personal(name: &str) -> Jobs {
    jobs(name).transform(|subscriber, _, job| {
        let who = subscriber.principal().unwrap_or("nobody");
        (job.queue != "private" || who == "ann").then(|| Job::in_queue(job.number, who))
    })
}

#[tokio::test(start_paused = true)]
async fn each_principal_gets_a_payload_of_its_own() {
    let jobs = personal("job.done");
    let engine = engine(&[&jobs]).await;
    let mut clients = vec![
        ("ann", Peer::named(&engine, "ann").await),
        ("bob", Peer::named(&engine, "bob").await),
        ("ann", Peer::named(&engine, "ann").await),
        ("nobody", Peer::stranger(&engine).await),
    ];
    let mut opened = Vec::new();
    for (_, client) in &mut clients {
        let cursor = client.poll(json!({"name": "job.done"})).await["cursor"].take();
        opened.push((client.opened(json!({"name": "job.done"})).await.0, cursor));
    }
    for number in 1..=5 {
        let queue = if number == 3 { "private" } else { "q" };
        jobs.emit(Job::in_queue(number, queue)).await.unwrap();
    }
    for ((who, client), (id, cursor)) in clients.iter_mut().zip(opened) {
        let heard: &[u64] = if *who == "ann" { &[1, 2, 3, 4, 5] } else { &[1, 2, 4, 5] };
        for number in heard {
            let (method, event) = client.next(id).await;
            assert_eq!(method, EVENT);
            assert_eq!(event["data"], json!({"number": number, "queue": who}));
        }
        let answer = client.poll(json!({"name": "job.done", "cursor": cursor})).await;
        assert_eq!(polled(&answer), heard);
        let events = answer["events"].as_array().unwrap();
        assert!(events.iter().all(|it| it["data"]["queue"] == *who), "{events:?}");
        // And once more what is replayed on a stream.
        let params = json!({"name": "job.done", "cursor": cursor});
        let (id, _) = client.opened(params).await;
        let (_, event) = client.next(id).await;
        assert_eq!(event["data"]["queue"], *who);
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_gets_a_transform_mixes_no_payloads() {
    let open = jobs("job.done");
    let events = Events::new().add(&open);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut ann = Peer::named(&engine, "ann").await;
    let mut bob = Peer::named(&engine, "bob").await;
    let (anns, _) = ann.opened(json!({"name": "job.done"})).await;
    let (bobs, _) = bob.opened(json!({"name": "job.done"})).await;
    emit(&open, [1]).await;
    assert_eq!(ann.numbers(anns, 1).await, [1]);
    assert_eq!(bob.numbers(bobs, 1).await, [1]);
    handle.replace(&personal("job.done")).await.unwrap();
    emit(&open, [2]).await;
    for (who, client, id) in [("ann", &mut ann, anns), ("bob", &mut bob, bobs)] {
        let (_, event) = client.next(id).await;
        assert_eq!(event["data"]["queue"], who);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_its_own_payloads_too() {
    let jobs = personal("job.done").replay(5_000, Duration::from_secs(3600));
    let events = Events::new().add(&jobs);
    let engine = server().extension(events).configure(|config| config.limits.bytes = 5_000);
    let engine = engine.start().await.unwrap();
    let mut clients =
        [("ann", Peer::named(&engine, "ann").await), ("bob", Peer::named(&engine, "bob").await)];
    let mut ids = Vec::new();
    for (_, client) in &mut clients {
        ids.push(client.opened(json!({"name": "job.done"})).await.0);
    }
    emit(&jobs, 1..=300).await;
    for ((who, client), id) in clients.iter_mut().zip(ids) {
        for number in 1..=300 {
            let (_, event) = client.next(id).await;
            assert_eq!(event["data"], json!({"number": number, "queue": who}));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_can_own_no_webhook() {
    let engine = with_webhooks(&[&jobs("job.done")]).await;
    let mut client = Peer::stranger(&engine).await;
    for method in ["events/subscribe", "events/unsubscribe"] {
        let error = client.ask(method, params("job.done")).await.unwrap_err();
        assert_eq!(error["code"], -32012);
        assert!(error["data"]["reason"].is_string());
        // Also before anything else is looked at.
        assert_eq!(client.ask(method, json!({})).await.unwrap_err()["code"], -32012);
    }
    let plain = support::engine(&[&jobs("job.done")]).await;
    let mut ann = Peer::named(&plain, "ann").await;
    let error = ann.ask("events/subscribe", params("job.done")).await.unwrap_err();
    assert!([json!(-32012), json!(-32014)].contains(&error["code"]), "webhooks are off: {error}");
}
