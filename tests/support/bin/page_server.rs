//! The server of `tests/interop/browser.sh`: one engine, with one endpoint for each configuration
//! that matters to a web page. The arguments are the allowed origins. For each endpoint it prints a
//! line with its name and port.

use std::error::Error;
use std::future::pending;
use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use stentor::http::{HttpConfig, OriginPolicy, router, serve_on};
use stentor::{Context, Engine, ToolError, raw_tool, tool};
use tokio::net::TcpListener;

/// Reports progress before the answer, so that the response is a stream.
async fn count(ctx: Context) -> Result<&'static str, ToolError> {
    for step in 1..=3 {
        ctx.report_progress(f64::from(step), Some(3.0), format!("step {step}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok("counted")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = std::env::args().skip(1).fold(OriginPolicy::loopback(), OriginPolicy::with_origin);
    let mirrored = json!({"type": "object", "properties": {
        "zone": {"type": "string", "x-mcp-header": "Zone"},
    }});
    let engine = Engine::builder("pages", "1")
        .tool(tool("count", count))
        .tool(tool("change", |ctx: Context| async move {
            ctx.send_tool_list_changed();
            "changed"
        }))
        .tool(raw_tool("zone", mirrored, |args: serde_json::Value| async move {
            args["zone"].as_str().unwrap_or_default().to_owned()
        }))
        .start()
        .await?;

    let mut out = std::io::stdout();
    let mut listen = async |endpoint: &str, address: &str| -> Result<TcpListener, Box<dyn Error>> {
        let listener = TcpListener::bind(address).await?;
        writeln!(out, "{endpoint} {}", listener.local_addr()?.port())?;
        out.flush()?;
        Ok(listener)
    };
    let mut listed = HttpConfig::default();
    listed.origins = policy;
    let mut closed = listed.clone();
    closed.require_identity = true;
    for (endpoint, address, config) in [
        ("serve", "127.0.0.1:0", listed.clone()),
        ("open", "0.0.0.0:0", HttpConfig::default()),
        ("closed", "127.0.0.1:0", closed),
    ] {
        let listener = listen(endpoint, address).await?;
        tokio::spawn(serve_on(engine.clone(), listener, config, pending()));
    }
    let listener = listen("router", "127.0.0.1:0").await?;
    axum::serve(listener, router(engine, listed)).await?;
    Ok(())
}
