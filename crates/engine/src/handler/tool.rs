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

use super::descriptor::ToolDescriptor;
use super::{
    Arguments, AsTask, Context, InputSchema, IntoToolResult, Kind, Running, SchemaError, ToolError,
    downgrade, schema,
};

type ToolCode = dyn Fn(Value, Context) -> Running<Result<CallToolResult, ToolError>> + Send + Sync;

/// A tool: the descriptor that clients see, and the code behind it.
///
/// Make one with [`tool`] from an async function, or with [`raw_tool`] when its schema is known
/// only at run time. The tool is checked when it is added to an engine, which then returns what is
/// wrong.
#[derive(Clone)]
pub struct Tool {
    pub(crate) descriptor: model::Tool,
    run: Arc<ToolCode>,
    as_task: AsTask,
    resumable: bool,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// Makes a tool from an async function.
///
/// The function takes its arguments (any type that is [`DeserializeOwned`] and [`JsonSchema`]) and
/// a [`Context`], or only one of them, or nothing. It returns a `Result` of anything that is
/// [`IntoToolResult`]. Arguments are checked against the schema of their type before the function
/// runs.
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
    let run: Arc<ToolCode> = Arc::new(move |arguments, ctx| function.call(arguments, ctx));
    Tool { descriptor, run, as_task: AsTask::Never, resumable: false }
}

/// Makes a tool whose schema is known only at run time.
///
/// `input_schema` is a JSON Schema of an object. Clients receive it without the parts that some of
/// them cannot read: the subschema `true` becomes `{}`, `false` becomes `{"not": {}}`, formats that
/// validators do not know are left out, and the root says `"type": "object"` and has `properties`.
/// The function receives arguments that fit the schema.
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
        // No object fits this schema, so the tool is refused when it is added, where an error can
        // be returned.
        _ => JsonObject::from_iter([("const".to_owned(), Value::Null)]),
    };
    let mut descriptor = model::Tool::new_with_raw(name.into(), None, Arc::new(schema));
    descriptor.output_schema = R::output_schema().map(Arc::new);
    let run: Arc<ToolCode> = Arc::new(move |arguments, ctx| {
        let running = function(arguments, ctx);
        async move { running.await?.into_tool_result() }.boxed()
    });
    Tool { descriptor, run, as_task: AsTask::Never, resumable: false }
}

impl Tool {
    /// The name by which clients call the tool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// Sets what the tool does, for the model.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.descriptor.description = Some(description.into().into());
        self
    }

    /// Sets a name for people.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.descriptor.title = Some(title.into());
        self
    }

    /// Sets whether calls become tasks, whose result the client fetches later.
    #[must_use]
    pub fn as_task(mut self, as_task: AsTask) -> Self {
        self.as_task = as_task;
        self
    }

    /// Makes tasks of this tool resumable: a task that ran when the server ended, in whatever way,
    /// runs again when the server is back. It has the same arguments, and the value that it saved
    /// with [`Context::checkpoint`](crate::Context::checkpoint). Other tasks fail then, and so do
    /// tasks whose tool is added only after the engine has started.
    #[must_use]
    pub fn resumable(mut self) -> Self {
        self.resumable = true;
        self
    }

    /// Sets hints about the effects of the tool.
    #[must_use]
    pub fn annotations(mut self, annotations: ToolAnnotations) -> Self {
        self.descriptor.annotations = Some(annotations);
        self
    }

    /// Sets icons for people.
    #[must_use]
    pub fn icons(mut self, icons: impl IntoIterator<Item = Icon>) -> Self {
        self.descriptor.icons = Some(icons.into_iter().collect());
        self
    }

    /// Sets the schema of `structuredContent`, if the type of the function does not have it.
    #[must_use]
    pub fn output_schema(mut self, schema: JsonObject) -> Self {
        self.descriptor.output_schema = Some(Arc::new(schema));
        self
    }

    /// Sets the `_meta` of the descriptor.
    #[must_use]
    pub fn meta(mut self, meta: MetaObject) -> Self {
        self.descriptor.meta = Some(meta);
        self
    }
}

/// A checked tool, as the catalog keeps it.
#[derive(Debug)]
pub(crate) struct ToolEntry {
    tool: Tool,
    descriptor: ToolDescriptor,
    schema: InputSchema,
    output: Option<InputSchema>,
    headers: ParamHeaders,
}

impl ToolEntry {
    pub(crate) fn check(tool: Tool) -> Result<Self, SchemaError> {
        let input = &tool.descriptor.input_schema;
        let schema = InputSchema::compile(input)?;
        let output =
            tool.descriptor.output_schema.as_deref().map(InputSchema::compile).transpose()?;
        let headers = ParamHeaders::from_schema(input)?;
        let descriptor = ToolDescriptor::of(&tool.descriptor)?;
        Ok(Self { tool, descriptor, schema, output, headers })
    }

    pub(crate) fn json(&self, era: Era) -> &Bytes {
        self.descriptor.json(era)
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

    pub(crate) fn headers(&self) -> &ParamHeaders {
        &self.headers
    }

    /// Checks the arguments, then runs the author's code.
    pub(crate) async fn call(
        self: Arc<Self>,
        arguments: Arguments,
        ctx: Context,
    ) -> Result<CallToolResult, ToolError> {
        let arguments = if arguments.are_large() {
            let (offload, this) = (ctx.call().host.offload().clone(), self.clone());
            // Boxed to keep the common future small: few calls come here.
            Box::pin(offload.run(move || this.read(&arguments))).await?
        } else {
            self.read(&arguments)?
        };
        (self.tool.run)(arguments, ctx).await
    }

    /// Parses arguments and checks them against the schema.
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

    /// The result for the client: also a failure that the model can act on is a result, any other
    /// failure is an error of the protocol.
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
                // `null` instead of no value, because a declared value must exist.
                result.structured_content.get_or_insert(Value::Null);
            }
        }
        downgrade::tool_result(&mut result, version);
        Ok(result)
    }
}

/// An async function that can be a tool; see [`tool`]. `M` distinguishes the parameter lists of
/// functions, and is always inferred.
pub trait ToolFn<M>: Send + Sync + 'static {
    /// The schema of the arguments.
    fn input_schema(&self) -> JsonObject;

    /// The schema of `structuredContent`.
    fn output_schema(&self) -> Option<JsonObject>;

    /// Runs the function with arguments that fit the schema.
    fn call(&self, arguments: Value, ctx: Context) -> Running<Result<CallToolResult, ToolError>>;
}

/// The parameter lists that [`ToolFn`] distinguishes.
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

/// Converts arguments to their type. They may fit the schema but not the type if the author wrote
/// one of them by hand.
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
