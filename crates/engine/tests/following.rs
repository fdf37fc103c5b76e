//! What is noted of sessions that somebody follows.

use std::time::Duration;

use serde_json::json;
use stentor_engine::{Engine, tool};
use stentor_test::{Client, Notice, assert_notified};

const LONG: Duration = Duration::from_secs(60);

async fn engine(follow_one_in: usize) -> Engine {
    Engine::builder("s", "1")
        .tool(tool("noon", || async { "12:00" }))
        .configure(|config| config.sessions.follow_one_in = follow_one_in)
        .start()
        .await
        .expect("an engine")
}

/// What became of a notice, by its method and key.
fn outcomes(engine: &Engine, what: &str) -> Vec<(String, Option<&'static str>)> {
    let [session] = &engine.session_refs()[..] else { panic!("not one session") };
    let entries = session.history().expect("followed").entries.into_iter();
    let named = entries.filter(|it| it.what == what);
    named.map(|it| (format!("{:?}", it.became), it.why)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_hidden_from_a_client_is_said_to_be() {
    let engine = engine(0).await;
    let client = Client::builder(&engine).principal("ann").connect().await;
    let mut notices = client.notices().await;
    engine.session_refs()[0].follow(LONG);
    let list = "notifications/tools/list_changed";
    engine.catalog().add(tool("a", || async { "" }).only_for(["admins"])).await.expect("a tool");
    engine.catalog().add(tool("b", || async { "" })).await.expect("a tool");
    assert_notified(&mut notices, Notice::ToolsChanged).await;
    let all = outcomes(&engine, list);
    let delivered = all.iter().filter(|(became, _)| became == "Delivered").count();
    assert_eq!(delivered, 1, "{all:?}");
    engine.catalog().remove_tool("a").await.expect("removed");
    client.settle().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = outcomes(&engine, list).pop().expect("an entry");
    assert_eq!(last.0, "Filtered", "{last:?}");
    assert!(last.1.is_some_and(|why| why.contains("hidden")), "{last:?}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_did_not_ask_for_is_said_to_be_filtered() {
    let engine = engine(0).await;
    let client = Client::connect(&engine).await;
    client.listen(json!({"promptsListChanged": true})).await.expect("a listen");
    engine.session_refs()[0].follow(LONG);
    engine.catalog().add(tool("b", || async { "" })).await.expect("a tool");
    engine.send_resource_updated("file:///x");
    tokio::time::sleep(Duration::from_secs(1)).await;
    for what in ["notifications/tools/list_changed", "notifications/resources/updated file:///x"] {
        let all = outcomes(&engine, what);
        let (became, why) = all.first().expect("an entry");
        assert_eq!(became, "Filtered", "{what}");
        assert!(why.is_some(), "{what}");
    }
    engine.session_refs()[0].unfollow();
    assert_eq!(engine.session_refs()[0].history(), None);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_in_so_many_sessions_is_followed_from_its_beginning() {
    let engine = engine(3).await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        let client = Client::connect(&engine).await;
        client.call_tool("noon", ()).await.expect("a result");
        clients.push(client);
    }
    let sessions = engine.session_refs();
    let followed: Vec<_> = sessions.iter().filter_map(|it| it.history()).collect();
    assert_eq!((sessions.len(), followed.len()), (9, 3));
    for history in followed {
        assert!(history.entries.iter().any(|it| it.what == "response"), "{history:?}");
    }
    engine.shutdown().await;
}
