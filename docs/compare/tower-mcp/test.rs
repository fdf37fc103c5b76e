use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tower_mcp::{CallToolResult, McpRouter, TestClient, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

#[tool_fn(description = "Greets somebody")]
async fn greet(args: Greet) -> Result<CallToolResult, tower_mcp::Error> {
    Ok(CallToolResult::text(format!("Hello, {}!", args.name)))
}

#[tokio::test]
async fn the_tool_greets() {
    let mut client = TestClient::from_router(McpRouter::new().tool(greet_tool()));
    client.initialize().await;
    let result = client.call_tool("greet", json!({"name": "Ada"})).await;
    assert_eq!(result.all_text(), "Hello, Ada!");
}
