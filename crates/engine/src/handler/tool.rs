use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stentor_wire::bounds::shortened;
use stentor_wire::headers::ParamHeaders;
use stentor_wire::model::{
    self, CallToolResult, ContentBlock, Icon, JsonObject, MetaObject, ToolAnnotations,
};
use stentor_wire::{Era, ErrorObject, ProtocolVersion};

use super::told::Told;
use super::{
    Arguments, InputSchema, IntoToolResult, Kind, Running, SchemaError, ToolError, fit, schema,
};
use crate::Context;
use crate::task::Pace;
use crate::tasks::AsTask;

type Run = dyn Fn(Value, Context) -> Running<Result<CallToolResult, ToolError>> + Send + Sync;

/// A tool: what clients see of it, and the code behind it.
///
/// Made by [`tool`] from an async function, or by [`raw_tool`] when its schema is known only
/// at run time. Nothing is checked before the tool is added to an engine, which then says
/// what is wrong.
#[derive(Clone)]
pub struct Tool {
    pub(crate) descriptor: model::Tool,
    run: Arc<Run>,
    as_task: AsTask,
    resumable: bool,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// A tool from an async function.
///
/// The function takes its arguments (any type that is [`DeserializeOwned`] and
/// [`JsonSchema`]) and a [`Context`], or only one of them, or nothing, and returns a
/// `Result` of anything that is [`IntoToolResult`]. Arguments are checked against the schema
/// of their type before it runs.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor_engine::{Context, ToolError, tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Greet {
///     /// Who is greeted.
///     name: String,
/// }
///
/// async fn greet(args: Greet, ctx: Context) -> Result<String, ToolError> {
///     ctx.info(format!("greeting {}", args.name));
///     Ok(format!("Hello, {}!", args.name))
/// }
///
/// let greet = tool("greet", greet).description("Greets somebody");
/// let clock = tool("clock", || async { Ok::<_, ToolError>("noon") });
/// # let _ = (greet, clock);
/// ```
pub fn tool<M>(name: impl Into<String>, function: impl ToolFn<M>) -> Tool {
    let function = Arc::new(function);
    let mut descriptor =
        model::Tool::new_with_raw(name.into(), None, Arc::new(function.input_schema()));
    descriptor.output_schema = function.output_schema().map(Arc::new);
    let run: Arc<Run> = Arc::new(move |arguments, ctx| function.call(arguments, ctx));
    Tool { descriptor, run, as_task: AsTask::Never, resumable: false }
}

/// A tool whose schema is known only at run time.
///
/// `input_schema` is a JSON Schema of an object. It reaches clients as it is, but for what some of
/// them cannot read: of subschemas `true` becomes `{}` and `false` becomes `{"not": {}}`, formats that
/// validators do not know are left out, and the root says `"type": "object"` and has `properties`.
/// The function gets arguments that fit it.
///
/// ```
/// use serde_json::json;
/// use stentor_engine::{Context, ToolError, raw_tool};
///
/// let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
/// let echo = raw_tool("echo", schema, |args: serde_json::Value, _ctx: Context| async move {
///     Ok::<_, ToolError>(args["text"].as_str().unwrap_or_default().to_owned())
/// });
/// # let _ = echo;
/// ```
pub fn raw_tool<R, F, Fut>(name: impl Into<String>, input_schema: Value, function: F) -> Tool
where
    F: Fn(Value, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ToolError>> + Send + 'static,
    R: IntoToolResult,
{
    let schema = match input_schema {
        Value::Object(schema) => schema,
        // No object fits it: refused when the tool is added, where an error can be returned.
        _ => JsonObject::from_iter([("const".to_owned(), Value::Null)]),
    };
    let mut descriptor = model::Tool::new_with_raw(name.into(), None, Arc::new(schema));
    descriptor.output_schema = R::output_schema().map(Arc::new);
    let run: Arc<Run> = Arc::new(move |arguments, ctx| {
        let running = function(arguments, ctx);
        async move { running.await?.into_tool_result() }.boxed()
    });
    Tool { descriptor, run, as_task: AsTask::Never, resumable: false }
}

impl Tool {
    /// The name that clients call.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// What the tool does, for the model.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.descriptor.description = Some(description.into().into());
        self
    }

    /// A name for people.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.descriptor.title = Some(title.into());
        self
    }

