//! Decides which requests are answered from the catalog, and which run the author's code.
//!
//! This needs no actor, because the catalog is a snapshot.

use bytes::Bytes;
use stentor_wire::bounds::quoted;
use stentor_wire::encode::ResultBody;
use stentor_wire::params::{self, Member};
use stentor_wire::{Era, ErrorObject, Method, Request};

use crate::catalog::{Offer, Readable};
use crate::core::Core;
use crate::handler::{
    Arguments, CallError, Completer, Completion, Kind, PromptArgs, PromptEntry, Reader, Running,
    TemplateEntry, ToolEntry, completed, prompt_result,
};
use crate::ids::NodeId;
use crate::items::ItemKind;
use crate::remote::{Reach, RemoteCall};
use crate::session::Caller;
use crate::task::{Context, InputRequired, Pace};
use crate::tasks::{self, AsTask, StoredTask};

use std::sync::Arc;

pub(crate) enum Dispatch {
    Answer(Result<ResultBody, ErrorObject>),
    Call(Target),
}

/// What the author's code returned instead of a result.
pub(crate) enum Failure {
    Error(ErrorObject),
    Ask(Box<InputRequired>),
    /// The whole response as another node encoded it, and its code if it is an error.
    Encoded(Bytes, Option<i32>),
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
    Tool(Arc<ToolEntry>, Arguments),
    Resource(Reader, String),
    Prompt(Arc<PromptEntry>, PromptArgs),
    Complete(Completer, Completion),
    Stored(StoredTask),
    Remote(RemoteCall),
}

/// Where the item of a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// On this node only: another node sent the request, because it knows that the item is here.
    Own,
}

impl Target {
    /// The kind of code, for people. With the [`subject`](Self::subject) it is part of the error
    /// after a panic.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Tool(..) => "the tool",
            Self::Resource(..) => "the reader of",
            Self::Prompt(..) => "the prompt",
            Self::Complete(..) => "the completion of",
            Self::Stored(_) => "the store of task",
            Self::Remote(_) => "the remote call of",
        }
    }

    pub(crate) fn pace(&self) -> Option<Arc<Pace>> {
        match self {
            Self::Tool(tool, _) => Some(tool.pace().clone()),
            Self::Resource(reader, _) => Some(reader.pace.clone()),
            Self::Prompt(prompt, _) => Some(prompt.pace().clone()),
            Self::Complete(..) | Self::Stored(_) | Self::Remote(_) => None,
        }
    }

    /// The name or URI of the item.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Tool(tool, _) => tool.name(),
            Self::Resource(_, uri) => uri,
            Self::Prompt(prompt, _) => prompt.name(),
            Self::Complete(_, completion) => &completion.argument,
            Self::Stored(task) => task.id(),
            Self::Remote(remote) => remote.subject(),
        }
    }

    pub(crate) fn as_task(&self) -> AsTask {
        match self {
            Self::Tool(tool, _) => tool.as_task(),
            _ => AsTask::Never,
        }
    }

    /// The arguments, to run the call again later, if it can become a task.
    pub(crate) fn task_arguments(&self) -> Option<Arguments> {
        match self {
            Self::Tool(tool, arguments) if tool.as_task() != AsTask::Never => {
                Some(arguments.clone())
            }
            _ => None,
        }
    }

    pub(crate) fn run(self, ctx: Context) -> Running<Result<ResultBody, Failure>> {
        let era = ctx.era();
        Box::pin(async move {
            match self {
                Self::Tool(tool, arguments) => {
                    let version = ctx.protocol_version();
                    let outcome = tool.clone().call(arguments, ctx).await;
                    let outcome = outcome.map_err(|error| error.in_words_of(era));
                    let mut result = tool.result(outcome, version)?;
                    let meta = result.meta.take().map(|meta| meta.0);
                    let failed = result.is_error == Some(true);
                    Ok(ResultBody::new(&result)?.with_meta(meta).with_is_error(failed))
                }
                Self::Resource(reader, _) => {
                    let cache = reader.cache;
                    let result = reader.read(ctx).await;
                    let mut result = result.map_err(|error| error.in_words_of(era))?;
                    result.result_type = None;
                    let meta = result.meta.take().map(|meta| meta.0);
                    Ok(ResultBody::new(&result)?.with_meta(meta).with_cache(cache))
                }
                Self::Prompt(prompt, arguments) => {
                    let version = ctx.protocol_version();
                    let result = prompt.get(arguments, ctx).await;
                    let mut result = result.map_err(|error| error.in_words_of(era))?;
                    result.result_type = None;
                    prompt_result(&mut result, version);
                    let meta = result.meta.take().map(|meta| meta.0);
                    Ok(ResultBody::new(&result)?.with_meta(meta))
                }
                Self::Complete(completer, completion) => {
                    Ok(completed(completer.run(completion).await)?)
                }
                // Boxed to keep the common future small: few calls come here.
                Self::Stored(task) => Ok(Box::pin(task.answer(&ctx.call().core)).await?),
                Self::Remote(remote) => {
                    let (response, code) = Box::pin(remote.run(&ctx)).await?;
                    Err(Failure::Encoded(response, code))
                }
            }
        })
    }
}

