use schemars::JsonSchema;
use serde::Deserialize;
use tower_mcp::{BoxError, CallToolResult, McpRouter, StdioTransport, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

#[tool_fn(description = "Greets somebody")]
async fn greet(args: Greet) -> Result<CallToolResult, tower_mcp::Error> {
    Ok(CallToolResult::text(format!("Hello, {}!", args.name)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let router = McpRouter::new().server_info("hello", "1.0.0").tool(greet_tool());
    StdioTransport::new(router).run().await?;
    Ok(())
}