    /// Whether calls become tasks, whose result the client fetches later.
    #[must_use]
    pub fn as_task(mut self, as_task: AsTask) -> Self {
        self.as_task = as_task;
        self
    }

    /// A task that ran when the server ended, in whatever way, runs again when it is back: with
    /// the same arguments, and what it saved with
    /// [`Context::checkpoint`](crate::Context::checkpoint). Others fail then, and so do those whose
    /// tool is added only after the engine has started.
    #[must_use]
    pub fn resumable(mut self) -> Self {
        self.resumable = true;
        self
    }

    /// Hints about what the tool does to the world.
    #[must_use]
    pub fn annotations(mut self, annotations: ToolAnnotations) -> Self {
        self.descriptor.annotations = Some(annotations);
        self
    }

    /// Pictures for people.
    #[must_use]
    pub fn icons(mut self, icons: impl IntoIterator<Item = Icon>) -> Self {
        self.descriptor.icons = Some(icons.into_iter().collect());
        self
    }

    /// The schema of `structuredContent`, where the function's type does not tell.
    #[must_use]
    pub fn output_schema(mut self, schema: JsonObject) -> Self {
        self.descriptor.output_schema = Some(Arc::new(schema));
        self
    }

    /// The descriptor's own `_meta`.
    #[must_use]
    pub fn meta(mut self, meta: MetaObject) -> Self {
        self.descriptor.meta = Some(meta);
        self
    }
}

/// A tool that has been checked, as the catalog holds it.
#[derive(Debug)]
pub(crate) struct ToolEntry {
    tool: Tool,
    told: Told,
    schema: InputSchema,
    output: Option<InputSchema>,
    headers: ParamHeaders,
    pace: Arc<Pace>,
}

impl ToolEntry {
    pub(crate) fn check(tool: Tool) -> Result<Self, SchemaError> {
        let input = &tool.descriptor.input_schema;
        let schema = InputSchema::compile(input)?;
        let output =
            tool.descriptor.output_schema.as_deref().map(InputSchema::compile).transpose()?;
        let headers = ParamHeaders::from_schema(input)?;
        let told = Told::of(&tool.descriptor)?;
        Ok(Self { tool, told, schema, output, headers, pace: Arc::default() })
    }

    /// What clients of an era are told of it, as JSON.
    pub(crate) fn json(&self, era: Era) -> &Bytes {
        self.told.json(era)
    }

    pub(crate) fn name(&self) -> &str {
        self.tool.name()
    }

    pub(crate) fn as_task(&self) -> AsTask {
        self.tool.as_task
    }

    pub(crate) fn is_resumable(&self) -> bool {
        self.tool.resumable
    }

    pub(crate) fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    pub(crate) fn headers(&self) -> &ParamHeaders {
        &self.headers
    }

    /// Runs the author's code, after its arguments have been found to fit.
    pub(crate) async fn call(
        self: Arc<Self>,
        arguments: Arguments,
        ctx: Context,
    ) -> Result<CallToolResult, ToolError> {
        let arguments = if arguments.are_large() {
            let (offload, this) = (ctx.call().core.offload.clone(), self.clone());
            // Boxed, as few calls come here and all make room for it.
            Box::pin(offload.run(move || this.read(&arguments))).await?
        } else {
            self.read(&arguments)?
        };
        (self.tool.run)(arguments, ctx).await
    }

    /// Reads arguments and finds whether they fit.
    fn read(&self, arguments: &Arguments) -> Result<Value, ToolError> {
        let arguments = arguments.read()?;
        let problems = self.schema.problems(&arguments);
        if problems.is_empty() {
            return Ok(arguments);
        }
        let listed: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let message =
            format!("invalid arguments for tool '{}': {}", self.name(), listed.join("; "));
        Err(ToolError::new(message))
    }

