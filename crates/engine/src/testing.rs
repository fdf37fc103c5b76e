//! For tests and demonstrations: kills actors, and checks what a store has to do.

mod sessions;

use bytes::Bytes;
use ractor::ActorCell;
use stentor_wire::TaskStatus;

use crate::engine::{Engine, Stopped};
use crate::ids::{NodeId, Seq, SessionId, StreamId, TaskId};
use crate::session::Session;
use crate::stream::policy::{Class, Retention};
use crate::stream::{Delivered, EventStore, Frame};
use crate::tasks::{TaskRecord, TaskStore};
pub use sessions::{SharedStore, session_record, session_store_keeps_its_contract};

/// An actor of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultTarget {
    /// The registry.
    Registry,
    /// The hub.
    Hub,
    /// The session of all modern HTTP calls.
    Stateless,
    /// A session.
    Session(SessionId),
}

/// Kills an actor in the middle of its work, as a bug would, and waits until it has ended.
///
/// The actor of a session is spawned for this if it had no work before.
///
/// # Errors
///
/// [`Stopped`] if there is no such actor.
pub async fn kill(engine: &Engine, target: FaultTarget) -> Result<(), Stopped> {
    let cell = find(engine, &target).await.ok_or(Stopped)?;
    cell.kill_and_wait(None).await.map_err(|_| Stopped)
}

async fn find(engine: &Engine, target: &FaultTarget) -> Option<ActorCell> {
    let core = engine.core();
    let session = match target {
        FaultTarget::Registry => return Some(core.refs.registry.load_full()?.get_cell()),
        FaultTarget::Hub => return Some(core.refs.hub.load_full()?.get_cell()),
        FaultTarget::Stateless => core.stateless.load_full()?,
        FaultTarget::Session(id) => core.directory.get(id.as_str())?,
    };
    Some(Session::new(core.clone(), session).actor().await?.get_cell())
}

/// Checks what every [`EventStore`] has to do: keep the frames of a stream in order, separate from
/// other streams and sessions, keep no more of them than allowed, and report when some are missing.
///
/// # Panics
///
/// If the store does not do it.
pub async fn event_store_keeps_its_contract(store: &dyn EventStore) {
    let retention = Retention { frames: 3, bytes: 1_000_000 };
    let event = |seq, text: &'static str| -> Delivered {
        (Seq(seq), Class::Log, Frame::Message(Bytes::from_static(text.as_bytes())))
    };
    let texts = |events: Vec<Delivered>| -> Vec<(u64, String)> {
        let text = |(seq, _, frame): Delivered| {
            let mut out = bytes::BytesMut::new();
            frame.write(&mut out);
            (seq.0, String::from_utf8_lossy(&out).into_owned())
        };
        events.into_iter().map(text).collect()
    };
    let node = NodeId::random();
    let (one, other) = (SessionId::random(&node), SessionId::random(&node));
    let mut log = store.open(&one, StreamId(1), retention);
    let mut same_id = store.open(&other, StreamId(1), retention);
    let mut other_stream = store.open(&one, StreamId(2), retention);

    let empty = log.replay(Seq(0)).await;
    assert!(empty.complete && empty.events.is_empty(), "nothing is missing from a new log");

    // Without 1: a frame that the policy has dropped has a number, and was never sent.
    log.append(&event(0, "a"));
    log.append(&event(2, "b"));
    same_id.append(&event(0, "secret"));
    other_stream.append(&event(0, "other"));
    let all = log.replay(Seq(0)).await;
    assert!(all.complete);
    assert_eq!(texts(all.events), [(0, "a".into()), (2, "b".into())], "in order, and its own only");
    let some = log.replay(Seq(1)).await;
    assert!(some.complete, "a number that was never sent is not missing");
    assert_eq!(texts(some.events), [(2, "b".into())]);

    log.append(&event(3, "c"));
    log.append(&event(4, "d"));
    let evicted = log.replay(Seq(0)).await;
    assert!(!evicted.complete, "the first frame is gone");
    assert_eq!(texts(evicted.events), [(2, "b".into()), (3, "c".into()), (4, "d".into())]);
    assert!(log.replay(Seq(2)).await.complete, "the rest is there, as often as it is asked for");
    assert!(log.replay(Seq(5)).await.complete, "nothing follows the last frame");

    log.trim(Retention { frames: 1, bytes: 1_000_000 });
    let trimmed = log.replay(Seq(3)).await;
    assert!(!trimmed.complete);
    assert_eq!(texts(trimmed.events), [(4, "d".into())], "the newest frame stays");

    drop(log);
    let anew = store.open(&one, StreamId(1), retention).replay(Seq(0)).await;
    assert!(anew.events.is_empty(), "a log that was dropped is forgotten");
}

