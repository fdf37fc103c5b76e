//! The author's side: tools, resources, resource templates and prompts. Each has a descriptor that
//! clients see, and the code behind it.

mod arguments;
mod completion;
mod descriptor;
mod downgrade;
mod outcome;
mod prompt;
mod resource;
mod schema;
mod template;
mod tool;

use futures::future::BoxFuture;

pub use completion::Completion;
pub use outcome::{CallError, IntoToolResult, PromptError, ResourceError, Structured, ToolError};
pub use prompt::{IntoPromptResult, Prompt, PromptArgs, PromptFn, prompt};
pub use resource::{
    IntoContents, Resource, ResourceTemplate, TemplateVars, resource, resource_template,
};
pub use schema::{ArgumentProblem, SchemaError};
pub use template::TemplateError;
pub use tool::{Tool, ToolFn, raw_tool, tool};

pub(crate) use arguments::Arguments;
pub(crate) use completion::{Completer, completed};
pub(crate) use descriptor::ToolDescriptor;
pub(crate) use downgrade::prompt_result;
pub(crate) use outcome::Kind;
pub(crate) use prompt::PromptEntry;
pub(crate) use resource::{Reader, ResourceEntry, TemplateEntry};
pub(crate) use schema::{InputSchema, form, form_schema};
pub(crate) use template::UriTemplate;
pub(crate) use tool::{ToolEntry, shape};

/// The future of a piece of the author's code.
pub(crate) type Running<T> = BoxFuture<'static, T>;