/// Decides about a request that does not concern the session itself.
pub(crate) fn dispatch(core: &Core, caller: &Caller, request: &Request, scope: Scope) -> Dispatch {
    let era = caller.era();
    if !request.method.exists_in(era) {
        return Dispatch::Answer(Err(ErrorObject::method_not_found(request.method.as_str())));
    }
    let lookup = Lookup { core, caller, request, scope };
    match lookup.named_node() {
        Reach::Remote(node) => return lookup.remote_call([node], request.method.as_str()),
        Reach::Unreachable => {
            let message = "the node that gave this out cannot be reached just now";
            return Dispatch::Answer(Err(ErrorObject::unavailable(message)));
        }
        // An id that a dead node issued is unknown here, too, unless this node has taken over.
        Reach::Local | Reach::Dead => {}
    }
    match &request.method {
        Method::Ping => Dispatch::Answer(Ok(ResultBody::empty())),
        Method::Discover => Dispatch::Answer(core.server_hello.discover()),
        Method::ToolsList => Dispatch::Answer(list(core, ItemKind::Tools, era, request)),
        Method::ResourcesList => Dispatch::Answer(list(core, ItemKind::Resources, era, request)),
        Method::TemplatesList => Dispatch::Answer(list(core, ItemKind::Templates, era, request)),
        Method::PromptsList => Dispatch::Answer(list(core, ItemKind::Prompts, era, request)),
        Method::ToolsCall => work(core, lookup.call_tool()),
        Method::ResourcesRead => work(core, lookup.read_resource(era)),
        Method::PromptsGet => work(core, lookup.get_prompt()),
        Method::Complete => lookup.complete(),
        method if method.is_of_tasks() => tasks::dispatch(core, caller, request),
        other => Dispatch::Answer(Err(ErrorObject::method_not_found(other.as_str()))),
    }
}

/// Starts new work, unless the engine shuts down.
fn work(core: &Core, target: Result<Target, ErrorObject>) -> Dispatch {
    match target {
        Ok(_) if core.lifecycle.is_draining() => {
            Dispatch::Answer(Err(ErrorObject::unavailable("the server is shutting down")))
        }
        Ok(target) => Dispatch::Call(target),
        Err(error) => Dispatch::Answer(Err(error)),
    }
}

fn list(
    core: &Core,
    kind: ItemKind,
    era: Era,
    request: &Request,
) -> Result<ResultBody, ErrorObject> {
    let params: params::List = request.params.parse()?;
    let page =
        core.registry.catalog().page(kind, era, params.cursor.as_deref(), core.config.page_size);
    let page = page.map_err(|error| ErrorObject::invalid_params(error.to_string()))?;
    let body = ResultBody::from_json(page).ok_or_else(|| ErrorObject::internal("no page"))?;
    Ok(body.with_cache(core.config.list_cache.of(kind)))
}

/// A request for an item that may be on another node.
struct Lookup<'a> {
    core: &'a Core,
    caller: &'a Caller,
    request: &'a Request,
    scope: Scope,
}

