//! Tasks in their store: how long, how many, and over a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::transport_api::Answer;
use stentor_engine::{AsTask, Context, MemoryTaskStore, ToolError, tool};
use tokio::time::sleep;

use crate::{ask, begin, builder, ended, look, messages, request, send};

#[tokio::test(start_paused = true)]
async fn expired_tasks_are_removed_and_a_task_that_runs_too_long_fails() {
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
async fn a_resumable_tool_continues_from_its_checkpoint_in_the_next_engine() {
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

/// The resident memory of this process in bytes; 0 where it cannot be read.
fn resident() -> usize {
    let pages = |text: String| text.split(' ').nth(1)?.parse::<usize>().ok();
    std::fs::read_to_string("/proc/self/statm").ok().and_then(pages).unwrap_or(0) * 4096
}

/// With `STENTOR_SOAK` set there are 10,000 tasks per round.
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
            let Answer::Stream(mut receiver) = send(&engine, listen, None).await else {
                panic!("a stream");
            };
            listeners.push(tokio::spawn(async move {
                let mut ends = 0;
                let listening = async {
                    while let some = messages(&mut receiver).await
                        && !some.is_empty()
                    {
                        let ended = |it: &&Value| it["params"]["status"] == "completed";
                        ends += some.iter().filter(ended).count();
                    }
                };
                // Longer than the tasks take, and longer than they are kept.
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
        assert_eq!(engine.counters().held, 0);
        memory.push(resident());
    }
    eprintln!("resident after each round of {count}: {memory:?}");
    assert!(memory[2] < memory[0] + 16 * 1024 * 1024, "{memory:?}");
}
