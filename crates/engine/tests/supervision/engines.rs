//! Engines that end, and the actors above them.

use std::time::Duration;

use futures::StreamExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{Ended, SessionKind};
use stentor_test::{Client, Notice, assert_silent};
use tokio::time::sleep;

use crate::named;
use crate::support::engine;

#[tokio::test(start_paused = true)]
async fn repeated_crashes_end_the_engine_and_its_clients_are_notified() {
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    let mut notices = client.notices().await;
    let call = client.start_tool("wait", ());
    client.settle().await;
    while kill(&engine, FaultTarget::Registry).await.is_ok() {
        tokio::task::yield_now().await;
        if engine.observe().await.is_err() && engine.is_draining() {
            break;
        }
    }
    let error = call.reply().await.unwrap_err();
    assert!(!error.message.contains("the session has ended"), "it was answered: {error}");
    while StreamExt::next(&mut notices).await.is_some() {}
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
async fn an_engine_under_a_supervisor_ends_with_it() {
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (host, _) = Actor::spawn(None, Host, events).await.unwrap();
    let first = engine().start_under(host.get_cell()).await.unwrap();
    first.shutdown().await;
    while !seen.recv().await.expect("an event").contains("Stopped") {}

    let second = engine().start_under(host.get_cell()).await.unwrap();
    let client = Client::legacy(&second).await;
    let mut notices = client.notices().await;
    host.stop(None);
    while StreamExt::next(&mut notices).await.is_some() {}
    assert!(second.open_pipe().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn two_engines_do_not_affect_each_other() {
    let (one, other) = (engine().start().await.unwrap(), engine().start().await.unwrap());
    let (here, there) = (Client::legacy(&one).await, Client::legacy(&other).await);
    let (mut told, mut untold) = (here.notices().await, there.notices().await);
    one.catalog().add(named("added")).await.unwrap();
    assert_eq!(told.settled().await, [Notice::ToolsChanged]);
    assert_silent(&mut untold).await;
    one.shutdown().await;
    assert_eq!(other.sessions().iter().filter(|s| s.kind == SessionKind::Pipe).count(), 1);
    assert_eq!(there.call_tool("echo", ()).await.unwrap().text(), "echo");
}

#[tokio::test(start_paused = true)]
async fn an_engine_says_how_it_ended() {
    let asked = engine().start().await.unwrap();
    assert_eq!(asked.ended(), None);
    asked.shutdown().await;
    assert_eq!(asked.stopped().await, Ended::Shutdown);

    let stopped = engine().start().await.unwrap();
    stopped.supervisor_cell().stop(None);
    assert_eq!(stopped.stopped().await, Ended::Shutdown);

    let killed = engine().start().await.unwrap();
    killed.supervisor_cell().kill();
    assert_eq!(killed.stopped().await, Ended::Killed);
    // A server shuts its engine down when it ends: that is not the reason why the engine ended.
    killed.shutdown().await;
    assert!(killed.stopped().await.asked().is_err());

    let failed = engine().start().await.unwrap();
    for _ in 0..=10 {
        while failed.ended().is_none() && kill(&failed, FaultTarget::Hub).await.is_err() {
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let Ended::Failed(why) = failed.stopped().await else { panic!("{:?}", failed.ended()) };
    assert!(why.contains("the hub failed once more"), "{why}");
}

/// Supervises as `docs/EMBEDDING.md` describes: restarts its worker, and reports how an engine
/// ended.
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
    engine.supervisor_cell().kill();
    assert_eq!(heard.recv().await.unwrap(), "engine: killed");
    assert_eq!(engine.stopped().await, Ended::Killed);
}
