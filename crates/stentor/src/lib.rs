#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use stentor_engine::{
    Audience, Context, Engine, EngineBuilder, EngineMsg, Extension, Json, OptionalAnswer,
    Principal, Prompt, Resource, ResourceTemplate, Shown, StartError, State, Tool, ToolError,
    Toolbox, Watch, actor_tool, delivery, extension, metrics, prompt, raw_tool, resource,
    resource_template, tool,
};

// The types that authors write derive the traits of these versions.
pub use schemars;
pub use serde;
pub use serde_json;

/// Who sends a request, and what decides what it sees.
pub use stentor_engine::identity;
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

/// Questions to the client: [`Elicit`](ask::Elicit), [`Sample`](ask::Sample), its roots, and what can go wrong with them.
pub mod ask {
    pub use stentor_engine::{
        AskError, ClientRoot, Elicit, InputRequired, Sample, Sampled, UrlElicitation,
    };
}

/// The lists and their changes: what [`Engine::catalog`] hands out, and what a change may be refused for.
pub mod catalog {
    pub use stentor_engine::{
        Catalog, CatalogError, CatalogHandle, Change, Conflict, Item, ItemKind, ListCache,
        Mutation, SchemaError, StateKey, TemplateError,
    };
}

/// The settings of an engine. [`Config`](config::Config) holds the others; each has a setter for each field.
///
/// `docs/LIMITS.md` of the repository lists every limit with what happens at it.
pub mod config {
    pub use stentor_engine::{
        CallConfig, Config, ListConfig, RegistryConfig, RemoteConfig, RequestBudget, RightsConfig,
        SessionConfig, TaskConfig, WatchConfig,
    };
}

/// What a handler may take and return, and how a type of your own becomes one of both.
pub mod handler {
    pub use stentor_engine::{
        ActorToolFn, ArgumentProblem, AsTask, CallError, CallInput, Completion, ExtensionError,
        FindActor, FromCall, FromWatch, Handler, HookParameters, IntoReply, Parameters, PromptArgs,
        PromptError, ResourceError, ScopeRequest, Signature, TemplateVars,
    };
}

/// What runs around calls, reads, lists and completions; three ready ones.
pub mod middleware {
    pub use stentor_engine::{
        AccessLog, Middleware, Next, Operation, OperationKind, RateLimit, Reply, Timeout,
    };
}

/// Sessions: their names, what keeps them while a client is away, and how they end.
pub mod session {
    pub use stentor_engine::{
        CallerSession, EndReason, Ended, EndedUnasked, InvalidNodeId, NodeId, SessionId,
        SessionKind, SessionRecord, SessionRef, SessionStore, SessionStoreError, StreamId,
        TakeOver,
    };
}

/// Tasks that outlive their request, and what keeps them.
pub mod task {
    pub use stentor_engine::{MemoryTaskStore, TaskId, TaskRecord, TaskStore, TaskStoreError};
    #[cfg(feature = "durable-tasks")]
    pub use stentor_engine::{RedbTaskStore, TaskFileError};
}

/// What an engine tells its owner: events, and views of its actors.
pub mod observe {
    pub use stentor_engine::delivery::{CountersView, HistoryEntry, HistoryView, Outcome};
    pub use stentor_engine::{
        ActorPoolView, ActorsView, CallId, CallOutcome, CallRef, CallView, CancelReason, CrashView,
        EngineEvent, EngineView, EventBatch, EventReceiver, ExtensionEvent, HubView, PeerChange,
        RegistryView, Revision, Seq, SessionView, Stopped, SupervisorView, TaskView, TotalsView,
    };
}

/// The words of the protocol: its versions, errors, methods and content.
pub mod protocol {
    pub use stentor_wire::encode::{CacheHint, ResultBody};
    pub use stentor_wire::{
        Era, ErrorObject, Id, ListKind, LogLevel, Method, ProtocolVersion, Topic, code, model,
    };
}

/// For transports of one's own: handing messages in, reading what goes back.
pub mod transport_api {
    pub use stentor_engine::transport_api::*;
    pub use stentor_wire as wire;
}

#[cfg(feature = "cluster")]
pub use stentor_cluster as cluster;

#[cfg(feature = "console")]
pub use stentor_console as console;

#[cfg(feature = "events")]
pub use stentor_events as events;

#[cfg(feature = "oauth")]
pub use stentor_auth as oauth;

#[cfg(feature = "test")]
pub use stentor_test as test;

/// For tests and demonstrations: kills actors in the middle of their work, as a bug would.
#[cfg(feature = "faults")]
pub mod faults {
    pub use stentor_engine::testing::{FaultTarget, kill};
}
