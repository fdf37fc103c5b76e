//! Questions to the client, in both eras, with paused time.

#[path = "elicitation/questions.rs"]
mod questions;
#[path = "elicitation/retries.rs"]
mod retries;
mod support;
#[path = "elicitation/urls.rs"]
mod urls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::{
    AskError, CallError, Context, Elicit, Engine, InputRequired, Sample, ToolError, prompt,
    resource, tool,
};
use stentor_wire::meta_key;
use support::Client;

#[derive(Deserialize, JsonSchema)]
struct Login {
    /// The name.
    user: String,
    #[serde(default)]
    remember: bool,
}

/// Each run of the tool increments `runs`, so that a test sees how often the code began.
async fn engine(runs: Arc<AtomicUsize>) -> Engine {
    let counted = runs.clone();
    support::engine()
        // One client must be able to have many questions.
        .configure(|config| {
            (config.requests.session, config.requests.total) = (1 << 40, 1 << 40);
            config.calls.max_awaiting_input_bytes = 1 << 40;
        })
        .tool(tool("login", move |ctx: Context| {
            let runs = counted.clone();
            async move {
                let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
                let login = ctx.elicit::<Login>("who are you?").await?;
                ctx.report_progress(1.0, None, "");
                let login2 = ctx.elicit_with(Elicit::form::<Login>("again?").key("again")).await?;
                Ok::<_, ToolError>(format!(
                    "run {run}: {} {} {}",
                    login.user, login.remember, login2["user"]
                ))
            }
        }))
        .tool(tool("together", |ctx: Context| async move {
            let (name, model, roots) = tokio::join!(
                ctx.elicit_with(Elicit::form::<Login>("name?").key("name")),
                ctx.sample(Sample::new(10).user("hello?").key("model")),
                ctx.list_roots(),
            );
            let (name, model, roots) = (name?, model?, roots?);
            Ok::<_, ToolError>(format!("{} {} {}", name["user"], model.text(), roots[0].uri))
        }))
        .tool(tool("outcome", |ctx: Context| async move {
            let outcome = ctx.elicit::<Login>("?").await;
            Ok::<_, ToolError>(match outcome {
                Ok(_) => "answered".to_owned(),
                Err(AskError::Client(error)) => error.message,
                Err(error) => error.to_string(),
            })
        }))
        .tool(tool("explicit", |ctx: Context| async move {
            if ctx.request_state() == Some(&json!({"step": 1})) {
                return Ok(ctx.input_responses()["name"]["content"]["user"].to_string());
            }
            let asked = InputRequired::new().elicit("name", &Elicit::form::<Login>("name?"));
            Err(CallError::input_required(asked.state(json!({"step": 1}))))
        }))
        .prompt(prompt("hello", |ctx: Context| async move {
            Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
        }))
        .resource(resource("ask://1", "asks", |ctx: Context| async move {
            Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
        }))
        .start()
        .await
        .unwrap()
}

fn accept(user: &str) -> Value {
    json!({"action": "accept", "content": {"user": user}})
}

fn all_capabilities() -> Value {
    json!({"elicitation": {}, "sampling": {}, "roots": {}})
}

async fn modern(client: &mut Client, id: i64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: all_capabilities(),
        "progressToken": id,
    });
    client.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    client.answer(id).await.0
}

async fn call(client: &mut Client, id: i64, tool: &str, answers: Value, state: &Value) -> Value {
    let mut params = json!({"name": tool, "arguments": {}});
    if !answers.is_null() {
        params["inputResponses"] = answers;
    }
    if !state.is_null() {
        params["requestState"] = state.clone();
    }
    modern(client, id, "tools/call", params).await
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

async fn legacy(engine: &Engine, capabilities: Value) -> Client {
    Client::legacy_that(engine, capabilities).await
}
