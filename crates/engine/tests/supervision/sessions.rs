//! Sessions and calls that die, and clients that disconnect or do not read.

use std::time::Duration;

use serde_json::json;
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{Engine, tool};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, engine, http_session, methods, modern_meta, request};
use crate::{TOOLS_CHANGED, named, pipes, settle};

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_tool_is_answered_and_disturbs_no_other_client() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.call(1, "wait").await;
    let asked = Instant::now();
    client.call(2, "panic").await;
    let (answer, _) = client.answer(2).await;
    assert!(asked.elapsed() < Duration::from_millis(50));
    assert_eq!(answer["error"]["code"], -32603);
    assert_eq!(answer["error"]["message"], "the tool 'panic' panicked");
    client.call(3, "echo").await;
    assert_eq!(client.answer(3).await.0["result"]["content"][0]["text"], "echo");
    assert_eq!(engine.observe().await.unwrap().running_calls, 1, "the other call goes on");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_crashes_goes_on_and_only_its_open_calls_fail() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    let level = json!({"level": "error"});
    client
        .send(json!({"jsonrpc": "2.0", "id": "l", "method": "logging/setLevel", "params": level}))
        .await;
    client.answer("l").await;
    client.subscribe("s", "test://watched").await;
    let listen = json!({"notifications": {"promptsListChanged": true}, "_meta": modern_meta()});
    client.send(json!({"jsonrpc": "2.0", "id": "p", "method": "subscriptions/listen", "params": listen})).await;
    client.call(1, "wait").await;
    client.ping().await;
    let before = pipes(&engine).remove(0);
    assert_eq!(before.open_calls, [stentor_wire::Id::Number(1)]);

    kill(&engine, FaultTarget::Session(before.id.clone())).await.unwrap();
    // Sent while the session may have no actor: the call must not be lost.
    client.call(2, "echo").await;
    let (answer, _) = client.answer(1).await;
    assert_eq!(answer["error"]["message"], "the call ended without an answer");
    let (answer, _) = client.answer(2).await;
    assert_eq!(answer["result"]["content"][0]["text"], "echo");
    settle(&engine).await;
    assert!(client.ping().await.is_empty(), "it is told nothing else");

    let after = pipes(&engine).remove(0);
    assert_eq!((after.id, after.version, after.client), (before.id, before.version, before.client));
    assert_eq!((after.subscriptions, after.recent_restarts), (before.subscriptions, 1));
    engine.send_resource_updated("test://watched");
    engine.send_prompt_list_changed();
    settle(&engine).await;
    let told = client.ping().await;
    let told: Vec<_> = methods(&told);
    assert_eq!(told.iter().filter(|it| **it == "notifications/resources/updated").count(), 1);
    assert_eq!(told.iter().filter(|it| **it == "notifications/prompts/list_changed").count(), 2);
    assert_eq!(told.len(), 3, "one for each that hears it, and no more: {told:?}");
    client.call(3, "log").await;
    let (_, logged) = client.answer(3).await;
    assert_eq!(logged.len(), 1, "the log level is kept: {logged:?}");
    assert_eq!(engine.observe().await.unwrap().hub.subscribers, 2);
    assert_eq!(
        engine.observe().await.unwrap().supervisor.recent_restarts,
        0,
        "it has its own budget"
    );
}

/// The number of actors that serve a session.
async fn session_actors(engine: &Engine) -> usize {
    engine.observe().await.unwrap().session_pool.working
}

