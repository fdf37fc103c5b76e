//! Middleware around every call, read and list, around one tool, and around a bundle.

use std::time::Duration;

use stentor::prelude::*;
use stentor::{
    handler::CallError,
    middleware::{AccessLog, Next, Operation, OperationKind, RateLimit, Reply, Timeout},
};

/// The tools of the bundle are for users who are known.
async fn known_users_only(operation: Operation, next: Next) -> Result<Reply, CallError> {
    if operation.kind() == OperationKind::Tool && operation.context().principal().is_none() {
        return Err(CallError::new("who are you?"));
    }
    next.run(operation).await
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(60)).await;
    "done"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let slow = tool("slow", slow).description("Is too slow").layer(Timeout(Duration::from_secs(1)));
    let clocks = Toolbox::new()
        .tool(tool("noon", || async { "12:00" }).description("Tells noon"))
        .tool(tool("midnight", || async { "0:00" }).description("Tells midnight"))
        .layer(known_users_only);
    let engine = Engine::builder("middleware", "1.0.0")
        .tool(slow)
        // The tools `berlin_noon` and `berlin_midnight`.
        .toolbox(clocks.nested("berlin"))
        .layer(RateLimit::new(100, Duration::from_secs(60)))
        // The last one is the outermost: it sees what the limit refuses, too.
        .layer(AccessLog)
        .start()
        .await?;
    stentor::http::serve(engine, "127.0.0.1:8000").await?;
    Ok(())
}
