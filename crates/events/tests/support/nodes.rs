//! Engines of one process as the nodes of a cluster, which pass on the messages of extensions.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stentor_engine::remote::{
    Fact, PeerFacts, PeerRequest, PeerStream, Peers, Reach, ResponseControl, Unreachable,
};
use stentor_engine::{Engine, EngineBuilder, ListChanges, NodeId};
use stentor_wire::Response;
use tokio::sync::mpsc;

/// The nodes, each with its side of a split: those of one side reach each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes(Arc<Mutex<BTreeMap<NodeId, (Engine, u8)>>>);

#[derive(Debug)]
struct Links {
    own: NodeId,
    nodes: Nodes,
}

#[derive(Debug)]
struct Deaf;

impl ResponseControl for Deaf {
    fn took(&self, _count: usize) {}

    fn answer(&self, _response: Response) {}
}

impl Links {
    fn reached(&self) -> BTreeMap<NodeId, Engine> {
        let nodes = self.nodes.0.lock();
        let Some((_, side)) = nodes.get(&self.own) else { return BTreeMap::new() };
        let others = nodes.iter().filter(|(node, (_, it))| **node != self.own && it == side);
        others.map(|(node, (engine, _))| (node.clone(), engine.clone())).collect()
    }
}

impl Peers for Links {
    fn reach(&self, node: &NodeId) -> Reach {
        let is_reached = self.reached().contains_key(node);
        match is_reached {
            true => Reach::Remote(node.clone()),
            false => Reach::Unreachable,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.reached().into_keys().collect()
    }

    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable> {
        let engine = self.reached().remove(node).ok_or_else(|| Unreachable(node.clone()))?;
        let (say, said) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut serving = engine.serve_peer(peer_request).await;
            while let Some(next) = serving.next().await {
                if say.send(next).await.is_err() {
                    return;
                }
            }
        });
        Ok(PeerStream::new(said, Box::new(Deaf)))
    }
}

impl PeerFacts for Links {
    fn offer_shown(&self, _node: &NodeId, _seq: u64, _lists: ListChanges) {}

    fn catalog_changed(&self, _lists: ListChanges) {}

    fn registry_restarted(&self) {}

    fn tell(&self, _fact: Fact) {}
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Nodes {
    /// Gives an engine its name.
    pub(crate) fn named(name: &str, builder: EngineBuilder) -> EngineBuilder {
        builder.configure(|config| config.node = node(name))
    }

    /// An engine joins the others.
    pub(crate) fn join(&self, engine: &Engine) {
        let own = engine.node().clone();
        self.0.lock().insert(own.clone(), (engine.clone(), 0));
        engine.join_peers(Some(Arc::new(Links { own, nodes: self.clone() })));
    }

    /// Nobody reaches a node any more, as if its process had died. What it runs goes on.
    pub(crate) fn lose(&self, name: &str) {
        self.0.lock().remove(&node(name));
    }

    /// These nodes reach each other and no others, and the others each other.
    pub(crate) fn split(&self, names: &[&str]) {
        let names: BTreeSet<_> = names.iter().map(|name| node(name)).collect();
        for (node, (_, side)) in &mut *self.0.lock() {
            *side = u8::from(names.contains(node));
        }
    }
}
