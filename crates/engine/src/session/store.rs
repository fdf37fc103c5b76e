//! The store of sessions that must survive their node.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;

use super::SessionRecord;
use crate::identity::Owner;
use crate::ids::{NodeId, SessionId};

/// Keeps the identity of legacy HTTP sessions where all nodes find it, so that another node can
/// continue the sessions of a node that died: the client, its log level, and the resources that it
/// watches.
///
/// The frames that were sent are in the [`EventStore`](stentor_delivery::EventStore), which should be
/// shared, too. Nothing waits until a session is saved, not even the answer to `initialize`: a node
/// that dies loses what changed in its last moment.
///
/// `stentor::test::stores::session_store_keeps_its_contract` checks what every store has to do.
pub trait SessionStore: Debug + Send + Sync + 'static {
    /// Saves a session that this node has, in place of its earlier record, for at least `keep_for`
    /// from now on. `false`, and nothing is saved, if another node has the session by now.
    ///
    /// A node has a session if it saves it after [more moves](SessionRecord::moves) than the store
    /// knows, or after as many moves if it had the session before.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. The engine tries again. When dropped early, the session may be saved
    /// or not.
    fn save<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionRecord,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<bool, SessionStoreError>>;

    /// Gives a session to the node `by` if the node `from` has it, and adds one move. If several
    /// nodes ask at once, one of them gets it.
    ///
    /// Only for the session's own [owner](SessionRecord::owner), whose principal and client are
    /// compared byte by byte. For any other owner, for none where the session has one, and for one
    /// where the session has none, the result is [`TakeOver::Unknown`] and the session stays
    /// unchanged. A stranger who only knows the id of a session must neither move it nor learn that
    /// it exists.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. When dropped early, the session may have been given.
    fn take_over<'a>(
        &'a self,
        session: &'a SessionId,
        owner: &'a Owner,
        from: &'a NodeId,
        by: &'a NodeId,
    ) -> BoxFuture<'a, Result<TakeOver, SessionStoreError>>;

    /// Removes a session if this node has it.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. The engine tries again. When dropped early, the session may be
    /// removed or not.
    fn remove<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), SessionStoreError>>;
}

/// The result for a node that takes over a session.
#[derive(Clone, Debug)]
pub enum TakeOver {
    /// The node that asked has the session from now on.
    Given(Box<SessionRecord>),
    /// This node has the session, and keeps it.
    Held(NodeId),
    /// No such session exists, or it belongs to another owner.
    Unknown,
}

/// A session store failed.
#[derive(Debug, thiserror::Error)]
#[error("the store of sessions failed: {0}")]
pub struct SessionStoreError(pub Box<dyn std::error::Error + Send + Sync>);
