//! The author's side: tools, resources, resource templates and prompts. Each has a descriptor that
//! clients see, and the code behind it.

mod arguments;
mod as_task;
mod completion;
mod context;
mod descriptor;
mod downgrade;
mod outcome;
mod prompt;
mod resource;
mod schema;
mod template;
mod tool;
mod watch;

use futures::future::BoxFuture;

pub(crate) use arguments::Arguments;
pub use as_task::AsTask;
pub use completion::Completion;
pub(crate) use completion::{Completer, completed};
pub use context::{
    AskError, ClientRoot, Context, Elicit, InputRequired, Sample, Sampled, UrlElicitation,
};
pub(crate) use context::{
    Call, CallHost, CallOutput, CallOutputs, CallTask, Cancel, PendingInputs, PendingRequests,
};
pub(crate) use descriptor::ToolDescriptor;
pub(crate) use downgrade::prompt_result;
pub(crate) use outcome::Kind;
pub use outcome::{CallError, IntoToolResult, PromptError, ResourceError, Structured, ToolError};
pub(crate) use prompt::PromptEntry;
pub use prompt::{IntoPromptResult, Prompt, PromptArgs, PromptFn, prompt};
pub use resource::{
    IntoContents, Resource, ResourceTemplate, TemplateVars, resource, resource_template,
};
pub(crate) use resource::{Reader, ResourceEntry, TemplateEntry};
pub use schema::{ArgumentProblem, SchemaError};
pub(crate) use schema::{InputSchema, form, form_schema};
pub use template::TemplateError;
pub(crate) use template::UriTemplate;
pub use tool::{Tool, ToolFn, raw_tool, tool};
pub(crate) use tool::{ToolEntry, shape};
pub use watch::Watch;
pub(crate) use watch::{Hook, Hooks};

/// The future of a piece of the author's code.
pub(crate) type Running<T> = BoxFuture<'static, T>;
