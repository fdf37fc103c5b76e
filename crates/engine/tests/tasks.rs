//! Calls that become tasks.

#[path = "tasks/calls.rs"]
mod calls;
#[path = "tasks/listening.rs"]
mod listening;
#[path = "tasks/store.rs"]
mod store;
mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::transport_api::Answer;
use stentor_engine::{
    AsTask, Context, Elicit, Engine, EngineBuilder, Handler, IntoReply, Parameters, Tool,
    ToolError, tool,
};
use stentor_wire::model::CallToolResult;
use stentor_wire::{Message, ProtocolVersion, Request, meta_key};
use tokio::time::sleep;

const EXTENSION: &str = "io.modelcontextprotocol/tasks";

fn builder() -> EngineBuilder {
    support::engine()
        .tool(named("work", AsTask::Always, |ctx: Context| async move {
            ctx.report_progress(1.0, Some(2.0), "half way");
            sleep(Duration::from_secs(10)).await;
            "done"
        }))
        .tool(named("may", AsTask::WhenPossible, || async { "done" }))
        .tool(named("slow", AsTask::After(Duration::from_secs(5)), || async {
            sleep(Duration::from_secs(10)).await;
            "done"
        }))
        .tool(named("talks", AsTask::After(Duration::from_secs(5)), |ctx: Context| async move {
            ctx.error("a word");
            sleep(Duration::from_secs(10)).await;
            "done"
        }))
        .tool(named("panics", AsTask::Always, |ctx: Context| async move {
            sleep(Duration::from_secs(1)).await;
            if ctx.task_id().is_some() {
                panic!("a secret of the tool");
            }
            "never"
        }))
        .tool(named("deaf", AsTask::Always, || async {
            std::future::pending::<()>().await;
            "never"
        }))
        .tool(named("polite", AsTask::Always, |ctx: Context| async move {
            ctx.cancelled().await;
            sleep(Duration::from_secs(1)).await;
            "what there is"
        }))
        .tool(named("asks", AsTask::Always, async |ctx: Context| -> Result<String, ToolError> {
            let ask = |key: &str| {
                let ctx = ctx.clone();
                let schema = json!({"type": "object", "properties": {}});
                let schema = schema.as_object().cloned().unwrap_or_default();
                let question = Elicit::schema("?", schema).key(key);
                async move { ctx.elicit_with(question).await }
            };
            let (one, other) = tokio::join!(ask("one"), ask("other"));
            let again = ask("one").await?;
            Ok(format!("{} {} {}", one?.len(), other?.len(), again.len()))
        }))
        .tool(named("then", AsTask::OnDemand, async |ctx: Context| -> Result<String, ToolError> {
            assert!(ctx.task_id().is_none());
            ctx.become_task().await?;
            ctx.become_task().await?;
            Ok(ctx.task_id().map(|id| id.as_str().to_owned()).unwrap_or_default())
        }))
}

fn named<M, F>(name: &str, as_task: AsTask, code: F) -> Tool
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<CallToolResult>> + Send + 'static,
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
    let identity = principal.map(stentor_engine::identity::Identity::named);
    engine.answer(ProtocolVersion::V2026_07_28, request, identity).await.unwrap()
}

async fn messages(receiver: &mut StreamReceiver) -> Vec<Value> {
    let mut batch = Vec::new();
    receiver.next(&mut batch).await;
    let message = |stentor_delivery::Delivered { frame, .. }: &_| {
        let mut out = BytesMut::new();
        frame.write(&mut out);
        serde_json::from_slice(&out).expect("JSON")
    };
    batch.iter().map(message).collect()
}

async fn ask_as(engine: &Engine, principal: Option<&str>, request: Box<Request>) -> Value {
    match send(engine, request, principal).await {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => loop {
            let messages = messages(&mut receiver).await;
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
