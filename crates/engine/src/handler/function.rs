//! The author's functions: what may be one, and one made ready to run.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::ready;

use super::{CallError, CallInput, Context, Input, IntoReply, Parameters, Running, Signature};

/// An async function, or a closure that returns a future, with at most eight parameters.
///
/// A tool, a resource, a template, a prompt and a method of an extension are each made of one. Each
/// parameter is something [`FromCall`](crate::FromCall), and what it returns is something
/// [`IntoReply`]. `M`, the tuple of its parameters, is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that can handle a call",
    label = "needs to be an async function, or a closure that returns a future",
    note = "it has at most eight parameters, which it takes by value: `Context`, `State<T>`, and one type for the arguments",
    note = "the parameters of a closure need their types: `|ctx: Context| async move {{ .. }}`"
)]
pub trait Handler<M>: Send + Sync + 'static {
    /// The future of the function.
    type Future;

    /// Calls the function.
    fn call(&self, parameters: M) -> Self::Future;
}

macro_rules! handler {
    ($($parameter:ident)*) => {
        impl<Func, Fut, $($parameter,)*> Handler<($($parameter,)*)> for Func
        where
            Func: Fn($($parameter),*) -> Fut + Send + Sync + 'static,
        {
            type Future = Fut;

            #[allow(non_snake_case, reason = "a parameter is named like its type")]
            fn call(&self, ($($parameter,)*): ($($parameter,)*)) -> Fut {
                self($($parameter),*)
            }
        }
    };
}

handler!();
handler!(A);
handler!(A B);
handler!(A B C);
handler!(A B C D);
handler!(A B C D E);
handler!(A B C D E F);
handler!(A B C D E F G);
handler!(A B C D E F G H);

type Run<R> = dyn Fn(Input, Context) -> Running<Result<R, CallError>> + Send + Sync;

/// A function of the author's, ready to run: its result is an `R`.
pub(crate) struct Function<R> {
    run: Arc<Run<R>>,
    pub(crate) signature: Arc<Signature>,
}

impl<R> Clone for Function<R> {
    fn clone(&self) -> Self {
        Self { run: self.run.clone(), signature: self.signature.clone() }
    }
}

impl<R> fmt::Debug for Function<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.signature.fmt(f)
    }
}

impl<R: Send + 'static> Function<R> {
    pub(crate) fn new<M, F>(function: F) -> Self
    where
        M: Parameters,
        F: Handler<M>,
        F::Future: Future<Output: IntoReply<R>> + Send + 'static,
    {
        let mut signature = M::signature();
        signature.output = <F::Future as Future>::Output::output_schema();
        let run: Arc<Run<R>> =
            Arc::new(move |input, ctx| match M::from_call(&mut CallInput::new(&ctx, input)) {
                Ok(parameters) => {
                    let running = function.call(parameters);
                    async move { running.await.into_reply(ctx.uri()) }.boxed()
                }
                Err(error) => ready(Err(error)).boxed(),
            });
        Self { run, signature: Arc::new(signature) }
    }

    /// Begins to run the function.
    pub(crate) fn run(&self, input: Input, ctx: Context) -> Running<Result<R, CallError>> {
        (self.run)(input, ctx)
    }
}
