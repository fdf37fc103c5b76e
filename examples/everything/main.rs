//! One of everything: the fixture server of the official MCP conformance suite, with more tools
//! for probes and measurements.
//!
//!     cargo run --release --example everything                  # http://127.0.0.1:8090/mcp
//!     cargo run --release --example everything -- --http ADDR
//!     cargo run --release --example everything -- --stdio

mod asking;
mod calls;
mod changes;
mod content;
mod input_required;
mod notices;
mod prompts;
mod resources;
mod schemas;
mod tasks;

use stentor::Engine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without a span for each actor, which nobody reads and every actor pays for.
    let filter = tracing_subscriber::EnvFilter::new("info,ractor=warn");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    // One client at the other end of a pipe gives one thread enough to do; a second one would be
    // woken for nothing with each request.
    let mut runtime = match arguments[..] {
        ["--stdio"] => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    // The suite calls the first tool without arguments, so those of `content` come first.
    let parts = [
        content::offer,
        schemas::offer,
        notices::offer,
        asking::offer,
        input_required::offer,
        changes::offer,
        calls::offer,
        resources::offer,
        prompts::offer,
        tasks::offer,
    ];
    let server = Engine::builder("Stentor Everything", env!("CARGO_PKG_VERSION"));
    let engine = parts.into_iter().fold(server, |server, offer| offer(server)).start().await?;

    match arguments {
        ["--stdio"] => stentor::stdio::serve(&engine).await?,
        ["--http", address] => serve(engine, address).await?,
        [] => serve(engine, "127.0.0.1:8090").await?,
        _ => return Err("usage: everything [--stdio | --http ADDR]".into()),
    }
    Ok(())
}

async fn serve(engine: Engine, address: &str) -> Result<(), stentor::http::ServeError> {
    eprintln!("Serving http://{address}/mcp. Ctrl-C ends it.");
    stentor::http::serve(engine, address).await
}
