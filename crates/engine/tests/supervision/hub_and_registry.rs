//! A hub or registry that dies, and what its clients are told.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use stentor_delivery::DirectWrite;
use stentor_engine::testing::{FaultTarget, kill};
use tokio::time::{sleep, timeout};

use crate::support::{Client, engine, http_session, methods, modern_meta};
use crate::{TOOLS_CHANGED, named, settle};

#[tokio::test(start_paused = true)]
async fn a_registry_that_crashes_restarts_with_its_catalog_and_revision() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    engine.catalog().add(named("added")).await.unwrap();
    let before = engine.catalog().snapshot();
    kill(&engine, FaultTarget::Registry).await.unwrap();
    settle(&engine).await;
    let view = engine.observe().await.unwrap();
    assert_eq!(view.registry.revision, before.revision());
    assert_eq!(view.supervisor.recent_restarts, 1);
    let told = client.ping().await;
    assert!(
        methods(&told).contains(&"notifications/prompts/list_changed"),
        "all lists are told: {told:?}"
    );
    let change = engine.catalog().add(named("after")).await.unwrap();
    assert!(change.revision > before.revision());
    assert_eq!(engine.catalog().snapshot().tool_names().count(), before.tool_names().count() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_crashes_restarts_with_all_its_subscribers() {
    let engine = engine().start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::legacy(&engine).await);
    }
    kill(&engine, FaultTarget::Hub).await.unwrap();
    settle(&engine).await;
    for client in &mut clients {
        let told = client.ping().await;
        assert!(
            methods(&told).contains(&TOOLS_CHANGED),
            "what may have been missed is told: {told:?}"
        );
    }
    engine.catalog().add(named("added")).await.unwrap();
    settle(&engine).await;
    for client in &mut clients {
        assert_eq!(methods(&client.ping().await), [TOOLS_CHANGED]);
    }
    assert_eq!(engine.observe().await.unwrap().hub.subscribers, 3);
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_crash_is_still_announced() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    kill(&engine, FaultTarget::Registry).await.unwrap();
    engine.send_resource_list_changed();
    settle(&engine).await;
    let told = client.ping().await;
    assert!(methods(&told).contains(&"notifications/resources/list_changed"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listen_that_begins_as_the_hub_crashes_is_acknowledged_first_and_once() {
    for yields in 0..8 {
        let engine = engine().start().await.unwrap();
        let mut client = Client::connect(&engine).await;
        let listen = json!({"notifications": {"toolsListChanged": true}, "_meta": modern_meta()});
        let method = "subscriptions/listen";
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": listen});
        let begin = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            client.send(request).await;
        };
        let (killed, ()) = tokio::join!(kill(&engine, FaultTarget::Hub), begin);
        killed.unwrap();
        settle(&engine).await;
        engine.catalog().add(named("added")).await.unwrap();
        let mut told = Vec::new();
        while told.last().is_none_or(|method| method != TOOLS_CHANGED) {
            let message = client.next().await.expect("another message");
            told.push(message["method"].as_str().expect("a notification").to_owned());
        }
        let acknowledged = "notifications/subscriptions/acknowledged";
        assert_eq!(told, [acknowledged, TOOLS_CHANGED], "after {yields} yields");
        engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waits_for_its_window_survives_a_crash_of_the_registry() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.subscribe("s", "test://watched").await;
    engine.send_resource_updated("test://watched");
    assert_eq!(client.next().await.unwrap()["method"], "notifications/resources/updated");
    // At the same moment: time is paused.
    engine.send_resource_updated("test://watched");
    sleep(Duration::from_millis(1)).await;
    assert!(client.ping().await.is_empty(), "it is held back");
    kill(&engine, FaultTarget::Registry).await.unwrap();
    settle(&engine).await;
    let told = client.ping().await;
    assert!(methods(&told).contains(&"notifications/resources/updated"), "{told:?}");
}

/// A transport's direct write, with a bug.
#[derive(Debug)]
struct Broken(AtomicBool);

impl DirectWrite for Broken {
    fn write_directly(&self) -> bool {
        assert!(self.0.swap(true, Ordering::Relaxed), "a bug in a transport");
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_in_the_hub_costs_no_other_client_a_notice() {
    // The hub itself notifies few subscribers; for many it starts tasks.
    for others in [1, 150] {
        let engine = engine().start().await.unwrap();
        let mut receivers = Vec::new();
        let broken = Arc::new(Broken(AtomicBool::new(false)));
        for index in 0..=others {
            let session = http_session(&engine).await;
            let mut receiver = session.attach().await.unwrap();
            let mut batch = Vec::new();
            assert!(futures::poll!(pin!(receiver.next(&mut batch))).is_pending());
            if index == 0 {
                let writer: Weak<Broken> = Arc::downgrade(&broken);
                receiver.written_by(writer);
            }
            receivers.push((session, receiver));
        }
        engine.catalog().add(named("added")).await.unwrap();
        for (_, receiver) in &mut receivers {
            let mut batch = Vec::new();
            assert!(timeout(Duration::from_secs(5), receiver.next(&mut batch)).await.unwrap());
            let mut told = bytes::BytesMut::new();
            batch.iter().for_each(|event| event.frame.write(&mut told));
            assert!(String::from_utf8_lossy(&told).contains(TOOLS_CHANGED), "{told:?}");
        }
        assert!(broken.0.load(Ordering::Relaxed));
        settle(&engine).await;
        let view = engine.observe().await.unwrap();
        assert_eq!(view.supervisor.recent_restarts, 1);
        assert_eq!(view.hub.subscribers, others + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_or_hub_that_was_stopped_is_restarted() {
    let engine = engine().start().await.unwrap();
    for child in engine.supervisor_cell().get_children() {
        child.stop(None);
    }
    sleep(Duration::from_millis(10)).await;
    settle(&engine).await;
    engine.catalog().add(named("added")).await.unwrap();
    assert_eq!(engine.ended(), None);
}
