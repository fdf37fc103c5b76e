//! The author's side: tools, resources, resource templates and prompts. Each has a descriptor that
//! clients see, and the code behind it.

mod arguments;
mod as_task;
mod completion;
mod context;
mod descriptor;
mod downgrade;
mod function;
mod middleware;
mod outcome;
mod parameters;
mod prompt;
mod reply;
mod resource;
pub(crate) mod schema;
mod template;
mod tool;
mod watch;

use futures::future::BoxFuture;

pub(crate) use arguments::Arguments;
pub use as_task::AsTask;
pub use completion::Completion;
pub(crate) use completion::{Completer, completed};
pub use context::{
    AskError, ClientRoot, Context, Elicit, InputRequired, OptionalAnswer, Sample, Sampled,
    UrlElicitation,
};
pub(crate) use context::{
    Call, CallHost, CallOutput, CallOutputs, CallTask, Cancel, PendingInputs, PendingRequests,
};
pub(crate) use descriptor::ToolDescriptor;
pub(crate) use downgrade::prompt_result;
pub(crate) use function::Function;
pub use function::Handler;
pub use middleware::{
    AccessLog, Middleware, Next, Operation, OperationKind, RateLimit, Reply, Timeout,
};
pub(crate) use middleware::{Layers, OperationInput};
pub(crate) use outcome::Kind;
pub use outcome::{CallError, PromptError, ResourceError, Shown, ToolError};
pub(crate) use parameters::Input;
pub use parameters::{CallInput, FromCall, Parameters, Principal, Signature, State};
pub(crate) use prompt::PromptEntry;
pub use prompt::{Prompt, PromptArgs, prompt};
pub use reply::{IntoReply, Json};
pub(crate) use resource::{Reader, ResourceEntry, TemplateEntry};
pub use resource::{Resource, ResourceTemplate, TemplateVars, resource, resource_template};
pub use schema::{ArgumentProblem, SchemaError};
pub(crate) use schema::{InputSchema, form, form_schema};
pub use template::TemplateError;
pub(crate) use template::UriTemplate;
pub(crate) use tool::ToolEntry;
pub use tool::{Tool, raw_tool, tool};
pub use watch::{FromWatch, HookParameters, Watch};
pub(crate) use watch::{Hook, Hooks};

/// The future of a piece of the author's code.
pub(crate) type Running<T> = BoxFuture<'static, T>;
