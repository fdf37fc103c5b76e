//! The store on a Redis server. Each test has a server of its own.

#[path = "support/receiver.rs"]
mod receiver;
#[path = "redis/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use receiver::{Receiver, SECRET, start};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::{KEY, Proxy, Server, TIMEOUT};
use stentor_engine::{Engine, EngineBuilder, NodeId};
use stentor_events::{
    EmitError, EventsHandle, EventsStore, RedisEventsConfig, RedisEventsError, RedisEventsStore,
    StoreKey, StoredOccurrence, StoredWebhook,
};
use support::{Job, Jobs, PATIENCE, Peer, emit, jobs};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a command may take on a busy machine.
const LATEST: Duration = Duration::from_secs(5);

fn webhook(principal: &str, watermark: &str) -> StoredWebhook {
    let webhook = json!({
        "key": {"principal": principal, "url": "https://a.example/h", "name": "t", "arguments": "{}"},
        "identity": null, "numbers": "draft", "secret": SECRET, "previous": null, "expires": null,
        "watermark": watermark, "paused": false,
    });
    serde_json::from_value(webhook).unwrap()
}

fn occurrence(name: &str, seq: u64, text: &str) -> StoredOccurrence {
    let occurrence = json!({
        "node": "judge", "epoch": 1, "seq": seq, "id": seq.to_string(), "name": name, "at": 0,
        "data": {"text": text},
    });
    serde_json::from_str(&occurrence.to_string()).unwrap()
}

/// The watermarks of webhooks by their ids.
async fn webhooks(store: &RedisEventsStore) -> BTreeMap<String, String> {
    let watermark = |it: &StoredWebhook| {
        let json = serde_json::to_value(it).unwrap();
        json["watermark"].as_str().unwrap().to_owned()
    };
    store.load().await.unwrap().iter().map(|it| (it.id(), watermark(it))).collect()
}

/// The numbers and payloads of a log.
async fn log(store: &RedisEventsStore, name: &str) -> Vec<(u64, Value)> {
    let number = |it: &StoredOccurrence| {
        let mut json = serde_json::to_value(it).unwrap();
        (json["seq"].as_u64().unwrap(), json["data"].take())
    };
    store.read(name).await.unwrap().iter().map(number).collect()
}

async fn numbers(store: &RedisEventsStore, name: &str) -> Vec<u64> {
    log(store, name).await.into_iter().map(|(seq, _)| seq).collect()
}

/// Fails, and not because it takes too long.
async fn fails<T: Debug, E>(attempt: impl Future<Output = Result<T, E>>) -> E {
    let answer = timeout(LATEST, attempt).await.expect("it fails in time");
    answer.expect_err("it fails")
}

