//! A server of one's own around the endpoint, with a page for Prometheus beside it.
//!
//!     cargo run --release --example metrics      # http://127.0.0.1:8000/mcp and /metrics
//!
//! What is counted, and under which names: `stentor::metrics`.

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
use metrics_exporter_prometheus::PrometheusBuilder;
use stentor::http::{HttpConfig, router};
use stentor::{Context, Engine, ToolError, signal, tool};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How many connections may wait to be accepted; the kernel may take fewer.
const BACKLOG: u32 = 4_096;

/// To be kept below `ulimit -n`.
const MAX_CONNECTIONS: usize = 900;

/// How long the head of a request is waited for, and so how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// After the engine has stopped, how long connections get to send what they hold.
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
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind("127.0.0.1:8000".parse()?)?;
    let listener = socket.listen(BACKLOG)?;
    tracing::info!("serving http://127.0.0.1:8000/mcp and /metrics");
    let ending = engine.clone();
    // The engine first, which ends its streams; the server waits for them.
    let shutdown = async move {
        tokio::select! {
            () = signal::terminated() => {}
            () = ending.draining() => {}
        }
        ending.shutdown().await;
    };
    serve(listener, app, shutdown).await;
    // No good end if nobody asked for it.
    Ok(engine.stopped().await.asked()?)
}

/// What `axum::serve` leaves out: it waits for the head of a request without end, also at its own end,
/// and accepts as many connections as come.
async fn serve(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connections = GracefulShutdown::new();
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async { (seats.clone().acquire_owned().await, listener.accept().await) };
        let (seat, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        let Ok((stream, _)) = accepted else {
            // As with no file left, which another connection may give back.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // One that breaks concerns nobody else.
            let _ = connection.await;
            drop(seat);
        });
    }
    drop(listener);
    // Not for longer: half a head may never become a whole one.
    let _ = timeout(LAST_BYTES, connections.shutdown()).await;
}
