//! The actors of Stentor.
//!
//! A **registry** actor owns the tools, resources and prompts. A **hub** tells every session
//! what changed. A **session** actor owns what one client said and may hear. A **task** actor
//! runs one call. A **root** keeps them alive. All of them belong to one [`Engine`], a value:
//! there are no globals, no actor names and no process groups, so two engines can live in
//! one process.
//!
//! The way of a notice: [`registry`](CatalogHandle) → `hub.rs` → [`outlet`] → a transport.

#[cfg(not(feature = "cluster"))]
macro_rules! message {
    ($type:ty) => {};
}

/// With ractor's `cluster` feature a message is one only if it says so.
#[cfg(feature = "cluster")]
macro_rules! message {
    ($type:ty) => {
        impl ractor::Message for $type {}
    };
}

pub(crate) use message;

mod config;
mod core;
mod directory;
mod dispatch;
mod embed;
mod end;
mod engine;
mod events;
mod handler;
mod hub;
mod ids;
#[doc(hidden)]
pub mod log;
pub mod metrics;
mod observe;
mod offload;
pub mod outlet;
pub mod peers;
pub mod port;
mod registry;
mod request_budget;
mod root;
mod session;
mod shares;
mod task;
mod tasks;
pub mod testing;
mod welcome;

pub use config::{Config, ListCache};
pub use embed::{ActorToolFn, Audience, EngineMsg, FindActor, actor_tool};
pub use end::{Ended, EndedUnasked};
pub use engine::{CatalogHandle, Engine, EngineBuilder, StartError, Stopped};
pub use events::{CallOutcome, CallRef, EngineEvent, EventBatch, EventReceiver};
pub use handler::{
    ArgumentProblem, CallError, Completion, IntoContents, IntoPromptResult, IntoToolResult, Prompt,
    PromptArgs, PromptError, PromptFn, Resource, ResourceError, ResourceTemplate, SchemaError,
    Structured, TemplateError, TemplateVars, Tool, ToolError, ToolFn, prompt, raw_tool, resource,
    resource_template, tool,
};
pub use hub::HubView;
pub use ids::{CallId, InvalidNodeId, NodeId, Revision, Seq, SessionId, StreamId, TaskId};
pub use observe::EngineView;
pub use registry::{
    Catalog, CatalogError, Change, Conflict, Item, Mutation, RegistryView, Shelf, Topic,
};
pub use request_budget::RequestBudget;
pub use root::RootView;
pub use session::{
    Claim, EndReason, SessionKind, SessionRecord, SessionStore, SessionStoreError, SessionView,
};
pub use shares::Connection;
pub use stentor_wire::ListKind;
pub use task::{
    AskError, CallView, CancelReason, Context, Elicit, InputRequired, Root, Sample, Sampled,
    StateKey, UrlElicitation,
};
pub use tasks::{AsTask, MemoryTaskStore, TaskConfig, TaskRecord, TaskStore, TaskStoreError};
#[cfg(feature = "durable-tasks")]
pub use tasks::{RedbTaskStore, TaskFileError};
