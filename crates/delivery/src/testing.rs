//! Checks what an event store has to do.

use bytes::{Bytes, BytesMut};

use crate::event_store::EventStore;
use crate::frame::{Delivered, Frame};
use crate::ids::{Seq, SessionId, StreamId};
use crate::policy::{Class, Retention};

/// Checks what every [`EventStore`] has to do: keep the frames of a stream in order, separate from
/// other streams and sessions, keep no more of them than allowed, and report when some are missing.
///
/// # Panics
///
/// If the store does not do it.
pub async fn event_store_keeps_its_contract(store: &dyn EventStore) {
    let retention = Retention { frames: 3, bytes: 1_000_000 };
    let event = |seq, text: &'static str| -> Delivered {
        let frame = Frame::Message(Bytes::from_static(text.as_bytes()));
        Delivered { seq: Seq(seq), class: Class::Log, frame }
    };
    let texts = |events: Vec<Delivered>| -> Vec<(u64, String)> {
        let text = |Delivered { seq, frame, .. }| {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            (seq.0, String::from_utf8_lossy(&out).into_owned())
        };
        events.into_iter().map(text).collect()
    };
    let (one, other) = (SessionId::new("one"), SessionId::new("other"));
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
    let event = |seq, class, frame| -> Delivered { Delivered { seq: Seq(seq), class, frame } };
    let text = |text: &'static str| Frame::Message(Bytes::from_static(text.as_bytes()));
    let session = SessionId::new("one");
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
    assert!(matches!(&reply.frame, Frame::Reply(json, Some(-7)) if json == "{}"), "{reply:?}");

    let reopened = later.reopen(&session, stream, retention).await.expect("it was left");
    assert_eq!(reopened.last, (Seq(3), Class::Custom));
    let mut log = reopened.log;
    log.append(&event(1 << 32, Class::Custom, text("{}")));
    let seqs = |replay: &crate::Replay| -> Vec<u64> {
        replay.events.iter().map(|event| event.seq.0).collect()
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
