//! A tool that says who calls.

use stentor::http::{HttpConfig, StaticTokens, serve_with};
use stentor::identity::Identity;
use stentor::prelude::*;

async fn whoami(user: Principal) -> String {
    user.0.to_string()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ada = ("the-token-of-ada", Identity::named("ada"));
    let bob = ("the-token-of-bob", Identity::named("bob"));
    let http = HttpConfig::new().auth(StaticTokens::new([ada, bob])?);
    let whoami = tool("whoami", whoami).description("Says who calls");
    let engine = Engine::builder("identity", "1.0.0").tool(whoami).start().await?;
    serve_with(engine, "127.0.0.1:8000", http).await?;
    Ok(())
}
