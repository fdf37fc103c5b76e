//! Code around every call, read and list: it sees who asks for what, refuses, and rewrites.

mod ready_made;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::{Value, json};
use stentor_wire::encode::ResultBody;
use stentor_wire::model::{CallToolResult, GetPromptResult, ReadResourceResult};
use stentor_wire::{ErrorObject, Params};

use super::{Arguments, CallError, Completion, Context, PromptArgs, Running};
use crate::items::ItemKind;
pub use ready_made::{AccessLog, RateLimit, Timeout};

/// What a client asks for, as a [`Middleware`] sees it.
#[derive(Debug)]
pub struct Operation {
    kind: OperationKind,
    ctx: Context,
    input: OperationInput,
}

/// The kind of an [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// A tool is called. Its task, too, if the call becomes one.
    Tool,
    /// A resource, or a URI of a template, is read.
    Resource,
    /// A prompt is filled in.
    Prompt,
    /// An argument of a prompt, or a variable of a template, is completed.
    Completion,
    /// A page of a list is read.
    List(ItemKind),
    /// A method of an extension of the author's own is called.
    Method,
}

#[derive(Debug)]
pub(crate) enum OperationInput {
    Nothing,
    Arguments(Arguments),
    Texts(PromptArgs),
    Params(Params),
    Completion(Completion),
}

impl Operation {
    pub(crate) fn new(kind: OperationKind, ctx: Context, input: OperationInput) -> Self {
        Self { kind, ctx, input }
    }

    pub(crate) fn into_parts(self) -> (Context, OperationInput) {
        (self.ctx, self.input)
    }

    /// What is done.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        self.kind
    }

    /// The name of the tool, of the prompt or of the method, the URI that is read, or the method that
    /// lists; for a completion, the name of the prompt or the URI template.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.ctx.uri()
    }

    /// The call: its client, its session, its principal, the [states](Context::state) of the engine.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// The arguments of a tool or of a prompt, the parameters of a method; for a completion, an object
    /// with `argument`, `value` and `known`; otherwise `null`. They have not been checked against a
    /// schema.
    ///
    /// # Errors
    ///
    /// -32602 if they cannot be parsed.
    pub fn arguments(&self) -> Result<Value, CallError> {
        match &self.input {
            OperationInput::Nothing => Ok(Value::Null),
            OperationInput::Arguments(arguments) => arguments.read(),
            OperationInput::Texts(texts) => Ok(serde_json::to_value(texts)?),
            OperationInput::Params(params) => params.parse().map_err(CallError::protocol),
            OperationInput::Completion(Completion { argument, value, known }) => {
                Ok(json!({"argument": argument, "value": value, "known": known}))
            }
        }
    }

    /// Replaces the arguments of a tool, a prompt or a method; others have none to replace. Those of a
    /// tool are then checked as if the client had sent them.
    ///
    /// # Errors
    ///
    /// -32602 if they are no object, or if an argument of a prompt is no text.
    pub fn set_arguments(&mut self, arguments: Value) -> Result<(), CallError> {
        let invalid = |why: &str| CallError::protocol(ErrorObject::invalid_params(why));
        if !arguments.is_object() {
            return Err(invalid("arguments must be an object"));
        }
        match &mut self.input {
            OperationInput::Nothing | OperationInput::Completion(_) => {}
            OperationInput::Arguments(own) => *own = Arguments::from(&arguments),
            OperationInput::Texts(own) => {
                *own = serde_json::from_value(arguments)
                    .map_err(|_| invalid("the arguments of a prompt are texts"))?;
            }
            OperationInput::Params(own) => *own = Params::from_json(arguments.to_string()),
        }
        Ok(())
    }
}

/// What an [`Operation`] results in, as a [`Middleware`] sees it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply {
    /// Of a tool.
    Tool(CallToolResult),
    /// Of a resource or a template.
    Resource(ReadResourceResult),
    /// Of a prompt.
    Prompt(GetPromptResult),
    /// Of a completion: all values that fit.
    Completion(Vec<String>),
    /// Of a list, or of a method of an extension: a JSON object.
    Other(ResultBody),
}

