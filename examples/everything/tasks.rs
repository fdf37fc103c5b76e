//! Calls whose result the client fetches later.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use stentor::{
    Context, EngineBuilder, ToolError, ask::Elicit, handler::AsTask, protocol::ErrorObject, tool,
};
use tokio::time::sleep;

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(tool("greet", greet).description("Greets at once"))
        .tool(
            tool("slow_compute", slow_compute)
                .description("Computes for some seconds")
                .as_task(AsTask::WhenPossible),
        )
        .tool(
            tool("failing_job", failing_job)
                .description("Fails after a second")
                .as_task(AsTask::Always),
        )
        .tool(
            tool("protocol_error_job", protocol_error_job)
                .description("Ends with an error of the protocol")
                .as_task(AsTask::Always),
        )
        .tool(
            tool("confirm_delete", confirm_delete)
                .description("Asks before it deletes")
                .as_task(AsTask::Always),
        )
        .tool(
            tool("multi_input", multi_input)
                .description("Asks two things at once")
                .as_task(AsTask::Always),
        )
        .tool(
            tool("test_tool_with_task", asks_first)
                .description("Asks the user, and goes on as a task")
                .as_task(AsTask::OnDemand),
        )
}

#[derive(Deserialize, JsonSchema)]
struct Person {
    name: String,
}

async fn greet(person: Person) -> Result<String, ToolError> {
    Ok(format!("Hello, {}!", person.name))
}

#[derive(Deserialize, JsonSchema)]
struct Compute {
    /// For how long.
    #[schemars(range(min = 0, max = 3_600))]
    seconds: f64,
    #[serde(default)]
    #[schemars(length(max = 200))]
    label: String,
}

async fn slow_compute(args: Compute, ctx: Context) -> Result<String, ToolError> {
    let steps = (args.seconds * 10.0).max(1.0);
    let step_time = Duration::try_from_secs_f64(args.seconds / steps)?;
    for step in 0..steps as u32 {
        ctx.report_progress(f64::from(step), Some(steps), format!("{} at work", args.label));
        tokio::select! {
            () = sleep(step_time) => {}
            () = ctx.cancelled() => return Err(ToolError::new("cancelled")),
        }
    }
    Ok(format!("{} computed for {} s", args.label, args.seconds))
}

async fn failing_job() -> Result<String, ToolError> {
    sleep(Duration::from_secs(1)).await;
    Err(ToolError::new("the job failed"))
}

async fn protocol_error_job() -> Result<String, ToolError> {
    sleep(Duration::from_millis(100)).await;
    Err(ToolError::protocol(ErrorObject::internal("the job broke")))
}

#[derive(Deserialize, JsonSchema)]
struct Delete {
    filename: String,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "any answer is an answer")]
struct Confirmation {
    confirm: bool,
}

async fn confirm_delete(args: Delete, ctx: Context) -> Result<String, ToolError> {
    let question = format!("Delete {}?", args.filename);
    ctx.elicit_with(Elicit::form::<Confirmation>(question).key("confirm")).await?;
    Ok(format!("Deleted {}", args.filename))
}

async fn multi_input(ctx: Context) -> Result<String, ToolError> {
    let ask = |key: &str| {
        let question = Elicit::form::<Person>(format!("The {key} name?")).key(key);
        let ctx = ctx.clone();
        async move { ctx.elicit_with(question).await }
    };
    let (first, second) = tokio::join!(ask("first"), ask("second"));
    Ok(format!("Heard {:?} and {:?}", first?, second?))
}

async fn asks_first(ctx: Context) -> Result<String, ToolError> {
    let question = Elicit::form::<Person>("What is your name?").key("user_name");
    let answer = ctx.elicit_with(question).await?;
    ctx.become_task().await?;
    sleep(Duration::from_millis(200)).await;
    let name = answer.get("name").and_then(|name| name.as_str()).unwrap_or("stranger");
    Ok(format!("Hello, {name}!"))
}
