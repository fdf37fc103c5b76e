//! Where sessions are kept that are to survive their node.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;

use super::SessionRecord;
use crate::ids::{NodeId, SessionId};

/// Keeps what identifies legacy HTTP sessions where all nodes find it, so that another node can
/// carry on those of one that died: who the client is, its log level, what it watches.
///
/// What was sent to them is in the [`EventStore`](crate::outlet::EventStore), which should be
/// shared, too. Nobody waits for a session to be saved, not even its `initialize`: a node that dies
/// within the moment takes with it what changed in that moment.
///
/// [`testing::session_store_keeps_its_contract`](crate::testing::session_store_keeps_its_contract)
/// says what every store has to do.
pub trait SessionStore: Debug + Send + Sync + 'static {
    /// Keeps a session that this node has, in the place of what was kept of it, for at least this
    /// time from now on; `false`, and nothing is kept, if another node has it by now. A node has it
    /// that saves it after [more moves](SessionRecord::moves) than are known, or after as many if
    /// it had it before.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. It is tried again. When dropped early, it may be kept or not.
    fn save<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionRecord,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<bool, SessionStoreError>>;

    /// Gives a session to the node `by` if `from` has it, with one move more. Of several nodes that
    /// ask at once one gets it.
    ///
    /// Only for its own [principal](SessionRecord::principal), to the byte: for any other, and for
    /// none where it has one or one where it has none, it is [`Claim::Unknown`] and stays as it is.
    /// Whoever has only heard the id of a session must neither move it nor learn that it is there.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. When dropped early, it may have been given.
    fn claim<'a>(
        &'a self,
        session: &'a SessionId,
        principal: Option<&'a str>,
        from: &'a NodeId,
        by: &'a NodeId,
    ) -> BoxFuture<'a, Result<Claim, SessionStoreError>>;

    /// Forgets a session if this node has it.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]. It is tried again. When dropped early, it may be forgotten or not.
    fn remove<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), SessionStoreError>>;
}

/// What a node is told that claims a session.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The node has it from now on.
    Given(Box<SessionRecord>),
    /// This node has it, and keeps it.
    Held(NodeId),
    /// There is no such session, or it is not this principal's.
    Unknown,
}

/// A store of sessions failed.
#[derive(Debug, thiserror::Error)]
#[error("the store of sessions failed: {0}")]
pub struct SessionStoreError(pub Box<dyn std::error::Error + Send + Sync>);
