//! What outlives an engine, an actor, and a change of mind: webhooks and their store.

#[path = "support/faults.rs"]
mod faults;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use receiver::{Receiver, SECRET, Seen, World, start};
use serde_json::{Value, json};
use stentor_engine::{Engine, EngineBuilder, NodeId};
use stentor_events::{
    Events, EventsHandle, EventsStore, MemoryEventsStore, StoreError, StoredOccurrence,
    StoredWebhook, WebhookConfig,
};
use support::{Job, Jobs, Peer, emit, jobs, until};
use tokio::sync::watch;

/// A store in memory that says of itself what the test wants, and that can be slow.
#[derive(Debug)]
struct TestStore {
    inner: MemoryEventsStore,
    is_durable: bool,
    open: watch::Sender<bool>,
    /// Writes that wait.
    waiting: AtomicUsize,
}

impl TestStore {
    fn new(is_durable: bool) -> Arc<Self> {
        let (inner, open) = (MemoryEventsStore::default(), watch::channel(true).0);
        Arc::new(Self { inner, is_durable, open, waiting: AtomicUsize::new(0) })
    }

    fn hold(&self, hold: bool) {
        self.open.send_replace(!hold);
    }

    async fn turn(&self) {
        let mut open = self.open.subscribe();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = open.wait_for(|is_open| *is_open).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    async fn until_one_waits(&self) {
        until("a write", || self.waiting.load(Ordering::Relaxed) > 0).await;
    }

    async fn ids(&self) -> Vec<String> {
        self.inner.load().await.unwrap().iter().map(StoredWebhook::id).collect()
    }
}

impl EventsStore for TestStore {
    fn is_durable(&self) -> bool {
        self.is_durable
    }

    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.turn().await;
            self.inner.put(webhooks).await
        }
        .boxed()
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.remove(ids)
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>> {
        self.inner.load()
    }

