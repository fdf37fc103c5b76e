#![doc = include_str!("../README.md")]
pub use stentor_engine::{
    ActorToolFn, ArgumentProblem, AsTask, AskError, Audience, CallError, CallId, CallOutcome,
    CallRef, CallView, CancelReason, Catalog, CatalogError, CatalogHandle, Change, Claim,
    Completion, Config, Conflict, Context, Elicit, EndReason, Ended, EndedUnasked, Engine,
    EngineBuilder, EngineEvent, EngineMsg, EngineView, EventBatch, EventReceiver, FindActor,
    HubView, InputRequired, IntoContents, IntoPromptResult, IntoToolResult, InvalidNodeId, Item,
    ListCache, MemoryTaskStore, Mutation, NodeId, Prompt, PromptArgs, PromptError, PromptFn,
    RegistryView, RequestBudget, Resource, ResourceError, ResourceTemplate, Revision, Root,
    RootView, Sample, Sampled, SchemaError, Seq, SessionId, SessionKind, SessionRecord,
    SessionStore, SessionStoreError, SessionView, Shelf, StartError, StateKey, Stopped, StreamId,
    Structured, TaskConfig, TaskId, TaskRecord, TaskStore, TaskStoreError, TemplateError,
    TemplateVars, Tool, ToolError, ToolFn, UrlElicitation, actor_tool, metrics, outlet, prompt,
    raw_tool, resource, resource_template, testing, tool,
};
pub use stentor_wire::encode::CacheHint;
pub use stentor_wire::{
    Era, ErrorObject, Id, ListKind, LogLevel, Method, ProtocolVersion, code, model,
};

#[cfg(feature = "durable-tasks")]
pub use stentor_engine::{RedbTaskStore, TaskFileError};
#[cfg(feature = "http")]
pub use stentor_transport::http;
#[cfg(any(feature = "stdio", feature = "http"))]
pub use stentor_transport::signal;
#[cfg(feature = "stdio")]
pub use stentor_transport::stdio;

/// For transports of one's own: handing messages in, reading what goes back.
pub mod port {
    pub use stentor_engine::port::*;
    pub use stentor_wire as wire;
}

#[cfg(feature = "cluster")]
pub use stentor_cluster as cluster;
