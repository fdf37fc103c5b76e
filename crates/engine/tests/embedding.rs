//! An engine inside the actor system of a host: actors that run tools, and actors that receive the
//! engine's events.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::{Context, Engine, EngineEvent, EventBatch, ToolError, actor_tool, tool};
use stentor_test::{Client, ToolReply};
use support::methods;
use tokio::sync::mpsc;
use tokio::time::Instant;

type Reply = RpcReplyPort<Result<String, ToolError>>;

#[derive(Debug, Deserialize, JsonSchema)]
struct Convert {
    path: String,
}

enum WorkerMsg {
    Convert(Convert, Reply),
    Stream(Convert, Context, Reply),
    ServedBy(Reply),
    /// Waits until its call is cancelled, then reports whether the port is closed.
    Watch(Context, Reply),
    /// Keeps the port.
    Hold(Reply),
    Drop(Reply),
    Panic(Reply),
    Stop(Reply),
    /// Hands the port to an actor that never answers.
    Delegate(Reply),
    Events(EventBatch),
}

#[cfg(feature = "cluster")]
impl ractor::Message for WorkerMsg {}

/// An actor of the host. Its state is the ports that it keeps.
struct Worker {
    name: &'static str,
    to_test: mpsc::Sender<String>,
}

impl Actor for Worker {
    type Msg = WorkerMsg;
    type State = Vec<Reply>;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<WorkerMsg>,
        (): (),
    ) -> Result<Vec<Reply>, ActorProcessingErr> {
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMsg>,
        message: WorkerMsg,
        held: &mut Vec<Reply>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMsg::Convert(args, reply) => reply.send(convert(&args))?,
            WorkerMsg::Stream(args, ctx, reply) => {
                ctx.report_progress(1.0, Some(2.0), "reading");
                ctx.report_progress(2.0, Some(2.0), "writing");
                reply.send(convert(&args))?;
            }
            WorkerMsg::ServedBy(reply) => reply.send(Ok(format!("served by {}", self.name)))?,
            WorkerMsg::Watch(ctx, reply) => {
                self.to_test.send("begun".to_owned()).await?;
                ctx.cancelled().await;
                // The call is dropped only after the cancellation was signalled.
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.to_test.send(format!("closed: {}", reply.is_closed())).await?;
            }
            WorkerMsg::Hold(reply) => {
                held.push(reply);
                self.to_test.send("held".to_owned()).await?;
            }
            WorkerMsg::Drop(_reply) => {}
            WorkerMsg::Panic(_reply) => panic!("a secret of the actor"),
            WorkerMsg::Stop(reply) => {
                held.push(reply);
                myself.stop(None);
            }
            WorkerMsg::Delegate(reply) => {
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(reply);
                });
                myself.stop(None);
            }
            WorkerMsg::Events(batch) => {
                for event in batch {
                    let report = match event {
                        EngineEvent::CatalogChanged { lists, .. } => format!("{lists:?}"),
                        other => format!("{other:?}"),
                    };
                    self.to_test.send(report).await?;
                }
            }
        }
        Ok(())
    }
}

fn convert(args: &Convert) -> Result<String, ToolError> {
    if args.path.is_empty() {
        return Err(ToolError::new("there is no path"));
    }
    Ok(format!("{} is converted", args.path))
}

async fn worker(name: &'static str) -> (ActorRef<WorkerMsg>, mpsc::Receiver<String>) {
    let (to_test, said) = mpsc::channel(16);
    let (worker, _) = Actor::spawn(None, Worker { name, to_test }, ()).await.unwrap();
    (worker, said)
}

async fn engine(worker: &ActorRef<WorkerMsg>) -> Engine {
    let convert = actor_tool("convert", worker.clone(), |args: Convert, reply| {
        WorkerMsg::Convert(args, reply)
    })
    .description("Converts a file");
    let stream = actor_tool("stream", worker.clone(), |args: Convert, ctx: Context, reply| {
        WorkerMsg::Stream(args, ctx, reply)
    });
    let watch =
        actor_tool("watch", worker.clone(), |ctx: Context, reply| WorkerMsg::Watch(ctx, reply));
    Engine::builder("test", "1")
        .tool(convert)
        .tool(stream)
        .tool(watch)
        .tool(actor_tool("served", worker.clone(), WorkerMsg::ServedBy))
        .tool(actor_tool("hold", worker.clone(), WorkerMsg::Hold))
        .tool(actor_tool("drop", worker.clone(), WorkerMsg::Drop))
        .tool(actor_tool("panic", worker.clone(), WorkerMsg::Panic))
        .tool(actor_tool("stop", worker.clone(), WorkerMsg::Stop))
        .tool(actor_tool("delegate", worker.clone(), WorkerMsg::Delegate))
        .start()
        .await
        .unwrap()
}

