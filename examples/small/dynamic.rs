//! A tool that adds another one while the server runs.

use stentor::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Learn {
    name: String,
}

async fn learn(args: Learn, ctx: Context) -> Result<&'static str, ToolError> {
    let answer = format!("I am {}", args.name);
    let learnt = tool(args.name, move || std::future::ready(answer.clone()));
    ctx.catalog().add(learnt.description("Says its name")).await?;
    Ok("learnt")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let learn = tool("learn", learn).description("Adds a tool");
    let engine = Engine::builder("dynamic", "1.0.0").tool(learn).start().await?;
    stentor::http::serve(engine, "127.0.0.1:8000").await?;
    Ok(())
}
