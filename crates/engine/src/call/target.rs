//! What a request leads to: an answer at once, or a call.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use stentor_wire::ErrorObject;
use stentor_wire::encode::ResultBody;

use crate::access::Need;
use crate::handler::{
    Arguments, AsTask, CallError, Completer, Completion, Context, InputRequired, Kind, Layers,
    Operation, OperationInput, OperationKind, PromptArgs, PromptEntry, Reader, Reply, Running,
    ToolEntry, completed, prompt_result,
};

pub(crate) enum Dispatch {
    Answer(Result<ResultBody, ErrorObject>),
    Call(Target),
}

/// What the code of a call returned instead of a result.
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
            Kind::Message(message) | Kind::Hidden(message) => {
                Self::Error(ErrorObject::internal(message))
            }
            Kind::Ask(asked) => Self::Ask(asked),
        }
    }
}

pub(crate) type Outcome = Result<ResultBody, Failure>;

/// The code of a call with its input.
pub(crate) struct Target {
    /// The kind of code, for people. With the subject it is part of the error after a panic.
    pub(crate) what: &'static str,
    /// The name or URI of the item.
    pub(crate) subject: Arc<str>,
    pub(crate) as_task: AsTask,
    /// The arguments, to run the call again later, if it can become a task.
    pub(crate) task_arguments: Option<Arguments>,
    /// Whether another node runs the code. Then that node decides what a retry is.
    pub(crate) is_remote: bool,
    /// What the sender has to have for the item, and has. So must have whoever reads the answer.
    pub(crate) needs: Vec<Need>,
    code: Box<dyn FnOnce(Context) -> Running<Outcome> + Send>,
}

impl Target {
    /// Code that is no item of the catalog.
    pub(crate) fn new(
        what: &'static str,
        subject: &str,
        code: impl FnOnce(Context) -> Running<Outcome> + Send + 'static,
    ) -> Self {
        Self {
            what,
            subject: subject.into(),
            as_task: AsTask::Never,
            task_arguments: None,
            is_remote: false,
            needs: Vec::new(),
            code: Box::new(code),
        }
    }

    pub(crate) fn tool(tool: Arc<ToolEntry>, arguments: Arguments) -> Self {
        let as_task = tool.as_task();
        let task_arguments = (as_task != AsTask::Never).then(|| arguments.clone());
        let name = tool.clone();
        let target = Self::new("the tool", name.name(), move |ctx| {
            Box::pin(async move {
                let version = ctx.protocol_version();
                let (kind, input) = (OperationKind::Tool, OperationInput::Arguments(arguments));
                let (layers, code) = (tool.layers().clone(), tool.clone());
                let code = |ctx, input| async move {
                    let OperationInput::Arguments(arguments) = input else {
                        return Err(other_kind());
                    };
                    code.call(arguments, ctx).await.map(Reply::Tool)
                };
                let result = match within(&layers, kind, "the tool", ctx, input, code).await {
                    Ok(Reply::Tool(result)) => Ok(result),
                    Ok(_) => Err(other_kind()),
                    Err(error) => Err(error),
                };
                let mut result = tool.result(result, version)?;
                let meta = result.meta.take().map(|meta| meta.0);
                let failed = result.is_error == Some(true);
                Ok(ResultBody::new(&result)?.with_meta(meta).with_is_error(failed))
            })
        });
        Self { as_task, task_arguments, ..target }
    }

    pub(crate) fn resource(reader: Reader, uri: &str) -> Self {
        Self::new("the reader of", uri, |ctx| {
            Box::pin(async move {
                let (layers, cache) = (reader.layers.clone(), reader.cache);
                let (kind, input) = (OperationKind::Resource, OperationInput::Nothing);
                let code = |ctx, _| async move { reader.read(ctx).await.map(Reply::Resource) };
                let Reply::Resource(mut result) =
                    within(&layers, kind, "the resource", ctx, input, code).await?
                else {
                    return Err(other_kind().into());
                };
                result.result_type = None;
                let meta = result.meta.take().map(|meta| meta.0);
                Ok(ResultBody::new(&result)?.with_meta(meta).with_cache(cache))
            })
        })
    }

