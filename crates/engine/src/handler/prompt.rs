use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use stentor_wire::ErrorObject;
use stentor_wire::model::{self, GetPromptResult, Icon, JsonObject, MetaObject, PromptArgument};

use super::{
    Completer, Completion, Context, Function, Handler, Input, IntoReply, Layers, Middleware,
    Parameters, PromptError, Running, Signature,
};
use crate::access::{Access, ItemAccess, access_methods};

/// The arguments of a prompt, by name. Required arguments are always present.
pub type PromptArgs = BTreeMap<String, String>;

/// A prompt: the descriptor that clients see, and the code that fills it in.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) descriptor: model::Prompt,
    function: Function<GetPromptResult>,
    pub(crate) layers: Layers,
    pub(crate) access: ItemAccess,
    completer: Option<Completer>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// Makes a prompt from an async function.
///
/// The function takes any of the [parameters](crate::FromCall) of a handler, and returns anything
/// that is [`IntoReply`]. Its arguments are the fields of its type for them: their names, their docs
/// and whether they are required. Clients send them as texts; numbers, booleans and choices are
/// parsed.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor::prompt;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Review {
///     /// What to review.
///     code: String,
///     /// In how many words.
///     words: Option<u32>,
/// }
///
/// let review = prompt("review", |args: Review| async move {
///     format!("Review this code in {} words:\n{}", args.words.unwrap_or(100), args.code)
/// })
/// .description("Asks for a review");
/// # let _ = review;
/// ```
///
/// Of arguments that are known only at run time, a function takes the [`PromptArgs`]:
///
/// ```
/// use stentor::{prompt, handler::PromptArgs};
///
/// let review = prompt("review", |args: PromptArgs| async move { format!("Review {}", args["code"]) })
///     .argument("code", "What to review", true);
/// # let _ = review;
/// ```
pub fn prompt<M, F>(name: impl Into<String>, function: F) -> Prompt
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<GetPromptResult>> + Send + 'static,
{
    let function = Function::new(function);
    let mut descriptor = model::Prompt::new(name.into(), None::<String>, None);
    descriptor.arguments = function.signature.arguments.as_ref().and_then(arguments_of);
    let (layers, access) = (Layers::default(), ItemAccess::default());
    Prompt { descriptor, function, layers, access, completer: None }
}

/// The arguments of a prompt, from the schema of their type.
fn arguments_of(schema: &JsonObject) -> Option<Vec<PromptArgument>> {
    let fields = schema.get("properties")?.as_object()?;
    let required = schema.get("required").and_then(Value::as_array);
    let argument = |(name, field): (&String, &Value)| {
        let is_required = required.is_some_and(|all| all.iter().any(|one| one == name));
        let mut argument = PromptArgument::new(name).with_required(is_required);
        argument.title = field.get("title").and_then(Value::as_str).map(str::to_owned);
        argument.description = field.get("description").and_then(Value::as_str).map(str::to_owned);
        argument
    };
    Some(fields.iter().map(argument).collect())
}

impl Prompt {
    /// The name by which clients request the prompt.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// Sets what the prompt is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.descriptor.description = Some(description.into());
        self
    }

    /// Sets a name for people.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.descriptor.title = Some(title.into());
        self
    }

    /// Sets icons for people.
    #[must_use]
    pub fn icons(mut self, icons: impl IntoIterator<Item = Icon>) -> Self {
        self.descriptor.icons = Some(icons.into_iter().collect());
        self
    }

    /// Sets the `_meta` of the descriptor.
    #[must_use]
    pub fn meta(mut self, meta: MetaObject) -> Self {
        self.descriptor.meta = Some(meta);
        self
    }

    /// Declares an argument, instead of the one of this name. A request without a required argument
    /// is refused.
    #[must_use]
    pub fn argument(
        mut self,
        name: impl Into<String>,
        description: impl Into<String>,
        required: bool,
    ) -> Self {
        let name = name.into();
        let arguments = self.descriptor.arguments.get_or_insert_default();
        arguments.retain(|argument| argument.name != name);
        let argument = PromptArgument::new(name).with_description(description);
        arguments.push(argument.with_required(required));
        self
    }

    /// Adds a middleware around this prompt alone, outside of those that it has.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Self {
        self.layers = self.layers.within(Arc::new(layer));
        self
    }

    access_methods!();

    /// Sets the function that completes arguments while they are typed. It returns all values that
    /// fit, best first.
    #[must_use]
    pub fn complete<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Completion) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<String>> + Send + 'static,
    {
        self.completer = Some(Completer::new(function));
        self
    }
}

#[derive(Debug)]
pub(crate) struct PromptEntry {
    prompt: Prompt,
    pub(crate) json: Bytes,
    access: Access,
}

impl PromptEntry {
    pub(crate) fn check(prompt: Prompt) -> Result<Self, super::SchemaError> {
        let json = serde_json::to_vec(&prompt.descriptor)
            .map_err(|error| super::SchemaError::Invalid(error.to_string()))?
            .into();
        let access = prompt.access.access();
        Ok(Self { prompt, json, access })
    }

    pub(crate) fn name(&self) -> &str {
        self.prompt.name()
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.prompt.function.signature
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.prompt.layers
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The scopes that depend on the arguments.
    pub(crate) fn scopes_of(
        &self,
        arguments: &PromptArgs,
    ) -> Result<BTreeSet<Arc<str>>, ErrorObject> {
        self.prompt.access.scopes_of_texts(self.name(), arguments)
    }

    pub(crate) fn completer(&self) -> Option<&Completer> {
        self.prompt.completer.as_ref()
    }

    /// Checks that all required arguments are present.
    pub(crate) fn check_arguments(&self, arguments: &PromptArgs) -> Result<(), ErrorObject> {
        let declared = self.prompt.descriptor.arguments.iter().flatten();
        let missing: Vec<_> = declared
            .filter(|argument| {
                argument.required == Some(true) && !arguments.contains_key(&argument.name)
            })
            .map(|argument| format!("'{}'", argument.name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ErrorObject::invalid_params(format!(
            "prompt '{}' needs the argument {}",
            self.name(),
            missing.join(", ")
        )))
    }

    pub(crate) fn get(
        &self,
        arguments: PromptArgs,
        ctx: Context,
    ) -> Running<Result<GetPromptResult, PromptError>> {
        self.prompt.function.run(Input::Texts(arguments), ctx)
    }
}
