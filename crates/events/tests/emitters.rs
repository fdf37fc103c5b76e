//! Actors of the host that emit by message.

#[path = "support/faults.rs"]
mod faults;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, call};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::json;
use stentor_events::{Emit, EmitError, EmitMessage, Events, event_type};
use support::{Job, Jobs, Peer, engine, jobs, polled, server, until};

fn job(number: u64) -> Emit<Job> {
    Emit::new(Job::in_queue(number, "q"))
}

async fn emitter(jobs: &Jobs) -> ActorRef<EmitMessage<Job>> {
    jobs.emitter().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_reaches_streams_in_the_order_of_the_messages() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (stream, _) = client.opened(json!({"name": "job.done"})).await;
    let emitter = emitter(&jobs).await;
    for number in 0..50 {
        emitter.cast(job(number).into()).unwrap();
    }
    let id = call!(emitter, EmitMessage::Call, job(50).id("last")).unwrap().unwrap();
    assert_eq!(&*id, "last");
    assert_eq!(client.numbers(stream, 51).await, (0..=50).collect::<Vec<_>>());
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_the_id_that_clients_hear_or_says_why_there_is_none() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let (stream, _) = client.opened(json!({"name": "job.done"})).await;
    let emitter = emitter(&jobs).await;
    let id = call!(emitter, EmitMessage::Call, job(1)).unwrap().unwrap();
    let (_, heard) = client.next(stream).await;
    assert_eq!(heard["eventId"], *id);
    let refused = call!(emitter, EmitMessage::Call, job(2).id("")).unwrap();
    assert_eq!(refused, Err(EmitError::Id));
    // It lives on, also after one that nobody hears of.
    emitter.cast(job(3).id("").into()).unwrap();
    call!(emitter, EmitMessage::Call, job(4)).unwrap().unwrap();
    assert_eq!(client.numbers(stream, 1).await, [4]);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn there_is_one_for_all_who_ask() {
    let jobs = jobs("job.done");
    assert_eq!(jobs.emitter().await.unwrap_err(), EmitError::NotRunning("job.done".into()));
    let engine = engine(&[&jobs]).await;
    let asked = futures::future::join_all((0..10).map(|_| emitter(&jobs))).await;
    assert!(asked.iter().all(|it| it == &asked[0]));
    until("the others have ended", || faults::below(&faults::keeper(&engine)).len() == 2).await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_engine_and_calls_fail() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let before = emitter(&jobs).await;
    engine.shutdown().await;
    until("it ends", || before.get_status() == ActorStatus::Stopped).await;
    assert!(before.cast(job(1).into()).is_err());
    assert!(call!(before, EmitMessage::Call, job(1)).is_err());
    assert_eq!(jobs.emitter().await.unwrap_err(), EmitError::NotRunning("job.done".into()));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_type() {
    let jobs = jobs("job.done");
    let events = Events::new().add(&jobs);
    let handle = events.handle();
    let engine = server().extension(events).start().await.unwrap();
    let before = emitter(&jobs).await;
    handle.remove("job.done").await.unwrap();
    until("it ends", || before.get_status() == ActorStatus::Stopped).await;
    assert!(jobs.emitter().await.is_err());
    // The type comes back, with another one.
    handle.add(&jobs).await.unwrap();
    call!(emitter(&jobs).await, EmitMessage::Call, job(1)).unwrap().unwrap();
    engine.shutdown().await;
}

/// A payload that panics when it is the number 13.
#[derive(JsonSchema)]
struct Unlucky {
    number: u64,
}

impl Serialize for Unlucky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.number, 13, "a bug");
        json!({"number": self.number}).serialize(serializer)
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_there_is_another_one() {
    let jobs = event_type::<(), Unlucky>("job.done");
    let engine = server().extension(Events::new().add(&jobs)).start().await.unwrap();
    let emit = |number| Emit::new(Unlucky { number });
    let first = jobs.emitter().await.unwrap();
    assert!(call!(first, EmitMessage::Call, emit(13)).is_err());
    until("it ends", || first.get_status() == ActorStatus::Stopped).await;
    let second = jobs.emitter().await.unwrap();
    call!(second, EmitMessage::Call, emit(14)).unwrap().unwrap();
    // Those of a keeper end with it, and the next keeper is waited for.
    let keeper = faults::keeper(&engine);
    keeper.kill();
    until("it ends", || second.get_status() == ActorStatus::Stopped).await;
    let third = jobs.emitter().await.unwrap();
    call!(third, EmitMessage::Call, emit(15)).unwrap().unwrap();
    engine.shutdown().await;
}

/// An actor of the host.
struct Worker;

enum WorkerMsg {
    Finished(u64),
    Emitted,
}

#[cfg(feature = "cluster")]
impl ractor::Message for WorkerMsg {}

impl Actor for Worker {
    type Msg = WorkerMsg;
    type State = (ActorRef<EmitMessage<Job>>, Arc<AtomicU64>);
    type Arguments = (ActorRef<EmitMessage<Job>>, Arc<AtomicU64>);

    async fn pre_start(
        &self,
        _myself: ActorRef<WorkerMsg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMsg>,
        message: WorkerMsg,
        (emitter, emitted): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMsg::Finished(number) => {
                let emit = |reply| EmitMessage::Call(job(number), reply);
                emitter.call_and_forward(emit, &myself, |_| WorkerMsg::Emitted, None)?;
            }
            WorkerMsg::Emitted => drop(emitted.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_emits_without_waiting_and_is_told_by_message() {
    let jobs = jobs("job.done");
    let engine = engine(&[&jobs]).await;
    let mut client = Peer::stranger(&engine).await;
    let begin = client.poll(json!({"name": "job.done"})).await["cursor"].take();
    let emitted = Arc::new(AtomicU64::new(0));
    let arguments = (emitter(&jobs).await, emitted.clone());
    let (worker, _) = Actor::spawn(None, Worker, arguments).await.unwrap();
    for number in 0..5 {
        worker.cast(WorkerMsg::Finished(number)).unwrap();
    }
    until("all are emitted", || emitted.load(Ordering::Relaxed) == 5).await;
    let answer = client.poll(json!({"name": "job.done", "cursor": begin})).await;
    assert_eq!(polled(&answer), [0, 1, 2, 3, 4]);
    worker.stop(None);
    engine.shutdown().await;
}
