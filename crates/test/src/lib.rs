//! A client to test a server with: in memory, without a port, and in both eras of the protocol.
//!
//! ```
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//! use serde_json::json;
//! use stentor::test::Client;
//! use stentor::{Engine, ToolError, tool};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Greet {
//!     name: String,
//! }
//!
//! async fn greet(args: Greet) -> Result<String, ToolError> {
//!     Ok(format!("Hello, {}!", args.name))
//! }
//!
//! # async fn check() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder("Greeter", "1.0.0").tool(tool("greet", greet)).start().await?;
//! let client = Client::connect(&engine).await;
//! let reply = client.call_tool("greet", json!({"name": "Ann"})).await?;
//! assert_eq!(reply.text(), "Hello, Ann!");
//! # Ok(())
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(check()).unwrap();
//! ```
//!
//! The client works with paused time (`#[tokio::test(start_paused = true)]`), and with a runtime of
//! one thread or of several. Every message goes through the same decoding, sessions and streams as
//! one that comes over stdio.
//!
//! | in a test | |
//! |---|---|
//! | [`Client::connect`], [`Client::legacy`] | a client of the modern or the legacy era |
//! | [`Client::builder`] | one with capabilities, a principal, a version, and answers to questions |
//! | [`Client::call_tool`], [`Client::start_tool`] | a tool's result; its progress and log messages while it runs |
//! | [`Client::notices`], [`Client::watch`] | changes of lists, updates of resources |
//! | [`assert_notified`], [`assert_silent`] | that a notice comes; that none does |
//! | [`Client::request`] | any other method, as `tasks/get` or one of an extension |
//! | [`Raw`] | single messages, also wrong ones |
//! | [`stores`] | checks for a store of one's own |
//!
//! # Questions to the client
//!
//! A closure answers them, in both eras: as the response to a request of the server, or in the retry
//! of a modern request, which the client sends by itself.
//!
//! ```
//! # use schemars::JsonSchema;
//! # use serde::Deserialize;
//! # use serde_json::json;
//! # use stentor::test::{Answer, Client};
//! # use stentor::{Context, Engine, ToolError, tool};
//! # #[derive(Deserialize, JsonSchema)]
//! # struct Login {
//! #     user: String,
//! # }
//! # async fn login(ctx: Context) -> Result<String, ToolError> {
//! #     Ok(ctx.elicit::<Login>("Who are you?").await?.user)
//! # }
//! # async fn check() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = Engine::builder("Greeter", "1.0.0").tool(tool("login", login)).start().await?;
//! let client = Client::builder(&engine)
//!     .on_elicit(|question| {
//!         assert_eq!(question.message(), "Who are you?");
//!         Answer::accept(json!({"user": "ann"}))
//!     })
//!     .connect()
//!     .await;
//! assert_eq!(client.call_tool("login", ()).await?.text(), "ann");
//! # Ok(())
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(check()).unwrap();
//! ```
//!
//! # Notices
//!
//! ```
//! # use stentor::test::{Client, Notice, assert_notified, assert_silent};
//! # use stentor::{Engine, ToolError, tool};
//! # async fn check() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = Engine::builder("Greeter", "1.0.0").start().await?;
//! let client = Client::connect(&engine).await;
//! let mut notices = client.notices().await;
//! engine.catalog().add(tool("noon", || async { "12:00" })).await?;
//! assert_notified(&mut notices, Notice::ToolsChanged).await;
//! engine.send_resource_updated("file:///unwatched");
//! assert_silent(&mut notices).await;
//! # Ok(())
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(check()).unwrap();
//! ```

mod ask;
mod builder;
mod call;
mod client;
mod link;
mod notices;
mod raw;

pub use ask::{Answer, ElicitRequest, SampleRequest};
pub use builder::Builder;
pub use call::{Log, Progress, RunningCall, ToolReply};
pub use client::Client;
pub use notices::{Notice, Notices, PATIENCE, assert_notified, assert_silent};
pub use raw::Raw;

/// What every store has to do, for tests of a store of one's own.
pub mod stores {
    pub use stentor_engine::testing::{
        SharedStore, event_store_keeps_its_contract, event_store_outlives_its_process,
        session_record, session_store_keeps_its_contract, task_record,
        task_store_keeps_its_contract,
    };
}