#[tokio::test(start_paused = true)]
async fn one_actor_serves_many_sessions_one_after_the_other() {
    let engine = engine().start().await.unwrap();
    for _ in 0..20 {
        let mut client = Client::legacy(&engine).await;
        client.call(1, "echo").await;
        client.answer(1).await;
        client.ping().await;
    }
    let pool = engine.observe().await.unwrap().session_pool;
    assert_eq!((pool.working, pool.idle), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_actor_while_it_has_messages() {
    let keep = Some(Duration::from_secs(5));
    let engine =
        engine().configure(|config| config.sessions.passivate_after = keep).start().await.unwrap();
    let mut idle = Client::legacy(&engine).await;
    let mut client = Client::legacy(&engine).await;
    client.subscribe("s", "test://watched").await;
    client.ping().await;
    assert_eq!(session_actors(&engine).await, 2);
    sleep(Duration::from_secs(7)).await;
    assert_eq!(session_actors(&engine).await, 0, "both are passive");
    // Two concurrent calls start one actor.
    client.call(1, "wait").await;
    client.call(2, "wait").await;
    client.ping().await;
    assert_eq!(session_actors(&engine).await, 1);
    assert_eq!(engine.observe().await.unwrap().running_calls, 2);
    let id = pipes(&engine).into_iter().find(|it| !it.open_calls.is_empty()).unwrap().id;
    assert!(engine.end_session(&id));
    assert!(pipes(&engine).iter().all(|session| session.id != id), "it has ended by then");
    let mut answered = Vec::new();
    while let Some(answer) = client.next().await {
        assert_eq!(answer["error"]["message"], "the session ended");
        answered.push(answer["id"].as_u64());
    }
    answered.sort_unstable();
    assert_eq!(answered, [Some(1), Some(2)]);
    settle(&engine).await;
    assert_eq!(session_actors(&engine).await, 0);
    let view = engine.observe().await.unwrap();
    assert_eq!((view.hub.subscribers, view.running_calls), (1, 0));
    engine.catalog().add(named("added")).await.unwrap();
    assert_eq!(methods(&idle.ping().await), [TOOLS_CHANGED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_that_begin_on_several_threads_begin_one_actor() {
    // Never passive, so that the test may take as long as it likes.
    let engine =
        engine().configure(|config| config.sessions.passivate_after = None).start().await.unwrap();
    for round in 1..=100 {
        let session = http_session(&engine).await;
        let calls: Vec<_> = (1..=4)
            .map(|id| {
                let session = session.clone();
                let call = request(id, "tools/call", json!({"name": "wait"}));
                tokio::spawn(async move { session.request(call).await.map(drop) })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        // The session's actor begins them one after the other.
        let begun = async {
            while engine.observe().await.unwrap().running_calls != 4 * round {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), begun).await.unwrap();
    }
    // Surplus actors have ended, too.
    let gone = async {
        while session_actors(&engine).await != 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_background_worker_of_a_call_learns_that_the_call_was_killed() {
    let (told, mut tokens) = tokio::sync::mpsc::unbounded_channel();
    let delegates = tool("delegates", move |ctx: stentor_engine::Context| {
        let told = told.clone();
        async move {
            told.send(ctx.cancellation_token()).unwrap();
            std::future::pending::<()>().await;
            "never"
        }
    });
    let engine = engine().tool(delegates).start().await.unwrap();
    let client = Client::legacy(&engine).await;
    client.call(1, "delegates").await;
    let token = tokens.recv().await.unwrap();
    let id = pipes(&engine).remove(0).id;
    kill(&engine, FaultTarget::Session(id)).await.unwrap();
    token.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_crashes_again_and_again_is_ended_and_harms_nobody() {
    let engine = engine().start().await.unwrap();
    let mut bystander = Client::legacy(&engine).await;
    let there = pipes(&engine).remove(0).id;
    let mut client = Client::legacy(&engine).await;
    let id = pipes(&engine).into_iter().find(|it| it.id != there).unwrap().id;
    client.call(1, "wait").await;
    let mut kills = 0;
    while kill(&engine, FaultTarget::Session(id.clone())).await.is_ok() {
        kills += 1;
        settle(&engine).await;
    }
    assert_eq!(kills, 6, "five restarts");
    client.answer(1).await;
    while client.next().await.is_some() {}
    let view = engine.observe().await.unwrap();
    assert_eq!((view.hub.subscribers, view.running_calls), (1, 0));
    assert!(view.sessions.iter().all(|session| session.id != id));
    bystander.call(1, "echo").await;
    bystander.answer(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_while_its_session_restarts_leaves_no_trace() {
    let engine = engine().start().await.unwrap();
    for _ in 0..20 {
        let client = Client::legacy(&engine).await;
        let id = pipes(&engine).remove(0).id;
        let killed = tokio::spawn({
            let engine = engine.clone();
            async move { kill(&engine, FaultTarget::Session(id)).await }
        });
        tokio::task::yield_now().await;
        drop(client);
        let _ = killed.await.unwrap();
        settle(&engine).await;
        assert!(pipes(&engine).is_empty());
        assert_eq!(engine.observe().await.unwrap().hub.subscribers, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_not_asked_for_more_than_it_can_leave_unread() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let mut sent = 0;
    let flood = async {
        loop {
            client.send(json!({"jsonrpc": "2.0", "id": sent, "method": "tools/list"})).await;
            sent += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), flood).await.is_err());
    let held = engine.counters().held;
    assert!((1_000_000..2_000_000).contains(&held), "{held}");
    drop(client);
    settle(&engine).await;
    assert_eq!(engine.counters().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_not_refused_more_often_than_it_can_leave_unread() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let mut sent = 0;
    let flood = async {
        while sent < 1_000_000 {
            let params = json!({"_meta": []});
            client
                .send(json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": params}))
                .await;
            sent += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), flood).await.is_err(), "all was taken");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_leaves_no_trace() {
    let engine = engine().start().await.unwrap();
    let idle = engine.observe().await.unwrap();
    for _ in 0..50 {
        let client = Client::legacy(&engine).await;
        client.call(1, "wait").await;
        drop(client);
    }
    settle(&engine).await;
    let view = engine.observe().await.unwrap();
    assert_eq!(view.sessions.len(), idle.sessions.len());
    assert_eq!(view.hub.subscribers, 0);
    assert_eq!(view.running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_actor_is_killed_is_answered_and_its_session_continues() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.call(1, "wait").await;
    client.ping().await;
    kill(&engine, FaultTarget::TaskActors).await.unwrap();
    assert_eq!(client.answer(1).await.0["error"]["message"], "the call ended without an answer");
    client.call(2, "echo").await;
    assert_eq!(client.answer(2).await.0["result"]["content"][0]["text"], "echo");
    assert_eq!(engine.observe().await.unwrap().supervisor.recent_restarts, 0);
}
