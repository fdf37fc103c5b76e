//! Remote sessions, and sessions that migrate.

use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use stentor_engine::remote::{PeerEvent, PeerRequest, SessionOp};
use stentor_engine::testing::sent_by;
use stentor_engine::transport_api::Refused;
use stentor_engine::{EndReason, Engine, Seq, SessionRecord, tool};
use stentor_wire::ProtocolVersion;

use crate::nodes::{Nodes, through_json};
use crate::support;
use crate::{all, legacy, opened, two, until};

#[tokio::test]
async fn a_session_is_served_through_any_node() {
    let (_nodes, near, far) = two().await;
    let id = opened(&far).await.id().as_str().to_owned();
    assert!(id.starts_with("far."), "{id}");
    let through = near.http_session(&id, &sent_by("ann")).await.unwrap();
    let request = legacy(1, "tools/call", json!({"name": "echo"}));
    let said = all(&mut through.request(request).await.unwrap()).await;
    assert_eq!(said[0]["result"]["content"][0]["text"], "echo", "{said:?}");

    let mut notices = through.attach().await.unwrap();
    assert_eq!(through.version(), Some(ProtocolVersion::V2025_11_25));
    // The newest reader gets the stream, whichever node it uses.
    let mut taken = std::mem::replace(&mut notices, through.attach().await.unwrap());
    let mut batch = Vec::new();
    assert!(!taken.next(&mut batch).await, "it is taken over: {batch:?}");
    assert!(notices.next(&mut batch).await);
    assert_eq!(batch.len(), 3, "what was on its way may be lost");
    far.send_tool_list_changed();
    let mut batch = Vec::new();
    assert!(notices.next(&mut batch).await);
    assert_eq!(batch.len(), 1);
    let (seq, stream) = (batch[0].seq, notices.stream_id());
    drop(notices);

    // The client resumes through the node that has the session.
    far.send_prompt_list_changed();
    let next = stentor_engine::Seq(seq.0 + 1);
    let mut resumed =
        far.http_session(&id, &sent_by("ann")).await.unwrap().resume(stream, next).await.unwrap();
    batch.clear();
    assert!(resumed.next(&mut batch).await);
    assert_eq!((batch.len(), batch[0].seq), (1, next));

    let bob = near.http_session(&id, &sent_by("bob")).await.unwrap();
    let request = legacy(2, "tools/call", json!({"name": "echo"}));
    assert_eq!(bob.request(request).await.unwrap_err(), Refused::SessionEnded);
    through.end(EndReason::Deleted).await.unwrap();
    until(|| far.http_sessions().is_empty()).await;
    let request = legacy(3, "tools/call", json!({"name": "echo"}));
    assert_eq!(through.request(request).await.unwrap_err(), Refused::SessionEnded);
}

#[tokio::test]
async fn a_request_whose_session_is_lost_is_answered_with_an_error() {
    let (nodes, near, far) = two().await;
    let id = opened(&far).await.id().as_str().to_owned();
    let through = near.http_session(&id, &sent_by("ann")).await.unwrap();
    let request = legacy(1, "tools/call", json!({"name": "wait"}));
    let mut receiver = through.request(request).await.unwrap();
    nodes.lose("far");
    far.actor().kill();
    let said = all(&mut receiver).await;
    assert_eq!((said.len(), &said[0]["id"]), (1, &json!(1)), "{said:?}");
    assert!(near.http_session(&id, &sent_by("ann")).await.is_err());
}

