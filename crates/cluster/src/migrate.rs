//! How a node leaves: its sessions migrate to a successor.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use stentor_engine::NodeId;
use stentor_engine::remote::{OutgoingMigration, PeerEvent, PeerRequest, SessionOp};
use tokio::time::{Instant, sleep};

use crate::mesh::{Mesh, SendError};
use crate::node::Node;
use crate::successors::LEAVING;

/// Sessions that migrate at the same time.
const CONCURRENT_MIGRATIONS: usize = 64;

/// How long this node keeps receiving notices for migrated sessions: notices that were sent to it
/// before have arrived by then, if they arrive at all.
const LATE_NOTICE_DELAY: Duration = Duration::from_millis(250);

impl Node {
    /// Leaves the cluster in order.
    pub(crate) async fn leave(&self) {
        let Some(mesh) = self.mesh() else { return };
        self.engine.set_not_ready("leaving");
        self.drain(mesh, self.engine.drain_timeout()).await;
        // Before the others know that this node is gone, so that none watches at the same time.
        self.engine.end_watches().await;
        self.leave_mesh(mesh).await;
    }

    /// Migrates all sessions, for about `patience` at most, and waits for the running requests to
    /// end.
    async fn drain(&self, mesh: &Mesh, patience: Duration) {
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
            let (session, sender) = (migration.id().clone(), migration.sender());
            let peer_request =
                PeerRequest::Session { session, sender, op: SessionOp::Missed(part.clone()) };
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
