//! What happens when actors die.

mod support;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::json;
use stentor_engine::testing::{Victim, kill};
use stentor_engine::{Engine, SessionKind, ToolError, tool};
use support::{Client, engine, methods};
use tokio::time::{Instant, sleep};

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

fn named(name: &str) -> stentor_engine::Tool {
    tool(name, || async { Ok::<_, ToolError>("") })
}

/// Waits until the restarted actors have done what they do first.
async fn settle(engine: &Engine) {
    while engine.observe().await.is_err() {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_panics_answers_its_caller_and_harms_nobody() {
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
async fn a_registry_that_crashes_comes_back_with_its_catalog_and_revision() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    engine.catalog().add(named("added")).await.unwrap();
    let before = engine.catalog().snapshot();
    kill(&engine, Victim::Registry).await.unwrap();
    settle(&engine).await;
    let view = engine.observe().await.unwrap();
    assert_eq!(view.registry.revision, before.revision());
    assert_eq!(view.root.recent_restarts, 1);
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
async fn a_hub_that_crashes_comes_back_with_all_its_subscribers() {
    let engine = engine().start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::legacy(&engine).await);
    }
    kill(&engine, Victim::Hub).await.unwrap();
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
    kill(&engine, Victim::Registry).await.unwrap();
    engine.send_resource_list_changed();
    settle(&engine).await;
    let told = client.ping().await;
    assert!(methods(&told).contains(&"notifications/resources/list_changed"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_killed_answers_its_calls_and_leaves_no_trace() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    let bystander = Client::legacy(&engine).await;
    client.call(1, "wait").await;
    client.ping().await;
    let id = engine.sessions().into_iter().find(|s| s.open_calls == 1).unwrap().id;
    kill(&engine, Victim::Session(id.clone())).await.unwrap();
    let (answer, _) = client.answer(1).await;
    assert_eq!(answer["error"]["message"], "the call ended without an answer");
    assert_eq!(client.next().await, None, "its stream ends");
    settle(&engine).await;
    let view = engine.observe().await.unwrap();
    assert_eq!(view.hub.subscribers, 1);
    assert_eq!(view.running_calls, 0);
    assert!(view.sessions.iter().all(|session| session.id != id));
    drop(bystander);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_no_trace() {
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
async fn restarts_that_help_nobody_end_the_engine_and_its_clients_are_told() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.call(1, "wait").await;
    client.ping().await;
    while kill(&engine, Victim::Registry).await.is_ok() {
        tokio::task::yield_now().await;
        if engine.observe().await.is_err() && engine.is_draining() {
            break;
        }
    }
    let (answer, _) = client.answer(1).await;
    assert!(answer["error"].is_object(), "{answer}");
    while client.next().await.is_some() {}
    assert!(engine.catalog().add(named("late")).await.is_err());
}

struct Host;

impl Actor for Host {
    type Msg = ();
    type State = tokio::sync::mpsc::UnboundedSender<String>;
    type Arguments = tokio::sync::mpsc::UnboundedSender<String>;

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        events: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(events)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        events: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let _ = events.send(event.to_string());
        Ok(())
    }
}

#[tokio::test]
async fn an_engine_under_a_supervisor_lives_and_ends_with_it() {
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (host, _) = Actor::spawn(None, Host, events).await.unwrap();
    let first = engine().start_under(host.get_cell()).await.unwrap();
    first.shutdown().await;
    while !seen.recv().await.expect("an event").contains("Stopped") {}

    let second = engine().start_under(host.get_cell()).await.unwrap();
    let mut client = Client::legacy(&second).await;
    host.stop(None);
    while client.next().await.is_some() {}
    assert!(second.open_pipe().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn two_engines_do_not_hear_each_other() {
    let (one, other) = (engine().start().await.unwrap(), engine().start().await.unwrap());
    let (mut here, mut there) = (Client::legacy(&one).await, Client::legacy(&other).await);
    one.catalog().add(named("added")).await.unwrap();
    settle(&one).await;
    assert_eq!(methods(&here.ping().await), [TOOLS_CHANGED]);
    assert_eq!(there.ping().await, Vec::<serde_json::Value>::new());
    one.shutdown().await;
    assert_eq!(other.sessions().iter().filter(|s| s.kind == SessionKind::Pipe).count(), 1);
    there.call(1, "echo").await;
    assert_eq!(there.answer(1).await.0["result"]["content"][0]["text"], json!("echo"));
}
