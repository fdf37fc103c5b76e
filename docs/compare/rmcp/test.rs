use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolRequestParams;
use rmcp::{ServiceExt, object, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

struct Server;

#[tool_router(server_handler)]
impl Server {
    #[tool(description = "Greets somebody")]
    async fn greet(&self, Parameters(args): Parameters<Greet>) -> String {
        format!("Hello, {}!", args.name)
    }
}

#[tokio::test]
async fn the_tool_greets() -> Result<(), Box<dyn std::error::Error>> {
    let (near, far) = tokio::io::duplex(4096);
    tokio::spawn(async { Server.serve(near).await.unwrap().waiting().await });
    let client = ().serve(far).await?;
    let call = CallToolRequestParams::new("greet").with_arguments(object!({"name": "Ada"}));
    let result = client.call_tool(call).await?;
    assert_eq!(result.content[0].as_text().unwrap().text, "Hello, Ada!");
    Ok(())
}
