//! A live view of an MCP server and of its cluster: a page for people, and the same as JSON.
//!
//! [`router`] is merged into an application of axum, and [`serve`] has a listener of its own, on the
//! loopback interface. Every node answers for all nodes that have a console: it asks the others, and
//! says which did not answer.
//!
//! A console costs nothing while nobody looks at it. What the page shows are the views and counters
//! that an engine has anyway. Only the log and the progress of calls need the engine's events: the
//! console subscribes to them when somebody looks, and ends that half a minute later. What became of
//! each message to a session is noted while somebody follows that session.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use stentor::{Engine, console};
//!
//! let engine = Engine::builder("My Server", "1.0.0").start().await?;
//! let console = console::serve(&engine, console::ConsoleConfig::new(), 7667).await?;
//! println!("Console: http://{}/", console.address());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod act;
mod actors;
mod answer;
mod api;
mod clock;
mod config;
mod gate;
mod lookout;
mod page;
mod query;
mod serve;
mod sessions;

use std::sync::Arc;

use axum::Router;
use stentor_engine::Engine;

pub use config::{ConsoleConfig, Operator};
pub use serve::{Console, serve};

/// The pages and the JSON of the console, to be merged into an application or nested below a path.
///
/// From now on the engine also answers for this console when it is asked by those of other nodes. An
/// engine has one console: a second one takes the place of the first for other nodes.
pub fn router(engine: &Engine, config: ConsoleConfig) -> Router {
    let node = Arc::new(answer::Node::new(engine.clone(), config));
    answer::answer_peers(&node);
    page::routes()
        .merge(api::routes(node.clone()))
        .layer(axum::middleware::from_fn_with_state(node, gate::check))
}
