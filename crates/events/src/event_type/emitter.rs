//! **Owns** nothing but its mailbox.
//! **Receives** occurrences to emit, from actors of the host. It emits one after the other.
//! **Sends** the id, or why there is none, to who has asked for it.
//! **Dies when** its type is removed, the keeper ends, or a bug panics, as in the author's `Serialize`.
//! **Restarts as** an actor with an empty mailbox, when somebody asks for the emitter again.

use std::marker::PhantomData;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Emit, EmitError, EventType};
use crate::running::RunningType;

/// What the [emitter](EventType::emitter) of a type understands.
#[derive(Debug)]
pub enum EmitMessage<P> {
    /// Emits. If that fails, it is only logged.
    Cast(Emit<P>),
    /// Emits, and replies with the id. Who waits no longer for the reply has emitted nevertheless.
    Call(Emit<P>, RpcReplyPort<Result<Arc<str>, EmitError>>),
}

#[cfg(feature = "cluster")]
impl<P: Send + Sync + 'static> ractor::Message for EmitMessage<P> {}

impl<P> From<Emit<P>> for EmitMessage<P> {
    fn from(emit: Emit<P>) -> Self {
        Self::Cast(emit)
    }
}

/// Emits what it is sent.
struct Emitter<P>(PhantomData<fn(P)>);

impl<P: Serialize + Send + Sync + 'static> Actor for Emitter<P> {
    type Msg = EmitMessage<P>;
    type State = Arc<RunningType>;
    type Arguments = Arc<RunningType>;

    async fn pre_start(
        &self,
        _myself: ActorRef<EmitMessage<P>>,
        running: Arc<RunningType>,
    ) -> Result<Arc<RunningType>, ActorProcessingErr> {
        Ok(running)
    }

    async fn handle(
        &self,
        _myself: ActorRef<EmitMessage<P>>,
        message: EmitMessage<P>,
        running: &mut Arc<RunningType>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EmitMessage::Cast(emit) => {
                if let Err(error) = emit.into_log(running).await {
                    tracing::error!(%error, "what was sent to an emitter is not emitted");
                }
            }
            EmitMessage::Call(emit, reply) => {
                // The caller may have ended.
                let _ = reply.send(emit.into_log(running).await);
            }
        }
        Ok(())
    }
}

impl<F, P> EventType<F, P>
where
    F: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    P: Serialize + JsonSchema + Send + Sync + 'static,
{
    /// The actor of this type that emits what it is sent: for actors that must not wait, and for those
    /// that know nothing of the type but its messages. All callers get the same one.
    ///
    /// It [emits](Self::emit) one occurrence after the other, in the order of its messages. A mailbox of
    /// ractor has no bound: what is cast faster than it can be emitted waits in memory. Emitting waits
    /// while streams are far behind, for the store of a durable type, and for the other nodes of a
    /// cluster. Who emits bursts should use [`EmitMessage::Call`] and wait for the replies.
    ///
    /// It is supervised by the extension. It ends with the type and with the engine: messages are then
    /// refused, and calls that wait fail. If it crashes, what was in its mailbox is lost; the next
    /// caller of this method gets a new one.
    ///
    /// ```
    /// use ractor::ActorRef;
    /// use stentor_events::{Emit, EmitMessage, Events, event_type};
    /// # use stentor_engine::Engine;
    /// # type Payload = std::collections::BTreeMap<String, u32>;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let noon = event_type::<(), Payload>("noon");
    /// let engine = Engine::builder("Clock", "1").extension(Events::new().add(&noon)).start().await?;
    ///
    /// let emitter: ActorRef<EmitMessage<Payload>> = noon.emitter().await?;
    /// // Fire and forget:
    /// emitter.cast(Emit::new([("hour".to_owned(), 12)].into()).into())?;
    /// // With the id as the reply:
    /// let late = Emit::new([("hour".to_owned(), 13)].into());
    /// let id = ractor::call!(emitter, EmitMessage::Call, late)??;
    /// # assert!(!id.is_empty());
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`EmitError::NotRunning`].
    pub async fn emitter(&self) -> Result<ActorRef<EmitMessage<P>>, EmitError> {
        let not_running = || EmitError::NotRunning(self.definition.name.clone());
        let running = self.running.load_full().ok_or_else(not_running)?;
        let start = |keeper| {
            let started =
                Actor::spawn_linked(None, Emitter::<P>(PhantomData), running.clone(), keeper);
            async move { started.await.map(|(emitter, _)| emitter.get_cell()) }
        };
        running.emitter(start).await.map(ActorRef::from).ok_or_else(not_running)
    }
}
