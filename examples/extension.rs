//! An extension of the protocol, with a method and a notification of its own.
//!
//!     cargo run --release -p stentor-examples --example extension       # http://127.0.0.1:8000/mcp
//!
//! Clients see it in `capabilities.extensions`, call `counter/add`, and hear of each new count:
//! legacy clients always, modern ones if their listen has `"counterChanged": true`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stentor::{Context, Engine, Json, State, extension, observe::Stopped};

#[derive(Deserialize, JsonSchema)]
struct Add {
    by: i64,
}

#[derive(Serialize)]
struct Count {
    count: i64,
}

const CHANGED: &str = "notifications/counter/changed";

async fn add(
    args: Add,
    State(counter): State<Arc<AtomicI64>>,
    ctx: Context,
) -> Result<Json<Count>, Stopped> {
    let count = Count { count: counter.fetch_add(args.by, Ordering::Relaxed) + args.by };
    ctx.notify_all(CHANGED, &count).await?;
    Ok(Json(count))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _logs = stentor_examples::log("info");
    let counting = extension("com.example/counter")
        .settings(serde_json::json!({"start": 0}))
        .method("counter/add", add)
        .notification(CHANGED, "counterChanged");
    let engine = Engine::builder("Counter", "1.0.0")
        .state(Arc::new(AtomicI64::new(0)))
        .extension(counting)
        .start()
        .await?;
    Ok(stentor::http::serve(engine, "127.0.0.1:8000").await?)
}