/// Tries until it works: a connection may still be renewed.
async fn works_again<T, E: Debug>(attempt: impl AsyncFn() -> Result<T, E>) -> T {
    let until = Instant::now() + PATIENCE.min(Duration::from_secs(30));
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) if Instant::now() > until => panic!("it does not work again: {error:?}"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// An engine over a store, always as the same node.
async fn over(store: RedisEventsStore, receiver: &Receiver, jobs: &Jobs) -> (Engine, EventsHandle) {
    let same = |builder: EngineBuilder| {
        builder.configure(|config| config.node = NodeId::new("judge").unwrap())
    };
    start(receiver, &[jobs], |_| (), |events| events.store(Arc::new(store)), same).await
}

async fn subscribe(engine: &Engine, receiver: &Receiver) -> Value {
    let mut ann = Peer::named(engine, "ann").await;
    ann.ask("events/subscribe", receiver::params(&receiver.url(), json!({}))).await.unwrap()
}

#[tokio::test]
async fn webhooks_are_kept_replaced_and_removed() {
    let Some(server) = Server::start().await else { return };
    let store = server.store().await;
    assert!(store.is_durable());
    assert_eq!(webhooks(&store).await, BTreeMap::new());
    let all: Vec<_> = (0..600).map(|it| webhook(&it.to_string(), "old")).collect();
    let ids: Vec<_> = all.iter().map(StoredWebhook::id).collect();
    store.put(all).await.unwrap();
    store.put(vec![webhook("0", "new")]).await.unwrap();
    store.remove(ids[300..].to_vec()).await.unwrap();
    store.remove(vec!["sub_unknown".to_owned()]).await.unwrap();
    store.put(Vec::new()).await.unwrap();
    store.remove(Vec::new()).await.unwrap();

    let kept = webhooks(&server.store().await).await;
    assert_eq!(kept.len(), 300);
    assert!(ids[..300].iter().all(|id| kept.contains_key(id)));
    assert_eq!((&*kept[&ids[0]], &*kept[&ids[1]]), ("new", "old"));
}

#[tokio::test]
async fn webhooks_are_read_only_with_their_key() {
    let Some(server) = Server::start().await else { return };
    let store = server.store().await;
    store.put(vec![webhook("ann", "")]).await.unwrap();
    let other = RedisEventsStore::connect(server.config(), StoreKey::new([8; 32])).await.unwrap();
    let error = fails(other.load()).await;
    assert!(error.0.contains("key"), "{error}");
    // Nor in the place of another one.
    let key = "stentor:durable-events:node:webhooks";
    let moved = "local all = redis.call('HGETALL', KEYS[1])
        redis.call('DEL', KEYS[1])
        return redis.call('HSET', KEYS[1], 'sub_other', all[2])";
    assert_eq!(server.ask::<u64>(&["EVAL", moved, "1", key]).await, 1);
    fails(server.store().await.load()).await;
}

/// Everything that is on the server, and in its files.
async fn dump(server: &Server) -> Vec<u8> {
    let mut dump = Vec::new();
    for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
        let kind: String = server.ask(&["TYPE", &key]).await;
        dump.extend_from_slice(key.as_bytes());
        match &*kind {
            "hash" => {
                for part in server.ask::<Vec<Vec<u8>>>(&["HGETALL", &key]).await {
                    dump.extend(part);
                }
            }
            "stream" => {
                let all: Vec<(String, Vec<Vec<u8>>)> =
                    server.ask(&["XRANGE", &key, "-", "+"]).await;
                dump.extend(all.into_iter().flat_map(|(_, parts)| parts.concat()));
            }
            kind => panic!("{key} is a {kind}"),
        }
    }
    read_below(server.directory(), &mut dump);
    dump
}

fn read_below(directory: &Path, dump: &mut Vec<u8>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_below(&path, dump),
            false => dump.extend(std::fs::read(path).unwrap()),
        }
    }
}

#[tokio::test]
async fn secrets_of_clients_cannot_be_read_on_the_server() {
    let Some(server) = Server::start().await else { return };
    let (jobs, receiver) = (jobs("job.done").durable(), Receiver::new().await);
    let (engine, _) = over(server.store().await, &receiver, &jobs).await;
    let id = subscribe(&engine, &receiver).await["id"].take();
    emit(&jobs, [1]).await;
    receiver.until_number(1).await;
    engine.shutdown().await;

    let dump = dump(&server).await;
    let has = |text: &str| dump.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(has(id.as_str().unwrap()) && has("job.done"), "it is the right dump");
    let secret = SECRET.strip_prefix("whsec_").unwrap();
    assert!(!has("whsec_") && !has(secret) && !has(&receiver.origin()) && !has("ann"));
}

#[tokio::test]
async fn a_log_has_the_last_occurrences_in_their_order() {
    let Some(server) = Server::start().await else { return };
    let store = server.store().await;
    for seq in 1..=300 {
        store.append(occurrence("t", seq, ""), 200).await.unwrap();
    }
    let expected: Vec<_> = (101..=300).collect();
    assert_eq!(numbers(&store, "t").await, expected);
    let next = server.store().await;
    assert_eq!(numbers(&next, "t").await, expected);
    next.append(occurrence("t", 301, ""), 64).await.unwrap();
    assert_eq!(numbers(&next, "t").await, (238..=301).collect::<Vec<_>>(), "a smaller bound");
    next.append(occurrence("t", 302, ""), 0).await.unwrap();
    assert_eq!(numbers(&next, "t").await, [302], "at least one");
    assert_eq!(numbers(&next, "u").await, [0; 0]);
}

