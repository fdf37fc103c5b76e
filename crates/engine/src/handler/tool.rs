use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use stentor_wire::headers::ParamHeaders;
use stentor_wire::model::{
    self, CallToolResult, ContentBlock, Icon, JsonObject, MetaObject, ToolAnnotations,
};
use stentor_wire::{Era, ErrorObject, ProtocolVersion};

use super::descriptor::ToolDescriptor;
use super::{
    Arguments, AsTask, Context, Function, Handler, Input, InputSchema, IntoReply, Kind, Layers,
    Middleware, Parameters, SchemaError, Signature, ToolError, downgrade, schema,
};
use crate::access::{Access, ItemAccess, ScopeRequest, access_methods};

/// A tool: the descriptor that clients see, and the code behind it.
///
/// Make one with [`tool`] from an async function, or with [`raw_tool`] when its schema is known
/// only at run time. The tool is checked when it is added to an engine, which then returns what is
/// wrong.
#[derive(Clone)]
pub struct Tool {
    pub(crate) descriptor: model::Tool,
    function: Function<CallToolResult>,
    pub(crate) layers: Layers,
    pub(crate) access: ItemAccess,
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
/// The function takes any of the [parameters](crate::FromCall) of a handler, and returns anything
/// that is [`IntoReply`]. Arguments are checked against the schema of their type before the
/// function runs.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor::{Context, tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Greet {
///     /// Who is greeted.
///     name: String,
/// }
///
/// async fn greet(args: Greet, ctx: Context) -> String {
///     ctx.info(format!("greeting {}", args.name));
///     format!("Hello, {}!", args.name)
/// }
///
/// let greet = tool("greet", greet).description("Greets somebody");
/// let clock = tool("clock", || async { "noon" });
/// # let _ = (greet, clock);
/// ```
pub fn tool<M, F>(name: impl Into<String>, function: F) -> Tool
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<CallToolResult>> + Send + 'static,
{
    let function = Function::new(function);
    let schema = function.signature.arguments.clone().unwrap_or_else(schema::no_arguments);
    make(name.into(), schema, function)
}

/// Makes a tool whose schema is known only at run time.
///
/// `input_schema` is a JSON Schema of an object. Clients receive it without the parts that some of
/// them cannot read: the subschema `true` becomes `{}`, `false` becomes `{"not": {}}`, formats that
/// validators do not know are left out, and the root says `"type": "object"` and has `properties`.
/// The function receives arguments that fit the schema, usually as a [`Value`] or a [`JsonObject`].
///
/// ```
/// use serde_json::{Value, json};
/// use stentor::raw_tool;
///
/// let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
/// let echo = raw_tool("echo", schema, |args: Value| async move {
///     args["text"].as_str().unwrap_or_default().to_owned()
/// });
/// # let _ = echo;
/// ```
pub fn raw_tool<M, F>(name: impl Into<String>, input_schema: impl Into<Value>, function: F) -> Tool
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<CallToolResult>> + Send + 'static,
{
    let schema = match input_schema.into() {
        Value::Object(schema) => schema,
        // No object fits this schema, so the tool is refused when it is added, where an error can
        // be returned.
        _ => JsonObject::from_iter([("const".to_owned(), Value::Null)]),
    };
    make(name.into(), schema, Function::new(function))
}

fn make(name: String, input_schema: JsonObject, function: Function<CallToolResult>) -> Tool {
    let mut descriptor = model::Tool::new_with_raw(name, None, Arc::new(input_schema));
    descriptor.output_schema = function.signature.output.clone().map(Arc::new);
    Tool {
        descriptor,
        function,
        layers: Layers::default(),
        access: ItemAccess::default(),
        as_task: AsTask::Never,
        resumable: false,
    }
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

    /// Adds a middleware around this tool alone, outside of those that it has.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Self {
        self.layers = self.layers.within(Arc::new(layer));
        self
    }

    access_methods!();

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
    pub fn output_schema(mut self, schema: impl Into<Value>) -> Self {
        // Anything but an object describes nothing.
        self.descriptor.output_schema = match schema.into() {
            Value::Object(schema) => Some(Arc::new(schema)),
            _ => None,
        };
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
    access: Access,
}

impl ToolEntry {
    pub(crate) fn check(tool: Tool) -> Result<Self, SchemaError> {
        let input = &tool.descriptor.input_schema;
        let schema = InputSchema::compile(input)?;
        let output =
            tool.descriptor.output_schema.as_deref().map(InputSchema::compile).transpose()?;
        let headers = ParamHeaders::from_schema(input)?;
        let descriptor = ToolDescriptor::of(&tool.descriptor)?;
        let access = tool.access.access();
        Ok(Self { tool, descriptor, schema, output, headers, access })
    }

    pub(crate) fn json(&self, era: Era) -> &Bytes {
        self.descriptor.json(era)
    }

    pub(crate) fn name(&self) -> &str {
        self.tool.name()
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.tool.function.signature
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.tool.layers
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the scopes of a call depend on its arguments.
    pub(crate) fn asks_arguments(&self) -> bool {
        self.tool.access.asks_arguments()
    }

    /// The scopes that depend on the arguments. Arguments that cannot be read need none: they are
    /// refused later.
    pub(crate) fn scopes_of(
        &self,
        arguments: &Arguments,
    ) -> Result<BTreeSet<Arc<str>>, ErrorObject> {
        let Ok(arguments) = arguments.read() else { return Ok(BTreeSet::new()) };
        self.tool.access.scopes_of(&ScopeRequest::new(self.name(), &arguments))
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
            let of = ctx.clone();
            // Boxed to keep the common future small: few calls come here.
            Box::pin(offload.run(move || this.read(&arguments, &of))).await?
        } else {
            self.read(&arguments, &ctx)?
        };
        self.tool.function.run(Input::Arguments(arguments), ctx).await
    }

    /// Parses arguments, checks the scopes that depend on them, then checks them against the schema.
    fn read(&self, arguments: &Arguments, ctx: &Context) -> Result<Value, ToolError> {
        let arguments = arguments.read()?;
        if self.tool.access.asks_arguments() {
            let request = ScopeRequest::new(self.name(), &arguments);
            let scopes = self.tool.access.scopes_of(&request).map_err(ToolError::protocol)?;
            // A client is told all scopes of a request together.
            let scopes = scopes.union(&self.access.scopes).cloned().collect();
            ctx.require_scopes(scopes)?;
        }
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
            Err(Kind::Message(message) | Kind::Hidden(message)) => {
                CallToolResult::error(vec![ContentBlock::text(message)])
            }
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
