//! What the author's functions take.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::Value;
use stentor_wire::ErrorObject;
use stentor_wire::bounds::shortened;
use stentor_wire::model::JsonObject;

use super::{CallError, Context, schema};
use crate::states::{StateType, States};

/// What a call brings for the parameters of a function.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nothing: a resource with a fixed URI is read.
    Nothing,
    /// The arguments of a tool, which fit its schema.
    Arguments(Value),
    /// The parameters of a method.
    Params(Value),
    /// The arguments of a prompt, or the variables of a URI.
    Texts(BTreeMap<String, String>),
}

/// A call that begins, for [`FromCall`].
#[derive(Debug)]
pub struct CallInput<'a> {
    ctx: &'a Context,
    input: Input,
}

impl<'a> CallInput<'a> {
    pub(crate) fn new(ctx: &'a Context, input: Input) -> Self {
        Self { ctx, input }
    }

    /// The call.
    #[must_use]
    pub fn context(&self) -> &'a Context {
        self.ctx
    }

    /// The arguments, of which there is one type: whoever takes them takes them away.
    fn take_arguments<A: DeserializeOwned>(&mut self) -> Result<A, CallError> {
        let invalid = |why: &dyn fmt::Display| format!("invalid arguments: {}", shortened(why));
        match std::mem::replace(&mut self.input, Input::Nothing) {
            Input::Nothing => serde_json::from_value(Value::Null)
                .map_err(|error| CallError::invalid_params(invalid(&error))),
            // They may fit the schema and not the type, if the author wrote one of them by hand.
            Input::Arguments(value) => {
                serde_json::from_value(value).map_err(|error| CallError::new(invalid(&error)))
            }
            Input::Params(value) => serde_json::from_value(value).map_err(|error| {
                let why = format!("invalid params: {}", shortened(&error));
                CallError::protocol(ErrorObject::invalid_params(why))
            }),
            Input::Texts(texts) => {
                let texts = texts.iter().map(|(name, text)| (name.as_str(), Text(text)));
                serde_path_to_error::deserialize(MapDeserializer::new(texts))
                    .map_err(|error| CallError::invalid_params(invalid(&error)))
            }
        }
    }
}

/// A text that is deserialized as what is asked for: a number, a choice, or a text.
struct Text<'a>(&'a str);

impl<'de> IntoDeserializer<'de, serde_plain::Error> for Text<'de> {
    type Deserializer = serde_plain::Deserializer<'de>;

    fn into_deserializer(self) -> Self::Deserializer {
        serde_plain::Deserializer::new(self.0)
    }
}

/// What a function takes and gives, as far as its types tell.
#[derive(Debug, Default)]
pub struct Signature {
    pub(crate) arguments: Option<JsonObject>,
    pub(crate) output: Option<JsonObject>,
    pub(crate) states: Vec<StateType>,
}

impl Signature {
    /// The arguments that the function cannot do without.
    pub(crate) fn required(&self) -> impl Iterator<Item = &str> {
        let required = self.arguments.as_ref().and_then(|schema| schema.get("required"));
        required.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }
}

/// A parameter of a [`Handler`](crate::Handler).
///
/// | parameter | what it is |
/// |---|---|
/// | [`Context`] | the running call |
/// | [`State<T>`] | what [`EngineBuilder::state`](crate::EngineBuilder::state) set |
/// | [`Principal`] | who calls; strangers are refused |
/// | a type that is [`DeserializeOwned`] and [`JsonSchema`] | the arguments of a tool or of a prompt, the variables of a template, the parameters of a method |
///
/// They come in any order. There is at most one type for the arguments. For a tool, its schema is
/// the tool's input schema, and arguments are checked against it before the function runs.
///
/// There is no `Option<Principal>` and no access to HTTP headers: [`Context::principal`] tells strangers,
/// and middleware in front of the endpoint sees headers. A parameter is taken without waiting; what has
/// to wait, such as a query, belongs into the handler or into [`Middleware`](crate::Middleware).
///
/// Implement it for what your handlers take from a call again and again:
///
/// ```
/// use stentor::{tool, handler::{CallError, CallInput, FromCall}};
///
/// /// What the client calls itself.
/// struct ClientName(String);
///
/// impl FromCall for ClientName {
///     fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
///         let client = call.context().client_info();
///         Ok(Self(client.map_or("somebody", |client| &client.name).to_owned()))
///     }
/// }
///
/// let greet = tool("greet", |name: ClientName| async move { format!("Hello, {}!", name.0) });
/// # let _ = greet;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a handler",
    label = "not a parameter of a handler",
    note = "the type of the arguments derives `serde::Deserialize` and `schemars::JsonSchema`, and is taken by value",
    note = "other parameters are `Context`, `State<T>`, `Principal`, and what implements `FromCall`"
)]
pub trait FromCall: Sized + Send + 'static {
    /// Whether this is the type of the arguments.
    #[doc(hidden)]
    const IS_ARGUMENTS: bool = false;

    /// Adds to the signature of a function what this parameter tells: a parameter that is made of
    /// others asks them.
    #[doc(hidden)]
    fn describe(_signature: &mut Signature) {}

    /// Takes the parameter from a call that begins. Must not block.
    ///
    /// # Errors
    ///
    /// The call is answered with the error, and the function does not run.
    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError>;
}

