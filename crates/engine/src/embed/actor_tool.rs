//! A tool whose work is done by an actor of the host.

use std::sync::Arc;

use ractor::{ActorRef, Message, RpcReplyPort};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::Context;
use crate::handler::{IntoToolResult, Tool, ToolError, shape, tool};

/// Where the answer to a call goes.
type Reply<T> = RpcReplyPort<Result<T, ToolError>>;

/// A tool whose work is done by an actor.
///
/// `message` makes the message that asks the actor, from the arguments, the [`Context`] of
/// the call and the port for its answer; it takes all three, or leaves out the arguments, the
/// context, or both. The answer is a `Result` of anything that is [`IntoToolResult`]. The
/// types say what clients see, and arguments are checked, as with [`tool`].
///
/// `actor` is the [`ActorRef`], or a closure that finds the current one: an actor that was
/// restarted has a new reference (see [`FindActor`]).
///
/// Each running call is one message in the actor's mailbox; the engine bounds how many run.
///
/// # Errors
///
/// The caller is told at once that the actor has gone when none is found, when it ends while
/// the call waits, even if somebody else holds the port by then, and when the port is dropped
/// unused. It reads the tool's name there, and nothing of what happened.
///
/// # Cancellation
///
/// A call that is cancelled waits no more, and its port is closed: the actor sees so with
/// [`RpcReplyPort::is_closed`] before it begins, and with [`Context::cancelled`] in the midst
/// of its work. It is not stopped.
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
///             // Whoever asked may have gone.
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

/// Where the actor is that does the work of a tool.
///
/// A reference stands for one life of an actor. A closure can look up the current one, where
/// its supervisor puts it:
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
    /// The actor as it is now, if there is one. Asked once for each call; must not block.
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

/// A function that makes a message from a call; see [`actor_tool`]. `S` tells the shapes of
/// functions apart and is always inferred.
pub trait ActorToolFn<M, S>: Send + Sync + 'static {
    /// The tool of this name whose calls are sent to the actor.
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

/// Sends the message, and waits for the answer or the end of the actor.
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
        // The port may outlive the actor: somebody else has it, or the message came too late
        // to be dropped with the mailbox.
        _ = actor.wait(None) => answer.try_recv().ok(),
    };
    answered.unwrap_or_else(|| Err(gone()))
}
