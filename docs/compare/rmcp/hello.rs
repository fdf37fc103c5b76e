use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::stdio;
use rmcp::{ServiceExt, tool, tool_router};
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Server.serve(stdio()).await?.waiting().await?;
    Ok(())
}
