//! The stream of a remote session, when a link breaks or a node is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::testing::sent_by;
use stentor_engine::{Context, Engine, Seq, tool};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::nodes::Nodes;
use crate::support;
use crate::{all, legacy, opened};

/// Two nodes. A session on `far` has a call that waits and has sent two messages, which were read
/// through `near`.
struct RemoteStream {
    nodes: Nodes,
    near: Engine,
    far: Engine,
    id: String,
    receiver: StreamReceiver,
    go_on: Arc<Notify>,
    read: Vec<(Seq, Value)>,
}

async fn some(receiver: &mut StreamReceiver, read: &mut Vec<(Seq, Value)>) -> bool {
    let mut batch = Vec::new();
    let some = receiver.next(&mut batch).await;
    for stentor_delivery::Delivered { seq, frame, .. } in batch {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        read.push((seq, serde_json::from_slice(&out).unwrap()));
    }
    some
}

impl RemoteStream {
    async fn call() -> Self {
        let (nodes, go_on) = (Nodes::default(), Arc::new(Notify::new()));
        let waits = go_on.clone();
        let lines = tool("lines", move |ctx: Context| {
            let waits = waits.clone();
            async move {
                ctx.info(1);
                ctx.info(2);
                waits.notified().await;
                ctx.info(3);
                "done"
            }
        });
        let far = nodes.start("far", support::engine().tool(lines)).await;
        let near = nodes.start("near", Engine::builder("test", "1")).await;
        let id = opened(&far).await.id().as_str().to_owned();
        let through = near.http_session(&id, &sent_by("ann")).await.unwrap();
        let request = legacy(1, "tools/call", json!({"name": "lines"}));
        let (mut receiver, mut read) = (through.request(request).await.unwrap(), Vec::new());
        while read.len() < 2 {
            assert!(some(&mut receiver, &mut read).await);
        }
        Self { nodes, near, far, id, receiver, go_on, read }
    }

    async fn read_on(&mut self) {
        while some(&mut self.receiver, &mut self.read).await {}
    }

    /// Resumes the stream through one of the nodes, and returns the messages.
    async fn resumed(&self, through: &Engine, next: Seq) -> Vec<Value> {
        let session = through.http_session(&self.id, &sent_by("ann")).await.unwrap();
        all(&mut session.resume(self.receiver.stream_id(), next).await.unwrap()).await
    }

    /// The number after the last frame, which is the response. Checks that no frame number repeats.
    fn next(&self) -> Seq {
        assert!(self.read.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", self.read);
        let answers = self.read.iter().filter(|(_, it)| it["id"] == 1);
        assert_eq!(answers.count(), 1, "{:?}", self.read);
        let (seq, last) = self.read.last().unwrap();
        assert_eq!(last["id"], 1, "{:?}", self.read);
        Seq(seq.0 + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_while_a_remote_session_answers_loses_nothing_of_the_answer() {
    for away in [false, true] {
        let mut remote = RemoteStream::call().await;
        remote.nodes.cut(away);
        remote.go_on.notify_one();
        if away {
            let read_on = remote.read_on();
            assert!(timeout(Duration::from_secs(5), read_on).await.is_err(), "it waits");
            remote.nodes.cut(false);
        }
        remote.read_on().await;
        let next = remote.next();
        assert_eq!((remote.read.len(), next), (4, Seq(4)), "{:?}", remote.read);
        assert_eq!(remote.read[3].1["result"]["content"][0]["text"], "done");
        for through in [&remote.near, &remote.far] {
            assert_eq!(remote.resumed(through, next).await, [Value::Null; 0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_made_up_is_the_last_that_is_heard_of_its_stream() {
    let mut remote = RemoteStream::call().await;
    remote.nodes.cut(true);
    let begun = Instant::now();
    remote.read_on().await;
    // Within the configured time.
    assert!((10..11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let next = remote.next();
    assert!(remote.read[2].1["error"]["message"].as_str().unwrap().contains("has gone"));
    assert!(next.0 < 1 << 53, "a client may keep it as a floating point number");
    // The node was running all the time, and its call continues.
    remote.nodes.cut(false);
    remote.go_on.notify_one();
    for through in [&remote.near, &remote.far] {
        assert_eq!(remote.resumed(through, next).await, [Value::Null; 0]);
    }
    // A client that has not received the made-up response gets the real one.
    let rest = remote.resumed(&remote.near, Seq(2)).await;
    assert_eq!(rest[1]["result"]["content"][0]["text"], "done", "{rest:?}");
}

#[tokio::test]
async fn a_made_up_answer_for_a_lost_node_has_no_number_of_another_frame() {
    let mut remote = RemoteStream::call().await;
    remote.nodes.lose("far");
    remote.nodes.cut(false);
    remote.read_on().await;
    remote.next();
    assert!(remote.near.http_session(&remote.id, &sent_by("ann")).await.is_err());
}
