use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{Peer, RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

#[derive(Deserialize, JsonSchema)]
struct Remind {
    text: String,
}

struct Server;

#[tool_router(server_handler)]
impl Server {
    #[tool(description = "Reminds its caller, a second later")]
    async fn remind(
        &self,
        Parameters(args): Parameters<Remind>,
        client: Peer<RoleServer>,
    ) -> String {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let params = json!({"text": args.text});
            let notification = CustomNotification::new("notifications/reminder", Some(params));
            client.send_notification(ServerNotification::CustomNotification(notification)).await
        });
        "in a second".to_owned()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = StreamableHttpService::new(
        || Ok(Server),
        Arc::new(LocalSessionManager::default()),
        Default::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
