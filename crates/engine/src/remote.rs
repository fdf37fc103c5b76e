//! The other nodes of a cluster: finds the node that can serve a request, and asks it.
//!
//! The engine knows only that there may be other nodes. How they are found and reached is up to the
//! code that calls [`join_peers`](crate::Engine::join_peers), as `stentor-cluster` does.
//!
//! A node *sends* all others [`Fact`]s: what it offers, and what changed. It *asks* another node by
//! a [`PeerRequest`]: a call goes to the node that has its tool, and a message of a client goes to
//! the node that has its session. The answer is a stream of [`PeerEvent`]s.
//!
//! * `protocol.rs`: what nodes say to each other, and the traits that a cluster implements.
//! * `http_session.rs`: a session on another node, and its streams.
//! * `call.rs`, `listen.rs`: calls and tasks on other nodes.
//! * `stream.rs`: streams and messages of extensions on other nodes.
//! * `serve.rs`: the other side, which serves what another node asks.
//! * `migrate.rs`, `take_over.rs`: how a session changes its node.

mod call;
mod http_session;
mod listen;
mod migrate;
mod protocol;
mod serve;
mod stream;
mod take_over;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use crate::caller::RemoteCaller;
pub use crate::catalog::Definition;
use crate::dispatch::Dispatcher;
use crate::ids::{NodeId, SessionId};
pub use crate::node_view::{NodeState, NodeView, PeerRequestCounts};
pub use crate::nodes::Reach;
use crate::reasons::Refused;
pub use crate::registry::{Fact, PeerFacts, Revocation, WatchState};
use crate::request_sender::RequestSender;
pub use crate::session::SessionRecord;
use crate::session::{Session, Sessions};
pub use http_session::HttpSession;
use migrate::Migrations;
pub use migrate::OutgoingMigration;
pub use protocol::{
    PeerEvent, PeerRequest, PeerStream, Peers, ResponseControl, SessionOp, Unreachable,
};
pub use serve::{PeerQuestions, PeerResponse};
use stentor_macros::Setters;

/// The other nodes, once this engine has [joined](crate::Engine::join_peers) them.
#[derive(Debug)]
pub(crate) struct PeerNodes {
    node: NodeId,
    peers: ArcSwapOption<Arc<dyn Peers>>,
}

impl PeerNodes {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, peers: ArcSwapOption::empty() }
    }

    fn peers(&self) -> Option<Arc<Arc<dyn Peers>>> {
        self.peers.load_full()
    }

    /// Where to ask for something whose id begins with the name of its node.
    fn reach_id(&self, id: &str) -> Reach {
        NodeId::of(id).map_or(Reach::Local, |node| self.reach_node(&node))
    }

    /// Where to ask for something that `node` gave out.
    fn reach_node(&self, node: &NodeId) -> Reach {
        match self.peers() {
            Some(peers) if *node != self.node => peers.reach(node),
            _ => Reach::Local,
        }
    }
}

/// How requests to other nodes are served.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// How long a request of a legacy HTTP session on another node waits, after that node was lost,
    /// for the node to be reached again or to be given up. After that, or when the session has
    /// ended with its node, the request is answered with an error. Default 10 s.
    pub reconnect_timeout: Duration,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self { reconnect_timeout: Duration::from_secs(10) }
    }
}

/// The sessions of this node, seen together with the other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Remote(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    nodes: Arc<PeerNodes>,
    sessions: Arc<Sessions>,
    dispatcher: Arc<Dispatcher>,
    migrations: Migrations,
    config: RemoteConfig,
}

/// Where a session is.
#[derive(Debug)]
enum Found {
    Local(Session),
    Remote(NodeId),
}

impl Remote {
    pub(crate) fn new(
        nodes: Arc<PeerNodes>,
        sessions: Arc<Sessions>,
        dispatcher: Arc<Dispatcher>,
        config: RemoteConfig,
    ) -> Self {
        let migrations = Migrations::default();
        Self(Arc::new(Parts { nodes, sessions, dispatcher, migrations, config }))
    }

