//! What a listen receives from its acknowledgment on.

mod support;

use std::time::Duration;

use serde_json::json;
use stentor_delivery::StreamReceiver;
use stentor_wire::Message;
use support::{modern_meta, request};

/// The frames that wait now.
fn waiting(receiver: &mut StreamReceiver) -> usize {
    let mut batch = Vec::new();
    receiver.try_next(&mut batch);
    batch.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_right_after_the_acknowledgment_reaches_the_listen() {
    let builder =
        support::engine().configure(|config| config.registry.coalesce_window = Duration::ZERO);
    let engine = builder.start().await.unwrap();
    for round in 0..2_000 {
        let (pipe, mut receiver) = engine.open_pipe().await.unwrap();
        let notices = json!({"toolsListChanged": true});
        let params = json!({"notifications": notices, "_meta": modern_meta()});
        let listen = Message::Request(request(1, "subscriptions/listen", params));
        // On another thread, so that nothing orders it and the change but the acknowledgment.
        let listening = tokio::spawn(async move {
            pipe.deliver(Ok(listen)).await.unwrap();
            pipe
        });
        while waiting(&mut receiver) == 0 {
            std::hint::spin_loop();
        }
        engine.send_tool_list_changed();
        while engine.observe().await.unwrap().registry.open_windows > 0 {}
        assert_eq!(waiting(&mut receiver), 1, "round {round}");
        drop(listening.await.unwrap());
    }
}
