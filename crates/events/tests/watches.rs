//! The hooks of a type: the first subscription with some arguments begins to watch, the last one ends
//! that.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;
use stentor_events::Events;
use support::{Filter, Jobs, Peer, emit, engine, engine_with, jobs, server, until};
use tokio::time::{Instant, sleep};

/// What the hooks were called with: `+a`, `-a`.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn push(&self, sign: char, filter: &Filter) {
        self.0.lock().push(format!("{sign}{}", filter.queue.as_deref().unwrap_or("all")));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    async fn are(&self, expected: &[&str]) {
        until(&format!("{:?} become {expected:?}", self.all()), || self.all() == expected).await;
    }

    /// A type whose hooks take this long.
    fn watched(&self, name: &str, time: Duration) -> Jobs {
        let (begun, ended) = (self.clone(), self.clone());
        jobs(name)
            .on_subscribe(move |filter| {
                let calls = begun.clone();
                async move {
                    sleep(time).await;
                    calls.push('+', &filter);
                }
            })
            .on_unsubscribe(move |filter| {
                let calls = ended.clone();
                async move {
                    sleep(time).await;
                    calls.push('-', &filter);
                }
            })
    }
}

fn of(queue: &str) -> serde_json::Value {
    json!({"name": "job.done", "arguments": {"queue": queue}})
}

#[tokio::test(start_paused = true)]
async fn the_first_begins_and_the_last_ends() {
    let calls = Calls::default();
    let engine = engine(&[&calls.watched("job.done", Duration::ZERO)]).await;
    let (mut one, mut other) = (Peer::stranger(&engine).await, Peer::named(&engine, "ann").await);
    let (first, _) = one.opened(of("a")).await;
    calls.are(&["+a"]).await;
    let (second, _) = other.opened(of("a")).await;
    let (third, _) = one.opened(of("b")).await;
    calls.are(&["+a", "+b"]).await;
    one.cancel(first).await;
    one.cancel(third).await;
    calls.are(&["+a", "+b", "-b"]).await;
    other.cancel(second).await;
    calls.are(&["+a", "+b", "-b", "-a"]).await;
    one.opened(of("a")).await;
    calls.are(&["+a", "+b", "-b", "-a", "+a"]).await;
}

