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
    ToolFn, UrlElicitation, Watch, WatchConfig, actor_tool, delivery, extension, metrics, prompt,
    raw_tool, resource, resource_template, testing, tool,
};
pub use stentor_wire::encode::CacheHint;
pub use stentor_wire::{
    Era, ErrorObject, Id, ListKind, LogLevel, Method, ProtocolVersion, Topic, code, model,
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
pub mod transport_api {
    pub use stentor_engine::transport_api::*;
    pub use stentor_wire as wire;
}

#[cfg(feature = "cluster")]
pub use stentor_cluster as cluster;
