//! The Model Context Protocol as values.
//!
//! This crate knows how MCP looks on the wire, in both of its eras, and nothing about who
//! sends it: no runtime, no actors, no sockets. Everything here is a pure function of bytes.
//!
//! * [`Message`] is what a client sends, decoded without copying its parameters.
//! * [`Era`] answers every yes/no question that follows from the protocol version.
//! * [`Notice`] is what every session may hear; [`EncodedNotice`] is one turned into bytes once.
//! * [`encode`] writes everything a server sends.
//! * [`ErrorObject`] and [`code`] hold every error a server answers with.
//! * [`bounds`] has what a client may write at most, and cuts what is repeated of it.
//! * [`uri`] has the normal form by which URIs are compared.
//! * [`headers`] compares the routing headers of Streamable HTTP with the body.
//!
//! Descriptors, contents and results come from the official crate and are re-exported as
//! [`model`].

pub mod bounds;
pub mod encode;
mod era;
mod error;
pub mod headers;
mod id;
mod level;
mod message;
mod meta;
mod method;
mod notice;
pub mod numbers;
pub mod params;
mod task;
pub mod uri;

pub use era::{Era, ProtocolVersion};
pub use error::{ErrorObject, code};
pub use id::Id;
pub use level::LogLevel;
pub use message::{DecodeError, Message, Notification, Request, Response, ResponseOutcome};
pub use meta::{ProgressToken, RequestMeta, TraceContext, meta_key};
pub use method::{Method, notification, request};
pub use notice::{EncodedNotice, ListKind, Notice, SubscriptionId};
pub use params::Params;
pub use task::{TASKS_EXTENSION, TaskStatus, TaskView, takes_tasks, tasks_required};

/// Descriptors, contents, results and capabilities, from the official `rmcp` crate.
pub mod model {
    pub use rmcp::model::{
        Annotations, AudioContent, CacheScope, CallToolResult, ClientCapabilities, ContentBlock,
        EmbeddedResource, GetPromptResult, Icon, IconTheme, ImageContent, Implementation,
        JsonObject, MetaObject, Prompt, PromptArgument, PromptMessage, ReadResourceResult,
        Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities, TextContent, Tool,
        ToolAnnotations,
    };
}
