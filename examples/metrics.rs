//! The endpoint inside a custom HTTP server, next to a metrics page for Prometheus.
//!
//!     cargo run --release -p stentor-examples --example metrics      # http://127.0.0.1:8000/mcp and /metrics
//!
//! `stentor::metrics` lists the metrics and their names.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use stentor::http::{HttpConfig, router};
use stentor::metrics::BUCKETS;
use stentor::{Context, Engine, ToolError, signal, tool};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How many connections may wait to be accepted. The kernel may have a lower limit.
const BACKLOG: u32 = 4_096;

/// Must stay below `ulimit -n`.
const MAX_CONNECTIONS: usize = 900;

/// How long the head of a request may take, and so how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long connections may still send their buffered data after the engine has stopped.
const LAST_BYTES: Duration = Duration::from_secs(1);

async fn count_down(ctx: Context) -> Result<&'static str, ToolError> {
    for second in 1..=3 {
        sleep(Duration::from_secs(1)).await;
        ctx.report_progress(f64::from(second), Some(3.0), "");
    }
    Ok("Lift-off")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _logs = stentor_examples::log("info");
    // Must come before the engine starts, because the engine looks up its histograms then.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), &BUCKETS)?
        .install_recorder()?;
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
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind("127.0.0.1:8000".parse()?)?;
    let listener = socket.listen(BACKLOG)?;
    tracing::info!("serving http://127.0.0.1:8000/mcp and /metrics");
    let ending = engine.clone();
    // Shuts the engine down first, which ends its streams. The server waits for them.
    let shutdown = async move {
        tokio::select! {
            () = signal::terminated() => {}
            () = ending.draining() => {}
        }
        ending.shutdown().await;
    };
    serve(listener, app, shutdown).await;
    // Fails if the engine ended although nobody asked for it.
    Ok(engine.stopped().await.asked()?)
}

/// Adds what `axum::serve` lacks: limits on the time to wait for the head of a request, also at
/// shutdown, and on the number of connections.
async fn serve(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async { (permits.clone().acquire_owned().await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        let Ok((stream, _)) = accepted else {
            // For example no file descriptor is left; another connection may free one.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A broken connection affects no other connection.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    // With a time limit, because a partial head may never become complete.
    let _ = timeout(LAST_BYTES, connections.shutdown()).await;
}
