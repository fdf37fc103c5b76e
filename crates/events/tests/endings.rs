//! How streams end: by their type, by rights, by the engine, by the client, and by a crash.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stentor_engine::identity::Identity;
use stentor_events::{EventError, Events, event_type};
use support::{ACTIVE, Filter, Job, Peer, emit, engine, engine_with, jobs, polled, server, until};
#[path = "support/faults.rs"]
mod faults;

#[tokio::test(start_paused = true)]
async fn a_type_that_is_removed_ends_its_streams_and_can_come_back() {
    let (jobs, other) = (jobs("job.done"), jobs("other"));
    let events = Events::new().add(&jobs).add(&other);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let mut declares = Peer::stranger(&engine).await.declares();
    let (one, active) = client.opened(json!({"name": "job.done"})).await;
    let (two, _) = declares.opened(json!({"name": "job.done"})).await;
    let (stays, _) = client.opened(json!({"name": "other"})).await;
    emit(&jobs, [1]).await;
    handle.remove("job.done").await.unwrap();
    for (client, id, code) in [(&mut client, one, -32011), (&mut declares, two, -32023)] {
        assert_eq!(client.numbers(id, 1).await, [1], "it was before the end");
        let error = client.terminated(id).await;
        assert_eq!((&error["code"], &error["data"]), (&json!(code), &json!({"kind": "event"})));
    }
    let params = json!({"name": "job.done", "cursor": active["cursor"]});
    for method in ["events/poll", "events/stream"] {
        let error = client.ask(method, params.clone()).await.unwrap_err();
        assert_eq!(error["code"], -32011);
    }
    assert!(jobs.emit(Job::in_queue(2, "q")).await.is_err());
    emit(&other, [7]).await;
    assert_eq!(client.numbers(stays, 1).await, [7]);

    handle.add(&jobs).await.unwrap();
    support::until("the type has an actor", || faults::below(&faults::keeper(&engine)).len() == 2)
        .await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [3]).await;
    assert_eq!(client.numbers(id, 1).await, [3]);
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "a schema only")]
struct MoreFilter {
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    priority: Option<u8>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct OtherJob {
    number: String,
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_grows_ends_nothing_and_one_that_breaks_ends_all() {
    let jobs = jobs("job.done");
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let (one, _) = client.opened(json!({"name": "job.done"})).await;
    let more = event_type::<MoreFilter, Job>("job.done").replay(100, Duration::from_secs(3600));
    handle.replace(&more).await.unwrap();
    let params = json!({"name": "job.done", "arguments": {"priority": 7}});
    let (two, _) = client.opened(params).await;
    emit(&jobs, [1]).await;
    assert_eq!(client.numbers(one, 1).await, [1]);
    assert_eq!(client.numbers(two, 1).await, [1]);

    let broken = event_type::<MoreFilter, OtherJob>("job.done");
    handle.replace(&broken).await.unwrap();
    for id in [one, two] {
        let error = client.terminated(id).await;
        assert_eq!(error["code"], -32014);
        let data = json!({"feature": "payloadSchema", "reason": "schema_changed"});
        assert_eq!(error["data"], data);
    }
    let narrow = event_type::<(), OtherJob>("job.done").schemas(
        support::object(json!({"type": "object", "additionalProperties": false})),
        broken.payload_schema(),
    );
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    handle.replace(&narrow).await.unwrap();
    let error = client.terminated(id).await;
    assert_eq!(error["data"]["feature"], "inputSchema");
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    assert!(id > 0, "it can be opened anew");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_any_longer_is_told_at_once_or_with_the_next_beat() {
    for at_once in [true, false] {
        let allowed = Arc::new(AtomicBool::new(true));
        let asks = allowed.clone();
        let jobs = jobs("job.done").allow(move |subscriber, _| {
            subscriber.principal() != Some("ann") || asks.load(Ordering::Relaxed)
        });
        let events = Events::new().add(&jobs);
        let handle = events.handle();
        let engine = server().extension(events).start().await.unwrap();
        let mut ann = Peer::named(&engine, "ann").await;
        let mut bob = Peer::named(&engine, "bob").await;
        let (anns, _) = ann.opened(json!({"name": "job.done"})).await;
        let (bobs, _) = bob.opened(json!({"name": "job.done"})).await;
        allowed.store(false, Ordering::Relaxed);
        let begun = tokio::time::Instant::now();
        if at_once {
            handle.recheck();
        }
        let error = ann.terminated(anns).await;
        assert_eq!(error["code"], -32012);
        assert!(error["data"]["reason"].is_string(), "{error}");
        let most = if at_once { Duration::ZERO } else { Duration::from_secs(15) };
        assert!(begun.elapsed() <= most + Duration::from_millis(10), "{:?}", begun.elapsed());
        let error = ann.ask("events/poll", json!({"name": "job.done"})).await.unwrap_err();
        assert_eq!(error["code"], -32012);
        emit(&jobs, [1]).await;
        assert_eq!(bob.numbers(bobs, 1).await, [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_hidden_from_who_has_it_ends_as_forbidden() {
    let open = jobs("job.done");
    let events = Events::new().add(&open);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let auditor = Identity::named("ann").roles(["auditor"]);
    let mut auditor = Peer::known(&engine, auditor).await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    let (stays, _) = auditor.opened(json!({"name": "job.done"})).await;
    let hidden = open.clone().access(|rules| rules.only_for(["auditor"]));
    handle.replace(&hidden).await.unwrap();
    handle.recheck();
    assert_eq!(client.terminated(id).await["code"], -32012, "it knows that the type exists");
    let error = client.ask("events/stream", json!({"name": "job.done"})).await.unwrap_err();
    assert_eq!(error["code"], -32011);
    emit(&open, [1]).await;
    assert_eq!(auditor.numbers(stays, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_principal_that_is_revoked_is_told_before_the_result() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let mut bob = Peer::named(&engine, "bob").await;
    let (one, _) = ann.opened(json!({"name": "job.done"})).await;
    let (two, _) = ann.opened(json!({"name": "job.done", "arguments": {"queue": "q"}})).await;
    let (bobs, _) = bob.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [1]).await;
    engine.revoke("ann").await;
    for id in [one, two] {
        assert_eq!(ann.numbers(id, 1).await, [1]);
        let error = ann.terminated(id).await;
        assert_eq!(error["code"], -32012);
        assert!(error["data"]["reason"].is_string());
    }
    emit(&jobs, [2]).await;
    assert_eq!(bob.numbers(bobs, 2).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_with_their_results_alone() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::named(&engine, "ann").await;
    let (one, _) = client.opened(json!({"name": "job.done"})).await;
    let (two, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [1]).await;
    let stopping = engine.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown().await });
    for id in [one, two] {
        assert_eq!(client.numbers(id, 1).await, [1]);
        client.ended(id).await;
    }
    drop(client);
    stopped.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_author_may_end_all_subscriptions_of_a_type_that_stays() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    jobs.end_subscriptions(EventError::Forbidden("closed for today".to_owned()));
    let error = client.terminated(id).await;
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(-32012), &json!("closed for today"))
    );
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, [1]).await;
    assert_eq!(client.numbers(id, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_leaves_nothing_behind() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begins, ends) = (begun.clone(), ended.clone());
    let count = |count: &Arc<AtomicUsize>| count.fetch_add(1, Ordering::Relaxed);
    let jobs = jobs("job.done")
        .on_subscribe(move |_: Arc<Filter>| {
            count(&begins);
            async {}
        })
        .on_unsubscribe(move |_| {
            count(&ends);
            async {}
        });
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    for queue in ["a", "b", "c"] {
        client.opened(json!({"name": "job.done", "arguments": {"queue": queue}})).await;
    }
    drop(client);
    until("all have ended", || ended.load(Ordering::Relaxed) == 3).await;
    assert_eq!(begun.load(Ordering::Relaxed), 3);
    emit(&jobs, 1..=500).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_full_still_hears_of_its_end() {
    let jobs = jobs("job.done");
    let events = Events::new().add(&jobs);
    let engine = server().extension(events).configure(|config| config.limits.bytes = 5_000);
    let engine = engine.start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    let (id, _) = client.opened(json!({"name": "job.done"})).await;
    emit(&jobs, 1..=100).await;
    jobs.end_subscriptions(EventError::Forbidden("closed".to_owned()));
    let mut heard = Vec::new();
    let last = loop {
        let (method, params) = client.next(id).await;
        match params["data"]["number"].as_u64() {
            Some(number) => heard.push(number),
            None => break method,
        }
    };
    assert_eq!(last, support::TERMINATED);
    assert_eq!(heard, (1..=heard.len() as u64).collect::<Vec<_>>());
    client.ended(id).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_crashes_ends_its_streams_and_the_next_one_goes_on() {
    for kills_keeper in [false, true] {
        let jobs = jobs("job.done");
        let engine = engine_with(&[&jobs], |_| ()).await;
        let mut client = Peer::stranger(&engine).await;
        let (id, _) = client.opened(json!({"name": "job.done"})).await;
        emit(&jobs, [1]).await;
        let (_, event) = client.next(id).await;
        let keeper = faults::keeper(&engine);
        let killed = if kills_keeper { vec![keeper] } else { faults::below(&keeper) };
        let before = killed[0].get_id();
        killed[0].kill_and_wait(None).await.unwrap();
        client.ended(id).await;
        emit(&jobs, [2]).await;
        until("there is another one", || {
            let keepers = engine.supervisor_cell().get_children();
            let keeper = keepers.into_iter().find(|it| !it.get_children().is_empty());
            keeper.is_some_and(|it| {
                let child = it.get_children().remove(0).get_id();
                if kills_keeper { it.get_id() != before } else { child != before }
            })
        })
        .await;
        let params = json!({"name": "job.done", "cursor": event["cursor"]});
        assert_eq!(polled(&client.poll(params.clone()).await), [2]);
        let (id, active) = client.opened(params).await;
        assert_eq!(active["truncated"], false);
        emit(&jobs, [3]).await;
        assert_eq!(client.numbers(id, 2).await, [2, 3]);
    }
}

/// As one that opens just when the actor of its type has crashed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_opens_while_its_type_has_no_actor_hears_everything_or_ends() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    // The next keeper comes after a pause.
    faults::keeper(&engine).kill_and_wait(None).await.unwrap();
    let id = client.stream(json!({"name": "job.done"})).await;
    let (method, _) = client.next(id).await;
    if method == ACTIVE {
        emit(&jobs, [1]).await;
        let (method, params) = client.next(id).await;
        assert!(method == "result" || params["data"]["number"] == 1, "{method} {params}");
    }
}
