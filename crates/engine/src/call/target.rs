//! What a request leads to: an answer at once, or a call.

use std::sync::Arc;

use bytes::Bytes;
use stentor_wire::ErrorObject;
use stentor_wire::encode::ResultBody;

use crate::handler::{
    Arguments, AsTask, CallError, Completer, Completion, Context, InputRequired, Kind, PromptArgs,
    PromptEntry, Reader, Running, ToolEntry, completed, prompt_result,
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
            Kind::Message(message) => Self::Error(ErrorObject::internal(message)),
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
            code: Box::new(code),
        }
    }

    pub(crate) fn tool(tool: Arc<ToolEntry>, arguments: Arguments) -> Self {
        let as_task = tool.as_task();
        let task_arguments = (as_task != AsTask::Never).then(|| arguments.clone());
        let name = tool.clone();
        let target = Self::new("the tool", name.name(), move |ctx| {
            Box::pin(async move {
                let (era, version) = (ctx.era(), ctx.protocol_version());
                let outcome = tool.clone().call(arguments, ctx).await;
                let outcome = outcome.map_err(|error| error.in_words_of(era));
                let mut result = tool.result(outcome, version)?;
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
                let (era, cache) = (ctx.era(), reader.cache);
                let result = reader.read(ctx).await;
                let mut result = result.map_err(|error| error.in_words_of(era))?;
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
                let (era, version) = (ctx.era(), ctx.protocol_version());
                let result = prompt.get(arguments, ctx).await;
                let mut result = result.map_err(|error| error.in_words_of(era))?;
                result.result_type = None;
                prompt_result(&mut result, version);
                let meta = result.meta.take().map(|meta| meta.0);
                Ok(ResultBody::new(&result)?.with_meta(meta))
            })
        })
    }

    pub(crate) fn completion(completer: Completer, completion: Completion) -> Self {
        let argument = completion.argument.clone();
        Self::new("the completion of", &argument, |_ctx| {
            Box::pin(async move { Ok(completed(completer.run(completion).await)?) })
        })
    }

    /// Code that another node runs.
    pub(crate) fn remote(
        subject: &str,
        code: impl FnOnce(Context) -> Running<Outcome> + Send + 'static,
    ) -> Self {
        Self { is_remote: true, ..Self::new("the remote call of", subject, code) }
    }

    /// Begins to run the code.
    pub(crate) fn run(self, ctx: Context) -> Running<Outcome> {
        (self.code)(ctx)
    }
}