/// Appends to one log at once are done one after the other, and none removes another.
#[tokio::test]
async fn appends_at_once_are_all_kept() {
    let Some(server) = Server::start().await else { return };
    let store = Arc::new(server.store().await);
    let mut appends = JoinSet::new();
    for seq in 1..=50 {
        let store = store.clone();
        appends.spawn(async move { store.append(occurrence("t", seq, ""), 100).await.unwrap() });
    }
    appends.join_all().await;
    let mut kept = numbers(&store, "t").await;
    kept.sort_unstable();
    assert_eq!(kept, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn hostile_names_do_not_collide() {
    let Some(server) = Server::start().await else { return };
    let store = server.store().await;
    let names =
        ["a", "A", "a:b", "a%3Ab", "a%253Ab", "", ":", "*", "{a}", "a\n", "a\0", "ä", "log:a"];
    for (seq, name) in (1..).zip(names) {
        store.append(occurrence(name, seq, name), 10).await.unwrap();
    }
    for (seq, name) in (1..).zip(names) {
        assert_eq!(log(&store, name).await, [(seq, json!({"text": name}))], "{name:?}");
    }
    // The same text, divided in another way.
    let mut stores = Vec::new();
    let divided =
        [("a", "b:log:c"), ("a:durable-events:b", "c"), ("a:durable-events", "b"), ("", "")];
    for (prefix, node) in divided {
        let config = server.config().prefix(prefix).node(node);
        stores.push(RedisEventsStore::connect(config, StoreKey::new(KEY)).await.unwrap());
    }
    for (seq, store) in (1..).zip(&stores) {
        for name in ["t", "c:log:t", "webhooks", "writer"] {
            store.append(occurrence(name, seq, ""), 10).await.unwrap();
        }
        store.put(vec![webhook(&seq.to_string(), "")]).await.unwrap();
    }
    for (seq, store) in (1..).zip(&stores) {
        for name in ["t", "c:log:t", "webhooks", "writer"] {
            assert_eq!(numbers(store, name).await, [seq]);
        }
        assert!(webhooks(store).await.into_keys().eq([webhook(&seq.to_string(), "").id()]));
    }
}

#[tokio::test]
async fn nodes_do_not_see_each_other() {
    let Some(server) = Server::start().await else { return };
    let named = async |prefix: &str, node: &str| {
        let config = server.config().prefix(prefix).node(node);
        RedisEventsStore::connect(config, StoreKey::new(KEY)).await.unwrap()
    };
    let (one, two) = (named("p", "one").await, named("p", "two").await);
    let prefixed = named("q", "one").await;
    one.put(vec![webhook("ann", "")]).await.unwrap();
    one.append(occurrence("t", 1, ""), 10).await.unwrap();
    for other in [&two, &prefixed] {
        assert_eq!(webhooks(other).await, BTreeMap::new());
        assert_eq!(numbers(other, "t").await, [0; 0]);
        other.remove(vec![webhook("ann", "").id()]).await.unwrap();
        other.append(occurrence("t", 2, ""), 1).await.unwrap();
    }
    assert_eq!(webhooks(&one).await.len(), 1);
    assert_eq!(numbers(&one, "t").await, [1]);
}

#[tokio::test]
async fn of_two_stores_of_one_node_the_later_one_writes() {
    let Some(server) = Server::start().await else { return };
    let earlier = server.store().await;
    earlier.append(occurrence("t", 1, ""), 10).await.unwrap();
    let later = server.store().await;
    let error = fails(earlier.append(occurrence("t", 2, ""), 10)).await;
    assert!(error.0.contains("the same node"), "{error}");
    fails(earlier.append(occurrence("u", 2, ""), 10)).await;
    fails(earlier.put(vec![webhook("ann", "")])).await;
    later.put(vec![webhook("bob", "")]).await.unwrap();
    fails(earlier.remove(vec![webhook("bob", "").id()])).await;
    later.append(occurrence("t", 2, ""), 10).await.unwrap();
    assert_eq!(numbers(&later, "t").await, [1, 2]);
    assert_eq!(webhooks(&later).await.len(), 1);
    // A server that has lost everything takes writes, too.
    server.ask::<String>(&["FLUSHALL"]).await;
    later.append(occurrence("t", 3, ""), 10).await.unwrap();
    later.put(vec![webhook("bob", "")]).await.unwrap();
    fails(earlier.append(occurrence("t", 3, ""), 10)).await;
    assert_eq!(numbers(&later, "t").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_has_stored_goes_on_after_it_has_crashed() {
    let Some(server) = Server::start().await else { return };
    let (jobs, receiver) = (jobs("job.done").durable(), Receiver::new().await);
    let store = server.store().await;
    // A runtime of its own, which ends in the middle of everything.
    let doomed = Runtime::new().unwrap();
    let (first, cursor) = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            doomed.block_on(async {
                let (engine, _) = over(store, &receiver, &jobs).await;
                let first = subscribe(&engine, &receiver).await;
                emit(&jobs, [1]).await;
                receiver.until_number(1).await;
                let mut ann = Peer::named(&engine, "ann").await;
                let cursor = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
                receiver.answer_events(|_| 503);
                emit(&jobs, [2, 3]).await;
                receiver.until_number(2).await;
                std::mem::forget(engine);
                (first, cursor)
            })
        });
        tokio::task::block_in_place(|| running.join().unwrap())
    });
    doomed.shutdown_background();

    receiver.answer_events(|_| 200);
    let before = receiver.delivered().len();
    let (engine, handle) = over(server.store().await, &receiver, &jobs).await;
    assert_eq!(handle.webhooks().len(), 1);
    let later = |it: usize| receiver.delivered().split_off(it);
    receiver
        .until("both", |_| {
            let later = later(before);
            [2, 3].iter().all(|number| later.iter().any(|it| it.number() == Some(*number)))
        })
        .await;
    emit(&jobs, [4]).await;
    receiver.until_number(4).await;
    assert!(later(before).iter().all(|it| it.is_signed_by(SECRET)));
    let mut ann = Peer::named(&engine, "ann").await;
    let answer = ann.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((support::polled(&answer), &answer["truncated"]), (vec![2, 3, 4], &json!(false)));
    assert_eq!(subscribe(&engine, &receiver).await["id"], first["id"]);
}

