use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tower_mcp::extract::{Context, Json};
use tower_mcp::protocol::{LogLevel, LoggingMessageParams};
use tower_mcp::{BoxError, CallToolResult, HttpTransport, McpRouter, ToolBuilder};

#[derive(Deserialize, JsonSchema)]
struct Remind {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let remind = ToolBuilder::new("remind")
        .description("Reminds its caller, a second later")
        .extractor_handler((), |ctx: Context, Json(args): Json<Remind>| async move {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                ctx.send_log(LoggingMessageParams::new(LogLevel::Info, args.text));
            });
            Ok::<_, tower_mcp::Error>(CallToolResult::text("in a second"))
        })
        .build();
    let router = McpRouter::new().server_info("notify", "1.0.0").tool(remind);
    HttpTransport::new(router).serve("127.0.0.1:8000").await?;
    Ok(())
}
