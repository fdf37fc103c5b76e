//! What happens when actors die.

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::json;
use stentor_engine::outlet::WriteNow;
use stentor_engine::testing::{Victim, kill};
use stentor_engine::{Ended, Engine, SessionKind, ToolError, tool};
use support::{Client, engine, http_session, methods, modern_meta, request};
use tokio::time::{Instant, sleep, timeout};

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
        let (killed, ()) = tokio::join!(kill(&engine, Victim::Hub), begin);
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

fn pipes(engine: &Engine) -> Vec<stentor_engine::SessionView> {
    engine.sessions().into_iter().filter(|session| session.kind == SessionKind::Pipe).collect()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_window_survives_a_crash_of_the_registry() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.subscribe("s", "test://watched").await;
    engine.send_resource_updated("test://watched");
    assert_eq!(client.next().await.unwrap()["method"], "notifications/resources/updated");
    // At the same moment: the clock stands still.
    engine.send_resource_updated("test://watched");
    sleep(Duration::from_millis(1)).await;
    assert!(client.ping().await.is_empty(), "it is held back");
    kill(&engine, Victim::Registry).await.unwrap();
    settle(&engine).await;
    let told = client.ping().await;
    assert!(methods(&told).contains(&"notifications/resources/updated"), "{told:?}");
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

    kill(&engine, Victim::Session(before.id.clone())).await.unwrap();
    // Handed in while there may be no actor: not lost.
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
    assert_eq!(engine.observe().await.unwrap().root.recent_restarts, 0, "it has its own budget");
}