/// Code around every call, read and list of an engine, or around those of some items.
///
/// Implemented by closures, and by types that keep something. Whatever it returns takes the place of
/// the reply. Add it with [`EngineBuilder::layer`](crate::EngineBuilder::layer), or to one item, or to
/// a [`Toolbox`](crate::Toolbox): each goes around what is there already, so the last one added is the
/// outermost. In a cluster it runs once for each operation: on the node that has the item, for
/// lists on the node that is asked. Requests that are part of the protocol itself, such as `ping` or
/// a subscription, do not pass through here, nor do those for an item that does not exist. A call that
/// becomes a task at once, as [`AsTask`](crate::AsTask) says, is a task before the layers see it.
///
/// ```
/// use stentor::{Engine, handler::CallError, middleware::{Next, Operation, OperationKind}};
///
/// let builder = Engine::builder("s", "1").layer(|operation: Operation, next: Next| async move {
///     let is_tool = operation.kind() == OperationKind::Tool;
///     if is_tool && operation.context().principal().is_none() {
///         return Err(CallError::new("tools are for users who are known"));
///     }
///     next.run(operation).await
/// });
/// # let _ = builder;
/// ```
///
/// A type that keeps something:
///
/// ```
/// use std::future::Future;
/// use std::pin::Pin;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use stentor::{handler::CallError, middleware::{Middleware, Next, Operation, Reply}};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Middleware for Count {
///     fn handle(
///         &self,
///         operation: Operation,
///         next: Next,
///     ) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send>> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         next.run(operation)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a middleware",
    note = "a middleware is `|operation: Operation, next: Next| async move {{ next.run(operation).await }}`, or a type that implements `Middleware`"
)]
pub trait Middleware: Send + Sync + 'static {
    /// Handles an operation. [`Next::run`] goes on with it.
    fn handle(&self, operation: Operation, next: Next) -> Running<Result<Reply, CallError>>;
}

impl<F, Fut> Middleware for F
where
    F: Fn(Operation, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, CallError>> + Send + 'static,
{
    fn handle(&self, operation: Operation, next: Next) -> Running<Result<Reply, CallError>> {
        self(operation, next).boxed()
    }
}

/// Layers of middleware, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Layers(Arc<[Arc<dyn Middleware>]>);

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layers").field(&self.0.len()).finish()
    }
}

impl Layers {
    /// The same with another outermost layer.
    pub(crate) fn within(&self, outer: Arc<dyn Middleware>) -> Self {
        Self([outer].into_iter().chain(self.0.iter().cloned()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs `last` within these layers, and those of the item within them.
    pub(crate) async fn run<Fut>(
        &self,
        item: &Self,
        operation: Operation,
        last: impl FnOnce(Operation) -> Fut + Send + 'static,
    ) -> Result<Reply, CallError>
    where
        Fut: Future<Output = Result<Reply, CallError>> + Send + 'static,
    {
        if self.is_empty() && item.is_empty() {
            return last(operation).await;
        }
        let layers = self.0.iter().chain(&*item.0).cloned().collect::<Vec<_>>().into_iter();
        Next { layers, last: Box::new(|operation| last(operation).boxed()) }.run(operation).await
    }
}

type Last = Box<dyn FnOnce(Operation) -> Running<Result<Reply, CallError>> + Send>;

/// The rest of an operation, within a [`Middleware`].
pub struct Next {
    layers: std::vec::IntoIter<Arc<dyn Middleware>>,
    last: Last,
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl Next {
    /// Goes on with the operation. Dropping the future ends the author's code at its next `await`.
    pub fn run(mut self, operation: Operation) -> Running<Result<Reply, CallError>> {
        match self.layers.next() {
            Some(layer) => layer.handle(operation, self),
            None => (self.last)(operation),
        }
    }
}