fn assert_gone(reply: &ToolReply, tool: &str) {
    assert_eq!(reply.text(), format!("the actor that runs '{tool}' has gone"));
    assert!(reply.is_error());
}

#[tokio::test(start_paused = true)]
async fn an_actor_answers_a_call() {
    let (worker, _) = worker("first").await;
    let client = Client::connect(&engine(&worker).await).await;
    let reply = client.call_tool("convert", json!({"path": "a"})).await.unwrap();
    assert_eq!((reply.text(), reply.is_error()), ("a is converted", false));
    let reply = client.call_tool("convert", json!({"path": ""})).await.unwrap();
    assert_eq!((reply.text(), reply.is_error()), ("there is no path", true));
    assert_eq!(client.call_tool("served", ()).await.unwrap().text(), "served by first");
}

#[tokio::test(start_paused = true)]
async fn a_tool_of_an_actor_is_listed_and_its_arguments_are_checked_as_any_other() {
    let (worker, _) = worker("first").await;
    let engine = engine(&worker).await;
    let client = Client::connect(&engine).await;
    let convert = client.list_tools().await.unwrap().remove(0);
    assert_eq!(convert.description.as_deref(), Some("Converts a file"));
    assert_eq!(convert.input_schema["required"], json!(["path"]));
    let reply = client.call_tool("convert", json!({"path": 1})).await.unwrap();
    assert!(reply.text().starts_with("invalid arguments for tool 'convert'"), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn an_actor_streams_progress_before_its_answer() {
    let (worker, _) = worker("first").await;
    let client = Client::connect(&engine(&worker).await).await;
    let reply = client.call_tool("stream", json!({"path": "a"})).await.unwrap();
    assert_eq!(reply.progress().len(), 2);
    assert_eq!(reply.progress()[1].message, "writing");
    assert_eq!(reply.text(), "a is converted");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_ends_during_a_call_fails_the_call_at_once() {
    for tool in ["panic", "stop", "delegate"] {
        let (worker, _) = worker("first").await;
        let client = Client::connect(&engine(&worker).await).await;
        let asked = Instant::now();
        assert_gone(&client.call_tool(tool, ()).await.unwrap(), tool);
        assert!(asked.elapsed() < Duration::from_millis(50), "{tool}");
        let reply = client.call_tool("convert", json!({"path": "a"})).await.unwrap();
        assert_gone(&reply, "convert");
    }
}

#[tokio::test(start_paused = true)]
async fn all_calls_of_a_killed_actor_fail_at_once() {
    let (worker, mut said) = worker("first").await;
    let engine = engine(&worker).await;
    let client = Client::connect(&engine).await;
    let first = client.start_tool("hold", ());
    assert_eq!(said.recv().await.unwrap(), "held");
    let watch = client.start_tool("watch", ());
    assert_eq!(said.recv().await.unwrap(), "begun");
    let last = client.start_tool("hold", ());
    client.settle().await;
    let killed = Instant::now();
    worker.kill();
    assert_gone(&first.reply().await.unwrap(), "hold");
    assert_gone(&watch.reply().await.unwrap(), "watch");
    assert_gone(&last.reply().await.unwrap(), "hold");
    assert!(killed.elapsed() < Duration::from_millis(50));
    assert_eq!(engine.observe().await.unwrap().running_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_port_fails_the_call_at_once_and_the_actor_continues() {
    let (worker, _) = worker("first").await;
    let client = Client::connect(&engine(&worker).await).await;
    let asked = Instant::now();
    assert_gone(&client.call_tool("drop", ()).await.unwrap(), "drop");
    assert!(asked.elapsed() < Duration::from_millis(50));
    assert_eq!(client.call_tool("served", ()).await.unwrap().text(), "served by first");
}

#[tokio::test(start_paused = true)]
async fn an_actor_sees_that_its_call_was_cancelled() {
    let (worker, mut said) = worker("first").await;
    let engine = engine(&worker).await;
    let client = Client::connect(&engine).await;
    let call = client.start_tool("watch", ());
    assert_eq!(said.recv().await.unwrap(), "begun");
    call.cancel();
    assert_eq!(said.recv().await.unwrap(), "closed: true");
    let reply = client.call_tool("served", ()).await.unwrap();
    assert_eq!(reply.text(), "served by first", "the actor is not stopped");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_was_restarted_is_found_by_a_closure() {
    let current: Arc<Mutex<Option<ActorRef<WorkerMsg>>>> = Arc::default();
    let finds = current.clone();
    let served = actor_tool("served", move || finds.lock().unwrap().clone(), WorkerMsg::ServedBy);
    let engine = Engine::builder("test", "1").tool(served).start().await.unwrap();
    let client = Client::connect(&engine).await;
    let call = async || client.call_tool("served", ()).await.unwrap();

    assert_gone(&call().await, "served");
    let (first, _) = worker("first").await;
    *current.lock().unwrap() = Some(first.clone());
    assert_eq!(call().await.text(), "served by first");
    first.kill_and_wait(None).await.unwrap();
    assert_gone(&call().await, "served");
    let (second, _) = worker("second").await;
    *current.lock().unwrap() = Some(second);
    assert_eq!(call().await.text(), "served by second");
}

#[tokio::test(start_paused = true)]
async fn an_actor_receives_the_events_of_the_engine() {
    let (worker, mut said) = worker("first").await;
    let engine = Engine::builder("test", "1").start().await.unwrap();
    engine.subscribe(&worker, 16, WorkerMsg::Events);
    for name in ["noon", "midnight"] {
        let added = tool(name, || async { "" });
        engine.catalog().add(added).await.unwrap();
        assert_eq!(said.recv().await.unwrap(), "[Tools]");
    }
}

/// Reads events until `find` returns a value.
async fn find_event<T>(
    events: &mut stentor_engine::EventReceiver,
    find: impl Fn(&EngineEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.next().await.expect("the engine runs");
        if let Some(found) = find(&event) {
            return found;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_of_events_sees_sessions_and_calls_begin_and_end() {
    use stentor_engine::testing::{FaultTarget, kill};
    use stentor_engine::{CallOutcome, CancelReason, EndReason, SessionKind};
    let engine = support::engine()
        .configure(|config| config.limits.frames = 10)
        .tool(tool("flood", |ctx: Context| async move {
            (0..100).for_each(|line| ctx.info(line));
            "flooded"
        }))
        .start()
        .await
        .unwrap();
    let mut events = engine.events(1024);
    let mut client = support::Client::legacy(&engine).await;
    let opened = find_event(&mut events, |event| match event {
        EngineEvent::SessionOpened { session, kind, principal } => {
            assert_eq!((*kind, principal), (SessionKind::Pipe, &None));
            Some(session.clone())
        }
        _ => None,
    });
    let session = opened.await;
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    for _ in 0..2 {
        client.send(initialized.clone()).await;
    }
    client.call(1, "flood").await;
    client.answer(1).await;
    let name = find_event(&mut events, |event| match event {
        EngineEvent::SessionInitialized { client, .. } => client.as_ref().map(|it| it.name.clone()),
        _ => None,
    });
    assert_eq!(name.await, "c");
    let started = find_event(&mut events, |event| match event {
        EngineEvent::SessionInitialized { .. } => panic!("said once"),
        EngineEvent::CallStarted { call, .. } => Some(call.clone()),
        _ => None,
    });
    let flood = started.await;
    assert_eq!((&*flood.subject, flood.session.as_ref()), ("flood", Some(&session)));
    let finished = find_event(&mut events, |event| match event {
        EngineEvent::CallFinished { call, outcome, .. } => Some((call.clone(), *outcome)),
        _ => None,
    });
    assert_eq!(finished.await, (flood, CallOutcome::Ok));

    client.call(2, "wait").await;
    client.ping().await;
    let running = engine.calls();
    assert_eq!((running.len(), &*running[0].call.subject), (1, "wait"));
    assert!(engine.cancel_call(running[0].call.id));
    assert_eq!(client.answer(2).await.0["error"]["message"], "the call was cancelled");
    let cancelled = find_event(&mut events, |event| match event {
        EngineEvent::CallCancelled { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(cancelled.await, CancelReason::Application);
    assert!(!engine.cancel_call(running[0].call.id), "it runs no more");

    client.call(3, "panic").await;
    client.answer(3).await;
    let failed = find_event(&mut events, |event| match event {
        EngineEvent::CallFinished { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(failed.await, CallOutcome::Error(-32603));
    let dropped = find_event(&mut events, |event| match event {
        EngineEvent::FramesDropped { session, count, .. } => Some((session.clone(), *count)),
        _ => None,
    });
    assert_eq!(dropped.await, (Some(session.clone()), 90));

    for crash in [true, false] {
        if crash {
            kill(&engine, FaultTarget::Session(session.clone())).await.unwrap();
        } else {
            assert!(engine.restart_session(&session));
        }
        let crashed = find_event(&mut events, |event| match event {
            EngineEvent::SessionCrashed { session } => Some(session.clone()),
            _ => None,
        });
        assert_eq!(crashed.await, session);
        find_event(&mut events, |event| match event {
            EngineEvent::SessionRestarted { .. } => Some(()),
            _ => None,
        })
        .await;
        client.ping().await;
    }
    assert!(engine.end_session(&session));
    assert!(!engine.end_session(&session));
    let closed = find_event(&mut events, |event| match event {
        EngineEvent::SessionClosed { session, reason } => Some((session.clone(), *reason)),
        _ => None,
    });
    assert_eq!(closed.await, (session, EndReason::Ended));
    assert_eq!(client.next().await, None);
    kill(&engine, FaultTarget::Hub).await.unwrap();
    let restarted = find_event(&mut events, |event| match event {
        EngineEvent::ActorRestarted { actor } => Some(*actor),
        _ => None,
    });
    assert_eq!(restarted.await, "hub");
    engine.shutdown().await;
    find_event(&mut events, |event| matches!(event, EngineEvent::Stopped).then_some(())).await;
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_actor_of_the_host_tells_the_engine_by_plain_messages() {
    use stentor_engine::{Audience, CatalogError, EngineMsg, ItemKind, Mutation, Topic};
    let engine = support::engine().start().await.unwrap();
    let mut client = support::Client::legacy(&engine).await;
    let mut other = support::Client::legacy(&engine).await;
    client.subscribe("s", "test://watched").await;
    let door = engine.actor();
    let added = tool("added", || async { "" });
    door.cast(EngineMsg::Apply(vec![Mutation::Add(added.into())], None)).unwrap();
    let again = tool("added", || async { "" });
    let refused = ractor::call!(door, |reply| {
        EngineMsg::Apply(vec![Mutation::Add(again.into())], Some(reply))
    });
    assert_eq!(
        refused.unwrap().unwrap_err(),
        CatalogError::Exists { kind: ItemKind::Tools, key: "added".into() }
    );
    let remove = Mutation::remove(ItemKind::Tools, "echo");
    let change =
        ractor::call!(door, |reply| EngineMsg::Apply(vec![remove], Some(reply))).unwrap().unwrap();
    assert_eq!(change.revision, engine.catalog().snapshot().revision());
    door.cast(EngineMsg::Changed(Topic::Resource("test://watched".into()))).unwrap();
    let sessions = ractor::call!(door, EngineMsg::Sessions).unwrap();
    let watching = sessions.iter().find(|session| session.subscriptions == 1).unwrap();
    let notify = |audience, method: &str| {
        door.cast(EngineMsg::Notify(audience, method.to_owned(), Some(json!({"n": 1})))).unwrap();
    };
    notify(Audience::all(), "custom/all");
    notify(Audience::session(watching.id.clone()), "custom/one");
    notify(Audience::all().client("c").era(stentor_wire::Era::Legacy), "custom/legacy");
    notify(Audience::all().principal("somebody else"), "custom/nobody");
    notify(Audience::all().client("somebody else"), "custom/nobody");
    notify(Audience::all().era(stentor_wire::Era::Modern), "custom/nobody");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let custom = |messages: Vec<Value>| -> Vec<String> {
        let methods = methods(&messages);
        methods.iter().filter(|it| it.starts_with("custom/")).map(|it| (*it).to_owned()).collect()
    };
    let heard = client.ping().await;
    assert!(methods(&heard).contains(&"notifications/resources/updated"));
    assert!(methods(&heard).contains(&"notifications/tools/list_changed"));
    assert_eq!(custom(heard), ["custom/all", "custom/one", "custom/legacy"]);
    assert_eq!(custom(other.ping().await), ["custom/all", "custom/legacy"]);
    let added = |n: u32| {
        let named = tool(format!("added-{n}"), || async { "" });
        EngineMsg::Apply(vec![Mutation::Add(named.into())], None)
    };
    for n in 0..50 {
        door.cast(added(n)).unwrap();
        notify(Audience::all(), &format!("custom/{n}"));
    }
    loop {
        let Some(heard) = other.next().await else { panic!("the engine runs") };
        let Some(n) = heard["method"].as_str().and_then(|it| it.strip_prefix("custom/")) else {
            continue;
        };
        let tool = format!("added-{n}");
        assert!(engine.catalog().snapshot().tool_names().any(|name| name == tool), "{tool}");
        if n == "49" {
            break;
        }
    }
    door.cast(EngineMsg::EndSession(watching.id.clone())).unwrap();
    while client.next().await.is_some() {}
    door.cast(EngineMsg::Shutdown).unwrap();
    while other.next().await.is_some() {}
    door.wait(None).await.unwrap();
}
