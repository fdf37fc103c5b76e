//! Extensions of the protocol. Each brings an identifier, settings, methods and notifications. The
//! tasks extension goes through here, and so do those of an author.

mod schema;
mod stream;

use std::any::Any;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use serde::Serialize;
use serde_json::Value;
use stentor_wire::encode::ResultBody;
use stentor_wire::model::JsonObject;
use stentor_wire::{Era, ErrorObject, KeyKind, ListKind, Method, Params, Request, TASKS_EXTENSION};

use crate::call::{Dispatch, Target};
use crate::caller::Caller;
use crate::handler::{
    CallError, Context, Function, Handler, Input, IntoReply, OperationInput, OperationKind,
    Parameters,
};
use crate::hub::SubscriberKey;
use crate::ids::NodeId;
use crate::nodes::RemoteTopics;
use crate::offload::LARGE;
use crate::states::States;
pub use schema::Schema;
pub use stream::{AccessRules, Requester, StreamMethod, StreamRequest};

/// An extension, as the engine sees it.
pub(crate) trait ProtocolExtension: fmt::Debug + Send + Sync {
    /// Its name in the capabilities.
    fn identifier(&self) -> &str;

    /// Its settings in the capabilities; `None` if it does not exist in an era.
    fn settings(&self, era: Era) -> Option<Value>;

    /// Decides about a request, if its method belongs to the extension.
    fn dispatch(self: Arc<Self>, caller: &Caller, request: &Request) -> Option<Dispatch>;

    /// The method by which the request opens a stream, if it does.
    fn stream_method(&self, _name: &str) -> Option<Arc<dyn StreamMethod>> {
        None
    }

    /// The nodes of which one is to serve a request instead of this one.
    fn route(&self, _requester: &dyn Fn() -> Requester, _request: &Request) -> Vec<NodeId> {
        Vec::new()
    }

    /// Answers a message of the same extension on another node. `None` if it knows none.
    fn on_peer_message(&self, _message: Bytes) -> Option<BoxFuture<'static, Bytes>> {
        None
    }

    /// Whether its calls are new work, which a shutdown refuses.
    fn calls_are_new_work(&self) -> bool {
        true
    }

    /// The kind of topics that it owns, if there is one.
    fn owns(&self) -> Option<KeyKind> {
        None
    }

    /// Decides which topics a listen receives, of those that it owns and whose keys are asked for.
    fn grant<'a>(
        &'a self,
        _caller: &'a Caller,
        _request: &'a Request,
        _asked: Vec<Arc<str>>,
    ) -> BoxFuture<'a, Result<Grant, ErrorObject>> {
        async { Ok(Grant::default()) }.boxed()
    }

    /// Sends a subscriber the current states of topics, through the hub. It has joined the hub.
    fn send_states(self: Arc<Self>, _to: SubscriberKey, _keys: Vec<Arc<str>>) {}
}

/// What an extension grants a listen of the topics that it owns.
#[derive(Default)]
pub(crate) struct Grant {
    /// The topics on this node, by their keys.
    pub(crate) local: Vec<Arc<str>>,
    pub(crate) remote: RemoteTopics,
}

/// An extension of the protocol with methods and notifications of its own.
///
/// Clients see it under `capabilities.extensions` of `initialize` and of `server/discover`, in both
/// eras. Make one with [`extension`], and add it with
/// [`EngineBuilder::extension`](crate::EngineBuilder::extension).
#[derive(Clone)]
pub struct Extension {
    identifier: Arc<str>,
    settings: JsonObject,
    pub(crate) capabilities: JsonObject,
    methods: Vec<(String, Function<ResultBody>)>,
    streams: Vec<(Arc<str>, Arc<dyn StreamMethod>)>,
    notifications: Vec<(Arc<str>, Arc<str>)>,
    required: bool,
    modern_only: bool,
    pub(crate) start: Option<StartHook>,
    route: Option<Arc<Route>>,
    on_peer_message: Option<Arc<OnPeerMessage>>,
}

