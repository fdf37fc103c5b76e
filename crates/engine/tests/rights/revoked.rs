//! Principals that are locked out, and rights that change just when somebody comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use serde_json::json;
use stentor_engine::identity::Identity;
use stentor_engine::remote::{Fact, Revocation};
use stentor_engine::transport_api::{Refused, RequestSender};
use stentor_engine::{Context, Engine, ToolError, tool};
use tokio::sync::Notify;

use crate::support::request;
use crate::{ann, listen, messages, session};

async fn engine(go: Arc<Notify>) -> Engine {
    let waits = tool("waits", move |_: Context| {
        let go = go.clone();
        async move {
            go.notified().await;
            Ok::<_, ToolError>("done")
        }
    });
    Engine::builder("test", "1")
        .tool(waits)
        .configure(|config| config.rights.revoked_for = Duration::from_millis(200))
        .start()
        .await
        .unwrap()
}

/// Waits for real time, in which revocations are counted.
fn wait_until_over() {
    std::thread::sleep(Duration::from_millis(250));
}

async fn until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 20, "it does not come to this");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn who_is_revoked_has_no_sessions_and_listens_and_comes_back_later() {
    let engine = engine(Arc::default()).await;
    let (bob, filter) = (Identity::named("bob"), json!({"toolsListChanged": true}));
    let session_of_ann = session(&engine, &ann(&[])).await;
    let mut notices = session_of_ann.attach().await.unwrap();
    session(&engine, &bob).await;
    let mut anns = listen(&engine, &ann(&["any"]).client("editor"), filter.clone()).await;
    let mut bobs = listen(&engine, &bob, filter).await;
    assert!(!engine.is_revoked("ann"));
    engine.revoke("ann").await;
    assert!(engine.is_revoked("ann") && !engine.is_revoked("bob"));

    let last = messages(&mut anns).await.pop().unwrap();
    assert_eq!(last["result"]["resultType"], "complete", "it is not to come back: {last}");
    assert!(messages(&mut notices).await.is_empty(), "its notices end");
    until(|| engine.sessions().len() == 2).await;
    let sender = RequestSender::known(ann(&[]));
    let found = engine.http_session(session_of_ann.id().as_str(), &sender).await;
    assert_eq!(found.err(), Some(Refused::Revoked));
    // One that is on its way is refused, too.
    let opened = engine.open_http_session(sender).await;
    assert_eq!(opened.err(), Some(Refused::Revoked));
    engine.send_tool_list_changed();
    let mut batch = Vec::new();
    assert!(bobs.next(&mut batch).await, "others go on");

    wait_until_over();
    assert!(!engine.is_revoked("ann"));
    session(&engine, &ann(&[])).await;
}

#[tokio::test]
async fn a_revocation_may_be_for_ever_and_for_no_time() {
    for revoked_for in [Duration::MAX, Duration::ZERO] {
        let builder = Engine::builder("test", "1");
        let builder = builder.configure(|config| config.rights.revoked_for = revoked_for);
        let engine = builder.start().await.unwrap();
        session(&engine, &ann(&[])).await;
        assert_eq!(engine.revoke("ann").await, 1, "{revoked_for:?}");
        until(|| engine.sessions().is_empty()).await;
    }
}

#[tokio::test]
async fn calls_of_who_is_revoked_go_on_unless_they_are_cancelled() {
    for cancel in [false, true] {
        let go = Arc::<Notify>::default();
        let engine = engine(go.clone()).await;
        let session = session(&engine, &ann(&[])).await;
        let params = json!({"name": "waits"});
        let mut receiver = session.request(request(1, "tools/call", params)).await.unwrap();
        until(|| engine.calls().len() == 1).await;
        engine.revoke("ann").cancel_calls(cancel).await;
        if cancel {
            let answer = messages(&mut receiver).await.pop().unwrap();
            assert!(answer["error"].is_object(), "{answer}");
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(engine.calls().len(), 1, "it was admitted");
            go.notify_one();
            let answer = messages(&mut receiver).await.pop().unwrap();
            assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
        }
        until(|| engine.sessions().is_empty() && engine.calls().is_empty()).await;
    }
}

#[tokio::test]
async fn a_revocation_that_is_over_ends_nothing_when_it_is_told_again() {
    let engine = engine(Arc::default()).await;
    session(&engine, &ann(&[])).await;
    let revoked = |until| {
        let revocation = Revocation { until, cancel_calls: true };
        engine.receive_facts(vec![Fact::Revoked("ann".into(), Some(revocation))]);
    };
    revoked(SystemTime::now() - Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((engine.sessions().len(), engine.is_revoked("ann")), (1, false));

    revoked(SystemTime::now() + Duration::from_secs(60));
    until(|| engine.sessions().is_empty()).await;
    // A shorter one of another node does not replace it.
    revoked(SystemTime::now() + Duration::from_millis(1));
    wait_until_over();
    assert!(engine.is_revoked("ann"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_just_when_a_session_opens_is_not_lost() {
    let (engine_of_labels, table) =
        (Arc::<OnceLock<Engine>>::default(), Arc::new(Mutex::new(vec!["old"])));
    let (known, labels, first) = (engine_of_labels.clone(), table.clone(), AtomicBool::new(true));
    let engine = Engine::builder("test", "1")
        .labels(move |_: &Identity| {
            let found = labels.lock().unwrap().clone();
            if first.swap(false, Ordering::Relaxed) {
                // Another thread changes them now, and refreshes what sessions see.
                *labels.lock().unwrap() = vec!["new"];
                let engine = known.get().unwrap();
                assert_eq!(engine.refresh_visibility("ann").now_or_never(), None);
            }
            found.into_iter().collect()
        })
        .start()
        .await
        .unwrap();
    engine_of_labels.set(engine.clone()).unwrap();
    // Labels are asked for as soon as there is a rule.
    let hidden = |name: &str| tool(name.to_owned(), || async { "" }).only_for(["new"]);
    engine.catalog().add(hidden("one")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut listen = listen(&engine, &ann(&[]), json!({"toolsListChanged": true})).await;
    engine.catalog().add(hidden("two")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (mut heard, mut batch) = (Vec::new(), Vec::new());
    while listen.next(&mut batch).now_or_never() == Some(true) {
        heard.extend(batch.drain(..).map(crate::message));
    }
    let told = heard.iter().filter(|it| it["method"] == "notifications/tools/list_changed");
    assert_eq!(told.count(), 1, "{heard:?}");
}
