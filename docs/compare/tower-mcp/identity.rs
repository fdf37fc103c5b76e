use tokio::net::TcpListener;
use tower_mcp::auth::{AuthError, AuthInfo, AuthLayer, AuthResult, Validate};
use tower_mcp::extract::Extension;
use tower_mcp::{BoxError, CallToolResult, HttpTransport, McpRouter, ToolBuilder};

#[derive(Clone)]
struct Tokens;

impl Validate for Tokens {
    async fn validate(&self, token: &str) -> AuthResult {
        let user = match token {
            "ada's token" => "ada",
            "bob's token" => "bob",
            _ => {
                return AuthResult::Failed(AuthError {
                    code: "invalid_token".to_owned(),
                    message: "unknown token".to_owned(),
                });
            }
        };
        AuthResult::Authenticated(Some(AuthInfo { client_id: user.to_owned(), claims: None }))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let whoami = ToolBuilder::new("whoami")
        .description("Says who calls")
        .extractor_handler((), |Extension(user): Extension<AuthInfo>| async move {
            Ok::<_, tower_mcp::Error>(CallToolResult::text(user.client_id))
        })
        .build();
    let app = HttpTransport::new(McpRouter::new().server_info("identity", "1.0.0").tool(whoami))
        .bridge_extension::<AuthInfo>()
        .into_router_at("/mcp")
        .layer(AuthLayer::new(Tokens));
    axum::serve(TcpListener::bind("127.0.0.1:8000").await?, app).await?;
    Ok(())
}
