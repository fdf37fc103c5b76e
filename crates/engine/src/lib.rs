//! The actors of Stentor.
//!
//! A **registry** actor owns the tools, resources and prompts. A **hub** notifies every session of
//! changes. A **session** actor handles the messages of one client, in turn. A **task** actor runs
//! calls, one at a time. A **supervisor** restarts them. All of them belong to one [`Engine`], a
//! value: there are no globals, no actor names and no process groups, so two engines can live in
//! one process.
//!
//! The path of a notice: [`registry`](CatalogHandle) → `hub.rs` → [`delivery`] → a transport.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(feature = "cluster"))]
macro_rules! message {
    ($type:ty) => {};
}

/// With ractor's `cluster` feature, a type is a message only if it implements the trait.
#[cfg(feature = "cluster")]
macro_rules! message {
    ($type:ty) => {
        impl ractor::Message for $type {}
    };
}

pub(crate) use message;

mod access;
mod actor_pool;
mod actor_tool;
mod audience;
mod call;
mod caller;
mod catalog;
mod config;
mod core;
mod crashes;
mod dispatch;
mod engine;
mod events;
mod extension;
mod handler;
mod hub;
pub mod identity;
mod ids;
mod items;
mod lifecycle;
#[doc(hidden)]
pub mod log;
pub mod metrics;
mod millis;
mod node_view;
mod nodes;
mod notice_stream;
mod observe;
mod offload;
mod peer_api;
mod principal_limits;
mod reasons;
mod registry;
pub mod remote;
mod request_budget;
mod request_sender;
mod restarts;
mod server_hello;
mod session;
mod shares;
mod spans;
mod states;
mod streams;
mod supervisor;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport_api;
mod viewers;
mod watches;

pub use access::{ListChanges, ScopeRequest};
pub use actor_pool::ActorPoolView;
pub use actor_tool::{ActorToolFn, FindActor, actor_tool};
pub use audience::Audience;
pub use call::{CallConfig, CallView, StateKey};
pub use catalog::{Catalog, CatalogError, Change, Item, ListCache, Mutation, Toolbox};
pub use config::Config;
pub use crashes::CrashView;
pub use dispatch::ListConfig;
pub use engine::{CallerSession, Engine, EngineBuilder, Revoke, SessionRef, StartError};
pub use events::{EngineEvent, EventBatch, EventReceiver, ExtensionEvent, PeerChange};
pub use extension::{
    AccessRules, Extension, ExtensionError, Requester, Schema, StreamMethod, StreamRequest,
    extension,
};
pub use handler::{
    AccessLog, ArgumentProblem, AsTask, AskError, CallError, CallInput, ClientRoot, Completion,
    Context, Elicit, FromCall, FromWatch, Handler, HookParameters, InputRequired, IntoReply, Json,
    Middleware, Next, Operation, OperationKind, OptionalAnswer, Parameters, Principal, Prompt,
    PromptArgs, PromptError, RateLimit, Reply, Resource, ResourceError, ResourceTemplate, Sample,
    Sampled, SchemaError, Shown, Signature, State, TemplateError, TemplateVars, Timeout, Tool,
    ToolError, UrlElicitation, Watch, prompt, raw_tool, resource, resource_template, tool,
};
pub use hub::HubView;
pub use ids::{CallId, InvalidNodeId, NodeId, Revision, Seq, SessionId, StreamId, TaskId};
pub use items::{Conflict, ItemKind};
pub use lifecycle::{Ended, EndedUnasked};
pub use notice_stream::{Begin, Held, NoticeStream};
pub use observe::{ActorsView, EngineView, TotalsView};
pub use reasons::{CallOutcome, CallRef, CancelReason, EndReason, SessionKind, Stopped};
pub use registry::{CatalogHandle, RegistryConfig, RegistryView};
pub use remote::RemoteConfig;
pub use request_budget::RequestBudget;
pub use session::{
    SessionConfig, SessionRecord, SessionStore, SessionStoreError, SessionView, TakeOver,
};
pub use shares::Connection;
pub use stentor_delivery as delivery;
pub use stentor_wire::{ListKind, Topic};
pub use supervisor::{EngineMsg, SupervisorView};
pub use tasks::{MemoryTaskStore, TaskConfig, TaskRecord, TaskStore, TaskStoreError, TaskView};
#[cfg(feature = "durable-tasks")]
pub use tasks::{RedbTaskStore, TaskFileError};
pub use viewers::RightsConfig;
pub use watches::WatchConfig;
