use std::sync::{Arc, Mutex};

use axum::Router;
use rmcp::handler::server::router::tool::{ToolRoute, ToolRouter};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, ServerCapabilities, ServerConfig, Tool};
use rmcp::service::NotificationContext;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{Peer, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Deserialize, JsonSchema)]
struct Learn {
    name: String,
}

#[derive(Clone)]
struct Server {
    tools: Arc<Mutex<ToolRouter<Self>>>,
    clients: Arc<Mutex<Vec<Peer<RoleServer>>>>,
}

#[tool_router]
impl Server {
    fn new() -> Self {
        Self { tools: Arc::new(Mutex::new(Self::tool_router())), clients: Arc::default() }
    }

    fn tools(&self) -> ToolRouter<Self> {
        self.tools.lock().unwrap().clone()
    }

    #[tool(description = "Adds a tool")]
    async fn learn(&self, Parameters(args): Parameters<Learn>) -> String {
        let answer = format!("I am {}", args.name);
        let tool = Tool::new(args.name, "Says its name", rmcp::object!({"type": "object"}));
        let route = ToolRoute::new_dyn(tool, move |_| {
            let result = CallToolResult::success(vec![ContentBlock::text(answer.clone())]);
            Box::pin(async { Ok(result.into()) })
        });
        self.tools.lock().unwrap().add_route(route);
        let clients = self.clients.lock().unwrap().clone();
        for client in clients {
            client.notify_tool_list_changed().await.ok();
        }
        "learnt".to_owned()
    }
}

#[tool_handler(router = self.tools())]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build(),
        )
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let mut clients = self.clients.lock().unwrap();
        clients.retain(|client| !client.is_transport_closed());
        clients.push(context.peer);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::new();
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(LocalSessionManager::default()),
        Default::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
