//! How a node leaves: its sessions migrate to a successor.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use stentor_engine::remote::{OutgoingMigration, PeerEvent, PeerRequest, SessionOp};
use stentor_engine::{NodeId, SessionId};
use tokio::time::{Instant, sleep};

use crate::mesh::{Mesh, SendError};
use crate::node::Node;

/// The gossip key of a node that leaves and accepts no more sessions.
const LEAVING: &str = "leaving";

/// The gossip key under which a node lists the nodes whose successor it is.
const SUCCEEDS: &str = "succeeds";

/// Sessions that migrate at the same time.
const CONCURRENT_MIGRATIONS: usize = 64;

/// How long this node keeps receiving notices for migrated sessions: notices that were sent to it
/// before have arrived by then, if they arrive at all.
const LATE_NOTICE_DELAY: Duration = Duration::from_millis(250);

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
    moved: Mutex<HashMap<SessionId, NodeId>>,
    /// Other nodes that are leaving.
    leaving: Mutex<Vec<NodeId>>,
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

impl Node {
    /// Migrates all sessions, for about `patience` at most, and waits for the running requests to
    /// end.
    pub(crate) async fn drain(&self, mesh: &Mesh, patience: Duration) {
        let until = Instant::now() + patience;
        mesh.set_gossip(LEAVING, "1").await;
        self.migrate_sessions(mesh, until).await;
        // Calls that run here for other nodes, and on other nodes for clients of this one.
        self.wait_for_requests(until).await;
    }

    /// Migrates all legacy sessions to one successor, which gossip announces.
    async fn migrate_sessions(&self, mesh: &Mesh, until: Instant) {
        let leaving = self.successors.leaving.lock().clone();
        let mut successors = mesh.connected();
        successors.retain(|node| !leaving.contains(node));
        // Nodes that leave at the same time choose the same successor, which keeps the chains
        // short.
        successors.sort_unstable();
        if successors.is_empty() {
            return;
        }
        let sessions = self.engine.http_sessions();
        stentor_engine::log!(info, count = sessions.len(), successor = %successors[0], "sessions migrate");
        let migrated = stream::iter(sessions).map(|session| {
            let successors = &successors;
            async move {
                let patience = until.saturating_duration_since(Instant::now());
                let migration = self.engine.begin_migration(&session, patience).await?;
                self.migrate(migration, successors).await
            }
        });
        let moved: Vec<_> = migrated.buffer_unordered(CONCURRENT_MIGRATIONS).collect().await;
        // Wait for notices that were in flight to this node when the sessions left.
        sleep(LATE_NOTICE_DELAY).await;
        for (migration, successor) in moved.into_iter().flatten() {
            self.send_missed(&migration, &successor).await;
        }
    }

    /// Sends the successor the notices that arrived here for a session after it migrated.
    async fn send_missed(&self, migration: &OutgoingMigration, successor: &NodeId) {
        let mut parts = vec![migration.missed_notices()];
        while let Some(mut part) = parts.pop().filter(|part| !part.is_empty()) {
            let (session, principal) = (migration.id().clone(), migration.principal());
            let peer_request =
                PeerRequest::Session { session, principal, act: SessionOp::Missed(part.clone()) };
            match self.ask_when_space(successor, peer_request).await {
                Ok(mut peer_stream) => drop(peer_stream.next().await),
                // Split in two halves, the first half first.
                Err(SendError::TooLarge) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    stentor_engine::log!(warn, session = ?migration.id(), %error, "notices of a session are lost");
                }
            }
        }
    }

    async fn migrate(
        &self,
        mut migration: OutgoingMigration,
        successors: &[NodeId],
    ) -> Option<(OutgoingMigration, NodeId)> {
        let record = migration.take()?;
        for successor in successors {
            let mut record = record.clone();
            loop {
                match self
                    .ask_when_space(successor, PeerRequest::Migrate(Box::new(record.clone())))
                    .await
                {
                    Ok(mut peer_stream) => {
                        if matches!(peer_stream.next().await, Some(PeerEvent::Ended)) {
                            self.successors
                                .moved
                                .lock()
                                .insert(migration.id().clone(), successor.clone());
                            migration.arrived();
                            return Some((migration, successor.clone()));
                        }
                        break;
                    }
                    // Losing one answer is better than losing the session.
                    Err(SendError::TooLarge) if record.leave_out_some() => {}
                    Err(_) => break,
                }
            }
        }
        stentor_engine::log!(warn, session = ?migration.id(), "no other node takes a session");
        None
    }
}
