use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tower_mcp::extract::State;
use tower_mcp::{BoxError, CallToolResult, HttpTransport, McpRouter, ToolBuilder};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let count = ToolBuilder::new("count")
        .description("Counts its calls")
        .extractor_handler(
            Arc::new(AtomicU64::new(0)),
            |State(calls): State<Arc<AtomicU64>>| async move {
                let calls = calls.fetch_add(1, Ordering::Relaxed) + 1;
                Ok::<_, tower_mcp::Error>(CallToolResult::text(calls.to_string()))
            },
        )
        .build();
    let router = McpRouter::new().server_info("state", "1.0.0").tool(count);
    HttpTransport::new(router).serve("127.0.0.1:8000").await?;
    Ok(())
}
