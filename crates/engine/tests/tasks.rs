//! Calls that become tasks.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_engine::outlet::Inlet;
use stentor_engine::port::Answer;
use stentor_engine::testing::{Victim, kill};
use stentor_engine::{
    AsTask, Context, Elicit, Engine, EngineBuilder, MemoryTaskStore, Tool, ToolError, tool,
};
use stentor_wire::{Message, ProtocolVersion, Request, meta_key};
use support::Client;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";

fn builder() -> EngineBuilder {
    support::engine()
        .tool(named("work", AsTask::Always, |ctx: Context| async move {
            ctx.report_progress(1.0, Some(2.0), "half way");
            sleep(Duration::from_secs(10)).await;
            Ok::<_, ToolError>("done")
        }))
        .tool(named("may", AsTask::WhenPossible, |_| async { Ok::<_, ToolError>("done") }))
        .tool(named("slow", AsTask::After(Duration::from_secs(5)), |_| async {
            sleep(Duration::from_secs(10)).await;
            Ok::<_, ToolError>("done")
        }))
        .tool(named("talks", AsTask::After(Duration::from_secs(5)), |ctx: Context| async move {
            ctx.error("a word");
            sleep(Duration::from_secs(10)).await;
            Ok::<_, ToolError>("done")
        }))
        .tool(named("panics", AsTask::Always, |ctx: Context| async move {
            sleep(Duration::from_secs(1)).await;
            if ctx.task_id().is_some() {
                panic!("a secret of the tool");
            }
            Ok::<_, ToolError>("never")
        }))
        .tool(named("deaf", AsTask::Always, |_| async {
            std::future::pending::<()>().await;
            Ok::<_, ToolError>("never")
        }))
        .tool(named("polite", AsTask::Always, |ctx: Context| async move {
            ctx.cancelled().await;
            sleep(Duration::from_secs(1)).await;
            Ok::<_, ToolError>("what there is")
        }))
        .tool(named("asks", AsTask::Always, |ctx: Context| async move {
            let ask = |key: &str| {
                let ctx = ctx.clone();
                let schema = json!({"type": "object", "properties": {}});
                let schema = schema.as_object().cloned().unwrap_or_default();
                let question = Elicit::schema("?", schema).key(key);
                async move { ctx.elicit_with(question).await }
            };
            let (one, other) = tokio::join!(ask("one"), ask("other"));
            let again = ask("one").await?;
            Ok::<_, ToolError>(format!("{} {} {}", one?.len(), other?.len(), again.len()))
        }))
        .tool(named("then", AsTask::OnDemand, |ctx: Context| async move {
            assert!(ctx.task_id().is_none());
            ctx.become_task().await?;
            ctx.become_task().await?;
            Ok::<_, ToolError>(ctx.task_id().map(|id| id.as_str().to_owned()).unwrap_or_default())
        }))
}

fn named<F, Fut, T>(name: &str, as_task: AsTask, code: F) -> Tool
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, ToolError>> + Send + 'static,
    T: stentor_engine::IntoToolResult,
{
    tool(name, code).as_task(as_task)
}

fn request(method: &str, mut params: Value, takes_tasks: bool) -> Box<Request> {
    let mut capabilities = json!({"elicitation": {}});
    if takes_tasks {
        capabilities["extensions"] = json!({ (EXTENSION): {} });
    }
    params["_meta"] = json!({
        (meta_key::PROTOCOL_VERSION): "2026-07-28",
        (meta_key::CLIENT_CAPABILITIES): capabilities,
        (meta_key::LOG_LEVEL): "error",
    });
    let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    match Message::decode(&Bytes::from(text.to_string())) {
        Ok(Message::Request(request)) => request,
        other => panic!("no request: {other:?}"),
    }
}

async fn send(engine: &Engine, request: Box<Request>, principal: Option<&str>) -> Answer {
    let principal = principal.map(Arc::from);
    engine.answer(ProtocolVersion::V2026_07_28, request, principal).await.unwrap()
}

async fn messages(inlet: &mut Inlet) -> Vec<Value> {
    let mut batch = Vec::new();
    inlet.next(&mut batch).await;
    let message = |(_, _, frame): &(_, _, stentor_engine::outlet::Frame)| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        serde_json::from_slice(&out).expect("JSON")
    };
    batch.iter().map(message).collect()
}

