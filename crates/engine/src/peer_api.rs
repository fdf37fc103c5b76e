//! What a cluster needs of an engine: `stentor-cluster` and its tests use it. The types are those of
//! [`remote`](crate::remote).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt as _;

use crate::access::ListChanges;
use crate::catalog::Definition;
use crate::engine::Engine;
use crate::events::{EngineEvent, PeerChange};
use crate::identity::{Identity, Who};
use crate::ids::{NodeId, SessionId};
use crate::registry::{Fact, RegistryMsg, WatchState};
use crate::remote::{
    NodeView, OutgoingMigration, PeerRequest, PeerResponse, PeerStream, Peers, Unreachable,
};
use crate::session::rejoin_all;

impl Engine {
    /// How long calls may run on during a shutdown: [`Config::drain_timeout`](crate::Config).
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.core().config.drain_timeout
    }

    /// The name of this engine in a cluster.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.core().config.node
    }

    /// Connects this engine to the other nodes. `None` disconnects it.
    pub fn join_peers(&self, peers: Option<Arc<dyn Peers>>) {
        let has_peers = peers.is_some();
        self.core().remote.join_peers(peers);
        self.core().watches.peers_changed(has_peers);
    }

    /// Tells load balancers to send new requests to another node, and why. See
    /// [`not_ready`](Self::not_ready).
    pub fn set_not_ready(&self, why: &'static str) {
        self.core().lifecycle.set_not_ready(why);
    }

    /// Tells load balancers to send new requests here again, unless there is another reason by now
    /// not to.
    pub fn clear_not_ready(&self, why: &'static str) {
        self.core().lifecycle.clear_not_ready(why);
    }

    /// Reports to observers what has become of another node.
    pub fn peer_changed(&self, node: &NodeId, change: PeerChange) {
        self.core().events.emit(|| EngineEvent::PeerChanged { node: node.clone(), change });
    }

    /// The other nodes of the cluster, as this one sees them, also those that cannot be reached.
    #[must_use]
    pub fn node_views(&self) -> Vec<NodeView> {
        self.core().remote.node_views()
    }

    /// The nodes of the cluster that can be reached now, without this one.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        self.core().remote.peers()
    }

    /// Sends a message to the same extension on another node, and returns its answer. Both are JSON.
    /// When dropped early, the message may have arrived or not.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if there is no answer.
    pub async fn ask_peer(
        &self,
        node: &NodeId,
        identifier: &str,
        message: Bytes,
    ) -> Result<Bytes, Unreachable> {
        self.core().remote.ask_peer(node, identifier, message).await
    }

    /// Answers messages that other nodes [send](Self::ask_peer) to this identifier, from now on, in
    /// place of whoever did before. For what is no extension of the protocol; an extension has
    /// [`on_peer_message`](crate::Extension::on_peer_message).
    pub fn answer_peers<F>(
        &self,
        identifier: &str,
        answer: impl Fn(Bytes) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Bytes> + Send + 'static,
    {
        self.core().dispatcher.answer_peers(identifier, move |message| answer(message).boxed());
    }

    /// The definitions of this engine's own items that somebody sees; `None` sees all.
    #[must_use]
    pub fn definitions_for(&self, identity: Option<&Identity>) -> Vec<Definition> {
        let catalog = self.catalog().snapshot();
        let mut definitions = catalog.definitions();
        if let Some(identity) = identity {
            let viewer = self.core().registry.viewers.viewer(&Who::Known(identity.clone()));
            definitions.retain(|it| catalog.sees(Some(&viewer), it.kind, &it.key));
        }
        definitions
    }

    /// Serves a peer request that was meant for another node, after its target has come to this
    /// one.
    #[must_use]
    pub fn ask_itself(&self, peer_request: PeerRequest) -> PeerStream {
        self.core().remote.ask_itself(peer_request)
    }

    /// Shows what another node offers; `None` if the node is gone, and with it what it offers and
    /// watches. [`PeerFacts::offer_shown`](crate::remote::PeerFacts::offer_shown)
    /// receives `seq` once readers see the change.
    pub fn peer_offers(&self, node: NodeId, seq: u64, definitions: Option<Vec<Definition>>) {
        if definitions.is_none() {
            self.core().watches.forget(&node);
        }
        self.core().registry.send(RegistryMsg::RemoteOffer(node, seq, definitions));
    }

    /// Handles what another node reports of URIs with hooks: the newest [`Fact::Watch`] of each.
    pub fn peer_watches(&self, node: &NodeId, reported: Vec<(Arc<str>, WatchState)>) {
        self.core().watches.remote(node, reported);
    }

    /// Ends all hooks of resources: each `on_watch` is followed by its `on_unwatch`, and no other
    /// begins, so that another node watches. Returns when they have ended, after
    /// [`drain_timeout`](Self::drain_timeout) at the latest.
    ///
    /// When dropped early, the hooks end anyway.
    pub async fn end_watches(&self) {
        self.core().watches.close();
        let _ = tokio::time::timeout(self.drain_timeout(), self.core().watches.closed()).await;
    }

    /// Notifies clients that lists have changed, after all nodes show the change.
    pub fn announce_lists(&self, changes: ListChanges) {
        self.core().registry.send(RegistryMsg::AnnounceLists(changes));
    }

    /// Handles facts of another node. Their notices go to their subscribers, after those of earlier
    /// facts.
    pub fn receive_facts(&self, facts: Vec<Fact>) {
        let (rights, facts): (Vec<_>, Vec<_>) = facts
            .into_iter()
            .partition(|fact| matches!(fact, Fact::Refresh(_) | Fact::Revoked(..)));
        for fact in rights {
            match fact {
                Fact::Refresh(principal) => {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.refresh_here(principal.as_deref()).await });
                }
                Fact::Revoked(principal, Some(revocation)) => {
                    self.revoke_here(&principal, revocation);
                }
                // It ends by itself.
                _ => {}
            }
        }
        self.core().registry.send(RegistryMsg::Facts(facts));
    }

    /// Handles a loss of facts of another node: everything that clients subscribe to may have
    /// changed.
    pub fn facts_were_lost(&self) {
        let engine = self.clone();
        // Rights may have changed, too.
        tokio::spawn(async move { engine.refresh_here(None).await });
        rejoin_all(&self.core().sessions);
    }

    /// Serves a peer request of another node. If it cannot be served, [`PeerEvent::Refused`] is the
    /// first and only event of the response.
    ///
    /// When dropped early, the request may have been served or not.
    ///
    /// [`PeerEvent::Refused`]: crate::remote::PeerEvent::Refused
    pub async fn serve_peer(&self, peer_request: PeerRequest) -> PeerResponse {
        self.core().remote.serve_peer(peer_request).await
    }

    /// The ids of the legacy HTTP sessions on this engine.
    #[must_use]
    pub fn http_sessions(&self) -> Vec<SessionId> {
        self.core().sessions.http_ids()
    }

    /// Takes a session out of this engine, so that another node can continue it.
    ///
    /// Its calls may end within `drain_timeout`. Lookups for it wait until the
    /// [`OutgoingMigration`] is dropped. `None` if there is no such session, or it is on its way
    /// already.
    pub async fn begin_migration(
        &self,
        id: &SessionId,
        drain_timeout: Duration,
    ) -> Option<OutgoingMigration> {
        self.core().remote.begin_migration(id, drain_timeout).await
    }
}