#[tokio::test]
async fn a_server_that_crashes_loses_nothing_that_it_has_acknowledged() {
    let Some(server) = Server::start().await else { return };
    let store = Arc::new(server.store().await);
    store.put(vec![webhook("ann", "")]).await.unwrap();
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let mut writers = JoinSet::new();
    for name in ["a", "b", "c"] {
        let (store, count) = (store.clone(), count.clone());
        writers.spawn(async move {
            let mut acknowledged = 0;
            while store.append(occurrence(name, acknowledged + 1, ""), 10_000).await.is_ok() {
                acknowledged += 1;
                count.send_modify(|count| *count += 1);
            }
            (name, acknowledged)
        });
    }
    timeout(PATIENCE, counted.wait_for(|count| *count >= 100)).await.unwrap().unwrap();
    server.kill();
    let written = writers.join_all().await;
    server.again().await;

    for (name, acknowledged) in written {
        let kept = works_again(|| store.read(name)).await.len() as u64;
        assert!([acknowledged, acknowledged + 1].contains(&kept), "{kept} of {acknowledged}");
        // The one that was under way is not acknowledged: its number is used again.
        store.append(occurrence(name, acknowledged + 1, "again"), 10_000).await.unwrap();
        let kept = log(&store, name).await;
        assert!(kept.iter().map(|(seq, _)| *seq).eq(1..=acknowledged + 1));
        assert_eq!(kept.last().unwrap().1, json!({"text": "again"}));
    }
    assert_eq!(webhooks(&store).await.len(), 1);
}

