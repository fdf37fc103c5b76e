//! Tasks whose store is slow or fails, and tasks when the engine ends.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::{Value, json};
use stentor_engine::testing::{FaultTarget, kill, task_record};
use stentor_engine::transport_api::Answer;
use stentor_engine::{
    AsTask, Context, Elicit, Engine, EngineBuilder, MemoryTaskStore, TaskId, TaskRecord, TaskStore,
    TaskStoreError, Tool, ToolError, tool,
};
use stentor_wire::{Message, ProtocolVersion, TaskStatus, meta_key};
use support::Client;
use tokio::time::{Instant, sleep, timeout};

/// A store whose puts take a second each, or fail. A put takes effect at half of its time.
#[derive(Debug, Default)]
struct Slow {
    tasks: MemoryTaskStore,
    fails: AtomicBool,
    /// Puts of a checkpoint take ten times as long.
    waits_for_checkpoints: bool,
    /// The duration of a get.
    looks_for: Duration,
    sweeps: AtomicUsize,
}

impl TaskStore for Slow {
    fn put(&self, task: TaskRecord) -> BoxFuture<'_, Result<(), TaskStoreError>> {
        let is_checkpoint = self.waits_for_checkpoints && task.checkpoint.is_some();
        async move {
            let half = Duration::from_millis(if is_checkpoint { 5_000 } else { 500 });
            sleep(half).await;
            if self.fails.load(Ordering::Relaxed) {
                return Err(TaskStoreError::Failed("no disk".into()));
            }
            self.tasks.put(task).await?;
            sleep(half).await;
            Ok(())
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<TaskRecord>, TaskStoreError>> {
        async move {
            sleep(self.looks_for).await;
            self.tasks.get(id).await
        }
        .boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskRecord>, TaskStoreError>> {
        self.tasks.unfinished()
    }

    fn sweep(&self, _now: u64) -> BoxFuture<'_, Result<usize, TaskStoreError>> {
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        std::future::pending().boxed()
    }
}

fn builder(store: Arc<dyn TaskStore>) -> EngineBuilder {
    support::engine().configure(|config| {
        config.tasks.store = store;
        config.tasks.ttl = None;
        config.drain_timeout = Duration::from_millis(10);
    })
}

/// A tool that returns the step from which it ran.
fn steps() -> Tool {
    let code = async |ctx: Context| -> Result<String, ToolError> {
        let from = ctx.last_checkpoint().and_then(Value::as_u64).unwrap_or(0);
        for step in from..5 {
            ctx.checkpoint(step).await?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok(from.to_string())
    };
    tool("steps", code).as_task(AsTask::Always).resumable()
}

async fn send(engine: &Engine, method: &str, mut params: Value) -> Answer {
    params["_meta"] = json!({
        (meta_key::PROTOCOL_VERSION): "2026-07-28",
        (meta_key::CLIENT_CAPABILITIES):
            {"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}},
    });
    let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text.to_string())) else {
        panic!("no request: {text}");
    };
    engine.answer(ProtocolVersion::V2026_07_28, request, None).await.unwrap()
}

async fn ask(engine: &Engine, method: &str, params: Value) -> Value {
    let mut receiver = match send(engine, method, params).await {
        Answer::Now(bytes, _) => return serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(receiver) => receiver,
    };
    let mut batch = Vec::new();
    receiver.next(&mut batch).await;
    let mut out = BytesMut::new();
    batch.first().expect("an answer").frame.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

async fn begin(engine: &Engine, name: &str) -> String {
    let answer = ask(engine, "tools/call", json!({ "name": name })).await;
    answer["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn look(engine: &Engine, id: &str) -> Value {
    ask(engine, "tasks/get", json!({ "taskId": id })).await["result"].clone()
}

async fn ended(engine: &Engine, id: &str) -> Value {
    loop {
        let task = look(engine, id).await;
        if !matches!(task["status"].as_str(), Some("working" | "input_required")) {
            return task;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A task record as the previous engine left it.
fn left_task(id: &str, tool: &str) -> TaskRecord {
    let mut task = task_record(id);
    task.owner = None;
    task.tool = tool.to_owned();
    task.ttl_ms = None;
    task
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tasks_are_taken_over_together_and_expired_ones_not_at_all() {
    let store = Arc::new(Slow::default());
    for n in 0..10_000 {
        store.tasks.put(left_task(&n.to_string(), "gone")).await.unwrap();
    }
    let mut expired = left_task("expired", "steps");
    expired.ttl_ms = Some(1);
    store.tasks.put(expired).await.unwrap();
    let begun = Instant::now();
    let engine = builder(store.clone()).tool(steps()).start().await.unwrap();
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    assert_eq!(look(&engine, "9999").await["status"], "failed");
    let expired = store.tasks.get(&TaskId::new("expired")).await.unwrap().unwrap();
    assert!(matches!(expired.status, TaskStatus::Working), "it did not run");
    assert_eq!(engine.observe().await.unwrap().running_tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_start_leaves_its_tasks_to_the_next_one() {
    let store = Arc::new(Slow::default());
    for n in 0..10 {
        store.tasks.put(left_task(&format!("a{n}"), "steps")).await.unwrap();
        store.tasks.put(left_task(&format!("b{n}"), "gone")).await.unwrap();
    }
    store.fails.store(true, Ordering::Relaxed);
    assert!(builder(store.clone()).tool(steps()).start().await.is_err());
    store.fails.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.tasks.unfinished().await.unwrap().len(), 20);
    let engine = builder(store).tool(steps()).start().await.unwrap();
    assert_eq!(ended(&engine, "a3").await["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_never_overtakes_the_end() {
    let store = Arc::new(Slow { waits_for_checkpoints: true, ..Slow::default() });
    let hasty = tool("hasty", |ctx: Context| async move {
        tokio::spawn(async move { ctx.checkpoint(1).await });
        tokio::task::yield_now().await;
        "done"
    });
    let engine = builder(store).tool(hasty.as_task(AsTask::Always)).start().await.unwrap();
    let id = begin(&engine, "hasty").await;
    assert_eq!(ended(&engine, &id).await["status"], "completed");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(look(&engine, &id).await["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_nobody_awaits_blocks_nothing() {
    let store = Arc::new(Slow::default());
    let careless = tool("careless", |ctx: Context| async move {
        let mut saving = Box::pin(async move { ctx.checkpoint(1).await });
        // Polled once, kept, and never polled again.
        let _ = futures::poll!(&mut saving);
        std::mem::forget(saving);
        "done"
    });
    let engine = builder(store).tool(careless.as_task(AsTask::Always)).start().await.unwrap();
    let id = begin(&engine, "careless").await;
    assert_eq!(ended(&engine, &id).await["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_task_is_announced_at_once_and_stored_when_its_store_works_again() {
    let store = Arc::new(Slow::default());
    let work = tool("work", || async {
        sleep(Duration::from_secs(5)).await;
        "done"
    });
    let engine = builder(store.clone()).tool(work.as_task(AsTask::Always)).start().await.unwrap();
    let id = begin(&engine, "work").await;
    store.fails.store(true, Ordering::Relaxed);
    assert_eq!(ended(&engine, &id).await["status"], "failed");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(look(&engine, &id).await["status"], "failed", "it does not run again");
    store.fails.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let stored = store.tasks.get(&TaskId::new(id)).await.unwrap().unwrap();
    assert!(stored.status.is_terminal());
    assert_eq!(engine.observe().await.unwrap().running_tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_client_disconnects_while_it_is_stored_ends() {
    let store = Arc::new(Slow::default());
    let hangs = tool("hangs", || async {
        std::future::pending::<()>().await;
        "never"
    });
    let engine = builder(store.clone()).tool(hangs.as_task(AsTask::Always)).start().await.unwrap();
    let answer = send(&engine, "tools/call", json!({"name": "hangs"})).await;
    sleep(Duration::from_millis(750)).await;
    // Its actor is killed, and the call with it.
    let actors = stentor_engine::testing::FaultTarget::TaskActors;
    stentor_engine::testing::kill(&engine, actors).await.unwrap();
    drop(answer);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.tasks.unfinished().await.unwrap().len(), 0);
    assert_eq!(engine.observe().await.unwrap().running_tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_asked_to_sweep_once() {
    let store = Arc::new(Slow::default());
    let engine = builder(store.clone()).start().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.sweeps.load(Ordering::Relaxed), 1);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_resumed_task_asks_again_under_new_keys() {
    let store = Arc::new(MemoryTaskStore::default());
    let asks = tool("asks", async |ctx: Context| -> Result<String, ToolError> {
        let schema = json!({"type": "object", "properties": {}});
        let schema = schema.as_object().cloned().unwrap_or_default();
        let question = Elicit::schema("?", schema).key("name");
        let save = async {
            sleep(Duration::from_secs(1)).await;
            ctx.checkpoint(1).await
        };
        let (answer, saved) = tokio::join!(ctx.elicit_with(question), save);
        saved?;
        Ok(answer?.len().to_string())
    });
    let asks = asks.as_task(AsTask::Always).resumable();
    let first = builder(store.clone()).tool(asks.clone()).start().await.unwrap();
    let id = begin(&first, "asks").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(look(&first, &id).await["status"], "input_required");
    first.shutdown().await;

    let second = builder(store).tool(asks).start().await.unwrap();
    assert_eq!(look(&second, &id).await["status"], "working", "nothing has been asked yet");
    sleep(Duration::from_millis(10)).await;
    let asked = look(&second, &id).await;
    let open = asked["inputRequests"].as_object().unwrap();
    let keys: Vec<_> = open.keys().collect();
    assert!(keys.len() == 1 && keys[0] != "name", "{asked}");
    let answers = json!({(keys[0]): {"action": "accept", "content": {}}});
    ask(&second, "tasks/update", json!({"taskId": id, "inputResponses": answers})).await;
    assert_eq!(ended(&second, &id).await["status"], "completed");
}

struct Host;

impl Actor for Host {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_resume_after_the_end_of_a_supervisor() {
    for _ in 0..5 {
        let store = Arc::new(MemoryTaskStore::default());
        let (host, _) = Actor::spawn(None, Host, ()).await.unwrap();
        let first = builder(store.clone()).tool(steps());
        let first = first.start_under(host.get_cell()).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(begin(&first, "steps").await);
        }
        host.kill_and_wait(None).await.unwrap();
        while first.open_pipe().await.is_ok() {
            tokio::task::yield_now().await;
        }
        drop(first);
        sleep(Duration::from_millis(300)).await;
        let second = builder(store).tool(steps()).start().await.unwrap();
        for id in ids {
            let task = ended(&second, &id).await;
            assert_eq!(task["status"], "completed", "{task}");
        }
        second.shutdown().await;
    }
}

/// The messages that a client receives: methods of notifications, and ids of answers.
async fn told(client: &mut Client) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_secs(5), client.next()).await {
        let method = message["method"].as_str().and_then(|method| method.rsplit('/').next());
        told.push(method.map_or_else(|| format!("answer {}", message["id"]), str::to_owned));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_listen_that_waits_for_its_store_begins_once_and_ends_once_whatever_happens_meanwhile() {
    let store = Slow { looks_for: Duration::from_secs(1), ..Slow::default() };
    let engine = builder(Arc::new(store)).start().await.unwrap();
    let mut client = Client::connect(&engine).await;
    let listen = |id: i64| {
        let params = json!({
            "notifications": {"toolsListChanged": true, "taskIds": ["unknown"]},
            "_meta": {
                (meta_key::PROTOCOL_VERSION): "2026-07-28",
                (meta_key::CLIENT_CAPABILITIES): {"extensions": {"io.modelcontextprotocol/tasks": {}}},
            },
        });
        json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params})
    };
    let plain = |name: &str| tool(name, || async { "" });
    client.send(listen(1)).await;
    sleep(Duration::from_millis(100)).await;
    kill(&engine, FaultTarget::Hub).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    engine.catalog().add(plain("before")).await.unwrap();
    assert_eq!(told(&mut client).await, ["acknowledged"], "once, and nothing before it");
    engine.catalog().add(plain("after")).await.unwrap();
    assert_eq!(told(&mut client).await, ["list_changed"]);
    // A listen begins, and the engine ends.
    client.send(listen(2)).await;
    sleep(Duration::from_millis(100)).await;
    engine.shutdown().await;
    let mut last = told(&mut client).await;
    last.sort_unstable();
    assert_eq!(last, ["answer 1", "answer 2"]);
}
