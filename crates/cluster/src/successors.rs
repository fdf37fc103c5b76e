//! Where the sessions of nodes that left are.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use stentor_engine::{NodeId, SessionId};

/// The gossip key of a node that leaves and accepts no more sessions.
pub(crate) const LEAVING: &str = "leaving";

/// The gossip key under which a node lists the nodes whose successor it is.
const SUCCEEDS: &str = "succeeds";

/// The most names in the gossiped list of a successor, and the most nodes that are known to leave.
/// A longer list loses its oldest names.
const MAX_NAMES: usize = 64;

/// Above this number, the successors of nodes that left are forgotten.
const MAX_SUCCESSORS: usize = 4096;

/// Which nodes have the sessions of nodes that left.
#[derive(Debug, Default)]
pub(crate) struct Successors {
    /// For each node that left, its successor.
    successors: Mutex<HashMap<NodeId, NodeId>>,
    /// The nodes whose successor this node is.
    succeeded: Mutex<Vec<NodeId>>,
    /// Sessions that migrated from this node, and their new nodes.
    pub(crate) moved: Mutex<HashMap<SessionId, NodeId>>,
    /// Other nodes that are leaving.
    pub(crate) leaving: Mutex<Vec<NodeId>>,
}

impl Successors {
    /// Reads the gossip values of a node.
    pub(crate) fn on_gossip(&self, node: &NodeId, values: &BTreeMap<String, String>) {
        if let Some(succeeded) = values.get(SUCCEEDS) {
            let mut successors = self.successors.lock();
            if successors.len() > MAX_SUCCESSORS {
                // Successors that still matter are gossiped again; sessions of the others ended
                // long ago.
                successors.clear();
            }
            for name in succeeded.split(',').take(MAX_NAMES) {
                if let Ok(left) = NodeId::new(name) {
                    successors.insert(left, node.clone());
                }
            }
        }
        let mut leaving = self.leaving.lock();
        leaving.retain(|it| it != node);
        if values.contains_key(LEAVING) && leaving.len() < MAX_NAMES {
            leaving.push(node.clone());
        }
    }

    pub(crate) fn successor(&self, node: &NodeId) -> Option<NodeId> {
        self.successors.lock().get(node).cloned()
    }

    /// The node to which a session migrated from this one.
    pub(crate) fn moved(&self, session: &SessionId) -> Option<NodeId> {
        self.moved.lock().get(session).cloned()
    }

    /// Makes this node the successor of `node`. Returns the key and value to gossip, if this is
    /// new.
    pub(crate) fn become_successor_of(&self, node: &NodeId) -> Option<(&'static str, String)> {
        let mut succeeded = self.succeeded.lock();
        if succeeded.contains(node) {
            return None;
        }
        // `node` may be a successor itself: then this node succeeds its predecessors too.
        let mut all = self.successors.lock();
        let before: Vec<_> =
            all.iter().filter(|(_, by)| *by == node).map(|(left, _)| left.clone()).collect();
        for left in before {
            all.remove(&left);
            succeeded.push(left);
        }
        all.remove(node);
        succeeded.push(node.clone());
        let excess = succeeded.len().saturating_sub(MAX_NAMES);
        succeeded.drain(..excess);
        let names: Vec<_> = succeeded.iter().map(NodeId::as_str).collect();
        Some((SUCCEEDS, names.join(",")))
    }

    pub(crate) fn is_successor_of(&self, node: &NodeId) -> bool {
        self.succeeded.lock().contains(node)
    }
}