impl FromCall for Context {
    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
        Ok(call.ctx.clone())
    }
}

// Not recommended, so that the compiler says what a parameter can be, and not only what this one lacks.
#[diagnostic::do_not_recommend]
impl<A: DeserializeOwned + JsonSchema + Send + 'static> FromCall for A {
    const IS_ARGUMENTS: bool = true;

    fn describe(signature: &mut Signature) {
        signature.arguments = Some(schema::of_type::<A>());
    }

    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
        call.take_arguments()
    }
}

/// What [`EngineBuilder::state`](crate::EngineBuilder::state) set for all handlers: a value of the
/// type `T`, cloned for each call. Something large or shared belongs into an [`Arc`].
///
/// An item whose function takes a state that the engine does not have is refused when it is added.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use stentor::{Engine, State, tool};
///
/// async fn count(State(counter): State<Arc<AtomicU64>>) -> u64 {
///     counter.fetch_add(1, Ordering::Relaxed) + 1
/// }
///
/// let builder = Engine::builder("s", "1").state(Arc::new(AtomicU64::new(0))).tool(tool("count", count));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> FromCall for State<T> {
    fn describe(signature: &mut Signature) {
        signature.states.push(StateType::of::<T>());
    }

    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
        let state = call.ctx.states().get::<T>();
        // An item is checked when it is added; a parameter of the author's own may not be.
        let missing = || CallError::new(format!("the engine has no state {}", type_name::<T>()));
        state.cloned().map(Self).ok_or_else(missing)
    }
}

/// Who calls, as the transport found out. As a parameter of a handler: the call of a stranger is
/// refused before the function runs; [`Context::principal`] tells strangers, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub Arc<str>);

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromCall for Principal {
    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
        let principal = call.ctx.call().caller.principal().cloned();
        principal.map(Self).ok_or_else(|| CallError::new("this is only for users who are known"))
    }
}

/// The parameters of a function: a tuple of [`FromCall`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the parameters of a handler",
    note = "each parameter is `Context`, `State<T>`, `Principal`, what implements `FromCall`, or one type that derives `Deserialize` and `JsonSchema` for the arguments"
)]
pub trait Parameters: Sized {
    #[doc(hidden)]
    const HAS_ARGUMENTS: bool;

    #[doc(hidden)]
    fn signature() -> Signature;

    #[doc(hidden)]
    fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError>;
}

macro_rules! parameters {
    ($($parameter:ident)*) => {
        impl<$($parameter: FromCall,)*> Parameters for ($($parameter,)*) {
            const HAS_ARGUMENTS: bool = {
                let types = 0 $(+ $parameter::IS_ARGUMENTS as usize)*;
                assert!(
                    types <= 1,
                    "a handler takes its arguments as one type: make one struct of them"
                );
                types == 1
            };

            fn signature() -> Signature {
                #[allow(unused_mut, reason = "a function without parameters tells nothing")]
                let mut signature = Signature::default();
                let _checked = Self::HAS_ARGUMENTS;
                $($parameter::describe(&mut signature);)*
                signature
            }

            #[allow(unused_variables, reason = "a function without parameters takes nothing")]
            fn from_call(call: &mut CallInput<'_>) -> Result<Self, CallError> {
                Ok(($($parameter::from_call(call)?,)*))
            }
        }
    };
}

parameters!();
parameters!(A);
parameters!(A B);
parameters!(A B C);
parameters!(A B C D);
parameters!(A B C D E);
parameters!(A B C D E F);
parameters!(A B C D E F G);
parameters!(A B C D E F G H);

impl Context {
    pub(crate) fn states(&self) -> &States {
        self.call().host.states()
    }

    /// The state of this type that [`EngineBuilder::state`](crate::EngineBuilder::state) set, for
    /// middleware and for parameters of one's own; handlers take [`State<T>`]. `None` if there is none.
    #[must_use]
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.states().get()
    }
}