/// Finds the nodes for a request of this method with these parameters.
type Route = dyn Fn(&Requester, &str, &Params) -> Vec<NodeId> + Send + Sync;
type OnPeerMessage = dyn Fn(Bytes) -> BoxFuture<'static, Bytes> + Send + Sync;

/// Runs when the engine has started; its argument is the engine.
pub(crate) type StartHook = Arc<
    dyn Fn(
            Arc<dyn Any + Send + Sync>,
        ) -> BoxFuture<'static, Result<(), Box<dyn Error + Send + Sync>>>
        + Send
        + Sync,
>;

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("identifier", &self.identifier)
            .field("methods", &self.methods.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Makes an extension with this identifier: a prefix that its author owns, a slash and a name.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use stentor::{Engine, Json, extension};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Add {
///     a: i64,
///     b: i64,
/// }
///
/// #[derive(Serialize)]
/// struct Sum {
///     sum: i64,
/// }
///
/// let arithmetic = extension("com.example/arithmetic")
///     .method("arithmetic/add", |args: Add| async move { Json(Sum { sum: args.a + args.b }) })
///     .notification("notifications/arithmetic/changed", "arithmeticChanged");
/// let builder = Engine::builder("My Server", "1.0.0").extension(arithmetic);
/// # let _ = builder;
/// ```
pub fn extension(identifier: impl Into<Arc<str>>) -> Extension {
    Extension {
        identifier: identifier.into(),
        settings: JsonObject::new(),
        capabilities: JsonObject::new(),
        methods: Vec::new(),
        streams: Vec::new(),
        notifications: Vec::new(),
        required: false,
        modern_only: false,
        start: None,
        route: None,
        on_peer_message: None,
    }
}

impl Extension {
    /// Sets the settings that clients see. Anything but a JSON object counts as no settings.
    #[must_use]
    pub fn settings(mut self, settings: impl Serialize) -> Self {
        self.settings = match serde_json::to_value(settings) {
            Ok(Value::Object(settings)) => settings,
            _ => JsonObject::new(),
        };
        self
    }

    /// Also declares a capability beside `extensions`, as
    /// [`EngineBuilder::capability`](crate::EngineBuilder::capability) does.
    #[must_use]
    pub fn capability(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.capabilities.insert(key.into(), value);
        }
        self
    }

    /// Adds a method.
    ///
    /// The function takes any of the [parameters](crate::FromCall) of a handler; its type for
    /// arguments are the parameters of the request. It returns anything that is [`IntoReply`], such as
    /// [`Json`](crate::Json) of what serializes to a JSON object. Parameters that do not fit their type
    /// are refused with -32602.
    #[must_use]
    pub fn method<M, F>(mut self, name: impl Into<String>, function: F) -> Self
    where
        M: Parameters,
        F: Handler<M>,
        F::Future: Future<Output: IntoReply<ResultBody>> + Send + 'static,
    {
        self.methods.push((name.into(), Function::new(function)));
        self
    }

    /// Adds a method whose answer is a stream of notices. It exists in the modern era only.
    #[must_use]
    pub fn stream_method(mut self, name: impl Into<Arc<str>>, method: impl StreamMethod) -> Self {
        self.streams.push((name.into(), Arc::new(method)));
        self
    }

    /// Sets which nodes serve a request of a client instead of this one: the first of them that can be
    /// reached. Without any, this node does. It must be quick.
    #[must_use]
    pub fn route(
        mut self,
        route: impl Fn(&Requester, &str, &Params) -> Vec<NodeId> + Send + Sync + 'static,
    ) -> Self {
        self.route = Some(Arc::new(route));
        self
    }

    /// Sets what answers the messages of the same extension on other nodes, which
    /// [`Engine::ask_peer`](crate::Engine::ask_peer) sends. Message and answer are JSON.
    #[must_use]
    pub fn on_peer_message<F>(mut self, answer: impl Fn(Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        self.on_peer_message = Some(Arc::new(move |message| answer(message).boxed()));
        self
    }

    /// Does not show the extension to legacy clients. Its methods still decide themselves about a
    /// legacy request.
    #[must_use]
    pub fn modern_only(mut self) -> Self {
        self.modern_only = true;
        self
    }

    /// Declares a notification. [`Engine::notify_all`](crate::Engine::notify_all) and
    /// [`Engine::notify`](crate::Engine::notify) with this method then also reach modern clients:
    /// those whose listen asks for it, with `true` under this member of its `notifications`.
    #[must_use]
    pub fn notification(
        mut self,
        method: impl Into<Arc<str>>,
        member: impl Into<Arc<str>>,
    ) -> Self {
        self.notifications.push((method.into(), member.into()));
        self
    }

    /// Refuses the methods to clients that do not declare the extension, with -32021 in the modern
    /// era.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// What runs when the engine has started, with the identifier.
    pub(crate) fn start_hook(&self) -> Option<(Arc<str>, StartHook)> {
        Some((self.identifier.clone(), self.start.clone()?))
    }

    /// The notifications: each method, and the member of a listen that asks for it.
    pub(crate) fn notifications(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.notifications.iter()
    }

    /// The error for a client that has to declare the extension, and does not.
    fn refused(&self, caller: &Caller) -> Option<ErrorObject> {
        let declared = caller.capabilities.extensions.as_ref();
        let declares = declared.is_some_and(|declared| declared.contains_key(&*self.identifier));
        if declares || !self.required {
            return None;
        }
        let required = serde_json::json!({"extensions": { (&*self.identifier): {} }});
        Some(match caller.era() {
            Era::Modern => ErrorObject::missing_capability(required),
            // The legacy era has no code for it.
            Era::Legacy => {
                ErrorObject::invalid_params(format!("the client lacks the capability {required}"))
            }
        })
    }
}

impl ProtocolExtension for Extension {
    fn identifier(&self) -> &str {
        &self.identifier
    }

    fn settings(&self, era: Era) -> Option<Value> {
        if self.modern_only && era == Era::Legacy {
            return None;
        }
        Some(Value::Object(self.settings.clone()))
    }

    fn stream_method(&self, name: &str) -> Option<Arc<dyn StreamMethod>> {
        self.streams.iter().find(|(method, _)| **method == *name).map(|(_, method)| method.clone())
    }

    fn route(&self, requester: &dyn Fn() -> Requester, request: &Request) -> Vec<NodeId> {
        let Method::Other(name) = &request.method else { return Vec::new() };
        let owns = self.methods.iter().any(|(method, _)| **method == **name)
            || self.stream_method(name).is_some();
        match &self.route {
            Some(route) if owns => route(&requester(), name, &request.params),
            _ => Vec::new(),
        }
    }

    fn on_peer_message(&self, message: Bytes) -> Option<BoxFuture<'static, Bytes>> {
        self.on_peer_message.as_ref().map(|answer| answer(message))
    }

    fn dispatch(self: Arc<Self>, caller: &Caller, request: &Request) -> Option<Dispatch> {
        let Method::Other(name) = &request.method else { return None };
        let (_, function) = self.methods.iter().find(|(method, _)| **method == **name)?;
        let function = function.clone();
        if let Some(error) = self.refused(caller) {
            return Some(Dispatch::Answer(Err(error)));
        }
        let operation = (OperationKind::Method, OperationInput::Params(request.params.clone()));
        Some(Dispatch::Call(Target::other(
            "the method",
            name,
            operation,
            |ctx, input| async move {
                let input = match input {
                    OperationInput::Params(params) => Input::Params(read(params, &ctx).await?),
                    _ => Input::Nothing,
                };
                function.run(input, ctx).await
            },
        )))
    }
}

/// Parses the parameters of a method; those that take long, on a thread of their own.
async fn read(params: Params, ctx: &Context) -> Result<Value, CallError> {
    let read = match params.source_len() > LARGE {
        true => ctx.host().offload().run(move || params.parse()).await,
        false => params.parse(),
    };
    read.map_err(CallError::protocol)
}

/// Why an extension is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The identifier has no prefix or no name.
    #[error("'{0}' is no identifier of an extension: a prefix, a slash and a name")]
    Identifier(String),
    /// Two extensions have the same identifier.
    #[error("extension '{0}' is added twice")]
    Twice(String),
    /// A method is empty, belongs to the protocol, or to another extension.
    #[error("extension '{0}' cannot have the method '{1}'")]
    Method(String, String),
    /// A method takes a state that the engine does not have.
    #[error("the method '{0}' takes State<{1}>: set it with EngineBuilder::state")]
    State(String, &'static str),
    /// A notification is declared twice.
    #[error("extension '{0}' cannot have the notification '{1}'")]
    Notification(String, String),
    /// A member of a listen belongs to the protocol, or to another notification.
    #[error("extension '{0}' cannot have the listen member '{1}'")]
    Member(String, String),
}

/// Checks the extensions of an engine.
pub(crate) fn check(extensions: &[Extension], states: &States) -> Result<(), ExtensionError> {
    let (mut methods, mut notifications) = (HashSet::new(), HashSet::new());
    let mut identifiers = HashSet::from([TASKS_EXTENSION]);
    // Those of the protocol.
    let mut members = HashSet::from(ListKind::ALL.map(ListKind::member));
    members.extend(KeyKind::ALL.map(|kind| kind.rules().member));
    for extension in extensions {
        let identifier = || extension.identifier.to_string();
        let named = extension.identifier.split_once('/');
        if !named.is_some_and(|(prefix, name)| !prefix.is_empty() && !name.is_empty()) {
            return Err(ExtensionError::Identifier(identifier()));
        }
        if !identifiers.insert(&*extension.identifier) {
            return Err(ExtensionError::Twice(identifier()));
        }
        for (name, function) in &extension.methods {
            let is_free = matches!(Method::parse(name), Method::Other(_)) && !name.is_empty();
            if !is_free || !methods.insert(&**name) {
                return Err(ExtensionError::Method(identifier(), name.clone()));
            }
            if let Some(missing) = states.missing(&function.signature.states) {
                return Err(ExtensionError::State(name.clone(), missing.name));
            }
        }
        for (name, _) in &extension.streams {
            let is_free = matches!(Method::parse(name), Method::Other(_)) && !name.is_empty();
            if !is_free || !methods.insert(&**name) {
                return Err(ExtensionError::Method(identifier(), name.to_string()));
            }
        }
        for (method, member) in extension.notifications() {
            if method.is_empty() || !notifications.insert(&**method) {
                return Err(ExtensionError::Notification(identifier(), method.to_string()));
            }
            if member.is_empty() || !members.insert(&**member) {
                return Err(ExtensionError::Member(identifier(), member.to_string()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> impl Fn() -> std::future::Ready<Result<(), CallError>> {
        || std::future::ready(Ok(()))
    }

    #[test]
    fn what_belongs_to_the_protocol_or_to_another_extension_is_refused() {
        let a = || extension("com.example/a").method("a/go", answers()).notification("n/a", "a");
        let refused = |extensions: &[Extension]| check(extensions, &States::default()).unwrap_err();
        assert_eq!(
            check(&[a(), extension("com.example/b").method("b/go", answers())], &States::default()),
            Ok(())
        );
        assert_eq!(refused(&[a(), a()]), ExtensionError::Twice("com.example/a".into()));
        for identifier in ["", "a", "/a", "a/"] {
            let error = ExtensionError::Identifier(identifier.to_owned());
            assert_eq!(refused(&[extension(identifier)]), error);
        }
        for method in ["", "tools/call", "tasks/get", "a/go"] {
            let b = extension("com.example/b").method(method, answers());
            let error = ExtensionError::Method("com.example/b".into(), method.to_owned());
            assert_eq!(refused(&[a(), b]), error);
        }
        assert_eq!(
            refused(&[extension(TASKS_EXTENSION)]),
            ExtensionError::Twice(TASKS_EXTENSION.into())
        );
        let twice = extension("com.example/b").notification("n/a", "b");
        let error = ExtensionError::Notification("com.example/b".into(), "n/a".into());
        assert_eq!(refused(&[a(), twice]), error);
        for member in ["", "taskIds", "a"] {
            let b = extension("com.example/b").notification("n/b", member);
            let error = ExtensionError::Member("com.example/b".into(), member.to_owned());
            assert_eq!(refused(&[a(), b]), error);
        }
    }
}
