#![doc = include_str!("../README.md")]
pub use stentor_engine::{
    ActorPoolView, ActorToolFn, ArgumentProblem, AsTask, AskError, Audience, CallConfig, CallError,
    CallId, CallOutcome, CallRef, CallView, CancelReason, Catalog, CatalogError, CatalogHandle,
    Change, ClientRoot, Completion, Config, Conflict, Context, Elicit, EndReason, Ended,
    EndedUnasked, Engine, EngineBuilder, EngineEvent, EngineMsg, EngineView, EventBatch,
    EventReceiver, Extension, ExtensionError, FindActor, HubView, InputRequired, IntoContents,
    IntoPromptResult, IntoToolResult, InvalidNodeId, Item, ItemKind, ListCache, ListConfig,
    MemoryTaskStore, MethodFn, Mutation, NodeId, Prompt, PromptArgs, PromptError, PromptFn,
    RegistryConfig, RegistryView, RemoteConfig, RequestBudget, Resource, ResourceError,
    ResourceTemplate, Revision, Sample, Sampled, SchemaError, Seq, SessionConfig, SessionId,
    SessionKind, SessionRecord, SessionRef, SessionStore, SessionStoreError, SessionView,
    StartError, StateKey, Stopped, StreamId, Structured, SupervisorView, TakeOver, TaskConfig,
    TaskId, TaskRecord, TaskStore, TaskStoreError, TemplateError, TemplateVars, Tool, ToolError,
    ToolFn, UrlElicitation, actor_tool, delivery, extension, metrics, prompt, raw_tool, resource,
    resource_template, testing, tool,
};
pub use stentor_wire::encode::CacheHint;
pub use stentor_wire::{
    Era, ErrorObject, Id, ListKind, LogLevel, Method, ProtocolVersion, Topic, code, model,
};

// The types that authors write derive the traits of these versions.
pub use schemars;
pub use serde;
pub use serde_json;

#[cfg(feature = "durable-tasks")]
pub use stentor_engine::{RedbTaskStore, TaskFileError};
/// ```
/// use stentor::{Context, Engine, PromptArgs, PromptError, prompt};
///
/// /// Asks for a review.
/// #[prompt(title = "Review", argument("code", "What to review", true))]
/// async fn review(#[args] args: PromptArgs) -> Result<String, PromptError> {
///     Ok(format!("Review this code:\n{}", args["code"]))
/// }
///
/// let builder = Engine::builder("Reviews", "1.0.0").prompt(review());
/// # let _ = builder;
/// ```
#[cfg(feature = "macros")]
pub use stentor_macros::prompt;
/// ```
/// use stentor::{Context, Engine, ResourceError, TemplateVars, resource};
///
/// /// How to begin.
/// #[resource("docs://readme", mime_type = "text/markdown")]
/// async fn readme(_ctx: Context) -> Result<&'static str, ResourceError> {
///     Ok("# Read me")
/// }
///
/// /// A user of the database.
/// #[resource("db://users/{id}", name = "users")]
/// async fn user(#[args] vars: TemplateVars, _ctx: Context) -> Result<String, ResourceError> {
///     Ok(format!("user {}", vars["id"]))
/// }
///
/// let builder = Engine::builder("Docs", "1.0.0").resource(readme()).resource_template(user());
/// # let _ = builder;
/// ```
#[cfg(feature = "macros")]
pub use stentor_macros::resource;
/// ```
/// use stentor::{Context, Engine, ToolError, tool};
///
/// /// Adds two numbers.
/// #[tool(title = "Add")]
/// async fn add(
///     /// The first number.
///     a: i64,
///     /// The second number, or 1.
///     b: Option<i64>,
///     ctx: Context,
/// ) -> Result<String, ToolError> {
///     ctx.info("adding");
///     Ok((a + b.unwrap_or(1)).to_string())
/// }
///
/// let builder = Engine::builder("Calculator", "1.0.0").tool(add());
/// # let _ = builder;
/// ```
#[cfg(feature = "macros")]
pub use stentor_macros::tool;
#[cfg(feature = "http")]
pub use stentor_transport::http;
#[cfg(any(feature = "stdio", feature = "http"))]
pub use stentor_transport::signal;
#[cfg(feature = "stdio")]
pub use stentor_transport::stdio;

/// For transports of one's own: handing messages in, reading what goes back.
pub mod transport_api {
    pub use stentor_engine::transport_api::*;
    pub use stentor_wire as wire;
}

#[cfg(feature = "cluster")]
pub use stentor_cluster as cluster;
