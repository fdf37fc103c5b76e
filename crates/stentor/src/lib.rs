#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use stentor_engine::{
    AccessLog, ActorPoolView, ActorToolFn, ArgumentProblem, AsTask, AskError, Audience, CallConfig,
    CallError, CallId, CallInput, CallOutcome, CallRef, CallView, CallerSession, CancelReason,
    Catalog, CatalogError, CatalogHandle, Change, ClientRoot, Completion, Config, Conflict,
    Context, Elicit, EndReason, Ended, EndedUnasked, Engine, EngineBuilder, EngineEvent, EngineMsg,
    EngineView, EventBatch, EventReceiver, Extension, ExtensionError, FindActor, FromCall,
    FromWatch, Handler, HookParameters, HubView, InputRequired, IntoReply, InvalidNodeId, Item,
    ItemKind, Json, ListCache, ListConfig, MemoryTaskStore, Middleware, Mutation, Next, NodeId,
    Operation, OperationKind, OptionalAnswer, Parameters, Principal, Prompt, PromptArgs,
    PromptError, RateLimit, RegistryConfig, RegistryView, RemoteConfig, Reply, RequestBudget,
    Resource, ResourceError, ResourceTemplate, Revision, Sample, Sampled, SchemaError, Seq,
    SessionConfig, SessionId, SessionKind, SessionRecord, SessionRef, SessionStore,
    SessionStoreError, SessionView, Shown, StartError, State, StateKey, Stopped, StreamId,
    SupervisorView, TakeOver, TaskConfig, TaskId, TaskRecord, TaskStore, TaskStoreError,
    TemplateError, TemplateVars, Timeout, Tool, ToolError, Toolbox, UrlElicitation, Watch,
    WatchConfig, actor_tool, delivery, extension, metrics, prompt, raw_tool, resource,
    resource_template, tool,
};
pub use stentor_wire::encode::{CacheHint, ResultBody};
pub use stentor_wire::{
    Era, ErrorObject, Id, ListKind, LogLevel, Method, ProtocolVersion, Topic, code, model,
};

// The types that authors write derive the traits of these versions.
pub use schemars;
pub use serde;
pub use serde_json;

#[cfg(feature = "durable-tasks")]
pub use stentor_engine::{RedbTaskStore, TaskFileError};
/// Makes a prompt from a function whose parameters are its arguments.
///
/// ```
/// use stentor::prelude::*;
///
/// /// Asks for a review.
/// #[prompt(title = "Review")]
/// async fn review(
///     /// What to review.
///     code: String,
///     words: Option<u32>,
/// ) -> String {
///     format!("Review this code in {} words:\n{code}", words.unwrap_or(100))
/// }
///
/// let builder = Engine::builder("Reviews", "1.0.0").prompt(review());
/// # let _ = builder;
/// ```
#[cfg(feature = "macros")]
pub use stentor_macros::prompt;
/// Makes a resource, or from a URI with variables a resource template, from a function.
///
/// ```
/// use stentor::prelude::*;
///
/// /// How to begin.
/// #[resource("docs://readme", mime_type = "text/markdown")]
/// async fn readme() -> &'static str {
///     "# Read me"
/// }
///
/// /// A user of the database.
/// #[resource("db://users/{id}", name = "users")]
/// async fn user(id: u64, ctx: Context) -> String {
///     format!("user {id}, asked for as {}", ctx.uri())
/// }
///
/// let builder = Engine::builder("Docs", "1.0.0").resource(readme()).resource_template(user());
/// # let _ = builder;
/// ```
#[cfg(feature = "macros")]
pub use stentor_macros::resource;
/// Makes a tool from a function whose parameters are its arguments. A parameter of the type `Context`,
/// `State` or `Principal` is none of them, nor is one with `#[extract]`; one struct for all arguments is
/// marked `#[args]`.
///
/// ```
/// use stentor::prelude::*;
///
/// /// Adds two numbers.
/// #[tool(title = "Add")]
/// async fn add(
///     /// The first number.
///     a: i64,
///     /// The second number, or 1.
///     b: Option<i64>,
///     ctx: Context,
/// ) -> i64 {
///     ctx.info("adding");
///     a + b.unwrap_or(1)
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

/// What most servers need: `use stentor::prelude::*;`.
///
/// The derives need the crates `serde` and `schemars` among your dependencies.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};

    pub use crate::{
        Context, Engine, Json, OptionalAnswer, Principal, Shown, State, ToolError, Toolbox, Watch,
        prompt, raw_tool, resource, resource_template, tool,
    };
}

/// For transports of one's own: handing messages in, reading what goes back.
pub mod transport_api {
    pub use stentor_engine::transport_api::*;
    pub use stentor_wire as wire;
}

#[cfg(feature = "cluster")]
pub use stentor_cluster as cluster;

#[cfg(feature = "test")]
pub use stentor_test as test;

/// For tests and demonstrations: kills actors in the middle of their work, as a bug would.
#[cfg(feature = "faults")]
pub mod faults {
    pub use stentor_engine::testing::{FaultTarget, kill};
}
