//! The store by itself: its contracts, what expires, and a server that is slow.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;
use stentor_cluster::{RedisConfig, RedisStore, RedisStoreError};
use stentor_delivery::policy::{Class, Retention};
use stentor_delivery::{Delivered, EventStore as _, Frame};
use stentor_engine::testing::{
    event_store_keeps_its_contract, event_store_outlives_its_process, session_record,
    session_store_keeps_its_contract,
};
use stentor_engine::{NodeId, Seq, SessionStore as _, StreamId};
use tokio::time::{sleep, timeout};

use crate::server::Server;

#[tokio::test]
async fn the_store_keeps_its_contracts() {
    let Some(server) = Server::start().await else { return };
    let (store, later) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    event_store_keeps_its_contract(&store).await;
    event_store_outlives_its_process(&store, &later).await;
    session_store_keeps_its_contract(&store).await;
}

#[tokio::test]
async fn connect_reports_a_wrong_address_and_an_unreachable_server() {
    let wrong = RedisStore::connect(RedisConfig::new("nonsense:secret@")).await.unwrap_err();
    assert!(matches!(wrong, RedisStoreError::Address(_)) && !wrong.to_string().contains("secret"));
    let Some(server) = Server::start().await else { return };
    server.kill();
    let gone = server.connect().await.unwrap_err();
    assert!(matches!(gone, RedisStoreError::Unreachable(_)), "{gone}");
}

fn frame(seq: u64) -> Delivered {
    let frame = Frame::Message(Bytes::from(vec![b'x'; 1_000]));
    Delivered { seq: Seq(seq), class: Class::Custom, frame }
}

#[tokio::test]
async fn data_that_no_node_uses_expires() {
    let Some(server) = Server::start().await else { return };
    let mut config = server.config();
    (config.keep, config.prefix) = (Duration::from_secs(1), "mine:".to_owned());
    let store = RedisStore::connect(config).await.unwrap();
    let record = session_record(&NodeId::random());
    let mut log = store.open(record.id(), StreamId(0), Retention::default());
    log.append(&frame(0));
    store.save(&NodeId::random(), &record, Duration::from_secs(1)).await.unwrap();
    assert_eq!(log.replay(Seq(0)).await.events.len(), 1);
    let keys = server.ask(&["KEYS", "*"]).await;
    assert!(keys.contains("mine:events:") && keys.contains("mine:session:"), "{keys}");

    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(log.replay(Seq(0)).await.events.len(), 1, "one that is here stays");
    let keys = server.ask(&["KEYS", "*"]).await;
    assert!(!keys.contains("mine:session:"), "a session is saved again in time, or expires");
    log.leave();
    drop(log);
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(server.ask(&["DBSIZE"]).await, "int(0)");
}

#[tokio::test]
async fn a_slow_server_delays_no_writer_and_waiting_frames_are_bounded() {
    let Some(server) = Server::start().await else { return };
    let mut config = server.config();
    config.max_waiting = 20_000;
    let store = RedisStore::connect(config).await.unwrap();
    let record = session_record(&NodeId::random());
    let mut log = store.open(record.id(), StreamId(0), Retention::default());
    log.append(&frame(0));
    assert!(log.replay(Seq(0)).await.complete);
    server.signal(Signal::STOP);
    let begun = Instant::now();
    for seq in 1..=100 {
        log.append(&frame(seq));
    }
    assert!(begun.elapsed() < Duration::from_millis(200), "nobody waits");
    assert!(log.held() <= 20_000 + 101 * 16, "{}", log.held());
    let replay = timeout(Duration::from_secs(10), log.replay(Seq(0))).await.unwrap();
    assert!(!replay.complete, "it is known that they are not all there");
    server.signal(Signal::CONT);

    log.append(&frame(101));
    let mut replay = log.replay(Seq(101)).await;
    for _ in 0..50 {
        if replay.complete {
            break;
        }
        sleep(Duration::from_millis(100)).await;
        // A frame that was lost meanwhile stays lost.
        let next = 200 + log.held() as u64;
        log.append(&frame(next));
        replay = log.replay(Seq(next)).await;
    }
    assert!(replay.complete && replay.events.len() == 1, "it goes on");
    assert!(!log.replay(Seq(50)).await.complete, "and what was lost stays so");
    log.leave();
    drop(log);
    let reopened = store.reopen(record.id(), StreamId(0), Retention::default()).await.unwrap();
    let mut log = reopened.log;
    assert!(!log.replay(Seq(50)).await.complete, "for who comes after, too");
}
