//! Messages from actors of the host to an engine.

use ractor::RpcReplyPort;
use serde_json::Value;
use stentor_wire::Topic;

use crate::audience::Audience;
use crate::catalog::{CatalogError, Change, Mutation};
use crate::ids::{CallId, SessionId};
use crate::session::SessionView;
use crate::supervisor::{SupervisorView, Tick};

/// A message to an engine, for actors that have its [`Engine::actor`](crate::Engine::actor).
///
/// Messages of one actor are handled in order: a client that is notified and then reads sees all
/// changes that were sent before. Only announcements of changes may come later, after their window.
/// Each message has a corresponding method of [`Engine`](crate::Engine) or of its [`catalog`](crate::Engine::catalog),
/// for async code. Mailboxes of ractor have no bound: an actor that sends without end should use
/// the methods, which wait.
///
/// When the engine stops, reply ports that have no answer yet are dropped.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineMsg {
    /// Applies mutations to the catalog, all or none. Every client is notified of the lists that
    /// differ. If the mutations are refused and there is no reply port, the error is logged.
    Apply(Vec<Mutation>, Option<RpcReplyPort<Result<Change, CatalogError>>>),
    /// Notifies every client that subscribes to a list or a resource that it changed, as
    /// [`Engine::send_tool_list_changed`](crate::Engine::send_tool_list_changed) and the similar
    /// methods do.
    Changed(Topic),
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
    /// Asks the supervisor for a view of itself.
    Observe(RpcReplyPort<SupervisorView>),
    /// Shuts the engine down, as [`Engine::shutdown`](crate::Engine::shutdown) does.
    Shutdown,
    /// Time has passed. Only the engine itself can send this.
    #[doc(hidden)]
    Tick(Tick),
}

crate::message!(EngineMsg);
