use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use stentor_wire::ErrorObject;
use stentor_wire::model::{
    self, GetPromptResult, Icon, MetaObject, PromptArgument, PromptMessage, Role,
};

use super::{Completer, Completion, Context, PromptError, Running};

type PromptCode =
    dyn Fn(PromptArgs, Context) -> Running<Result<GetPromptResult, PromptError>> + Send + Sync;

/// The arguments of a prompt, by name. Required arguments are always present.
pub type PromptArgs = BTreeMap<String, String>;

/// A prompt: the descriptor that clients see, and the code that fills it in.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) descriptor: model::Prompt,
    run: Arc<PromptCode>,
    completer: Option<Completer>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// Makes a prompt from an async function of the arguments, of the arguments and a [`Context`], of a
/// [`Context`], or of nothing.
///
/// ```
/// use stentor_engine::{PromptArgs, PromptError, prompt};
///
/// let review = prompt("review", |args: PromptArgs| async move {
///     Ok::<_, PromptError>(format!("Review this code:\n{}", args["code"]))
/// })
/// .description("Asks for a review")
/// .argument("code", "What to review", true);
/// # let _ = review;
/// ```
pub fn prompt<M>(name: impl Into<String>, function: impl PromptFn<M>) -> Prompt {
    let function = Arc::new(function);
    Prompt {
        descriptor: model::Prompt::new(name.into(), None::<String>, None),
        run: Arc::new(move |arguments, ctx| function.call(arguments, ctx)),
        completer: None,
    }
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

    /// Declares an argument. A request without a required argument is refused.
    #[must_use]
    pub fn argument(
        mut self,
        name: impl Into<String>,
        description: impl Into<String>,
        required: bool,
    ) -> Self {
        self.descriptor
            .arguments
            .get_or_insert_default()
            .push(PromptArgument::new(name).with_description(description).with_required(required));
        self
    }

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
}

impl PromptEntry {
    pub(crate) fn check(prompt: Prompt) -> Result<Self, super::SchemaError> {
        let json = serde_json::to_vec(&prompt.descriptor)
            .map_err(|error| super::SchemaError::Invalid(error.to_string()))?
            .into();
        Ok(Self { prompt, json })
    }

    pub(crate) fn name(&self) -> &str {
        self.prompt.name()
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
        (self.prompt.run)(arguments, ctx)
    }
}

/// A type that a prompt may return.
pub trait IntoPromptResult: Send + 'static {
    /// The result as clients see it.
    fn into_prompt_result(self) -> GetPromptResult;
}

impl IntoPromptResult for GetPromptResult {
    fn into_prompt_result(self) -> GetPromptResult {
        self
    }
}

impl IntoPromptResult for Vec<PromptMessage> {
    fn into_prompt_result(self) -> GetPromptResult {
        GetPromptResult::new(self)
    }
}

impl IntoPromptResult for PromptMessage {
    fn into_prompt_result(self) -> GetPromptResult {
        GetPromptResult::new(vec![self])
    }
}

impl IntoPromptResult for String {
    fn into_prompt_result(self) -> GetPromptResult {
        PromptMessage::new_text(Role::User, self).into_prompt_result()
    }
}

impl IntoPromptResult for &'static str {
    fn into_prompt_result(self) -> GetPromptResult {
        self.to_owned().into_prompt_result()
    }
}

/// An async function that can be a prompt; see [`prompt`]. `M` is always inferred.
pub trait PromptFn<M>: Send + Sync + 'static {
    /// Fills the prompt in.
    fn call(
        &self,
        arguments: PromptArgs,
        ctx: Context,
    ) -> Running<Result<GetPromptResult, PromptError>>;
}

macro_rules! prompt_fn {
    ($shape:ty, ($($param:ty),*), |$function:ident, $arguments:ident, $ctx:ident| $call:expr) => {
        impl<Func, Fut, Res, Error> PromptFn<$shape> for Func
        where
            Func: Fn($($param),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<Res, Error>> + Send + 'static,
            Res: IntoPromptResult,
            Error: Into<PromptError> + 'static,
        {
            fn call(
                &self,
                $arguments: PromptArgs,
                $ctx: Context,
            ) -> Running<Result<GetPromptResult, PromptError>> {
                let $function = self;
                let running = $call;
                async move { Ok(running.await.map_err(Into::into)?.into_prompt_result()) }.boxed()
            }
        }
    };
}

use super::tool::shape;

prompt_fn!(shape::Both<PromptArgs>, (PromptArgs, Context), |function, arguments, ctx| {
    function(arguments, ctx)
});
prompt_fn!(shape::Arguments<PromptArgs>, (PromptArgs), |function, arguments, _ctx| {
    function(arguments)
});
prompt_fn!(shape::ContextOnly, (Context), |function, _arguments, ctx| function(ctx));
prompt_fn!(shape::Nothing, (), |function, _arguments, _ctx| function());