/// The response to a request.
async fn ask_as(engine: &Engine, principal: Option<&str>, request: Box<Request>) -> Value {
    match send(engine, request, principal).await {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut inlet) => loop {
            let messages = messages(&mut inlet).await;
            assert!(!messages.is_empty(), "an answer");
            if let Some(answer) = messages.into_iter().find(|it| it.get("id").is_some()) {
                return answer;
            }
        },
    }
}

async fn ask(engine: &Engine, method: &str, params: Value) -> Value {
    ask_as(engine, None, request(method, params, true)).await
}

async fn begin(engine: &Engine, name: &str) -> String {
    let answer = ask(engine, "tools/call", json!({ "name": name })).await;
    assert_eq!(answer["result"]["resultType"], "task", "{answer}");
    answer["result"]["taskId"].as_str().unwrap().to_owned()
}

async fn look(engine: &Engine, id: &str) -> Value {
    let answer = ask(engine, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    answer["result"].clone()
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

#[tokio::test(start_paused = true)]
async fn a_call_becomes_a_task_and_its_result_is_fetched_later() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "work").await;
    sleep(Duration::from_secs(1)).await;
    let working = look(&engine, &id).await;
    assert_eq!(
        (&working["status"], &working["statusMessage"]),
        (&json!("working"), &json!("half way"))
    );
    assert_eq!((&working["ttlMs"], &working["pollIntervalMs"]), (&json!(3_600_000), &json!(1_000)));
    let done = ended(&engine, &id).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["result"]["content"][0]["text"], "done");
    assert!(done["lastUpdatedAt"].as_str() > done["createdAt"].as_str());
    assert_eq!(engine.observe().await.unwrap().running_tasks, 0);
    assert!(engine.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_a_client_that_takes_tasks_is_given_one() {
    let engine = builder().start().await.unwrap();
    let without = |method: &str, params| request(method, params, false);
    let refused = ask_as(&engine, None, without("tools/call", json!({"name": "work"}))).await;
    assert_eq!(refused["error"]["code"], -32021);
    assert!(refused["error"]["data"]["requiredCapabilities"]["extensions"][EXTENSION].is_object());
    for name in ["may", "slow"] {
        let answer = ask_as(&engine, None, without("tools/call", json!({"name": name}))).await;
        assert_eq!(answer["result"]["content"][0]["text"], "done");
    }
    let on_demand = ask_as(&engine, None, without("tools/call", json!({"name": "then"}))).await;
    assert_eq!(on_demand["error"]["code"], -32021);
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = json!({"taskId": "x", "inputResponses": {}});
        assert_eq!(ask_as(&engine, None, without(method, params)).await["error"]["code"], -32021);
    }
    let listen = json!({"notifications": {"taskIds": ["x"]}});
    let refused = ask_as(&engine, None, without("subscriptions/listen", listen)).await;
    assert_eq!(refused["error"]["code"], -32021);
    // In the legacy era a call simply runs.
    let mut client = Client::legacy(&engine).await;
    for (id, name) in [(1, "may"), (2, "work")] {
        client.call(id, name).await;
        assert_eq!(client.answer(id).await.0["result"]["content"][0]["text"], "done");
    }
    client.call(3, "then").await;
    assert_eq!(client.answer(3).await.0["result"]["content"][0]["text"], "");
}

#[tokio::test(start_paused = true)]
async fn a_call_becomes_a_task_after_some_time_if_it_has_said_nothing() {
    let engine = builder().start().await.unwrap();
    let begun = Instant::now();
    let id = begin(&engine, "slow").await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(ended(&engine, &id).await["status"], "completed");
    assert_eq!(begun.elapsed().as_secs(), 10, "it was not begun anew");
    let talked = ask(&engine, "tools/call", json!({"name": "talks"})).await;
    assert_eq!(talked["result"]["content"][0]["text"], "done");
    let id = begin(&engine, "then").await;
    assert_eq!(ended(&engine, &id).await["result"]["content"][0]["text"], json!(id));
}