#[tokio::test(start_paused = true)]
async fn equal_arguments_are_watched_once_however_they_are_written() {
    let calls = Calls::default();
    let engine = engine(&[&calls.watched("job.done", Duration::ZERO)]).await;
    let mut client = Peer::stranger(&engine).await;
    let mut ids = Vec::new();
    for arguments in [json!({}), json!(null), json!({})] {
        let params = json!({"name": "job.done", "arguments": arguments});
        ids.push(client.opened(params).await.0);
    }
    ids.push(client.opened(json!({"name": "job.done"})).await.0);
    calls.are(&["+all"]).await;
    for id in ids {
        assert_eq!(calls.all(), ["+all"]);
        client.cancel(id).await;
    }
    calls.are(&["+all", "-all"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_counts_for_its_lease_and_each_one_renews_it() {
    let calls = Calls::default();
    let jobs = calls.watched("job.done", Duration::ZERO);
    let engine = engine_with(&[&jobs], |it| it.poll_lease = Duration::from_secs(60)).await;
    let mut client = Peer::stranger(&engine).await;
    for _ in 0..5 {
        client.poll(of("a")).await;
        sleep(Duration::from_secs(50)).await;
        assert_eq!(calls.all(), ["+a"]);
    }
    let begun = Instant::now();
    calls.are(&["+a", "-a"]).await;
    assert!(begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());
    // A stream goes on when the lease is over.
    client.poll(of("a")).await;
    let (id, _) = client.opened(of("a")).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(calls.all(), ["+a", "-a", "+a"]);
    client.cancel(id).await;
    calls.are(&["+a", "-a", "+a", "-a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_refused_watches_nothing() {
    let calls = Calls::default();
    let jobs = calls.watched("job.done", Duration::ZERO).allow(|_, _| false);
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    assert!(client.ask("events/poll", of("a")).await.is_err());
    assert!(client.ask("events/stream", of("a")).await.is_err());
    sleep(Duration::from_secs(600)).await;
    assert_eq!(calls.all(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn hooks_of_equal_arguments_run_one_after_the_other() {
    let (calls, is_running) = (Calls::default(), Arc::new(AtomicBool::new(false)));
    let hook = |sign: char| {
        let (calls, is_running) = (calls.clone(), is_running.clone());
        move |filter: Arc<Filter>| {
            let (calls, is_running) = (calls.clone(), is_running.clone());
            async move {
                assert!(!is_running.swap(true, Ordering::Relaxed));
                sleep(Duration::from_secs(1)).await;
                calls.push(sign, &filter);
                is_running.store(false, Ordering::Relaxed);
            }
        }
    };
    let jobs = jobs("job.done").on_subscribe(hook('+')).on_unsubscribe(hook('-'));
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    for _ in 0..20 {
        let (id, _) = client.opened(of("a")).await;
        client.cancel(id).await;
        sleep(Duration::from_millis(300)).await;
    }
    until("nobody watches", || calls.all().last().is_some_and(|it| it == "-a")).await;
    sleep(Duration::from_secs(10)).await;
    let all = calls.all();
    assert!(all.len() >= 2 && all.len().is_multiple_of(2), "{all:?}");
    assert!(all.chunks(2).all(|pair| pair == ["+a", "-a"]), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_does_not_stop_the_others() {
    let calls = Calls::default();
    let ended = calls.clone();
    let jobs = jobs("job.done").on_subscribe(|_| async { panic!("a bug") }).on_unsubscribe(
        move |filter| {
            ended.push('-', &filter);
            async {}
        },
    );
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    for turn in 1..=3 {
        let (id, _) = client.opened(of("a")).await;
        emit(&jobs, [turn]).await;
        client.cancel(id).await;
        until("it has ended", || calls.all().len() == turn as usize).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_removed_is_watched_no_longer() {
    let calls = Calls::default();
    let jobs = calls.watched("job.done", Duration::ZERO);
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    client.opened(of("a")).await;
    calls.are(&["+a"]).await;
    handle.remove("job.done").await.unwrap();
    calls.are(&["+a", "-a"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_type_that_is_removed_ends() {
    let calls = Calls::default();
    let jobs = calls.watched("job.done", Duration::ZERO);
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    client.poll(of("b")).await;
    calls.are(&["+b"]).await;
    handle.remove("job.done").await.unwrap();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(calls.all(), ["+b", "-b"]);
}

#[tokio::test(start_paused = true)]
async fn the_hooks_of_a_new_definition_are_used() {
    let (old, new) = (Calls::default(), Calls::default());
    let jobs = old.watched("job.done", Duration::ZERO);
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    handle.replace(&new.watched("job.done", Duration::ZERO)).await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    client.opened(of("a")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((old.all(), new.all()), (vec![], vec!["+a".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hooks_are_in_pairs_while_many_clients_come_and_go() {
    let calls = Calls::default();
    let jobs = calls.watched("job.done", Duration::ZERO);
    let engine = engine(&[&jobs]).await;
    let clients = (0..8).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut client = Peer::stranger(&engine).await;
            for _ in 0..200 {
                let (id, _) = client.opened(of("a")).await;
                client.cancel(id).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    // The last streams may still be ending: they begin and end it once more.
    let mut before = 0;
    while std::mem::replace(&mut before, calls.all().len()) < calls.all().len() {
        sleep(Duration::from_millis(100)).await;
    }
    let all = calls.all();
    assert!(all.chunks(2).all(|pair| pair == ["+a", "-a"]), "{} calls", all.len());
    // It is not watched in vain, and is watched again by the next one.
    let mut client = Peer::stranger(&engine).await;
    client.opened(of("a")).await;
    until("it is watched again", || calls.all().len() == all.len() + 1).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any steps and a pause, exactly those arguments are watched that somebody subscribes to.
    #[test]
    fn what_is_watched_is_what_is_subscribed_to(
        steps in prop::collection::vec((0..3_usize, 0..3_usize, 0..400_u64), 1..40),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let calls = Calls::default();
            let jobs = calls.watched("job.done", Duration::from_millis(100));
            let engine = engine_with(&[&jobs], |it| it.poll_lease = Duration::from_secs(2)).await;
            let mut client = Peer::stranger(&engine).await;
            let mut open: Vec<(usize, i64)> = Vec::new();
            for (kind, queue, pause) in steps {
                let params = of(["a", "b", "c"][queue]);
                match kind {
                    0 => open.push((queue, client.opened(params).await.0)),
                    1 => drop(client.poll(params).await),
                    _ => if let Some(at) = open.iter().position(|(it, _)| *it == queue) {
                        client.cancel(open.remove(at).1).await;
                    },
                }
                sleep(Duration::from_millis(pause)).await;
            }
            sleep(Duration::from_secs(10)).await;
            for (queue, name) in ["a", "b", "c"].into_iter().enumerate() {
                let own: Vec<_> =
                    calls.all().into_iter().filter(|it| it.ends_with(name)).collect();
                let signs: Vec<_> = own.iter().map(|it| &it[..1]).collect();
                prop_assert!(signs.chunks(2).all(|it| it == ["+", "-"] || it == ["+"]), "{:?}", own);
                let is_watched = signs.len() % 2 == 1;
                prop_assert_eq!(is_watched, open.iter().any(|(it, _)| *it == queue), "{:?}", own);
            }
            Ok(())
        })?;
    }
}
