//! A tool with an argument, over stdio.

use stentor::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

async fn greet(args: Greet) -> String {
    format!("Hello, {}!", args.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let greet = tool("greet", greet).description("Greets somebody");
    let engine = Engine::builder("hello", "1.0.0").tool(greet).start().await?;
    stentor::stdio::serve(&engine).await?;
    Ok(())
}
