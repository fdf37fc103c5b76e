//! Everything that a running call can send: progress, log messages, changes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use stentor::{Context, EngineBuilder, ToolError, tool};
use tokio::task::consume_budget;
use tokio::time::sleep;

const MOMENT: Duration = Duration::from_millis(50);

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(
            tool("test_tool_with_progress", some_progress)
                .description("Reports progress three times"),
        )
        .tool(tool("test_tool_with_logging", some_logging).description("Writes three log messages"))
        .tool(
            tool("test_logging_tool", some_logging)
                .description("Writes three log messages if the request asks for them"),
        )
        .tool(
            tool("progress", progress)
                .description("Reports progress n times, as fast as the client takes it"),
        )
        .tool(tool("flood", flood).description("Writes n log messages without a pause"))
        .tool(tool("burst", burst).description("Announces n times that the tools changed"))
        .tool(
            tool("touch_resource", touch_resource).description("Announces that a resource changed"),
        )
}

async fn some_progress(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.report_progress(0.0, Some(100.0), "Starts");
    sleep(MOMENT).await;
    ctx.report_progress(50.0, Some(100.0), "Is half way");
    sleep(MOMENT).await;
    ctx.report_progress(100.0, Some(100.0), "Ends");
    Ok("Reported progress")
}

async fn some_logging(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.info("Tool execution started");
    sleep(MOMENT).await;
    ctx.info("Tool processing data");
    sleep(MOMENT).await;
    ctx.info("Tool execution completed");
    Ok("Wrote log messages")
}

#[derive(Deserialize, JsonSchema)]
struct Times {
    /// How many times.
    #[schemars(range(max = 10_000_000))]
    n: u32,
}

async fn progress(args: Times, ctx: Context) -> Result<&'static str, ToolError> {
    let total = Some(f64::from(args.n));
    for done in 1..=args.n {
        ctx.report_progress_paced(f64::from(done), total, "").await;
    }
    Ok("done")
}

#[derive(Deserialize, JsonSchema)]
struct Flood {
    /// How many log messages.
    #[schemars(range(max = 10_000_000))]
    n: u32,
    /// The length of each.
    #[schemars(range(max = 65_536))]
    bytes: usize,
}

async fn flood(args: Flood, ctx: Context) -> Result<&'static str, ToolError> {
    let message = "x".repeat(args.bytes);
    for _ in 0..args.n {
        ctx.info(&message);
        // Yields to other tasks of the thread, and lets the call be cancelled.
        consume_budget().await;
    }
    Ok("done")
}

async fn burst(args: Times, ctx: Context) -> Result<&'static str, ToolError> {
    for _ in 0..args.n {
        ctx.send_tool_list_changed();
        consume_budget().await;
    }
    Ok("done")
}

#[derive(Deserialize, JsonSchema)]
struct Touched {
    /// The resource.
    uri: String,
}

async fn touch_resource(args: Touched, ctx: Context) -> Result<String, ToolError> {
    ctx.send_resource_updated(&args.uri);
    Ok(format!("Touched {}", args.uri))
}