    /// What a client is told of an outcome: a result, also of a failure that the model can
    /// act on, or an error of the protocol.
    pub(crate) fn result(
        &self,
        outcome: Result<CallToolResult, ToolError>,
        version: ProtocolVersion,
    ) -> Result<CallToolResult, ToolError> {
        let mut result = match outcome.map_err(ToolError::into_kind) {
            Ok(result) => result,
            Err(Kind::Message(message)) => CallToolResult::error(vec![ContentBlock::text(message)]),
            Err(Kind::Protocol(error)) => return Err(ToolError::protocol(error)),
            Err(Kind::Ask(asked)) => return Err(ToolError::input_required(*asked)),
        };
        result.result_type = None;
        if let Some(schema) = self.output.as_ref().filter(|_| result.is_error != Some(true)) {
            let structured = result.structured_content.as_ref().unwrap_or(&Value::Null);
            if let Some(problem) = schema.problems(structured).first() {
                crate::log!(error, tool = self.name(), %problem, "result does not fit the output schema");
                return Err(ToolError::protocol(ErrorObject::internal(format!(
                    "the result of tool '{}' does not fit its output schema: {problem}",
                    self.name()
                ))));
            }
            if !version.era().structured_is_object() {
                // Where nothing fits: what is declared must be there.
                result.structured_content.get_or_insert(Value::Null);
            }
        }
        fit::tool_result(&mut result, version);
        Ok(result)
    }
}

/// An async function that can be a tool; see [`tool`]. `M` tells the shapes of functions
/// apart and is always inferred.
pub trait ToolFn<M>: Send + Sync + 'static {
    /// The schema of the arguments.
    fn input_schema(&self) -> JsonObject;

    /// The schema of `structuredContent`.
    fn output_schema(&self) -> Option<JsonObject>;

    /// Runs the function with arguments that fit the schema.
    fn call(&self, arguments: Value, ctx: Context) -> Running<Result<CallToolResult, ToolError>>;
}

/// The shapes of functions that [`ToolFn`] tells apart.
#[allow(missing_debug_implementations, reason = "never constructed")]
pub(crate) mod shape {
    use std::marker::PhantomData;

    pub struct Both<A>(PhantomData<A>);
    pub struct Arguments<A>(PhantomData<A>);
    pub struct ContextOnly;
    pub struct Nothing;
}

macro_rules! tool_fn {
    ($shape:ty, ($($param:ty),*), [$($generic:ident)?], $schema:expr,
     |$function:ident, $arguments:ident, $ctx:ident| $call:expr) => {
        impl<Func, Fut, Res, Error, $($generic)?> ToolFn<$shape> for Func
        where
            Func: Fn($($param),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<Res, Error>> + Send + 'static,
            Res: IntoToolResult,
            Error: Into<ToolError> + 'static,
            $($generic: DeserializeOwned + JsonSchema + Send + 'static,)?
        {
            fn input_schema(&self) -> JsonObject {
                $schema
            }

            fn output_schema(&self) -> Option<JsonObject> {
                Res::output_schema()
            }

            fn call(
                &self,
                $arguments: Value,
                $ctx: Context,
            ) -> Running<Result<CallToolResult, ToolError>> {
                let $function = self;
                let running = $call;
                async move { running.await.map_err(Into::into)?.into_tool_result() }.boxed()
            }
        }
    };
}

/// Arguments that fit the schema but not the type, as where the author wrote either by hand.
fn typed<A: DeserializeOwned>(arguments: Value) -> Result<A, ToolError> {
    serde_json::from_value(arguments)
        .map_err(|error| ToolError::new(format!("invalid arguments: {}", shortened(error))))
}

macro_rules! typed_or_return {
    ($arguments:ident) => {
        match typed($arguments) {
            Ok(arguments) => arguments,
            Err(error) => return async move { Err(error) }.boxed(),
        }
    };
}

tool_fn!(shape::Both<A>, (A, Context), [A], schema::of_type::<A>(), |function, arguments, ctx| {
    function(typed_or_return!(arguments), ctx)
});
tool_fn!(shape::Arguments<A>, (A), [A], schema::of_type::<A>(), |function, arguments, _ctx| {
    function(typed_or_return!(arguments))
});
tool_fn!(shape::ContextOnly, (Context), [], schema::no_arguments(), |function, _arguments, ctx| {
    function(ctx)
});
tool_fn!(shape::Nothing, (), [], schema::no_arguments(), |function, _arguments, _ctx| {
    function()
});
