//! A tool whose work is done by an actor of the host.

use std::sync::Arc;

use ractor::{ActorRef, Message, RpcReplyPort};
use stentor_wire::model::CallToolResult;

use crate::handler::{FromCall, IntoReply, Tool, ToolError, tool};

/// A tool whose work is done by an actor.
///
/// `message` makes the message to the actor from at most four [parameters](crate::FromCall) of a
/// handler, and from the reply port. The reply is anything that a tool may return: [`IntoReply`]. The
/// types define the schemas that clients see, and arguments are checked, as with [`tool`].
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
/// [`RpcReplyPort::is_closed`] before it begins, and with [`Context::cancelled`](crate::Context::cancelled) during its work.
/// The actor is not stopped.
///
/// ```
/// use ractor::{ActorRef, RpcReplyPort};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor::{Context, Tool, ToolError, actor_tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Convert {
///     path: String,
/// }
///
/// enum ConverterMsg {
///     Convert(Convert, Context, RpcReplyPort<Result<String, ToolError>>),
///     Waiting(RpcReplyPort<u32>),
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
///         ConverterMsg::Waiting(reply) => drop(reply.send(0)),
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
/// use stentor::handler::FindActor;
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
    ($($parameter:ident: $type:ident)*) => {
        impl<Func, M, T, $($type,)*> ActorToolFn<M, ($($type,)* T,)> for Func
        where
            Func: Fn($($type,)* RpcReplyPort<T>) -> M + Send + Sync + 'static,
            M: Message,
            T: IntoReply<CallToolResult>,
            $($type: FromCall,)*
        {
            fn into_tool(self, name: String, actor: impl FindActor<M>) -> Tool {
                let shared = Arc::new((name.clone(), actor, self));
                tool(name, move |$($parameter: $type),*| {
                    let shared = shared.clone();
                    async move {
                        let (name, actor, message) = &*shared;
                        ask(name, actor, |reply| message($($parameter,)* reply)).await
                    }
                })
            }
        }
    };
}

actor_tool_fn!();
actor_tool_fn!(a: A);
actor_tool_fn!(a: A b: B);
actor_tool_fn!(a: A b: B c: C);
actor_tool_fn!(a: A b: B c: C d: D);

async fn ask<M: Message, T: Send + 'static>(
    name: &str,
    actor: &impl FindActor<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
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
    answered.ok_or_else(gone)
}
