//! What an actor of the host can tell an engine.

use ractor::{ActorRef, RpcReplyPort};
use serde_json::Value;
use stentor_wire::ListKind;

use super::Audience;
use crate::engine::Engine;
use crate::ids::{CallId, SessionId};
use crate::registry::{CatalogError, Change, Mutation};
use crate::root::{RootView, Tick};
use crate::session::SessionView;

/// A message to an engine, for actors that have its [`Engine::actor`].
///
/// What one actor sends is done in its order: who hears of something and then looks finds what
/// was changed before. Only announcements of changes may come later, after their window. Each has a method of [`Engine`] or of its
/// [`catalog`](Engine::catalog) beside it, for code that can await. Mailboxes of ractor have
/// no bound: who sends without end takes the methods, which wait.
///
/// Ports whose question has no answer any more, as the engine stops, are dropped.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineMsg {
    /// Changes the catalog: all of it or nothing. Every client is told of lists that differ.
    /// What is refused without a port to say so is logged.
    Apply(Vec<Mutation>, Option<RpcReplyPort<Result<Change, CatalogError>>>),
    /// Tells every client that a list changed, as
    /// [`Engine::send_tool_list_changed`] and its like do.
    ListChanged(ListKind),
    /// Tells every client that watches it that a resource changed.
    ResourceUpdated(String),
    /// Sends a notification of the application's own. Its parameters should be a JSON object.
    Notify(Audience, String, Option<Value>),
    /// Asks for all sessions.
    Sessions(RpcReplyPort<Vec<SessionView>>),
    /// Ends a session.
    EndSession(SessionId),
    /// Gives a session a new actor.
    RestartSession(SessionId),
    /// Cancels a call.
    CancelCall(CallId),
    /// Asks the root about itself.
    Observe(RpcReplyPort<RootView>),
    /// Shuts the engine down, as [`Engine::shutdown`] does.
    Shutdown,
    /// Time has passed; only the engine itself can say so.
    #[doc(hidden)]
    Tick(Tick),
}

crate::message!(EngineMsg);

impl Engine {
    /// The engine as an actor, for other actors to send [`EngineMsg`]s to.
    ///
    /// Its end is the engine's end. It is to be stopped with [`EngineMsg::Shutdown`] or
    /// [`Engine::shutdown`]; whoever stops it otherwise cuts off what is under way.
    #[must_use]
    pub fn actor(&self) -> ActorRef<EngineMsg> {
        self.root().clone()
    }
}
