use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use rmcp::handler::server::common::Extension;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{tool, tool_router};
use tokio::net::TcpListener;

#[derive(Clone)]
struct User(&'static str);

struct Server;

#[tool_router(server_handler)]
impl Server {
    #[tool(description = "Says who calls")]
    async fn whoami(&self, Extension(request): Extension<Parts>) -> String {
        request.extensions.get::<User>().map(|user| user.0.to_owned()).unwrap_or_default()
    }
}

async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let token = request.headers().get("authorization").and_then(|it| it.to_str().ok());
    let user = match token {
        Some("Bearer ada's token") => User("ada"),
        Some("Bearer bob's token") => User("bob"),
        _ => return Err(StatusCode::UNAUTHORIZED),
    };
    request.extensions_mut().insert(user);
    Ok(next.run(request).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = StreamableHttpService::new(
        || Ok(Server),
        Arc::new(LocalSessionManager::default()),
        Default::default(),
    );
    let app = Router::new().nest_service("/mcp", service).layer(from_fn(authenticate));
    axum::serve(TcpListener::bind("127.0.0.1:8000").await?, app).await?;
    Ok(())
}
