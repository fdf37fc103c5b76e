//! The server of the suite `durable`. It stores its tasks in the file named by its argument, and
//! prints its HTTP address on a line.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use stentor::http::{HttpConfig, serve_on};
use stentor::{Context, Engine, ToolError, handler::AsTask, task::RedbTaskStore, tool};
use tokio::net::TcpListener;
use tokio::time::sleep;

#[derive(Deserialize, JsonSchema)]
struct Work {
    n: u64,
    ms: u64,
}

async fn work(args: Work) -> Result<String, ToolError> {
    sleep(Duration::from_millis(args.ms)).await;
    Ok(args.n.to_string())
}

#[derive(Deserialize, JsonSchema)]
struct Steps {
    count: u64,
    ms: u64,
}

/// Counts, and answers with the step from which it began, and the process in which it ended.
async fn steps(args: Steps, ctx: Context) -> Result<String, ToolError> {
    let from = ctx.last_checkpoint().and_then(Value::as_u64).unwrap_or(0);
    for step in from..args.count {
        sleep(Duration::from_millis(args.ms)).await;
        ctx.checkpoint(step + 1).await?;
        ctx.report_progress((step + 1) as f64, None, step + 1);
    }
    Ok(format!("{from} {}", std::process::id()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the file is missing")?;
    let store = Arc::new(RedbTaskStore::open(path).await?);
    let engine = Engine::builder("durable", "1")
        .configure(|config| config.tasks.store = store)
        .tool(tool("work", work).as_task(AsTask::Always))
        .tool(tool("steps", steps).as_task(AsTask::Always).resumable())
        .start()
        .await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    serve_on(engine, listener, HttpConfig::default(), stentor::signal::terminated()).await?;
    Ok(())
}
