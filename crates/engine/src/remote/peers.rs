//! The other nodes, for the code of this engine.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, FutureExt as _};
use stentor_wire::{KeyKind, Request};

use super::{Peers, call, listen};
use crate::call::Target;
use crate::caller::Caller;
use crate::ids::NodeId;
use crate::nodes::{OtherNodes, Reach, RemoteTopics};

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

    /// Connects to the other nodes. `None` disconnects.
    pub(crate) fn join(&self, peers: Option<Arc<dyn Peers>>) {
        self.peers.store(peers.map(Arc::new));
    }

    /// The name of this node.
    pub(crate) fn own(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn peers(&self) -> Option<Arc<Arc<dyn Peers>>> {
        self.peers.load_full()
    }

    /// Where to ask for something that `node` gave out.
    pub(super) fn reach_node(&self, node: &NodeId) -> Reach {
        match self.peers() {
            Some(peers) if *node != self.node => peers.reach(node),
            _ => Reach::Local,
        }
    }
}

impl OtherNodes for PeerNodes {
    fn reach(&self, signed: &str) -> Reach {
        NodeId::of(signed).map_or(Reach::Local, |node| self.reach_node(&node))
    }

    fn call(
        &self,
        nodes: Vec<NodeId>,
        caller: &Caller,
        request: &Request,
        subject: &str,
    ) -> Target {
        call::target(self.peers(), nodes, caller, request, subject)
    }

    fn listen<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Request,
        kind: KeyKind,
        keys: &'a mut Vec<Arc<str>>,
    ) -> BoxFuture<'a, RemoteTopics> {
        listen::listen(self, caller, request, kind, keys).boxed()
    }
}