impl Lookup<'_> {
    /// Where to send a request with an id or a state that a node has issued.
    fn named_node(&self) -> Reach {
        if self.scope == Scope::Own {
            return Reach::Local;
        }
        let member = match &self.request.method {
            method if method.is_of_tasks() => Member::TaskId,
            method if method.may_ask() && self.caller.era() == Era::Modern => Member::RequestState,
            _ => return Reach::Local,
        };
        // An invalid parameter is reported later.
        let signed = self.request.params.string(member).ok().flatten();
        signed.map_or(Reach::Local, |signed| self.core.reach(&signed))
    }

    fn remote_call(&self, nodes: impl IntoIterator<Item = NodeId>, subject: &str) -> Dispatch {
        work(self.core, Ok(self.target(nodes, subject)))
    }

    fn target(&self, nodes: impl IntoIterator<Item = NodeId>, subject: &str) -> Target {
        Target::Remote(RemoteCall::new(nodes, self.caller, self.request, subject))
    }

    /// The local item of an offer, or the call of the item on another node; `None` if nothing is
    /// offered.
    fn find<E>(&self, offer: Option<&Offer<E>>, subject: &str) -> Option<Result<Arc<E>, Target>> {
        match offer? {
            Offer::Own(entry) => Some(Ok(entry.clone())),
            Offer::Remote(_) if self.scope == Scope::Own => None,
            Offer::Remote(remote) => Some(Err(self.target(remote.nodes().cloned(), subject))),
        }
    }

    fn call_tool(&self) -> Result<Target, ErrorObject> {
        let params = params::CallTool::read(&self.request.params)?;
        let catalog = self.core.registry.catalog();
        let offer = match self.scope {
            Scope::All => catalog.tool(&params.name).cloned(),
            Scope::Own => catalog.own_tool(&params.name).cloned().map(Offer::Own),
        };
        let found = self.find(offer.as_ref(), &params.name);
        let found = found.ok_or_else(|| {
            ErrorObject::invalid_params(format!("unknown tool: {}", quoted(&params.name)))
        })?;
        let tool = match found {
            Ok(tool) => tool,
            Err(remote_call) => return Ok(remote_call),
        };
        let arguments = params.arguments.unwrap_or("{}");
        if !arguments.starts_with('{') {
            return Err(ErrorObject::invalid_params("invalid arguments: must be an object"));
        }
        let arguments = match params.arguments {
            None => Arguments::default(),
            Some(raw) => Arguments::new(self.request.params.share(raw)),
        };
        Ok(Target::Tool(tool, arguments))
    }

    fn read_resource(&self, era: Era) -> Result<Target, ErrorObject> {
        let params: params::ResourceUri = self.request.params.parse()?;
        let catalog = self.core.registry.catalog();
        let found = match self.scope {
            Scope::All => catalog.reader(&params.uri),
            Scope::Own => catalog.own_reader(&params.uri).map(Readable::Own),
        };
        match found {
            Some(Readable::Own(reader)) => Ok(Target::Resource(reader, params.uri)),
            Some(Readable::Remote(remote)) => Ok(self.target(remote.nodes().cloned(), &params.uri)),
            None => Err(ErrorObject::resource_not_found(era, &params.uri)),
        }
    }

    fn get_prompt(&self) -> Result<Target, ErrorObject> {
        let params: params::GetPrompt = self.request.params.parse()?;
        let offer = self.prompt(&params.name);
        let found = self.find(offer.as_ref(), &params.name);
        let found = found.ok_or_else(|| {
            ErrorObject::invalid_params(format!("unknown prompt: {}", quoted(&params.name)))
        })?;
        match found {
            Ok(prompt) => {
                prompt.check_arguments(&params.arguments)?;
                Ok(Target::Prompt(prompt, params.arguments))
            }
            Err(remote_call) => Ok(remote_call),
        }
    }

    fn prompt(&self, name: &str) -> Option<Offer<PromptEntry>> {
        let catalog = self.core.registry.catalog();
        match self.scope {
            Scope::All => catalog.prompt(name).cloned(),
            Scope::Own => catalog.own_prompt(name).cloned().map(Offer::Own),
        }
    }

    fn template(&self, uri: &str) -> Option<Offer<TemplateEntry>> {
        let catalog = self.core.registry.catalog();
        match self.scope {
            Scope::All => catalog.template(uri).cloned(),
            Scope::Own => catalog.own_template(uri).cloned().map(Offer::Own),
        }
    }

    fn complete(&self) -> Dispatch {
        let params: params::Complete = match self.request.params.parse() {
            Ok(params) => params,
            Err(error) => return Dispatch::Answer(Err(error)),
        };
        let unknown = |what: &str, name: &str| {
            Dispatch::Answer(Err(ErrorObject::invalid_params(format!(
                "unknown {what}: {}",
                quoted(name)
            ))))
        };
        let completer = match &params.r#ref {
            params::CompletionRef::Prompt { name } => {
                match self.find(self.prompt(name).as_ref(), name) {
                    Some(Ok(prompt)) => prompt.completer().cloned(),
                    Some(Err(remote_call)) => return work(self.core, Ok(remote_call)),
                    None => return unknown("prompt", name),
                }
            }
            params::CompletionRef::Resource { uri } => {
                match self.find(self.template(uri).as_ref(), uri) {
                    Some(Ok(template)) => template.completer().cloned(),
                    Some(Err(remote_call)) => return work(self.core, Ok(remote_call)),
                    None => return unknown("resource template", uri),
                }
            }
            _ => None,
        };
        let Some(completer) = completer else { return Dispatch::Answer(completed(Vec::new())) };
        let completion = Completion {
            argument: params.argument.name,
            value: params.argument.value,
            known: params.context.arguments,
        };
        work(self.core, Ok(Target::Complete(completer, completion)))
    }
}