#[tokio::test]
async fn emits_fail_while_the_server_is_frozen_or_gone_and_work_later() {
    let Some(server) = Server::start().await else { return };
    let (jobs, receiver) = (jobs("job.done").durable(), Receiver::new().await);
    let (engine, _) = over(server.store().await, &receiver, &jobs).await;
    subscribe(&engine, &receiver).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let cursor = ann.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&jobs, [1]).await;

    server.signal(Signal::STOP);
    for number in [2, 3] {
        let error = fails(jobs.emit(Job::in_queue(number, "q"))).await;
        assert!(matches!(error, EmitError::Store(_)), "{error}");
    }
    server.signal(Signal::CONT);
    works_again(|| jobs.emit(Job::in_queue(4, "q"))).await;

    server.kill();
    for number in [5, 6] {
        let error = fails(jobs.emit(Job::in_queue(number, "q"))).await;
        assert!(matches!(error, EmitError::Store(_)), "{error}");
    }
    server.again().await;
    works_again(|| jobs.emit(Job::in_queue(7, "q"))).await;

    receiver.until_number(7).await;
    let expected = [1, 4, 7];
    let heard = ann.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!(support::polled(&heard), expected);
    assert!(receiver.numbers().iter().all(|number| expected.contains(number)));
    drop(ann);
    engine.shutdown().await;
    // And the next engine has what was heard, and nothing else.
    let (engine, _) = over(server.store().await, &receiver, &jobs).await;
    let mut ann = Peer::named(&engine, "ann").await;
    let heard = ann.poll(json!({"name": "job.done", "cursor": cursor})).await;
    assert_eq!((support::polled(&heard), &heard["truncated"]), (expected.to_vec(), &json!(false)));
}

#[tokio::test]
async fn all_operations_fail_in_time_while_the_server_is_frozen() {
    let Some(server) = Server::start().await else { return };
    let store = server.store().await;
    server.signal(Signal::STOP);
    fails(store.put(vec![webhook("ann", "")])).await;
    fails(store.remove(vec!["sub_a".to_owned()])).await;
    fails(store.load()).await;
    fails(store.append(occurrence("t", 1, ""), 10)).await;
    let begun = Instant::now();
    fails(store.read("t")).await;
    assert!(begun.elapsed() >= TIMEOUT);
    let error = fails(RedisEventsStore::connect(server.config(), StoreKey::new(KEY))).await;
    assert!(matches!(error, RedisEventsError::Unreachable(_)), "{error}");
    server.signal(Signal::CONT);
    works_again(|| store.append(occurrence("t", 1, "again"), 10)).await;
    assert_eq!(log(&store, "t").await, [(1, json!({"text": "again"}))]);
}

/// What was sent on a lost connection may arrive after what was sent on the next one.
#[tokio::test]
async fn a_write_that_arrives_late_changes_nothing() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(&server).await;
    let store = proxy.store().await;
    store.append(occurrence("t", 1, ""), 10).await.unwrap();
    store.put(vec![webhook("ann", "old"), webhook("bob", "old")]).await.unwrap();
    proxy.hold();
    fails(store.append(occurrence("t", 2, "late"), 10)).await;
    fails(store.put(vec![webhook("ann", "late"), webhook("bob", "late")])).await;
    proxy.lose();
    works_again(|| store.append(occurrence("t", 2, "new"), 10)).await;
    store.remove(vec![webhook("bob", "").id()]).await.unwrap();
    store.put(vec![webhook("ann", "new")]).await.unwrap();
    proxy.deliver().await;

    let ann = (webhook("ann", "").id(), "new".to_owned());
    assert_eq!(webhooks(&store).await, BTreeMap::from([ann]));
    let expected = [(1, json!({"text": ""})), (2, json!({"text": "new"}))];
    assert_eq!(log(&store, "t").await, expected);
    store.append(occurrence("t", 3, ""), 10).await.unwrap();
    assert_eq!(numbers(&store, "t").await, [1, 2, 3]);
}

#[tokio::test]
async fn connect_says_what_is_wrong() {
    let connect = async |config| fails(RedisEventsStore::connect(config, StoreKey::new(KEY))).await;
    let wrong = connect(RedisEventsConfig::new("nonsense:secret@")).await;
    assert!(matches!(wrong, RedisEventsError::Address(_)) && !wrong.to_string().contains("secret"));
    let Some(server) = Server::start().await else { return };
    let config = server.config();
    assert!(!format!("{config:?}").contains("127.0.0.1"));
    server.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let refuses = connect(config.clone()).await;
    assert!(matches!(refuses, RedisEventsError::Unfit(_)), "{refuses}");
    server.kill();
    let gone = connect(config).await;
    assert!(matches!(gone, RedisEventsError::Unreachable(_)), "{gone}");
}
