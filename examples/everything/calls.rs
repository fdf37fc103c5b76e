//! Other things that a call can do: answer, wait, be cancelled, panic.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stentor::{Context, EngineBuilder, ToolError, tool};

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    let counts = Arc::new(Counts::default());
    let counted = counts.clone();
    server
        .tool(tool("echo", echo).description("Returns the text"))
        .tool(tool("sleep", sleep).description("Waits"))
        .tool(
            tool("slow_tool", move |args| slow_tool(counted.clone(), args))
                .description("Waits, and counts how that ends"),
        )
        .tool(
            tool("cancel_log", move || ready(serde_json::to_string(&*counts)))
                .description("Tells how the calls of slow_tool ended so far"),
        )
        .tool(
            tool("test_reconnection", reconnection)
                .description("Closes its stream; the result waits for the client to come back"),
        )
        .tool(tool("panic", panics).description("Panics"))
}

#[derive(Deserialize, JsonSchema)]
struct Echo {
    text: String,
}

async fn echo(args: Echo) -> Result<String, ToolError> {
    Ok(args.text)
}

#[derive(Deserialize, JsonSchema)]
struct Sleep {
    /// For how many milliseconds.
    #[schemars(range(max = 3_600_000))]
    ms: u64,
}

async fn sleep(args: Sleep) -> Result<&'static str, ToolError> {
    tokio::time::sleep(Duration::from_millis(args.ms)).await;
    Ok("slept")
}

async fn reconnection(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.close_stream();
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok("Reconnection test completed successfully")
}

#[derive(Deserialize, JsonSchema)]
struct Slow {
    /// For how long.
    #[schemars(range(min = 0, max = 3_600))]
    seconds: f64,
}

async fn slow_tool(counts: Arc<Counts>, args: Slow) -> Result<&'static str, ToolError> {
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let call = Counted::start(counts);
    tokio::time::sleep(time).await;
    call.finish();
    Ok("done")
}

/// The numbers of calls of `slow_tool`, by outcome.
#[derive(Default, Serialize)]
struct Counts {
    started: AtomicU64,
    cancelled: AtomicU64,
    finished: AtomicU64,
}

/// Counts a call as cancelled if it is dropped before it has finished.
struct Counted {
    counts: Arc<Counts>,
    finished: bool,
}

impl Counted {
    fn start(counts: Arc<Counts>) -> Self {
        counts.started.fetch_add(1, Ordering::Relaxed);
        Self { counts, finished: false }
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Counts { cancelled, finished, .. } = &*self.counts;
        let ended = if self.finished { finished } else { cancelled };
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

async fn panics() -> Result<(), ToolError> {
    panic!("the tool was asked to panic")
}