#[tokio::test]
async fn a_session_goes_on_on_another_node_and_its_client_misses_nothing() {
    let (_nodes, near, far) = two().await;
    let session = opened(&far).await;
    let id = session.id().clone();
    let request = legacy(1, "logging/setLevel", json!({"level": "error"}));
    all(&mut session.request(request).await.unwrap()).await;
    let request = legacy(2, "resources/subscribe", json!({"uri": "test://watched"}));
    all(&mut session.request(request).await.unwrap()).await;
    let request = legacy(3, "tools/call", json!({"name": "steps"}));
    let mut receiver = session.request(request).await.unwrap();
    session.keep(&receiver, &[]);
    let stream = receiver.stream_id();
    assert_eq!(all(&mut receiver).await.len(), 2, "its notification and the result");

    // One notice is read, the next one is not.
    let mut notices = session.attach().await.unwrap();
    far.send_tool_list_changed();
    let mut batch = Vec::new();
    assert!(notices.next(&mut batch).await);
    let read = batch[0].seq;
    drop(notices);
    far.notify_all("notifications/own", json!({"n": 1})).await.unwrap();
    until(|| far.sessions().iter().any(|it| it.unread == 1)).await;

    let mut migration = far.begin_migration(&id, std::time::Duration::from_secs(1)).await.unwrap();
    let record = through_json(&migration.take().unwrap());
    // While no other node has the session yet.
    far.notify_all("notifications/own", json!({"n": 2})).await.unwrap();
    let looking = tokio::spawn({
        let (far, id) = (far.clone(), id.clone());
        async move { far.http_session(id.as_str(), &sent_by("ann")).await.map(drop) }
    });
    let mut migrated = near.serve_peer(PeerRequest::Migrate(Box::new(record))).await;
    assert!(matches!(migrated.next().await, Some(PeerEvent::Ended)));
    assert!(!looking.is_finished(), "who looks for it meanwhile waits");
    migration.arrived();
    assert_eq!(looking.await.unwrap().unwrap_err(), Refused::SessionEnded);

    let bob = near.http_session(id.as_str(), &sent_by("bob")).await.unwrap();
    let request = legacy(9, "ping", json!({}));
    assert_eq!(bob.request(request).await.unwrap_err(), Refused::SessionEnded);
    // While both nodes receive notices.
    far.notify_all("notifications/own", json!({"n": 3})).await.unwrap();
    until(|| near.sessions().iter().any(|it| it.unread >= 5)).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(migration.missed_notices());
        tokio::task::yield_now().await;
    }
    let (session, op) = (id.clone(), SessionOp::Missed(through_json(&heard)));
    let peer_request = PeerRequest::Session { session, sender: migration.sender(), op };
    assert!(matches!(near.serve_peer(peer_request).await.next().await, Some(PeerEvent::Ended)));
    drop(migration);
    let session = near.http_session(id.as_str(), &sent_by("ann")).await.unwrap();
    assert_eq!(session.version(), Some(ProtocolVersion::V2025_11_25));
    let mut notices =
        session.resume(stentor_engine::StreamId(0), stentor_engine::Seq(read.0)).await.unwrap();
    let (mut heard, mut batch) = (Vec::new(), Vec::new());
    near.send_resource_updated("test://watched");
    while heard.len() < 8 {
        assert!(notices.next(&mut batch).await);
        for stentor_delivery::Delivered { seq, frame, .. } in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            let message: Value = serde_json::from_slice(&out).unwrap();
            let method = message["method"].as_str().unwrap().to_owned();
            heard.push((seq.0 - read.0, method, message["params"]["n"].as_u64()));
        }
    }
    let seqs: Vec<_> = heard.iter().map(|(seq, ..)| *seq).collect();
    let mut own: Vec<_> = heard.iter().filter_map(|(_, _, n)| *n).collect();
    own.sort_unstable();
    assert_eq!(own, [1, 2, 3], "each once: {heard:?}");
    let methods: Vec<_> = heard.into_iter().map(|(_, method, _)| method).collect();
    assert_eq!(seqs, (0..8).collect::<Vec<_>>(), "without gaps");
    assert_eq!(methods[..2], ["notifications/tools/list_changed", "notifications/own"]);
    // Changes that may have been missed during the migration are announced once more.
    assert!(methods[2..].contains(&"notifications/resources/updated".to_owned()), "{methods:?}");

    let mut past = session.resume(stream, stentor_engine::Seq(0)).await.unwrap();
    assert_eq!(all(&mut past).await.len(), 2, "what was answered can be read again");
    let request = legacy(4, "tools/call", json!({"name": "log"}));
    let said = all(&mut session.request(request).await.unwrap()).await;
    assert_eq!(said[0]["params"]["data"], "above it", "its log level is what it was: {said:?}");
    assert_eq!(said.len(), 2);
}

#[tokio::test]
async fn of_a_session_that_is_too_large_to_be_handed_over_an_answer_is_lost_and_nothing_else() {
    let nodes = Nodes::default();
    let long = tool("long", || async { "x".repeat(9_000) });
    let far = nodes.start("far", support::engine().tool(long)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let session = opened(&far).await;
    let mut streams = Vec::new();
    for (id, name) in [(1, "long"), (2, "echo")] {
        let params = json!({"name": name});
        let receiver = session.request(legacy(id, "tools/call", params)).await.unwrap();
        session.keep(&receiver, &[]);
        streams.push(receiver.stream_id());
    }
    until(|| far.calls().is_empty()).await;
    let mut migration =
        far.begin_migration(session.id(), Duration::from_secs(1)).await.expect("it is there");
    let mut record = migration.take().unwrap();
    let size = |record: &SessionRecord| serde_json::to_string(record).unwrap().len();
    assert!(size(&record) > 9_000, "nobody has read the answer");
    while size(&record) > 5_000 {
        assert!(record.leave_out_some(), "there is something to leave out");
    }
    let mut migrated = near.serve_peer(PeerRequest::Migrate(Box::new(through_json(&record)))).await;
    assert!(matches!(migrated.next().await, Some(PeerEvent::Ended)));
    migration.arrived();
    let session = near.http_session(session.id().as_str(), &sent_by("ann")).await.unwrap();
    let mut answers = Vec::new();
    for stream in streams {
        let mut resumed = session.resume(stream, Seq(0)).await.unwrap();
        answers.extend(all(&mut resumed).await);
    }
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers[0]["error"]["message"].as_str().unwrap().contains("too large"), "{answers:?}");
    assert_eq!(answers[1]["result"]["content"][0]["text"], "echo");
    // In the end nothing is left that could be left out.
    while record.leave_out_some() {}
}
