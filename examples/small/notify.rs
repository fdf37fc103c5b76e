//! A tool that notifies its caller later.

use std::time::Duration;

use stentor::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Remind {
    text: String,
}

async fn remind(args: Remind, ctx: Context) -> Result<&'static str, ToolError> {
    let session = ctx.session().ok_or_else(|| ToolError::new("only for clients with a session"))?;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        session.notify("notifications/reminder", json!({"text": args.text})).await
    });
    Ok("in a second")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let remind = tool("remind", remind).description("Reminds its caller, a second later");
    let engine = Engine::builder("notify", "1.0.0").tool(remind).start().await?;
    stentor::http::serve(engine, "127.0.0.1:8000").await?;
    Ok(())
}
