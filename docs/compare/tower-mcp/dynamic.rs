use schemars::JsonSchema;
use serde::Deserialize;
use tower_mcp::extract::{Json, State};
use tower_mcp::{
    BoxError, CallToolResult, DynamicToolRegistry, HttpTransport, McpRouter, NoParams, ToolBuilder,
};

#[derive(Deserialize, JsonSchema)]
struct Learn {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (router, tools) = McpRouter::new().server_info("dynamic", "1.0.0").with_dynamic_tools();
    let learn = ToolBuilder::new("learn")
        .description("Adds a tool")
        .extractor_handler(
            tools,
            |State(tools): State<DynamicToolRegistry>, Json(args): Json<Learn>| async move {
                let answer = CallToolResult::text(format!("I am {}", args.name));
                let learnt = ToolBuilder::new(args.name)
                    .description("Says its name")
                    .handler(move |_: NoParams| std::future::ready(Ok(answer.clone())))
                    .build();
                tools.register(learnt);
                Ok::<_, tower_mcp::Error>(CallToolResult::text("learnt"))
            },
        )
        .build();
    HttpTransport::new(router.tool(learn)).serve("127.0.0.1:8000").await?;
    Ok(())
}