    fn append(
        &self,
        occurrence: StoredOccurrence,
        keep: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        // Kept at once; that it is known takes longer.
        let kept = self.inner.append(occurrence, keep);
        async move {
            kept.await?;
            self.turn().await;
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        event_type: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredOccurrence>, StoreError>> {
        self.inner.read(event_type)
    }
}

/// An engine over a store, always as the same node.
async fn over(
    store: &Arc<TestStore>,
    receiver: &Receiver,
    jobs: &Jobs,
    change: impl FnOnce(&mut WebhookConfig),
) -> (Engine, EventsHandle) {
    let same = |builder: EngineBuilder| {
        builder.configure(|config| config.node = NodeId::new("judge").unwrap())
    };
    let store = store.clone();
    start(receiver, &[jobs], change, |events| events.store(store), same).await
}

async fn subscribe(engine: &Engine, receiver: &Receiver, more: Value) -> Value {
    let mut ann = Peer::named(engine, "ann").await;
    ann.ask("events/subscribe", receiver::params(&receiver.url(), more)).await.unwrap()
}

#[tokio::test]
async fn the_next_engine_goes_on_with_the_webhooks_of_its_store() {
    let (jobs, store, receiver) = (jobs("job.done"), TestStore::new(false), Receiver::new().await);
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    let first = subscribe(&engine, &receiver, json!({})).await;
    emit(&jobs, [1]).await;
    receiver.until_number(1).await;
    engine.shutdown().await;

    let (engine, handle) = over(&store, &receiver, &jobs, |_| ()).await;
    assert_eq!(handle.webhooks().len(), 1);
    emit(&jobs, [2]).await;
    receiver.until_number(2).await;
    let seen = receiver.delivered().pop().unwrap();
    assert!(seen.is_signed_by(SECRET));
    assert_eq!(seen.header("x-mcp-subscription-id"), first["id"].as_str().unwrap());
    assert_eq!(receiver.numbers(), [1, 2]);
    let again = subscribe(&engine, &receiver, json!({})).await;
    assert_eq!((&again["id"], &again["truncated"]), (&first["id"], &json!(true)));
    assert!(again["deliveryStatus"].is_object(), "it is a refresh");
    assert_eq!(receiver.of_kind("verification").len(), 1);
    let again = subscribe(&engine, &receiver, json!({})).await;
    assert_eq!(again["truncated"], false);
}

#[tokio::test]
async fn a_durable_type_delivers_after_a_restart_what_was_open() {
    let jobs = jobs("job.done").durable();
    let (store, receiver) = (TestStore::new(true), Receiver::new().await);
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    subscribe(&engine, &receiver, json!({})).await;
    emit(&jobs, [1]).await;
    receiver.until_number(1).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let cursor = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
    receiver.answer_events(|_| 503);
    emit(&jobs, [2]).await;
    receiver.until_number(2).await;
    let failed = receiver.delivered().pop().unwrap();
    drop(ann);
    engine.shutdown().await;

    receiver.answer_events(|_| 200);
    let before = receiver.delivered().len();
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    receiver
        .until("it again", |seen| seen.iter().filter(|it| it.number() == Some(2)).count() > 1)
        .await;
    emit(&jobs, [3]).await;
    receiver.until_number(3).await;
    let later = receiver.delivered().split_off(before);
    let numbers: Vec<_> = later.iter().filter_map(Seen::number).collect();
    assert!(numbers.iter().all(|number| *number > 1), "1 was acknowledged: {numbers:?}");
    assert_eq!(later[0].header("webhook-id"), failed.header("webhook-id"));
    assert_eq!(subscribe(&engine, &receiver, json!({})).await["truncated"], false);
    let mut ann = Peer::named(&engine, "ann").await;
    let answer = ann.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((support::polled(&answer), &answer["truncated"]), (vec![2, 3], &json!(false)));
}

#[tokio::test]
async fn what_is_over_is_not_continued() {
    let (jobs, store, receiver) = (jobs("job.done"), TestStore::new(false), Receiver::new().await);
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    subscribe(&engine, &receiver, json!({"ttlMs": 500})).await;
    let mut bob = Peer::named(&engine, "bob").await;
    let params = receiver::params(&receiver.url(), json!({}));
    bob.ask("events/subscribe", params.clone()).await.unwrap();
    assert_eq!(store.ids().await.len(), 2);
    bob.ask("events/unsubscribe", params).await.unwrap();
    assert_eq!(store.ids().await.len(), 1, "at once");
    drop(bob);
    engine.shutdown().await;
    let stored = store.inner.load().await.unwrap().remove(0);
    let over_at = stored.expires().unwrap();
    while std::time::SystemTime::now() < over_at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_engine, handle) = over(&store, &receiver, &jobs, |_| ()).await;
    assert!(handle.webhooks().is_empty());
    for _ in 0..1_000 {
        if store.ids().await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is still stored");
}

#[tokio::test]
async fn no_expiry_is_granted_only_by_a_durable_store_and_ends_when_the_endpoint_is_dead() {
    let (jobs, receiver) = (jobs("job.done"), Receiver::new().await);
    let (engine, _) = over(&TestStore::new(false), &receiver, &jobs, |_| ()).await;
    let answer = subscribe(&engine, &receiver, json!({"ttlMs": null})).await;
    assert!(answer["refreshBefore"].is_string(), "{answer}");
    engine.shutdown().await;
    let store = TestStore::new(true);
    let soon = |it: &mut WebhookConfig| it.drop_after = Duration::from_millis(800);
    let (engine, _) = over(&store, &receiver, &jobs, soon).await;
    let answer = subscribe(&engine, &receiver, json!({"ttlMs": null})).await;
    assert_eq!(answer["refreshBefore"], Value::Null);
    engine.shutdown().await;
    let (engine, handle) = over(&store, &receiver, &jobs, soon).await;
    assert_eq!(handle.webhooks()[0].expires, None);
    receiver.answer_events(|seen| if seen.is("terminated") { 200 } else { 500 });
    emit(&jobs, [1]).await;
    until("it is dropped", || handle.webhooks().is_empty()).await;
    receiver.until("the end", |seen| seen.iter().any(|it| it.is("terminated"))).await;
    let end = receiver.of_kind("terminated").remove(0);
    assert_eq!(end.body["error"]["data"]["reason"], "http_5xx");
    drop(engine);
}

#[tokio::test]
async fn an_unsubscribe_wins_over_a_write_that_is_under_way() {
    let (jobs, store, receiver) = (jobs("job.done"), TestStore::new(true), Receiver::new().await);
    let (engine, handle) = over(&store, &receiver, &jobs, |_| ()).await;
    subscribe(&engine, &receiver, json!({})).await;
    let params = receiver::params(&receiver.url(), json!({}));
    let (mut ann, mut other) =
        (Peer::named(&engine, "ann").await, Peer::named(&engine, "ann").await);
    store.hold(true);
    let refresh = ann.send("events/subscribe", params.clone()).await;
    store.until_one_waits().await;
    let unsubscribe = other.send("events/unsubscribe", params).await;
    until("it has ended", || handle.webhooks().is_empty()).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    store.hold(false);
    let _ = ann.answer(refresh).await;
    assert!(other.answer(unsubscribe).await.is_ok());
    drop((ann, other));
    engine.shutdown().await;
    assert_eq!(store.ids().await, [""; 0], "the next engine would deliver to it");
}

#[tokio::test]
async fn a_webhook_that_begins_anew_is_not_removed_with_the_one_before() {
    let (jobs, store, receiver) = (jobs("job.done"), TestStore::new(true), Receiver::new().await);
    let (engine, handle) = over(&store, &receiver, &jobs, |_| ()).await;
    let first = subscribe(&engine, &receiver, json!({})).await;
    let id = first["id"].as_str().unwrap();
    handle.end_webhook(id, &stentor_events::EventError::Forbidden("no".to_owned()));
    let second = subscribe(&engine, &receiver, json!({})).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!((handle.webhooks().len(), store.ids().await.len()), (1, 1));
    engine.shutdown().await;
    assert_eq!(store.ids().await, [id]);
}

/// The future of an emit may be dropped, and then the occurrence is emitted or not.
#[tokio::test]
async fn a_dropped_emit_of_a_durable_type_loses_no_other_one() {
    let jobs = jobs("job.done").durable();
    let (store, receiver) = (TestStore::new(true), Receiver::new().await);
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let cursor = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
    store.hold(true);
    let emitting = tokio::spawn({
        let jobs = jobs.clone();
        async move { emit(&jobs, [1]).await }
    });
    store.until_one_waits().await;
    emitting.abort();
    let _ = emitting.await;
    store.hold(false);
    emit(&jobs, [2, 3]).await;
    let heard = support::polled(&ann.poll(json!({"name": "job.done", "cursor": cursor})).await);
    assert!(heard.ends_with(&[2, 3]), "{heard:?}");
    drop(ann);
    engine.shutdown().await;
    let (engine, _) = over(&store, &receiver, &jobs, |_| ()).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let answer = ann.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert!(support::polled(&answer).ends_with(&[2, 3]), "{answer}");
}

/// A world in which one occurrence is under way, and the actor that delivers it.
async fn delivering(jobs: &Jobs) -> World {
    let world = World::new(&[jobs]).await;
    world.subscribed().await;
    world.receiver.hold(true);
    emit(jobs, [1]).await;
    world.receiver.until_number(1).await;
    world
}

#[tokio::test]
async fn a_deliverer_that_crashes_delivers_what_was_open_once_more() {
    let jobs = jobs("job.done");
    let world = delivering(&jobs).await;
    let actors = faults::below(&faults::keeper(&world.engine));
    let [_, deliverer] = &actors[..] else { panic!("two actors: {actors:?}") };
    deliverer.kill_and_wait(None).await.unwrap();
    world.receiver.hold(false);
    let twice = |seen: &[Seen]| seen.iter().filter(|it| it.number() == Some(1)).count() == 2;
    world.receiver.until("it again", twice).await;
    let [first, second] = &world.receiver.delivered()[..] else { panic!("two attempts") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
    assert_eq!(world.receiver.numbers(), [1, 1, 2]);
}

#[tokio::test]
async fn a_keeper_that_crashes_leaves_no_webhook_behind() {
    let jobs = jobs("job.done");
    let world = delivering(&jobs).await;
    faults::keeper(&world.engine).kill_and_wait(None).await.unwrap();
    world.receiver.hold(false);
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
}

#[tokio::test]
async fn a_keeper_that_crashes_while_nothing_is_open_changes_nothing() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    world.subscribed().await;
    emit(&jobs, [1]).await;
    world.receiver.until_number(1).await;
    support::until("nothing is open", || faults::below(&faults::keeper(&world.engine)).len() == 1)
        .await;
    faults::keeper(&world.engine).kill_and_wait(None).await.unwrap();
    emit(&jobs, [2]).await;
    world.receiver.until_number(2).await;
}

/// The actor of the type crashes before it has looked at an occurrence.
#[tokio::test]
async fn what_the_actor_of_a_type_had_not_read_reaches_webhooks() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    world.subscribed().await;
    let actors = faults::below(&faults::keeper(&world.engine));
    // Without a pause: the actor is told of both, and ends first.
    actors[0].kill();
    jobs.emit(Job::in_queue(1, "q")).await.unwrap();
    actors[0].kill_and_wait(None).await.unwrap();
    jobs.emit(Job::in_queue(2, "q")).await.unwrap();
    world.receiver.until_number(2).await;
    world.receiver.until_number(1).await;
}

/// As in a program whose handles live longer than its runtime.
#[test]
fn a_handle_may_outlive_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let jobs = jobs("job.done").on_unsubscribe(|_| async {});
    let (engine, handle) = runtime.block_on(async {
        let agreed = |it: &mut WebhookConfig| it.agreed = vec!["https://r.example/".into()];
        let mut config = WebhookConfig::new();
        agreed(&mut config);
        let events = Events::new().add(&jobs).webhooks(config);
        let handle = events.handle();
        let engine = support::server().extension(events).start().await.unwrap();
        let mut ann = Peer::named(&engine, "ann").await;
        let params = receiver::params("https://r.example/h", json!({}));
        ann.ask("events/subscribe", params).await.unwrap();
        drop(ann);
        engine.shutdown().await;
        (engine, handle)
    });
    drop(runtime);
    drop((engine, jobs));
    drop(handle);
}
