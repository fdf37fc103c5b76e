//! The Model Context Protocol as values.
//!
//! This crate knows how MCP looks on the wire, in both of its eras, and nothing about the sender:
//! no runtime, no actors, no sockets. Everything here is a pure function of bytes.
//!
//! * [`Message`] is a message of a client, decoded without copying its parameters.
//! * [`Era`] answers every yes/no question that follows from the protocol version.
//! * [`Notice`] is a notification for many sessions; [`EncodedNotice`] is a notice encoded once.
//! * [`encode`] writes everything a server sends.
//! * [`ErrorObject`] and [`code`] contain every error a server answers with.
//! * [`bounds`] limits what a client may write, and cuts what errors repeat of it.
//! * [`uri`] has the normal form by which URIs are compared.
//! * [`headers`] compares the routing headers of Streamable HTTP with the body.
//!
//! Descriptors, contents and results come from the official crate and are re-exported as [`model`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bounds;
mod client;
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
pub mod raw_json;
mod task;
mod topic;
pub mod uri;

pub use era::{Era, ProtocolVersion};
pub use error::{ErrorObject, code};
pub use id::Id;
pub use level::LogLevel;
pub use message::{DecodeError, Message, Notification, Request, Response, ResponseOutcome};
pub use meta::{ProgressToken, RequestMeta, TraceContext, meta_key};
pub use method::{Method, notification, request};
pub use notice::{EncodedNotice, Notice, SubscriptionId};
pub use params::Params;
pub use task::{TASKS_EXTENSION, TaskStatus, TaskView, takes_tasks, tasks_required};
pub use topic::{KeyKind, KeyRules, ListKind, Topic};

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
