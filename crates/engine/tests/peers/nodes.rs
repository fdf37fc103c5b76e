//! Engines of one process as the nodes of a cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use stentor_engine::remote::{
    Fact, PeerEvent, PeerFacts, PeerRequest, PeerStream, Peers, Reach, ResponseControl, Unreachable,
};
use stentor_engine::{Engine, EngineBuilder, NodeId};
use stentor_wire::Response;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Engines of one process as each other's nodes. Their messages go through JSON, as between
/// processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes(Arc<Mutex<BTreeMap<NodeId, Engine>>>, Arc<Mutex<Links>>);

#[derive(Debug, Default)]
struct Links {
    /// The links cannot be used at the moment.
    away: bool,
    /// Cuts the current links.
    cut: CancellationToken,
}

#[derive(Debug)]
struct NodePeers {
    own: NodeId,
    nodes: Nodes,
}

#[derive(Debug)]
struct Back(mpsc::UnboundedSender<Response>);

impl ResponseControl for Back {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        self.0.send(response).unwrap();
    }
}

pub(crate) fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

impl NodePeers {
    fn others(&self) -> Vec<Engine> {
        let nodes = self.nodes.0.lock().unwrap();
        nodes.iter().filter(|(node, _)| **node != self.own).map(|(_, it)| it.clone()).collect()
    }
}

impl Peers for NodePeers {
    fn reach(&self, node: &NodeId) -> Reach {
        let known = self.nodes.0.lock().unwrap().contains_key(node);
        let away = self.nodes.1.lock().unwrap().away;
        match (known, away) {
            (true, false) => Reach::Remote(node.clone()),
            (true, true) => Reach::Unreachable,
            (false, _) => Reach::Dead,
        }
    }

    fn ask(&self, node: &NodeId, peer_request: PeerRequest) -> Result<PeerStream, Unreachable> {
        let engine = self.nodes.0.lock().unwrap().get(node).cloned();
        let engine = engine.ok_or_else(|| Unreachable(node.clone()))?;
        let links = self.nodes.1.lock().unwrap();
        if links.away {
            return Err(Unreachable(node.clone()));
        }
        let (cut, peer_request) = (links.cut.clone(), through_json(&peer_request));
        let (say, said) = mpsc::channel::<PeerEvent>(4);
        let (answers, mut answered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut serving = engine.serve_peer(peer_request).await;
            loop {
                tokio::select! {
                    next = serving.next() => match next {
                        Some(next) => if say.send(through_json(&next)).await.is_err() { return },
                        None => return,
                    },
                    Some(response) = answered.recv() => serving.client_answers(response),
                    () = say.closed() => return,
                    () = cut.cancelled() => return,
                }
            }
        });
        Ok(PeerStream::new(said, Box::new(Back(answers))))
    }
}

impl PeerFacts for NodePeers {
    fn offer_shown(&self, _node: &NodeId, _seq: u64, lists: stentor_engine::ListChanges) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned();
        own.unwrap().announce_lists(lists);
    }

    fn catalog_changed(&self, lists: stentor_engine::ListChanges) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned();
        let Some(own) = own else { return };
        for other in self.others() {
            let definitions = through_json(&own.catalog().snapshot().definitions());
            other.peer_offers(self.own.clone(), 0, Some(definitions));
        }
        own.announce_lists(lists);
    }

    fn registry_restarted(&self) {
        let own = self.nodes.0.lock().unwrap().get(&self.own).cloned().unwrap();
        for other in self.others() {
            let definitions = other.catalog().snapshot().definitions();
            own.peer_offers(other.node().clone(), 0, Some(definitions));
        }
    }

    fn tell(&self, fact: Fact) {
        for other in self.others() {
            match through_json(&fact) {
                Fact::Watch(uri, state) => {
                    // In a task of its own, as the other node may answer at once.
                    let own = self.own.clone();
                    tokio::spawn(async move { other.peer_watches(&own, vec![(uri, state)]) });
                }
                fact => other.receive_facts(vec![fact]),
            }
        }
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Nodes {
    pub(crate) async fn start(&self, name: &str, builder: EngineBuilder) -> Engine {
        let engine = builder.configure(|config| config.node = node(name)).start().await.unwrap();
        self.0.lock().unwrap().insert(node(name), engine.clone());
        let peers = Arc::new(NodePeers { own: node(name), nodes: self.clone() });
        engine.join_peers(Some(peers.clone()));
        peers.catalog_changed(stentor_engine::ListChanges::default());
        for other in peers.others() {
            let definitions = other.catalog().snapshot().definitions();
            engine.peer_offers(other.node().clone(), 0, Some(definitions));
            // Tells the new node which URIs are watched.
            let peers = NodePeers { own: other.node().clone(), nodes: self.clone() };
            other.join_peers(Some(Arc::new(peers)));
        }
        // The offers of the others are shown once this is applied.
        engine.catalog().remove_tool("none").await.unwrap();
        engine
    }

    /// Cuts all links. With `away`, new links cannot be used either.
    pub(crate) fn cut(&self, away: bool) {
        let links = Links { away, cut: CancellationToken::new() };
        std::mem::replace(&mut *self.1.lock().unwrap(), links).cut.cancel();
    }

    pub(crate) fn lose(&self, name: &str) {
        let lost = self.0.lock().unwrap().remove(&node(name));
        for engine in self.0.lock().unwrap().values() {
            engine.peer_offers(node(name), 0, None);
        }
        drop(lost);
    }
}