    pub(crate) fn prompt(prompt: Arc<PromptEntry>, arguments: PromptArgs) -> Self {
        let name = prompt.clone();
        Self::new("the prompt", name.name(), move |ctx| {
            Box::pin(async move {
                let version = ctx.protocol_version();
                let (kind, input) = (OperationKind::Prompt, OperationInput::Texts(arguments));
                let layers = prompt.layers().clone();
                let code = move |ctx, input| async move {
                    let OperationInput::Texts(arguments) = input else { return Err(other_kind()) };
                    // A middleware may have changed them.
                    prompt.check_arguments(&arguments).map_err(CallError::protocol)?;
                    prompt.get(arguments, ctx).await.map(Reply::Prompt)
                };
                let Reply::Prompt(mut result) =
                    within(&layers, kind, "the prompt", ctx, input, code).await?
                else {
                    return Err(other_kind().into());
                };
                result.result_type = None;
                prompt_result(&mut result, version);
                let meta = result.meta.take().map(|meta| meta.0);
                Ok(ResultBody::new(&result)?.with_meta(meta))
            })
        })
    }

    /// A completion for the prompt or template `item`, within its layers.
    pub(crate) fn completion(
        completer: Completer,
        completion: Completion,
        item: &str,
        layers: Layers,
    ) -> Self {
        Self::new("the completion of", item, |ctx| {
            Box::pin(async move {
                let kind = OperationKind::Completion;
                let input = OperationInput::Completion(completion);
                let code = |_, input| async move {
                    let OperationInput::Completion(completion) = input else {
                        return Err(other_kind());
                    };
                    Ok(Reply::Completion(completer.run(completion).await))
                };
                match within(&layers, kind, "the completion", ctx, input, code).await? {
                    Reply::Completion(values) => Ok(completed(values)?),
                    _ => Err(other_kind().into()),
                }
            })
        })
    }

    /// Code whose result is made of nothing but JSON: a list, or a method of an extension.
    pub(crate) fn other<Fut>(
        what: &'static str,
        subject: &str,
        (kind, input): (OperationKind, OperationInput),
        code: impl FnOnce(Context, OperationInput) -> Fut + Send + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<ResultBody, CallError>> + Send + 'static,
    {
        Self::new(what, subject, move |ctx| {
            Box::pin(async move {
                let layers = Layers::default();
                let code = |ctx, input| async move { code(ctx, input).await.map(Reply::Other) };
                match within(&layers, kind, what, ctx, input, code).await? {
                    Reply::Other(result) => Ok(result),
                    _ => Err(other_kind().into()),
                }
            })
        })
    }

    /// Code that another node runs.
    pub(crate) fn remote(
        subject: &str,
        code: impl FnOnce(Context) -> Running<Outcome> + Send + 'static,
    ) -> Self {
        Self { is_remote: true, ..Self::new("the remote call of", subject, code) }
    }

    /// Sets what the sender has to have for the item, and has.
    pub(crate) fn needing(self, needs: Vec<Need>) -> Self {
        Self { needs, ..self }
    }

    /// Begins to run the code.
    pub(crate) fn run(self, ctx: Context) -> Running<Outcome> {
        (self.code)(ctx)
    }
}

/// Runs code within the layers of its engine and those of its item. Its error is one that the client
/// may read.
async fn within<Fut>(
    item: &Layers,
    kind: OperationKind,
    what: &'static str,
    ctx: Context,
    input: OperationInput,
    code: impl FnOnce(Context, OperationInput) -> Fut + Send + 'static,
) -> Result<Reply, CallError>
where
    Fut: Future<Output = Result<Reply, CallError>> + Send + 'static,
{
    let (era, host, subject) = (ctx.era(), ctx.host(), ctx.call().call.subject.clone());
    let operation = Operation::new(kind, ctx, input);
    let reply = host.layers().run(item, operation, |operation| {
        let (ctx, input) = operation.into_parts();
        code(ctx, input)
    });
    reply.await.map_err(|error| error.for_client(what, &subject, era))
}

/// A middleware returned the reply of another kind of operation.
fn other_kind() -> CallError {
    CallError::protocol(ErrorObject::internal("a middleware returned a reply of another kind"))
}
