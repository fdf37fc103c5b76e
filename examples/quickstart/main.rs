//! Four tools that report progress, write log messages and change the lists of the server.
//!
//!     cargo run --release --example quickstart                  # http://127.0.0.1:8000/mcp
//!     cargo run --release --example quickstart -- --http ADDR
//!     cargo run --release --example quickstart -- --stdio

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use stentor::console::{self, ConsoleConfig};
use stentor::{Context, Engine, Shown, ToolError, tool};
use tokio::time::sleep;

#[derive(Deserialize, JsonSchema)]
struct Batch {
    /// What to process, in this order.
    #[schemars(length(max = 1_000))]
    items: Vec<String>,
}

async fn process_batch(args: Batch, ctx: Context) -> String {
    let total = args.items.len();
    for (i, item) in args.items.iter().enumerate() {
        process(item).await;
        let done = i + 1;
        ctx.report_progress(
            done as f64 / total as f64,
            Some(1.0),
            format!("Processed {done}/{total}"),
        );
    }
    format!("Processed {total} items")
}

async fn process(_item: &str) {
    sleep(Duration::from_millis(400)).await;
}

#[derive(Deserialize, JsonSchema)]
struct NewTool {
    /// The name of the new tool.
    #[schemars(length(min = 1, max = 128))]
    tool_name: String,
}

/// The most tools of the server, because a client may call `add_new_tool` without end.
const MOST_TOOLS: usize = 1_000;

/// The engine notifies all clients of the new tool, and they can call it.
async fn add_new_tool(args: NewTool, ctx: Context) -> Result<String, ToolError> {
    if ctx.catalog().snapshot().tool_names().count() >= MOST_TOOLS {
        return Err(ToolError::new(format!(
            "the server has {MOST_TOOLS} tools, and takes no more"
        )));
    }
    let name = args.tool_name;
    let answer: Arc<str> = format!("Hello from {name}!").into();
    let added = tool(&name, move || std::future::ready(answer.clone()))
        .description("A tool that was added while the server runs");
    // The model reads why it is refused.
    ctx.catalog().add(added).await.map_err(Shown)?;
    Ok(format!("Added the tool {name}"))
}

async fn refresh_resources(ctx: Context) -> &'static str {
    ctx.send_resource_list_changed();
    "Told every client that the resources changed"
}

#[derive(Deserialize, JsonSchema)]
struct Dataset {
    /// The file to analyze.
    #[schemars(length(max = 4_096))]
    file_path: String,
}

async fn analyze_dataset(args: Dataset, ctx: Context) -> String {
    let steps = ["Loading data", "Cleaning data", "Computing statistics", "Writing the report"];
    ctx.info(format!("Analyzing {}", args.file_path));
    for (done, step) in steps.iter().enumerate() {
        ctx.debug(format!("Begins: {step}"));
        sleep(Duration::from_millis(700)).await;
        ctx.report_progress((done + 1) as f64, Some(steps.len() as f64), step);
    }
    ctx.info("Analysis complete");
    format!("Analyzed {} in {} steps", args.file_path, steps.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A stderr that is closed, or that nobody reads, must not stop the server.
    let _logs = stentor_examples::log("info");
    let engine = Engine::builder("Stentor Quickstart", env!("CARGO_PKG_VERSION"))
        .tool(
            tool("process_batch", process_batch)
                .description("Processes items one by one and reports progress"),
        )
        .tool(tool("add_new_tool", add_new_tool).description("Adds a tool to the server"))
        .tool(
            tool("refresh_resources", refresh_resources)
                .description("Tells every client that the resources changed"),
        )
        .tool(
            tool("analyze_dataset", analyze_dataset)
                .description("Analyzes a dataset in four steps, with log messages and progress"),
        )
        .start()
        .await?;

    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--stdio"] => stentor::stdio::serve(&engine).await?,
        ["--http", address] => serve(engine, address).await?,
        [] => serve(engine, "127.0.0.1:8000").await?,
        _ => return Err("usage: quickstart [--stdio | --http ADDR]".into()),
    }
    Ok(())
}

async fn serve(engine: Engine, address: &str) -> Result<(), Box<dyn std::error::Error>> {
    // A live view, on the loopback interface only. Without `actions` it changes nothing.
    let console = console::serve(&engine, ConsoleConfig::new().actions(true), 0).await?;
    let view = console.address();
    stentor_examples::say(format!(
        "Serving http://{address}/mcp. In a second terminal:\n\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp \
         --call process_batch '{{\"items\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}}' \
         --call analyze_dataset '{{\"file_path\":\"sales.csv\"}}'\n\n\
         Or leave one watching and change the server from a third:\n\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp \
         --call add_new_tool '{{\"tool_name\":\"hello\"}}'\n\n\
         What it does now is shown on http://{view}/\n\n\
         Ctrl-C ends it.\n"
    ));
    Ok(stentor::http::serve(engine, address).await?)
}
