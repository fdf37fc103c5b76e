//! What observers of the engine hear of the extension.

#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nodes::Nodes;
use receiver::{Receiver, Seen, World, params, start};
use serde_json::json;
use stentor_engine::{Engine, EngineEvent, EventReceiver, NodeId};
use stentor_events::{EventError, Events, EventsReport, IDENTIFIER, WebhookEnd};
use support::{Job, PATIENCE, Peer, emit, jobs, polled, server, until, without_replay};
use tokio::time::timeout;

/// A subscriber of the host.
struct Observer(EventReceiver);

impl Observer {
    fn of(engine: &Engine) -> Self {
        Self(engine.events(1_024))
    }

    /// The next report of the extension.
    async fn next(&mut self) -> EventsReport {
        let next = async {
            loop {
                match self.0.next().await.expect("the engine runs") {
                    EngineEvent::Extension { identifier, event } => {
                        assert_eq!(&*identifier, IDENTIFIER);
                        return event.get::<EventsReport>().unwrap().clone();
                    }
                    _ => continue,
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a report comes")
    }

    /// The reports that have come.
    fn rest(&mut self) -> Vec<EventsReport> {
        let events = std::iter::from_fn(|| self.0.try_next());
        let reports = events.filter_map(|event| match event {
            EngineEvent::Extension { event, .. } => event.get::<EventsReport>().cloned(),
            _ => None,
        });
        reports.collect()
    }
}

fn added(id: &Arc<str>, receiver: &Receiver) -> EventsReport {
    let (id, event_type, origin) = (id.clone(), "job.done".into(), receiver.origin());
    EventsReport::WebhookAdded { id, event_type, origin }
}

fn ended(id: &Arc<str>, reason: WebhookEnd) -> EventsReport {
    EventsReport::WebhookEnded { id: id.clone(), reason }
}

fn id_of(world: &World) -> Arc<str> {
    world.handle.webhooks()[0].id.clone()
}

#[tokio::test]
async fn a_webhook_is_added_and_ends_once() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let mut observer = Observer::of(&world.engine);
    let (mut ann, _) = world.subscribed().await;
    let id = id_of(&world);
    assert_eq!(observer.next().await, added(&id, &world.receiver));
    // A refresh and what is delivered is not reported.
    ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    emit(&jobs, 1..=5).await;
    world.receiver.until_number(5).await;
    ann.ask("events/unsubscribe", world.params(json!({}))).await.unwrap();
    assert_eq!(observer.next().await, ended(&id, WebhookEnd::Unsubscribed));

    world.subscribed().await;
    assert_eq!(observer.next().await, added(&id, &world.receiver));
    let error = EventError::Forbidden("no more".to_owned());
    assert!(world.handle.end_webhook(&id, &error));
    assert_eq!(observer.next().await, ended(&id, WebhookEnd::Terminated(error)));

    let mut ann = world.ann().await;
    ann.ask("events/subscribe", world.params(json!({"ttlMs": 500}))).await.unwrap();
    assert_eq!(observer.next().await, added(&id, &world.receiver));
    assert_eq!(observer.next().await, ended(&id, WebhookEnd::Expired));
    assert_eq!(observer.rest(), []);
    world.engine.shutdown().await;
}

#[tokio::test]
async fn what_is_given_up_is_reported_with_its_count() {
    let jobs = jobs("job.done");
    let world = World::with(&[&jobs], |it| (it.max_attempts, it.max_body) = (1, 500)).await;
    world.subscribed().await;
    let id = id_of(&world);
    let mut observer = Observer::of(&world.engine);
    world
        .receiver
        .answer_events(|seen| if matches!(seen.number(), Some(1..=3)) { 503 } else { 200 });
    emit(&jobs, 1..=4).await;
    world.receiver.until_number(4).await;
    let mut all = 0;
    while all < 3 {
        match observer.next().await {
            EventsReport::DeliveriesAbandoned { id: of, count, reason: "http_5xx" } if of == id => {
                all += count;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all, 3);
    jobs.emit(Job::in_queue(5, &"x".repeat(1_000))).await.unwrap();
    let too_large = EventsReport::DeliveriesAbandoned { id, count: 1, reason: "too_large" };
    assert_eq!(observer.next().await, too_large);
    world.engine.shutdown().await;
}

#[tokio::test]
async fn a_webhook_that_is_paused_is_reported_and_that_it_goes_on() {
    let jobs = without_replay("job.done").replay(1_000, Duration::from_secs(3600));
    let world = World::with(&[&jobs], |it| it.max_attempts = 1).await;
    let (mut ann, _) = world.subscribed().await;
    let id = id_of(&world);
    let mut observer = Observer::of(&world.engine);
    world.receiver.answer_events(|_| 500);
    emit(&jobs, 1..=150).await;
    until("it is left alone", || world.handle.webhooks()[0].is_paused).await;
    world.receiver.answer_events(|_| 200);
    ann.ask("events/subscribe", world.params(json!({}))).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match observer.next().await {
            EventsReport::DeliveriesAbandoned { .. } => {}
            other => seen.push(other),
        }
    }
    let paused = EventsReport::WebhookPaused { id: id.clone() };
    assert_eq!(seen, [paused, EventsReport::WebhookRevived { id }]);
    world.engine.shutdown().await;
}

#[tokio::test]
async fn a_webhook_whose_type_goes_while_it_is_added_is_refused() {
    let jobs = jobs("job.done");
    let world = World::new(&[&jobs]).await;
    let mut observer = Observer::of(&world.engine);
    world.receiver.hold(true);
    let mut ann = world.ann().await;
    let asked = ann.send("events/subscribe", world.params(json!({}))).await;
    world.receiver.until("the challenge", |seen| seen.iter().any(|it| it.is("verification"))).await;
    world.handle.remove("job.done").await.unwrap();
    world.receiver.hold(false);
    assert!(ann.answer(asked).await.is_err());
    let EventsReport::WebhookAdded { id, .. } = observer.next().await else { panic!() };
    let error = EventError::UnknownType("job.done".to_owned());
    assert_eq!(observer.next().await, ended(&id, WebhookEnd::Refused(error)));
    world.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_terminated_together_are_one_report() {
    let allowed = Arc::new(AtomicBool::new(true));
    let asked = allowed.clone();
    let jobs = jobs("job.done").allow(move |_, _| asked.load(Ordering::Relaxed));
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let mut observer = Observer::of(&engine);
    let mut client = Peer::stranger(&engine).await;
    for _ in 0..3 {
        client.opened(json!({"name": "job.done"})).await;
    }
    let error = EventError::Failed("over".to_owned());
    jobs.end_subscriptions(error.clone());
    let event_type: Arc<str> = "job.done".into();
    let report = |count, error| {
        let event_type = event_type.clone();
        EventsReport::StreamsTerminated { event_type, count, error }
    };
    assert_eq!(observer.next().await, report(3, error.clone()));
    // Nobody is left.
    jobs.end_subscriptions(error);
    for _ in 0..2 {
        client.opened(json!({"name": "job.done"})).await;
    }
    allowed.store(false, Ordering::Relaxed);
    handle.recheck();
    let EventsReport::StreamsTerminated { count, error, .. } = observer.next().await else {
        panic!()
    };
    assert!(count == 2 && matches!(error, EventError::Forbidden(_)), "{count} {error:?}");
    assert_eq!(observer.rest(), []);
    engine.shutdown().await;
}

#[tokio::test]
async fn what_becomes_of_a_webhook_in_a_split_is_reported_where_it_happens() {
    let (one, two) = (jobs("job.done"), jobs("job.done"));
    let (nodes, receiver) = (Nodes::default(), Receiver::new().await);
    let mut started = Vec::new();
    for (name, jobs) in [("one", &one), ("two", &two)] {
        let named = |builder| Nodes::named(name, builder);
        let (engine, handle) = start(&receiver, &[jobs], |_| (), |events| events, named).await;
        nodes.join(&engine);
        started.push((engine, handle));
    }
    // They know each other when what one emits is found on the other.
    let mut client = Peer::stranger(&started[1].0).await;
    let begin = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    emit(&one, [0]).await;
    while polled(&client.poll(json!({"name": "job.done", "cursor": begin})).await).is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut ann = Peer::named(&started[0].0, "ann").await;
    ann.ask("events/subscribe", params(&receiver.url(), json!({}))).await.unwrap();
    // It is on one of them, and the other one has a copy when the subscribe is answered.
    let owner = usize::from(started[0].1.webhooks().is_empty());
    let ids = ["one", "two"].map(|name| NodeId::new(name).unwrap());
    let id = started[owner].1.webhooks()[0].id.clone();
    let mut at_owner = Observer::of(&started[owner].0);
    let mut at_other = Observer::of(&started[1 - owner].0);
    nodes.split(&["one"]);
    let from = ids[owner].clone();
    let taken_over = EventsReport::WebhookTakenOver { id: id.clone(), from };
    assert_eq!(at_other.next().await, taken_over);
    emit(&one, [1]).await;
    emit(&two, [2]).await;
    receiver.until("both deliver", |seen| seen.iter().filter_map(Seen::number).count() == 2).await;
    // They see each other again, and one of them stops.
    nodes.split(&[]);
    let (report, other) = tokio::select! {
        report = at_owner.next() => (report, 1 - owner),
        report = at_other.next() => (report, owner),
    };
    assert_eq!(report, ended(&id, WebhookEnd::HandedOver(ids[other].clone())));
    assert_eq!(started[other].1.webhooks().len(), 1);
    for (engine, _) in &started {
        engine.join_peers(None);
        engine.shutdown().await;
    }
}
