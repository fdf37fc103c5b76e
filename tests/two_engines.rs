//! Two engines in one process are independent.

use serde_json::json;
use stentor_tests::{Call, Client, Lane, Server, in_every_lane};

in_every_lane![two_engines_in_one_process_do_not_affect_each_other];

async fn two_engines_in_one_process_do_not_affect_each_other(lane: Lane) {
    let (mut first, second) = (Server::start().await, Server::start().await);
    let (one, other) = (Client::connect(&first, lane).await, Client::connect(&second, lane).await);
    let mut ones = one.hear(&["test://clock"]).await;
    let mut others = other.hear(&["test://clock"]).await;

    one.call("add", json!({"kind": "tools", "name": "only-here"})).await;
    first.engine.send_resource_updated("test://clock");
    first.engine.notify_all("notifications/example/all", json!({})).await.expect("running");
    first.mark().await;
    second.mark().await;
    assert!(ones.until_mark().await.len() >= 2);
    assert_eq!(others.until_mark().await, [""; 0]);
    assert!(!other.list("tools").await.contains(&"only-here".to_owned()));
    assert_eq!(other.call("only-here", json!({})).await.error()["code"], -32602);
    assert_eq!(second.engine.catalog().snapshot().revision(), stentor::observe::Revision(1));
    if lane == Lane::HTTP_LEGACY {
        let call = Call::get(one.session());
        assert_eq!(call.send(second.address).await.status, 404, "a session of the other one");
    }

    first.begin_shutdown().await;
    drop((one, ones));
    first.ended().await;
    assert!(!second.engine.is_draining());
    other.call("add", json!({"kind": "prompts", "name": "still-here"})).await;
    second.mark().await;
    assert_eq!(others.until_mark().await, ["prompts/list_changed"]);
}
