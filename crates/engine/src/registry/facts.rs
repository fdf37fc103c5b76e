//! What an engine reports to the other nodes of its cluster.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stentor_wire::Topic;

use crate::access::ListChanges;
use crate::audience::Audience;
use crate::catalog::Definition;
use crate::ids::NodeId;
use crate::items::ItemKind;

/// Something that a node sends to all others. A later fact on the same subject replaces an earlier
/// one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The node offers this item.
    Put(Definition),
    /// The node does not offer this item any more.
    Remove(ItemKind, Arc<str>),
    /// Clients of the node watch this URI, in its normal form, or the node runs its hooks. Neither
    /// is the same as no such fact.
    Watch(Arc<str>, WatchState),
    /// The node's application announced a change of this topic to all its subscribers.
    Changed(Topic),
    /// The rights of a principal, or of all, have changed.
    Refresh(Option<Arc<str>>),
    /// A principal is locked out; or not any more.
    Revoked(Arc<str>, Option<Revocation>),
    /// As [`Put`](Self::Put), for an item that is not for everybody to see. Nodes of a release that
    /// cannot hide items do not know this fact, and leave it out.
    PutRestricted(Definition),
    /// The node's application sent a notification of its own.
    Notify {
        /// The sessions that receive it.
        audience: Audience,
        /// The method.
        method: Arc<str>,
        /// The parameters, an object, if there are any.
        params: Option<Value>,
    },
}

/// That a principal is locked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Until when.
    pub until: SystemTime,
    /// Whether its running calls are cancelled.
    pub cancel_calls: bool,
}

/// What a node reports of a URI whose item has hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchState {
    /// Clients of the node watch the URI.
    pub watched: bool,
    /// The node runs the hooks: from the begin of `on_watch` to the end of `on_unwatch`.
    pub running: bool,
}

/// The other nodes, for what an engine reports to them. No method may block.
pub trait PeerFacts: fmt::Debug + Send + Sync + 'static {
    /// Reports that this engine's own catalog has changed. The clients of these lists must be
    /// [notified](crate::Engine::announce_lists) when all nodes show the change.
    fn catalog_changed(&self, changes: ListChanges);

    /// Reports that this engine shows what another node [offers](crate::Engine::peer_offers), as of
    /// `seq`, which changes these lists. The clients must be notified when all nodes show it.
    fn offer_shown(&self, node: &NodeId, seq: u64, changes: ListChanges);

    /// Reports that a registry crashed and was replaced. Offers and facts that other nodes sent
    /// meanwhile may be lost, and must be sent again.
    fn registry_restarted(&self);

    /// Sends a [`Fact::Changed`], [`Fact::Notify`], [`Fact::Watch`], [`Fact::Refresh`] or
    /// [`Fact::Revoked`] to all nodes.
    fn tell(&self, fact: Fact);
}
