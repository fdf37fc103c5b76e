//! Which requests are answered from the catalog, and which run the author's code.
//!
//! Pure, and without an actor: the catalog is a snapshot.

use serde_json::Value;
use stentor_wire::encode::ResultBody;
use stentor_wire::params;
use stentor_wire::{Era, ErrorObject, Method, ProtocolVersion, Request, TASKS_EXTENSION};

use crate::core::Core;
use crate::handler::{
    CallError, Completer, Completion, Kind, PromptArgs, PromptEntry, Reader, Running, ToolEntry,
    completed,
};
use crate::registry::Shelf;
use crate::session::Caller;
use crate::task::{Context, InputRequired, Pace};
use crate::tasks::{self, AsTask, StoredTask};

use std::sync::Arc;

/// What a request comes to.
pub(crate) enum Dispatch {
    /// It has its answer.
    Answer(Result<ResultBody, ErrorObject>),
    /// It runs the author's code.
    Call(Target),
}

/// What the author's code came to instead of a result.
pub(crate) enum Failure {
    Error(ErrorObject),
    Ask(Box<InputRequired>),
}

impl From<ErrorObject> for Failure {
    fn from(error: ErrorObject) -> Self {
        Self::Error(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error.into_kind() {
            Kind::Protocol(error) => Self::Error(error),
            Kind::Message(message) => Self::Error(ErrorObject::internal(message)),
            Kind::Ask(asked) => Self::Ask(asked),
        }
    }
}

/// A piece of the author's code with its input.
pub(crate) enum Target {
    Tool(Arc<ToolEntry>, Value),
    Resource(Reader, String),
    Prompt(Arc<PromptEntry>, PromptArgs),
    Complete(Completer, Completion),
    Stored(StoredTask),
}

impl Target {
    /// What runs, for people: with its [`subject`](Self::subject) it stands in the error when it
    /// panics.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Tool(..) => "the tool",
            Self::Resource(..) => "the reader of",
            Self::Prompt(..) => "the prompt",
            Self::Complete(..) => "the completion of",
            Self::Stored(_) => "the store of task",
        }
    }

    /// How runs of the same code went.
    pub(crate) fn pace(&self) -> Option<Arc<Pace>> {
        match self {
            Self::Tool(tool, _) => Some(tool.pace().clone()),
            Self::Resource(reader, _) => Some(reader.pace.clone()),
            Self::Prompt(prompt, _) => Some(prompt.pace().clone()),
            Self::Complete(..) | Self::Stored(_) => None,
        }
    }

    /// Its name or URI.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Tool(tool, _) => tool.name(),
            Self::Resource(_, uri) => uri,
            Self::Prompt(prompt, _) => prompt.name(),
            Self::Complete(_, completion) => &completion.argument,
            Self::Stored(task) => task.id(),
        }
    }

    /// Whether it is to become a task.
    pub(crate) fn as_task(&self) -> AsTask {
        match self {
            Self::Tool(tool, _) => tool.as_task(),
            _ => AsTask::Never,
        }
    }

    /// What it takes to run it again, for those that can become tasks.
    pub(crate) fn task_arguments(&self) -> Option<Value> {
        match self {
            Self::Tool(tool, arguments) if tool.as_task() != AsTask::Never => {
                Some(arguments.clone())
            }
            _ => None,
        }
    }

    pub(crate) fn run(self, ctx: Context) -> Running<Result<ResultBody, Failure>> {
        Box::pin(async move {
            match self {
                Self::Tool(tool, arguments) => {
                    let outcome = tool.call(arguments, ctx).await;
                    let mut result = tool.result(outcome)?;
                    let meta = result.meta.take().map(|meta| meta.0);
                    let failed = result.is_error == Some(true);
                    Ok(ResultBody::new(&result)?.with_meta(meta).that_says_failed(failed))
                }
                Self::Resource(reader, _) => {
                    let cache = reader.cache;
                    let mut result = reader.read(ctx).await?;
                    result.result_type = None;
                    let meta = result.meta.take().map(|meta| meta.0);
                    Ok(ResultBody::new(&result)?.with_meta(meta).with_cache(cache))
                }
                Self::Prompt(prompt, arguments) => {
                    let mut result = prompt.get(arguments, ctx).await?;
                    result.result_type = None;
                    let meta = result.meta.take().map(|meta| meta.0);
                    Ok(ResultBody::new(&result)?.with_meta(meta))
                }
                Self::Complete(completer, completion) => {
                    Ok(completed(completer.run(completion).await)?)
                }
                Self::Stored(task) => Ok(task.answer(&ctx.call().core).await?),
            }
        })
    }
}

