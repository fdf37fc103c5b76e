use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use ractor::{Actor, ActorProcessingErr};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::engine::Engine;
use crate::tool;

fn emit(events: &Events, number: u64) {
    let revision = Revision(number);
    events.emit(|| EngineEvent::CatalogChanged { revision, lists: Vec::new() });
}

/// The number of an event of [`emit`], or the count of missed events.
fn short(event: EngineEvent) -> String {
    match event {
        EngineEvent::CatalogChanged { revision, .. } => revision.to_string(),
        EngineEvent::Missed(count) => format!("{count} missed"),
        other => panic!("{other:?}"),
    }
}

fn drain(receiver: &mut EventReceiver) -> Vec<String> {
    std::iter::from_fn(|| receiver.try_next()).map(short).collect()
}

fn subscribers(events: &Events) -> usize {
    events.0.subscribers.load().as_deref().map_or(0, Vec::len)
}

enum ListenerMsg {
    Events(EventBatch),
    /// Reports that the actor is busy, and keeps it busy until the other channel is used.
    Busy(oneshot::Sender<()>, oneshot::Receiver<()>),
    /// Whether to drop batches instead of reading them.
    Ignore(bool),
    Flush(ractor::RpcReplyPort<()>),
}

crate::message!(ListenerMsg);

/// Forwards the events of each batch to the test.
struct Listener;

impl Actor for Listener {
    type Msg = ListenerMsg;
    type State = (mpsc::UnboundedSender<Vec<String>>, bool);
    type Arguments = mpsc::UnboundedSender<Vec<String>>;

    async fn pre_start(
        &self,
        _myself: ActorRef<ListenerMsg>,
        seen: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok((seen, false))
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerMsg>,
        message: ListenerMsg,
        (seen, ignores): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMsg::Events(batch) if *ignores => drop(batch),
            ListenerMsg::Events(batch) => seen.send(batch.into_iter().map(short).collect())?,
            ListenerMsg::Busy(begun, over) => {
                let _ = begun.send(());
                over.await?;
            }
            ListenerMsg::Ignore(ignore) => *ignores = ignore,
            ListenerMsg::Flush(reply) => reply.send(())?,
        }
        Ok(())
    }
}

struct Subscribed {
    actor: ActorRef<ListenerMsg>,
    batches: mpsc::UnboundedReceiver<Vec<String>>,
    sent: Arc<AtomicUsize>,
}

