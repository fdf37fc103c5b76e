//! Users with a token each, a tool that only administrators see, and a tool that needs a scope.

use stentor::http::{HttpConfig, StaticTokens, serve_with};
use stentor::identity::Identity;
use stentor::prelude::*;

async fn whoami(ctx: Context) -> String {
    ctx.principal().unwrap_or("somebody").to_owned()
}

async fn clear(ctx: Context) -> String {
    format!("cleared, because {} says so", ctx.principal().unwrap_or("somebody"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real server reads random tokens from its environment. For tokens of OAuth see `secured`.
    let ann = Identity::named("ann").roles(["admin"]).scopes(["notes:read", "notes:write"]);
    let bob = Identity::named("bob").scopes(["notes:read"]);
    let tokens = StaticTokens::new([("the-token-of-ann", ann), ("the-token-of-bob", bob)])?;

    let engine = Engine::builder("auth", "1.0.0")
        .tool(tool("whoami", whoami).description("Says who calls"))
        // For Bob it does not exist: it is not in his list, and a call is answered as for no tool.
        .tool(tool("users", || async { "ann, bob" }).description("Lists users").only_for(["admin"]))
        // Bob sees it. His call does not run: the answer tells his client which scope it needs.
        .tool(tool("clear", clear).description("Deletes all notes").require_scope("notes:write"))
        .start()
        .await?;
    // A request without a token, or with another one, is answered with 401.
    serve_with(engine, "127.0.0.1:8000", HttpConfig::new().auth(tokens)).await?;
    Ok(())
}