/// Checks what an [`EventStore`] has to do, beside its [contract](event_store_keeps_its_contract),
/// if it outlives its process: `later`, in place of `store`, continues a stream that was left
/// there.
///
/// # Panics
///
/// If the store does not do it.
pub async fn event_store_outlives_its_process(store: &dyn EventStore, later: &dyn EventStore) {
    let retention = Retention { frames: 3, bytes: 1_000_000 };
    let event = |seq, class, frame| -> Delivered { (Seq(seq), class, frame) };
    let text = |text: &'static str| Frame::Message(Bytes::from_static(text.as_bytes()));
    let session = SessionId::random(&NodeId::random());
    let (stream, other) = (StreamId(0), StreamId(7));
    assert!(later.reopen(&session, stream, retention).await.is_none(), "there is nothing yet");

    let mut log = store.open(&session, stream, retention);
    for seq in 0..4 {
        log.append(&event(seq, Class::Custom, text("{}")));
    }
    assert!(!log.replay(Seq(0)).await.complete, "only three are kept");
    let mut answered = store.open(&session, other, retention);
    answered.append(&event(5, Class::Log, text("1")));
    answered.append(&event(6, Class::Reply, Frame::Reply(Bytes::from_static(b"{}"), Some(-7))));
    assert!(answered.replay(Seq(5)).await.complete);
    log.leave();
    answered.leave();
    drop((log, answered));

    let reopened = later.reopen(&session, other, retention).await.expect("it was left");
    assert_eq!(reopened.last, (Seq(6), Class::Reply));
    let mut answered = reopened.log;
    let replay = answered.replay(Seq(5)).await;
    assert!(replay.complete);
    assert_eq!(replay.events.len(), 2);
    let reply = &replay.events[1];
    assert!(matches!(&reply.2, Frame::Reply(json, Some(-7)) if json == "{}"), "{reply:?}");

    let reopened = later.reopen(&session, stream, retention).await.expect("it was left");
    assert_eq!(reopened.last, (Seq(3), Class::Custom));
    let mut log = reopened.log;
    log.append(&event(1 << 32, Class::Custom, text("{}")));
    let seqs = |replay: &crate::stream::Replay| -> Vec<u64> {
        replay.events.iter().map(|(seq, ..)| seq.0).collect()
    };
    let replay = log.replay(Seq(2)).await;
    assert_eq!(seqs(&replay), [2, 3, 1 << 32], "it goes on, and keeps no more than it may");
    let missing = log.replay(Seq(0)).await;
    assert!(!missing.complete, "what was gone is");
    drop(log);
    assert!(later.reopen(&session, stream, retention).await.is_none(), "and is forgotten at last");
    assert!(later.reopen(&session, other, retention).await.is_some(), "no other is");
    drop(answered);
}

/// A running task, for tests of stores.
#[must_use]
pub fn task_record(id: &str) -> TaskRecord {
    TaskRecord {
        id: TaskId::new(id),
        owner: Some("ann".into()),
        tool: "work".to_owned(),
        arguments: serde_json::json!({"b": 1, "a": 2.5}),
        capabilities: serde_json::json!({}),
        status: TaskStatus::Working,
        message: Some("half way".to_owned()),
        created_at: 1_000,
        updated_at: 2_000,
        ttl_ms: Some(10_000),
        poll_interval_ms: 100,
        checkpoint: None,
        version: 1,
    }
}

/// Checks what every [`TaskStore`] has to do: return the last record of a task, unchanged to the
/// byte, list the tasks that have not ended, and remove expired tasks and no others. The store must
/// be empty.
///
/// # Panics
///
/// If the store does not do it.
pub async fn task_store_keeps_its_contract(store: &dyn TaskStore) {
    let json = |task: &TaskRecord| serde_json::to_string(task).expect("a task is JSON");
    let (one, other) = (task_record("one"), task_record("other"));
    assert!(store.get(&one.id).await.expect("it works").is_none(), "an empty store has nothing");
    assert!(store.unfinished().await.expect("it works").is_empty());

    store.put(one.clone()).await.expect("there is room");
    store.put(other.clone()).await.expect("there is room");
    let found = store.get(&one.id).await.expect("it works").expect("it was put");
    assert_eq!(json(&found), json(&one));
    assert_eq!(store.unfinished().await.expect("it works").len(), 2);

    let result = serde_json::value::RawValue::from_string(r#"{"z":1,"a":2.50}"#.to_owned());
    let status = TaskStatus::Completed { result: result.expect("JSON") };
    let done = TaskRecord { status, checkpoint: Some(7.into()), version: 2, ..one.clone() };
    store.put(done.clone()).await.expect("there is room");
    let found = store.get(&one.id).await.expect("it works").expect("it was put");
    assert_eq!(json(&found), json(&done), "the last one counts, to the letter");
    let unfinished = store.unfinished().await.expect("it works");
    assert_eq!(unfinished.iter().map(json).collect::<Vec<_>>(), [json(&other)]);

    let forever = TaskRecord { ttl_ms: None, ..task_record("forever") };
    let later = TaskRecord { ttl_ms: Some(20_000), ..task_record("later") };
    store.put(forever.clone()).await.expect("there is room");
    store.put(later.clone()).await.expect("there is room");
    assert_eq!(store.sweep(10_999).await.expect("it works"), 0, "nothing has expired");
    assert_eq!(store.sweep(11_000).await.expect("it works"), 2);
    assert!(store.get(&one.id).await.expect("it works").is_none());
    assert!(store.get(&other.id).await.expect("it works").is_none());
    assert!(store.get(&later.id).await.expect("it works").is_some());
    store.put(other.clone()).await.expect("there is room");
    store.forget(&other.id).await.expect("it works");
    store.forget(&other.id).await.expect("that it is gone is no error");
    let unfinished = store.unfinished().await.expect("it works");
    assert!(unfinished.iter().all(|task| task.id != other.id), "it runs no more");
    let kept = store.get(&other.id).await.expect("it works");
    assert!(kept.is_none_or(|task| task.is_expired(0)), "it is forgotten, or is to be");
    store.sweep(0).await.expect("it works");
    assert!(store.get(&other.id).await.expect("it works").is_none());

    assert_eq!(store.sweep(u64::MAX).await.expect("it works"), 1);
    assert!(store.get(&forever.id).await.expect("it works").is_some(), "it is kept for ever");
}
