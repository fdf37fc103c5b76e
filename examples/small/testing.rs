//! A test of a tool, in memory.

use stentor::prelude::*;
use stentor::test::Client;

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

async fn greet(args: Greet) -> String {
    format!("Hello, {}!", args.name)
}

#[tokio::test]
async fn the_tool_greets() -> Result<(), Box<dyn std::error::Error>> {
    let greet = tool("greet", greet).description("Greets somebody");
    let engine = Engine::builder("test", "1.0.0").tool(greet).start().await?;
    let client = Client::connect(&engine).await;
    assert_eq!(client.call_tool("greet", json!({"name": "Ada"})).await?.text(), "Hello, Ada!");
    Ok(())
}