    /// Connects this node to the other ones. `None` disconnects it.
    pub(crate) fn join_peers(&self, peers: Option<Arc<dyn Peers>>) {
        let facts = peers.clone().map(|peers| peers as Arc<dyn PeerFacts>);
        self.0.sessions.registry.join_peers(facts);
        self.0.nodes.peers.store(peers.map(Arc::new));
    }

    pub(crate) fn node_views(&self) -> Vec<NodeView> {
        self.0.nodes.peers().map(|peers| peers.views()).unwrap_or_default()
    }

    pub(crate) fn request_counts(&self) -> PeerRequestCounts {
        self.0.nodes.peers().map(|peers| peers.request_counts()).unwrap_or_default()
    }

    /// Finds a legacy session over HTTP by its id, for its owner.
    pub(crate) async fn http_session(
        &self,
        id: &str,
        sender: &RequestSender,
    ) -> Result<HttpSession, Refused> {
        if self.0.sessions.registry.viewers.is_revoked(&sender.who) {
            return Err(Refused::Revoked);
        }
        if let Some(session) = self.local_session(id, sender).await {
            return Ok(HttpSession::local(session));
        }
        // Boxed to keep the common future small: most sessions are on this node.
        Box::pin(self.find_session(&SessionId::new(id), sender)).await
    }

    async fn local_session(&self, id: &str, sender: &RequestSender) -> Option<Session> {
        self.0.migrations.settled(id).await;
        self.0.sessions.find_http(id, sender)
    }

    /// Finds a session that is not on this engine, by its id or in the session store. A session
    /// whose node died is on this engine from then on.
    async fn find_session(
        &self,
        id: &SessionId,
        sender: &RequestSender,
    ) -> Result<HttpSession, Refused> {
        let found = match (self.moved(id), self.0.nodes.reach_id(id.as_str())) {
            (Some(node), _) | (None, Reach::Remote(node)) => Found::Remote(node),
            (None, Reach::Unreachable) => return Err(Refused::Unreachable),
            (None, Reach::Local | Reach::Dead) => self.take_over_session(id, sender).await?,
        };
        Ok(match found {
            Found::Local(session) => HttpSession::local(session),
            Found::Remote(node) => {
                let who = self.0.sessions.registry.viewers.for_session(&sender.who);
                let sender = RequestSender { who, ..sender.clone() };
                HttpSession::remote(self.clone(), node, id.clone(), sender)
            }
        })
    }

    /// Like [`http_session`](Self::http_session), for another node that was sent to this one: the
    /// name in the session's id sends it nowhere else.
    async fn session_for_peer(
        &self,
        id: &SessionId,
        sender: &RequestSender,
    ) -> Result<Found, Refused> {
        if self.0.sessions.registry.viewers.is_revoked(&sender.who) {
            return Err(Refused::Revoked);
        }
        if let Some(session) = self.local_session(id.as_str(), sender).await {
            return Ok(Found::Local(session));
        }
        match self.moved(id) {
            Some(node) => Ok(Found::Remote(node)),
            None => self.take_over_session(id, sender).await,
        }
    }

    /// The node to which a session has moved from this one. With a session store: unless that node
    /// is dead, or this node may have restarted. Then the session may be newer than the record of
    /// its last move.
    fn moved(&self, id: &SessionId) -> Option<NodeId> {
        let names_this_node = NodeId::of(id.as_str()).as_ref() == Some(&self.0.nodes.node);
        let may_have_restarted = self.0.sessions.saver.is_some() && names_this_node;
        if may_have_restarted { None } else { self.last_move(id) }
    }

    fn last_move(&self, id: &SessionId) -> Option<NodeId> {
        let peers = self.0.nodes.peers()?;
        let dies = self.0.sessions.saver.is_some();
        peers.moved(id).filter(|node| !dies || peers.reach(node) != Reach::Dead)
    }
}