/// Decides about a request that does not concern the session itself.
pub(crate) fn dispatch(core: &Core, caller: &Caller, request: &Request) -> Dispatch {
    let era = caller.era();
    if !request.method.exists_in(era) {
        return Dispatch::Answer(Err(ErrorObject::method_not_found(request.method.as_str())));
    }
    match &request.method {
        Method::Ping => Dispatch::Answer(Ok(ResultBody::empty())),
        Method::Discover => Dispatch::Answer(discover(core)),
        Method::ToolsList => Dispatch::Answer(list(core, Shelf::Tools, request)),
        Method::ResourcesList => Dispatch::Answer(list(core, Shelf::Resources, request)),
        Method::TemplatesList => Dispatch::Answer(list(core, Shelf::Templates, request)),
        Method::PromptsList => Dispatch::Answer(list(core, Shelf::Prompts, request)),
        Method::ToolsCall => work(core, call_tool(core, request)),
        Method::ResourcesRead => work(core, read_resource(core, era, request)),
        Method::PromptsGet => work(core, get_prompt(core, request)),
        Method::Complete => complete(core, request),
        method if method.is_of_tasks() => tasks::dispatch(core, caller, request),
        other => Dispatch::Answer(Err(ErrorObject::method_not_found(other.as_str()))),
    }
}

/// New work, unless the engine shuts down.
fn work(core: &Core, target: Result<Target, ErrorObject>) -> Dispatch {
    match target {
        Ok(_) if core.is_draining() => {
            Dispatch::Answer(Err(ErrorObject::unavailable("the server is shutting down")))
        }
        Ok(target) => Dispatch::Call(target),
        Err(error) => Dispatch::Answer(Err(error)),
    }
}

fn discover(core: &Core) -> Result<ResultBody, ErrorObject> {
    let mut result = serde_json::json!({
        "supportedVersions": ProtocolVersion::ALL.map(ProtocolVersion::as_str),
        "capabilities": core.capabilities,
    });
    result["capabilities"]["extensions"] = serde_json::json!({ (TASKS_EXTENSION): {} });
    if let Some(instructions) = &core.instructions {
        result["instructions"] = Value::from(instructions.as_str());
    }
    Ok(ResultBody::new(&result)?.with_cache(core.config.list_cache.discover))
}

fn list(core: &Core, shelf: Shelf, request: &Request) -> Result<ResultBody, ErrorObject> {
    let params: params::List = request.params.parse()?;
    let page = core.catalog().page(shelf, params.cursor.as_deref(), core.config.page_size);
    let page = page.map_err(|error| ErrorObject::invalid_params(error.to_string()))?;
    let body = ResultBody::from_json(page).ok_or_else(|| ErrorObject::internal("no page"))?;
    Ok(body.with_cache(core.config.list_cache.of(shelf)))
}

fn call_tool(core: &Core, request: &Request) -> Result<Target, ErrorObject> {
    let params = params::CallTool::read(&request.params)?;
    let catalog = core.catalog();
    let tool = catalog
        .tool(&params.name)
        .ok_or_else(|| ErrorObject::invalid_params(format!("unknown tool: {}", params.name)))?;
    let arguments = match params.arguments {
        None => Value::Object(serde_json::Map::new()),
        Some(raw) => serde_json::from_str(raw)
            .map_err(|error| ErrorObject::invalid_params(format!("invalid arguments: {error}")))?,
    };
    if !arguments.is_object() {
        return Err(ErrorObject::invalid_params("invalid arguments: must be an object"));
    }
    Ok(Target::Tool(tool.clone(), arguments))
}

fn read_resource(core: &Core, era: Era, request: &Request) -> Result<Target, ErrorObject> {
    let params: params::ResourceUri = request.params.parse()?;
    let reader = core.catalog().reader(&params.uri);
    let reader = reader.ok_or_else(|| ErrorObject::resource_not_found(era, &params.uri))?;
    Ok(Target::Resource(reader, params.uri))
}

fn get_prompt(core: &Core, request: &Request) -> Result<Target, ErrorObject> {
    let params: params::GetPrompt = request.params.parse()?;
    let catalog = core.catalog();
    let prompt = catalog
        .prompt(&params.name)
        .ok_or_else(|| ErrorObject::invalid_params(format!("unknown prompt: {}", params.name)))?;
    prompt.check_arguments(&params.arguments)?;
    Ok(Target::Prompt(prompt.clone(), params.arguments))
}

fn complete(core: &Core, request: &Request) -> Dispatch {
    let params: params::Complete = match request.params.parse() {
        Ok(params) => params,
        Err(error) => return Dispatch::Answer(Err(error)),
    };
    let catalog = core.catalog();
    let unknown = |what: &str, name: &str| {
        Dispatch::Answer(Err(ErrorObject::invalid_params(format!("unknown {what}: {name}"))))
    };
    let completer = match &params.r#ref {
        params::CompletionRef::Prompt { name } => match catalog.prompt(name) {
            Some(prompt) => prompt.completer().cloned(),
            None => return unknown("prompt", name),
        },
        params::CompletionRef::Resource { uri } => match catalog.template(uri) {
            Some(template) => template.completer().cloned(),
            None => return unknown("resource template", uri),
        },
        _ => None,
    };
    let Some(completer) = completer else { return Dispatch::Answer(completed(Vec::new())) };
    let completion = Completion {
        argument: params.argument.name,
        value: params.argument.value,
        known: params.context.arguments,
    };
    work(core, Ok(Target::Complete(completer, completion)))
}