/// The actors of sessions: all but registry, hub, and that of stateless calls.
fn session_actors(engine: &Engine) -> usize {
    engine.actor().get_children().len() - 3
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_actor_from_its_first_work_to_its_end() {
    let engine = engine().start().await.unwrap();
    let mut idle = Client::legacy(&engine).await;
    let mut client = Client::legacy(&engine).await;
    client.subscribe("s", "test://watched").await;
    client.ping().await;
    assert_eq!(session_actors(&engine), 0);
    // Two at once begin one.
    client.call(1, "wait").await;
    client.call(2, "wait").await;
    client.ping().await;
    assert_eq!(session_actors(&engine), 1);
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
    assert_eq!(session_actors(&engine), 0);
    let view = engine.observe().await.unwrap();
    assert_eq!((view.hub.subscribers, view.running_calls), (1, 0));
    engine.catalog().add(named("added")).await.unwrap();
    assert_eq!(methods(&idle.ping().await), [TOOLS_CHANGED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_that_begin_on_several_threads_begin_one_actor() {
    let engine = engine().start().await.unwrap();
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
        assert_eq!(engine.observe().await.unwrap().running_calls, 4 * round);
    }
    // Also those that were one too many have gone.
    let gone = async {
        while session_actors(&engine) != 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), gone).await.unwrap();
}

/// What a transport lends to the hub, with a bug in it.
#[derive(Debug)]
struct Broken(AtomicBool);

impl WriteNow for Broken {
    fn write_now(&self) -> bool {
        assert!(self.0.swap(true, Ordering::Relaxed), "a bug in a transport");
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_in_the_hub_costs_nobody_the_news() {
    // Few are told by the hub itself, more by tasks of its own.
    for others in [1, 150] {
        let engine = engine().start().await.unwrap();
        let mut inlets = Vec::new();
        let broken = Arc::new(Broken(AtomicBool::new(false)));
        for index in 0..=others {
            let session = http_session(&engine).await;
            let mut inlet = session.attach().await.unwrap();
            let mut batch = Vec::new();
            assert!(futures::poll!(pin!(inlet.next(&mut batch))).is_pending());
            if index == 0 {
                let writer: Weak<Broken> = Arc::downgrade(&broken);
                inlet.written_by(writer);
            }
            inlets.push((session, inlet));
        }
        engine.catalog().add(named("added")).await.unwrap();
        for (_, inlet) in &mut inlets {
            let mut batch = Vec::new();
            assert!(timeout(Duration::from_secs(5), inlet.next(&mut batch)).await.unwrap());
            let mut told = bytes::BytesMut::new();
            batch.iter().for_each(|(.., frame)| frame.write(&mut told));
            assert!(String::from_utf8_lossy(&told).contains(TOOLS_CHANGED), "{told:?}");
        }
        assert!(broken.0.load(Ordering::Relaxed));
        settle(&engine).await;
        let view = engine.observe().await.unwrap();
        assert_eq!(view.root.recent_restarts, 1);
        assert_eq!(view.hub.subscribers, others + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_works_for_a_call_elsewhere_hears_that_it_was_killed() {
    let (told, mut tokens) = tokio::sync::mpsc::unbounded_channel();
    let delegates = tool("delegates", move |ctx: stentor_engine::Context| {
        let told = told.clone();
        async move {
            told.send(ctx.cancellation_token()).map_err(|_| ToolError::new("nobody"))?;
            std::future::pending::<()>().await;
            Ok::<_, ToolError>("never")
        }
    });
    let engine = engine().tool(delegates).start().await.unwrap();
    let client = Client::legacy(&engine).await;
    client.call(1, "delegates").await;
    let token = tokens.recv().await.unwrap();
    let id = pipes(&engine).remove(0).id;
    kill(&engine, Victim::Session(id)).await.unwrap();
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
    while kill(&engine, Victim::Session(id.clone())).await.is_ok() {
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
async fn who_goes_away_while_the_session_restarts_leaves_no_trace() {
    let engine = engine().start().await.unwrap();
    for _ in 0..20 {
        let client = Client::legacy(&engine).await;
        let id = pipes(&engine).remove(0).id;
        let killed = tokio::spawn({
            let engine = engine.clone();
            async move { kill(&engine, Victim::Session(id)).await }
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
    let held = engine.tally().held;
    assert!((1_000_000..2_000_000).contains(&held), "{held}");
    drop(client);
    settle(&engine).await;
    assert_eq!(engine.tally().held, 0);
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

#[tokio::test(start_paused = true)]
async fn an_engine_says_how_it_ended() {
    let asked = engine().start().await.unwrap();
    assert_eq!(asked.ended(), None);
    asked.shutdown().await;
    assert_eq!(asked.stopped().await, Ended::Shutdown);

    let stopped = engine().start().await.unwrap();
    stopped.root_cell().stop(None);
    assert_eq!(stopped.stopped().await, Ended::Shutdown);

    let killed = engine().start().await.unwrap();
    killed.root_cell().kill();
    assert_eq!(killed.stopped().await, Ended::Killed);
    // Whoever serves it shuts it down when it ends: that is not what ended it.
    killed.shutdown().await;
    assert!(killed.stopped().await.asked().is_err());

    let failed = engine().start().await.unwrap();
    for _ in 0..=10 {
        while failed.ended().is_none() && kill(&failed, Victim::Hub).await.is_err() {
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let Ended::Failed(why) = failed.stopped().await else { panic!("{:?}", failed.ended()) };
    assert!(why.contains("the hub failed once more"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_or_hub_that_was_stopped_comes_back_as_well() {
    let engine = engine().start().await.unwrap();
    for child in engine.root_cell().get_children() {
        child.stop(None);
    }
    sleep(Duration::from_millis(10)).await;
    settle(&engine).await;
    engine.catalog().add(named("added")).await.unwrap();
    assert_eq!(engine.ended(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_actor_is_killed_is_answered_and_its_session_goes_on() {
    let engine = engine().start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    client.call(1, "wait").await;
    client.ping().await;
    let tasks = || {
        let children = engine.root_cell().get_children();
        children.into_iter().flat_map(|child| child.get_children()).collect::<Vec<_>>()
    };
    assert_eq!(tasks().len(), 1);
    for task in tasks() {
        task.kill();
    }
    assert_eq!(client.answer(1).await.0["error"]["message"], "the call ended without an answer");
    client.call(2, "echo").await;
    assert_eq!(client.answer(2).await.0["result"]["content"][0]["text"], "echo");
    assert_eq!(engine.observe().await.unwrap().root.recent_restarts, 0);
}

/// Supervises as `docs/EMBEDDING.md` has it: starts its worker again, and says which engine ended.
struct Keeper(tokio::sync::mpsc::UnboundedSender<String>);

struct Worker;

impl Actor for Worker {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<()>, _: (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err("failed".into())
    }
}

impl Actor for Keeper {
    type Msg = ();
    type State = ActorRef<()>;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        (): (),
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Actor::spawn_linked(None, Worker, (), myself.get_cell()).await?.0)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        worker: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (child, why) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, error.to_string()),
            SupervisionEvent::ActorTerminated(child, _, Some(reason)) => (child, reason),
            _ => return Ok(()),
        };
        if child.get_id() == worker.get_id() {
            *worker = Actor::spawn_linked(None, Worker, (), myself.get_cell()).await?.0;
            self.0.send(format!("worker: {why}"))?;
        } else {
            self.0.send(format!("engine: {why}"))?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_matches_both_ways_to_die_misses_none() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (host, _) = Actor::spawn(None, Keeper(told), ()).await.unwrap();
    for kill in [true, false, true] {
        let worker = host.get_children().pop().unwrap();
        match kill {
            true => worker.kill(),
            false => worker.send_message(()).unwrap(),
        }
        let why = if kill { "killed" } else { "failed" };
        assert_eq!(heard.recv().await.unwrap(), format!("worker: {why}"));
    }
    let engine = engine().start_under(host.get_cell()).await.unwrap();
    engine.root_cell().kill();
    assert_eq!(heard.recv().await.unwrap(), "engine: killed");
    assert_eq!(engine.stopped().await, Ended::Killed);
}