impl Subscribed {
    async fn subscribe(events: &Events, capacity: usize) -> Self {
        let (seen, batches) = mpsc::unbounded_channel();
        let (actor, _) = Actor::spawn(None, Listener, seen).await.unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        events.subscribe(actor.clone(), capacity, move |batch| {
            counted.fetch_add(1, Ordering::Relaxed);
            ListenerMsg::Events(batch)
        });
        Self { actor, batches, sent }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Keeps the actor in one message until the returned sender is used.
    async fn busy(&self) -> oneshot::Sender<()> {
        let ((begun, has_begun), (end, over)) = (oneshot::channel(), oneshot::channel());
        self.actor.cast(ListenerMsg::Busy(begun, over)).unwrap();
        has_begun.await.unwrap();
        end
    }

    /// Waits until the actor has handled all messages.
    async fn flush(&self) {
        self.actor.call(ListenerMsg::Flush, None).await.unwrap().unwrap();
    }
}

#[test]
fn without_a_subscriber_no_event_is_made() {
    let events = Events::default();
    events.emit(|| panic!("nobody listens"));
    drop(events.receiver(4));
    events.emit(|| panic!("nobody listens any more"));
}

#[test]
fn a_receiver_gets_all_events_in_order() {
    let events = Events::default();
    emit(&events, 1);
    let mut receiver = events.receiver(8);
    (2..6).for_each(|number| emit(&events, number));
    assert_eq!(drain(&mut receiver), ["2", "3", "4", "5"], "what was before is not heard");
}

#[test]
fn a_slow_receiver_gets_the_count_of_missed_events_in_their_place() {
    let events = Events::default();
    let mut receiver = events.receiver(2);
    (1..=2).for_each(|number| emit(&events, number));
    assert_eq!(receiver.try_next().map(short).as_deref(), Some("1"));
    (3..=5).for_each(|number| emit(&events, number));
    assert_eq!(drain(&mut receiver), ["2 missed", "4", "5"]);
    emit(&events, 6);
    assert_eq!(drain(&mut receiver), ["6"], "what was told as missed is not told again");
}

#[test]
fn a_receiver_of_capacity_zero_has_space_for_one_event() {
    let events = Events::default();
    let mut receiver = events.receiver(0);
    (1..=3).for_each(|number| emit(&events, number));
    assert_eq!(drain(&mut receiver), ["2 missed", "3"]);
}

#[test]
fn subscribers_do_not_disturb_each_other() {
    let events = Events::default();
    let (mut slow, mut fast) = (events.receiver(1), events.receiver(8));
    for number in 1..=3 {
        emit(&events, number);
        assert_eq!(drain(&mut fast), [number.to_string()]);
    }
    assert_eq!(drain(&mut slow), ["2 missed", "3"]);
    drop(slow);
    emit(&events, 4);
    assert_eq!(drain(&mut fast), ["4"]);
    assert_eq!(subscribers(&events), 1);
}

#[tokio::test]
async fn a_receiver_that_waits_is_woken() {
    let events = Events::default();
    let mut receiver = events.receiver(4);
    let copy = events.clone();
    let (seen, ()) = tokio::join!(receiver.next(), async move {
        tokio::task::yield_now().await;
        emit(&copy, 1);
    });
    assert_eq!(seen.map(short).as_deref(), Some("1"));
}

#[tokio::test]
async fn after_the_end_a_receiver_reads_what_waits_and_then_nothing() {
    let events = Events::default();
    let mut receiver = events.receiver(4);
    emit(&events, 1);
    events.close();
    emit(&events, 2);
    assert_eq!(receiver.next().await.map(short).as_deref(), Some("1"));
    assert!(matches!(receiver.next().await, Some(EngineEvent::Stopped)));
    assert!(receiver.next().await.is_none());
    assert!(events.receiver(4).next().await.is_none(), "also one that comes too late");
}

#[tokio::test]
async fn a_receiver_that_waits_is_woken_by_the_end() {
    let events = Events::default();
    let mut receiver = events.receiver(4);
    let (seen, ()) = tokio::join!(receiver.next(), async {
        tokio::task::yield_now().await;
        events.close();
    });
    assert!(matches!(seen, Some(EngineEvent::Stopped)));
    assert!(receiver.next().await.is_none());
}

#[tokio::test]
async fn a_busy_actor_has_one_message_in_its_mailbox_for_ten_thousand_events() {
    let events = Events::default();
    let mut listener = Subscribed::subscribe(&events, 3).await;
    let over = listener.busy().await;
    (1..=10_000).for_each(|number| emit(&events, number));
    assert_eq!(listener.sent(), 1);
    over.send(()).unwrap();
    let seen = listener.batches.recv().await.unwrap();
    assert_eq!(seen, ["9997 missed", "9998", "9999", "10000"]);
    listener.flush().await;
    emit(&events, 10_001);
    assert_eq!(listener.batches.recv().await.unwrap(), ["10001"], "the next one rings again");
    assert_eq!(listener.sent(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_receives_all_events_in_order_while_it_reads() {
    let events = Events::default();
    let mut listener = Subscribed::subscribe(&events, 10_000).await;
    let copy = events.clone();
    let emitting =
        tokio::task::spawn_blocking(move || (1..=10_000).for_each(|number| emit(&copy, number)));
    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        seen.extend(listener.batches.recv().await.unwrap());
    }
    emitting.await.unwrap();
    assert!(seen.iter().map(|number| number.parse::<u64>().unwrap()).eq(1..=10_000));
}

#[tokio::test]
async fn a_batch_that_is_dropped_unread_comes_with_the_next_one() {
    let events = Events::default();
    let mut listener = Subscribed::subscribe(&events, 2).await;
    listener.actor.cast(ListenerMsg::Ignore(true)).unwrap();
    for number in 1..=3 {
        emit(&events, number);
        listener.flush().await;
    }
    assert_eq!(listener.sent(), 3, "each event rings again");
    listener.actor.cast(ListenerMsg::Ignore(false)).unwrap();
    emit(&events, 4);
    assert_eq!(listener.batches.recv().await.unwrap(), ["2 missed", "3", "4"]);
}

#[tokio::test]
async fn an_actor_that_has_ended_is_unsubscribed() {
    let events = Events::default();
    let listener = Subscribed::subscribe(&events, 4).await;
    let mut receiver = events.receiver(4);
    let _busy = listener.busy().await;
    emit(&events, 1);
    listener.actor.kill_and_wait(None).await.unwrap();
    assert_eq!(subscribers(&events), 2);
    emit(&events, 2);
    assert_eq!(subscribers(&events), 1, "with the next event");
    assert_eq!(listener.sent(), 1);
    assert_eq!(drain(&mut receiver), ["1", "2"], "the others are not disturbed");
}

#[tokio::test]
async fn a_panic_while_wrapping_ends_only_that_subscription() {
    let events = Events::default();
    let listener = Subscribed::subscribe(&events, 4).await;
    events.subscribe(listener.actor.clone(), 4, |_batch| -> ListenerMsg { panic!("a bug") });
    emit(&events, 1);
    assert_eq!(subscribers(&events), 1);
    assert_eq!(listener.sent(), 1);
}

#[tokio::test]
async fn a_change_of_the_catalog_and_the_end_of_the_engine_are_events() {
    let engine = Engine::builder("s", "1").start().await.unwrap();
    let events = engine.events(16);
    let noon = || tool("noon", || async { "12:00" });
    let added = engine.catalog().add(noon()).await.unwrap();
    engine.catalog().remove_tool("no such tool").await.unwrap();
    engine.catalog().add(noon()).await.expect_err("its name is taken");
    engine.shutdown().await;
    let seen: Vec<_> = events.collect().await;
    let [EngineEvent::CatalogChanged { revision, lists }, EngineEvent::Stopped] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((*revision, &lists[..]), (added.revision, &[ListKind::Tools][..]));
}
