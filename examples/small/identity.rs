//! A tool that says who calls.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use stentor::http::{HttpConfig, router};
use stentor::prelude::*;
use tokio::net::TcpListener;

async fn whoami(user: Principal) -> String {
    user.0.to_string()
}

async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let token = request.headers().get("authorization").and_then(|it| it.to_str().ok());
    let user = match token {
        Some("Bearer ada's token") => Principal("ada".into()),
        Some("Bearer bob's token") => Principal("bob".into()),
        _ => return Err(StatusCode::UNAUTHORIZED),
    };
    request.extensions_mut().insert(user);
    Ok(next.run(request).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let whoami = tool("whoami", whoami).description("Says who calls");
    let engine = Engine::builder("identity", "1.0.0").tool(whoami).start().await?;
    let app = router(engine, HttpConfig::default()).layer(from_fn(authenticate));
    axum::serve(TcpListener::bind("127.0.0.1:8000").await?, app).await?;
    Ok(())
}
