//! A server of one's own around the endpoint, with a page for Prometheus beside it.
//!
//!     cargo run --release --example metrics      # http://127.0.0.1:8000/mcp and /metrics
//!
//! What is counted, and under which names: `stentor::metrics`.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusBuilder;
use stentor::http::{HttpConfig, router};
use stentor::{Context, Engine, ToolError, signal, tool};
use tokio::net::TcpListener;

async fn count_down(ctx: Context) -> Result<&'static str, ToolError> {
    for second in 1..=3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ctx.report_progress(f64::from(second), Some(3.0), "");
    }
    Ok("Lift-off")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    // Before the engine starts, which looks up its histograms then.
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    let engine =
        Engine::builder("metered", "1.0.0").tool(tool("count_down", count_down)).start().await?;

    let metered = engine.clone();
    let page = get(move || async move {
        metered.record_metrics();
        prometheus.run_upkeep();
        prometheus.render()
    });
    let app =
        Router::new().route("/metrics", page).merge(router(engine.clone(), HttpConfig::default()));
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    tracing::info!("serving http://127.0.0.1:8000/mcp and /metrics");
    // The engine first, which ends its streams; the server waits for them.
    let shutdown = async move {
        signal::terminated().await;
        engine.shutdown().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
    Ok(())
}
