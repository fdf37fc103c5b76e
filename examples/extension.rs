//! An extension of the protocol, with a method and a notification of its own.
//!
//!     cargo run --release -p stentor-examples --example extension       # http://127.0.0.1:8000/mcp
//!
//! Clients see it in `capabilities.extensions`, call `counter/add`, and hear of each new count:
//! legacy clients always, modern ones if their listen has `"counterChanged": true`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use stentor::{Context, Engine, ToolError, extension};

#[derive(Deserialize)]
struct Add {
    by: i64,
}

#[derive(Clone, Serialize)]
struct Count {
    count: i64,
}

const CHANGED: &str = "notifications/counter/changed";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _logs = stentor_examples::log("info");
    let counter = Arc::new(AtomicI64::new(0));
    let add = move |add: Add, ctx: Context| {
        let count = Count { count: counter.fetch_add(add.by, Ordering::Relaxed) + add.by };
        async move {
            ctx.notify_all(CHANGED, &count).await?;
            Ok::<_, ToolError>(count)
        }
    };
    let counting = extension("com.example/counter")
        .settings(serde_json::json!({"start": 0}))
        .method("counter/add", add)
        .notification(CHANGED, "counterChanged");
    let engine = Engine::builder("Counter", "1.0.0").extension(counting).start().await?;
    Ok(stentor::http::serve(engine, "127.0.0.1:8000").await?)
}
