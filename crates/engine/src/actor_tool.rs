//! A tool whose work is done by an actor of the host.

use std::sync::Arc;

use ractor::{ActorRef, Message, RpcReplyPort};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::Context;
use crate::handler::{IntoToolResult, Tool, ToolError, shape, tool};

type Reply<T> = RpcReplyPort<Result<T, ToolError>>;

/// A tool whose work is done by an actor.
///
/// `message` makes the message to the actor from the arguments, the [`Context`] of the call and
/// the reply port. It takes all three, or leaves out the arguments, the context, or both. The reply
/// is a `Result` of any [`IntoToolResult`]. The types define the schemas that clients see, and
/// arguments are checked, as with [`tool`].
///
/// `actor` is the [`ActorRef`], or a closure that finds the current one: an actor that was
/// restarted has a new reference (see [`FindActor`]).
///
/// Each running call is one message in the actor's mailbox; the engine bounds how many run.
///
/// # Errors
///
/// The call fails at once with an error that the actor has gone: when no actor is found, when the
/// actor ends while the call waits, even if another owner has the port by then, and when the port
/// is dropped unused. The error contains the tool's name and no details.
///
/// # Cancellation
///
/// A cancelled call waits no more, and its port is closed. The actor notices this with
/// [`RpcReplyPort::is_closed`] before it begins, and with [`Context::cancelled`] during its work.
/// The actor is not stopped.
///
/// ```
/// use ractor::{ActorRef, RpcReplyPort};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor_engine::{Context, Tool, ToolError, actor_tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Convert {
///     path: String,
/// }
///
/// enum ConverterMsg {
///     Convert(Convert, Context, RpcReplyPort<Result<String, ToolError>>),
///     Waiting(RpcReplyPort<Result<String, ToolError>>),
/// }
/// # #[cfg(feature = "cluster")]
/// # impl ractor::Message for ConverterMsg {}
///
/// fn tools(converter: ActorRef<ConverterMsg>) -> [Tool; 2] {
///     let waiting = actor_tool("waiting", converter.clone(), ConverterMsg::Waiting);
///     let convert = actor_tool("convert", converter, |args: Convert, ctx: Context, reply| {
///         ConverterMsg::Convert(args, ctx, reply)
///     });
///     [waiting, convert.description("Converts a file")]
/// }
///
/// // In the actor:
/// fn handle(message: ConverterMsg) {
///     match message {
///         ConverterMsg::Convert(args, ctx, reply) => {
///             ctx.report_progress(1.0, Some(2.0), "reading");
///             // The requester may have ended.
///             let _ = reply.send(Ok(format!("{} is converted", args.path)));
///         }
///         ConverterMsg::Waiting(reply) => drop(reply.send(Ok("none".to_owned()))),
///     }
/// }
/// # let _ = (tools, handle);
/// ```
pub fn actor_tool<M, S>(
    name: impl Into<String>,
    actor: impl FindActor<M>,
    message: impl ActorToolFn<M, S>,
) -> Tool {
    message.into_tool(name.into(), actor)
}

/// Finds the actor that does the work of a tool.
///
/// A reference is valid for one life of an actor. A closure can look up the current reference where
/// the actor's supervisor stores it:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use ractor::ActorRef;
/// use stentor_engine::FindActor;
///
/// # enum ConverterMsg {}
/// # #[cfg(feature = "cluster")]
/// # impl ractor::Message for ConverterMsg {}
/// // The supervisor writes here whenever it starts a converter.
/// let current: Arc<Mutex<Option<ActorRef<ConverterMsg>>>> = Arc::default();
/// let converter = move || current.lock().unwrap().clone();
/// assert!(converter.find().is_none());
/// ```
pub trait FindActor<M>: Send + Sync + 'static {
    /// The current actor, if there is one. Called once for each call; must not block.
    fn find(&self) -> Option<ActorRef<M>>;
}

impl<M: Message> FindActor<M> for ActorRef<M> {
    fn find(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<M: Message, F> FindActor<M> for F
where
    F: Fn() -> Option<ActorRef<M>> + Send + Sync + 'static,
{
    fn find(&self) -> Option<ActorRef<M>> {
        self()
    }
}

/// A function that makes a message from a call; see [`actor_tool`]. `S` distinguishes the shapes of
/// functions and is always inferred.
pub trait ActorToolFn<M, S>: Send + Sync + 'static {
    /// Makes the tool with this name. Its calls are sent to the actor.
    fn into_tool(self, name: String, actor: impl FindActor<M>) -> Tool;
}

macro_rules! actor_tool_fn {
    ($shape:ty, ($($param:ident: $type:ty),*), [$($generic:ident)?]) => {
        impl<Func, M, T, $($generic)?> ActorToolFn<M, ($shape, T)> for Func
        where
            Func: Fn($($type,)* Reply<T>) -> M + Send + Sync + 'static,
            M: Message,
            T: IntoToolResult,
            $($generic: DeserializeOwned + JsonSchema + Send + 'static,)?
        {
            fn into_tool(self, name: String, actor: impl FindActor<M>) -> Tool {
                let shared = Arc::new((name.clone(), actor, self));
                tool(name, move |$($param: $type),*| {
                    let shared = shared.clone();
                    async move {
                        let (name, actor, message) = &*shared;
                        ask(name, actor, |reply| message($($param,)* reply)).await
                    }
                })
            }
        }
    };
}

actor_tool_fn!(shape::Both<A>, (args: A, ctx: Context), [A]);
actor_tool_fn!(shape::Arguments<A>, (args: A), [A]);
actor_tool_fn!(shape::ContextOnly, (ctx: Context), []);
actor_tool_fn!(shape::Nothing, (), []);

async fn ask<M: Message, T: IntoToolResult>(
    name: &str,
    actor: &impl FindActor<M>,
    message: impl FnOnce(Reply<T>) -> M,
) -> Result<T, ToolError> {
    let gone = || ToolError::new(format!("the actor that runs '{name}' has gone"));
    let actor = actor.find().ok_or_else(gone)?;
    let (reply, mut answer) = ractor::concurrency::oneshot();
    actor.cast(message(reply.into())).map_err(|_| gone())?;
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered.ok(),
        // The port may outlive the actor: another owner has it, or the message arrived too late to
        // be dropped with the mailbox.
        _ = actor.wait(None) => answer.try_recv().ok(),
    };
    answered.unwrap_or_else(|| Err(gone()))
}