#[tokio::test(start_paused = true)]
async fn a_task_outlives_the_connection_and_the_session_that_began_it() {
    let engine = builder().start().await.unwrap();
    let Answer::Stream(mut inlet) =
        send(&engine, request("tools/call", json!({"name": "work"}), true), None).await
    else {
        panic!("a call");
    };
    let answer = messages(&mut inlet).await.remove(0);
    drop(inlet);
    let mut client = Client::connect(&engine).await;
    let call = request("tools/call", json!({"name": "work"}), true);
    client.pipe.deliver(Ok(Message::Request(call))).await.unwrap();
    let other = client.answer(1).await.0;
    drop(client);
    for answer in [answer, other] {
        let id = answer["result"]["taskId"].as_str().unwrap();
        assert_eq!(ended(&engine, id).await["status"], "completed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_or_is_cancelled_says_so() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "panics").await;
    let failed = ended(&engine, &id).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!(-32603)));
    assert_eq!(failed["statusMessage"], "the tool 'panics' panicked");
    for (name, seconds, status) in [("deaf", 2, "cancelled"), ("polite", 1, "completed")] {
        let id = begin(&engine, name).await;
        let asked = Instant::now();
        let answer = ask(&engine, "tasks/cancel", json!({ "taskId": id })).await;
        assert_eq!(answer["result"]["resultType"], "complete");
        let task = ended(&engine, &id).await;
        assert_eq!((&task["status"], asked.elapsed().as_secs()), (&json!(status), seconds));
        let again = ask(&engine, "tasks/cancel", json!({ "taskId": id })).await;
        assert!(again["result"].is_object(), "there is nothing left to do");
    }
    let id = begin(&engine, "deaf").await;
    let running = engine.calls();
    assert!(engine.cancel_call(running[0].call.id), "by the application, too");
    assert_eq!(ended(&engine, &id).await["status"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_task_asks_under_keys_that_never_come_again_and_takes_answers_one_by_one() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "asks").await;
    let open = |task: &Value| -> Vec<String> {
        let open = task["inputRequests"].as_object().cloned().unwrap_or_default();
        open.keys().cloned().collect()
    };
    let update = async |answers: Value| {
        let params = json!({"taskId": id, "inputResponses": answers});
        let answer = ask(&engine, "tasks/update", params).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        sleep(Duration::from_millis(10)).await;
        look(&engine, &id).await
    };
    let answered = || json!({"action": "accept", "content": {}});
    sleep(Duration::from_millis(10)).await;
    let asked = look(&engine, &id).await;
    assert_eq!(
        (&asked["status"], open(&asked)),
        (&json!("input_required"), vec!["one".into(), "other".into()])
    );
    assert_eq!(asked["inputRequests"]["one"]["method"], "elicitation/create");
    let wrong = update(json!({"one": 12345, "nobody": answered()})).await;
    assert_eq!(open(&wrong).len(), 2);
    let half = update(json!({"other": answered()})).await;
    assert_eq!(open(&half), ["one"]);
    let again = update(json!({"one": answered(), "other": answered()})).await;
    assert_eq!(open(&again), ["one-1"], "a key stands for one question only");
    let done = update(json!({"one-1": answered()})).await;
    assert_eq!(done["status"], "completed", "{done}");
}

#[tokio::test(start_paused = true)]
async fn a_task_is_its_owners_alone() {
    let engine = builder().start().await.unwrap();
    let call = request("tools/call", json!({"name": "work"}), true);
    let answer = ask_as(&engine, Some("ann"), call).await;
    let id = answer["result"]["taskId"].as_str().unwrap();
    let others = [Some("bob"), None];
    for time in ["while it runs", "afterwards"] {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            for principal in others {
                let params = json!({"taskId": id, "inputResponses": {}});
                let answer = ask_as(&engine, principal, request(method, params, true)).await;
                assert_eq!(answer["error"]["code"], -32602, "{method} {principal:?} {time}");
                assert_eq!(answer["error"]["message"], "task not found");
            }
        }
        let listen = json!({"notifications": {"taskIds": [id, "unknown"]}});
        for (principal, granted) in [(Some("bob"), 0), (Some("ann"), 1)] {
            let listen = request("subscriptions/listen", listen.clone(), true);
            let Answer::Stream(mut inlet) = send(&engine, listen, principal).await else {
                panic!("a stream");
            };
            let first = messages(&mut inlet).await.remove(0);
            let ids = first["params"]["notifications"]["taskIds"].as_array().map_or(0, Vec::len);
            assert_eq!(ids, granted);
        }
        sleep(Duration::from_secs(11)).await;
    }
    let found =
        ask_as(&engine, Some("ann"), request("tasks/get", json!({"taskId": id}), true)).await;
    assert_eq!(found["result"]["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_each_change_and_of_the_end_once_whenever_it_comes() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "work").await;
    let listen = async || {
        let listen = json!({"notifications": {"taskIds": [id]}});
        let Answer::Stream(inlet) =
            send(&engine, request("subscriptions/listen", listen, true), None).await
        else {
            panic!("a stream");
        };
        inlet
    };
    let read_all = |mut inlet: Inlet| async move {
        let mut heard = Vec::new();
        loop {
            let some = messages(&mut inlet).await;
            if some.is_empty() {
                return heard;
            }
            heard.extend(some);
        }
    };
    let keeps_up = tokio::spawn(read_all(listen().await));
    let falls_behind = listen().await;
    sleep(Duration::from_secs(11)).await;
    let late = listen().await;
    sleep(Duration::from_secs(1)).await;
    engine.shutdown().await;
    let falls_behind = read_all(falls_behind).await;
    let late = read_all(late).await;
    for (heard, statuses) in [(keeps_up.await.unwrap(), 2), (falls_behind, 1), (late, 1)] {
        assert_eq!(heard[0]["method"], "notifications/subscriptions/acknowledged");
        let told: Vec<_> =
            heard.iter().filter(|it| it["method"] == "notifications/tasks").collect();
        assert!(told.len() >= statuses, "{told:#?}");
        assert!(told.iter().all(|it| it["params"]["taskId"] == id.as_str()));
        let ends = told.iter().filter(|it| it["params"]["status"] == "completed").count();
        assert_eq!(ends, 1);
        let last = &told[told.len() - 1]["params"];
        assert_eq!(last["result"]["content"][0]["text"], "done");
        assert!(last["_meta"][meta_key::SUBSCRIPTION_ID].is_i64());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_how_a_task_ended_although_the_hub_crashed_meanwhile() {
    for yields in 0..16 {
        let finish = Arc::new(Notify::new());
        let code = finish.clone();
        let waits = named("waits", AsTask::Always, move |_| {
            let finish = code.clone();
            async move {
                finish.notified().await;
                Ok::<_, ToolError>("done")
            }
        });
        let engine = support::engine().tool(waits).start().await.unwrap();
        let id = begin(&engine, "waits").await;
        let listen = json!({"notifications": {"taskIds": [id]}});
        let listen = request("subscriptions/listen", listen, true);
        let Answer::Stream(mut inlet) = send(&engine, listen, None).await else {
            panic!("no stream")
        };
        let end = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            finish.notify_one();
        };
        let (killed, ()) = tokio::join!(kill(&engine, Victim::Hub), end);
        killed.unwrap();
        let hears = async {
            while !messages(&mut inlet).await.iter().any(|it| it["params"]["status"] == "completed")
            {
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), hears).await;
        heard.unwrap_or_else(|_| panic!("nothing is heard after {yields} yields"));
        engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reports_reach_listeners_at_a_bounded_rate_and_the_last_one_arrives() {
    let engine = builder()
        .tool(named("chatter", AsTask::Always, |ctx: Context| async move {
            for n in 1..=1_000 {
                ctx.report_progress(f64::from(n), None, format_args!("{n}"));
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(1)).await;
            Ok::<_, ToolError>("done")
        }))
        .start()
        .await
        .unwrap();
    let id = begin(&engine, "chatter").await;
    let listen = json!({"notifications": {"taskIds": [id]}});
    let listen = request("subscriptions/listen", listen, true);
    let Answer::Stream(mut inlet) = send(&engine, listen, None).await else { panic!("a stream") };
    let mut said = Vec::new();
    loop {
        for message in messages(&mut inlet).await {
            if message["params"]["status"] == "completed" {
                assert!((5..=9).contains(&said.len()), "{said:?}");
                assert_eq!(said.last().map(String::as_str), Some("1000"));
                return;
            }
            said.extend(message["params"]["statusMessage"].as_str().map(str::to_owned));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn expired_tasks_are_forgotten_and_one_that_runs_too_long_fails() {
    let engine = builder()
        .configure(|config| config.tasks.ttl = Some(Duration::from_secs(60)))
        .start()
        .await
        .unwrap();
    let (done, hangs) = (begin(&engine, "may").await, begin(&engine, "deaf").await);
    ended(&engine, &done).await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(look(&engine, &done).await["status"], "completed");
    assert_eq!(engine.observe().await.unwrap().running_tasks, 1);
    sleep(Duration::from_secs(10)).await;
    for id in [done, hangs] {
        let gone = ask(&engine, "tasks/get", json!({ "taskId": id })).await;
        assert_eq!(gone["error"]["code"], -32602);
    }
    let view = engine.observe().await.unwrap();
    assert_eq!((view.running_tasks, view.running_calls), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_new_tasks_and_keeps_those_it_has() {
    let engine = builder()
        .configure(|config| config.tasks.store = Arc::new(MemoryTaskStore::new(2, 1_000_000)))
        .start()
        .await
        .unwrap();
    let ids = [begin(&engine, "work").await, begin(&engine, "work").await];
    let refused = ask(&engine, "tools/call", json!({"name": "work"})).await;
    assert_eq!(refused["error"]["code"], 503, "{refused}");
    for id in ids {
        assert_eq!(ended(&engine, &id).await["status"], "completed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumable_tool_goes_on_from_its_checkpoint_in_the_next_engine() {
    let store = Arc::new(MemoryTaskStore::default());
    let runs = Arc::new(AtomicUsize::new(0));
    let start = async || {
        let (store, runs) = (store.clone(), runs.clone());
        let steps = tool("steps", move |ctx: Context| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move {
                let from = ctx.last_checkpoint().and_then(Value::as_u64).unwrap_or(0);
                for step in from..10 {
                    ctx.checkpoint(step).await?;
                    sleep(Duration::from_secs(1)).await;
                }
                Ok::<_, ToolError>(format!("from {from}"))
            }
        });
        let configured = builder().configure(move |config| {
            config.tasks.store = store;
            config.drain_timeout = Duration::from_millis(10);
        });
        configured.tool(steps.as_task(AsTask::Always).resumable()).start().await.unwrap()
    };
    let first = start().await;
    let (goes_on, does_not) = (begin(&first, "steps").await, begin(&first, "work").await);
    sleep(Duration::from_millis(4_500)).await;
    first.shutdown().await;
    let second = start().await;
    let failed = look(&second, &does_not).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"]["message"], "the server restarted while the task ran");
    let done = ended(&second, &goes_on).await;
    assert_eq!(done["result"]["content"][0]["text"], "from 4", "{done}");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

/// Memory of this process, in bytes; nothing where it cannot be read.
fn resident() -> usize {
    let pages = |text: String| text.split(' ').nth(1)?.parse::<usize>().ok();
    std::fs::read_to_string("/proc/self/statm").ok().and_then(pages).unwrap_or(0) * 4096
}

/// With `STENTOR_SOAK` set there are 10,000 tasks a round.
#[tokio::test(start_paused = true)]
async fn many_tasks_are_polled_and_listened_to_and_leave_nothing_behind() {
    let count = if std::env::var_os("STENTOR_SOAK").is_some() { 10_000 } else { 1_000 };
    let ttl = Duration::from_secs(120);
    let engine = builder().configure(|config| config.tasks.ttl = Some(ttl)).start().await.unwrap();
    let mut memory = Vec::new();
    for _ in 0..3 {
        let mut listeners = Vec::new();
        let mut polled = Vec::new();
        for n in 0..count {
            let id = begin(&engine, "work").await;
            if n % 2 == 0 {
                polled.push(id);
                continue;
            }
            let listen = json!({"notifications": {"taskIds": [id]}});
            let listen = request("subscriptions/listen", listen, true);
            let Answer::Stream(mut inlet) = send(&engine, listen, None).await else {
                panic!("a stream");
            };
            listeners.push(tokio::spawn(async move {
                let mut ends = 0;
                let listening = async {
                    while let some = messages(&mut inlet).await
                        && !some.is_empty()
                    {
                        let ended = |it: &&Value| it["params"]["status"] == "completed";
                        ends += some.iter().filter(ended).count();
                    }
                };
                // Longer than the tasks take, and than their memory is kept.
                let _ = tokio::time::timeout(Duration::from_secs(300), listening).await;
                ends
            }));
        }
        for id in &polled {
            assert_eq!(ended(&engine, id).await["status"], "completed");
        }
        for listener in listeners {
            assert_eq!(listener.await.unwrap(), 1, "the end is told once");
        }
        let view = engine.observe().await.unwrap();
        assert_eq!((view.running_tasks, view.running_calls, view.hub.subscribers), (0, 0, 0));
        for id in &polled {
            let gone = ask(&engine, "tasks/get", json!({ "taskId": id })).await;
            assert_eq!(gone["error"]["code"], -32602);
        }
        assert_eq!(engine.tally().held, 0);
        memory.push(resident());
    }
    eprintln!("resident after each round of {count}: {memory:?}");
    assert!(memory[2] < memory[0] + 16 * 1024 * 1024, "{memory:?}");
}
