//! A tool that counts the calls of all clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stentor::prelude::*;

async fn count(State(calls): State<Arc<AtomicU64>>) -> String {
    (calls.fetch_add(1, Ordering::Relaxed) + 1).to_string()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder("state", "1.0.0")
        .state(Arc::new(AtomicU64::new(0)))
        .tool(tool("count", count).description("Counts its calls"))
        .start()
        .await?;
    stentor::http::serve(engine, "127.0.0.1:8000").await?;
    Ok(())
}
