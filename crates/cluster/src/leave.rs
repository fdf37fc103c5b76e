//! How a node leaves: its clients find everything on the others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use stentor_engine::peers::{Act, Errand, Leaving, Said};
use stentor_engine::{NodeId, SessionId};
use tokio::time::{Instant, sleep};

use crate::mesh::{Mesh, SendError};
use crate::node::Node;

/// What a node gossips when it leaves: it takes no sessions any more.
const LEAVING: &str = "leaving";

/// What a node gossips of others that left: whose sessions it has, as a list.
const SUCCEEDS: &str = "succeeds";

/// Sessions that are handed over at once.
const AT_ONCE: usize = 64;

/// How long a node listens on for sessions that it has handed over: what was told to others before
/// has arrived by then, if it ever does.
const IN_BETWEEN: Duration = Duration::from_millis(250);

/// The most names in a list; of more, those that come last are forgotten.
const MOST: usize = 64;

/// Nodes that left and are remembered, at least.
const MOST_LEFT: usize = 4096;

/// Where the sessions of nodes are that left.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    /// Of nodes that left, who has their sessions.
    successors: Mutex<HashMap<NodeId, NodeId>>,
    /// Nodes whose sessions are here.
    succeeded: Mutex<Vec<NodeId>>,
    /// Sessions that were here, and where they are.
    moved: Mutex<HashMap<SessionId, NodeId>>,
    /// Nodes that leave, too.
    leaving: Mutex<Vec<NodeId>>,
}

impl Succession {
    /// What gossip says of a node.
    pub(crate) fn heard(&self, node: &NodeId, said: &BTreeMap<String, String>) {
        if let Some(succeeded) = said.get(SUCCEEDS) {
            let mut successors = self.successors.lock();
            if successors.len() > MOST_LEFT {
                // Those that matter are said again, and for a session of the others it is long since.
                successors.clear();
            }
            for name in succeeded.split(',').take(MOST) {
                if let Ok(left) = NodeId::new(name) {
                    successors.insert(left, node.clone());
                }
            }
        }
        let mut leaving = self.leaving.lock();
        leaving.retain(|it| it != node);
        if said.contains_key(LEAVING) && leaving.len() < MOST {
            leaving.push(node.clone());
        }
    }

    /// Who has the sessions of a node that left.
    pub(crate) fn successor(&self, node: &NodeId) -> Option<NodeId> {
        self.successors.lock().get(node).cloned()
    }

    /// Where a session is that was here.
    pub(crate) fn moved(&self, session: &SessionId) -> Option<NodeId> {
        self.moved.lock().get(session).cloned()
    }

    /// This node takes a session of another; returns what it is to gossip, the first time.
    pub(crate) fn takes_from(&self, node: &NodeId) -> Option<(&'static str, String)> {
        let mut succeeded = self.succeeded.lock();
        if succeeded.contains(node) {
            return None;
        }
        // What the other one had taken comes with it.
        let mut all = self.successors.lock();
        let before: Vec<_> =
            all.iter().filter(|(_, by)| *by == node).map(|(left, _)| left.clone()).collect();
        for left in before {
            all.remove(&left);
            succeeded.push(left);
        }
        all.remove(node);
        succeeded.push(node.clone());
        let excess = succeeded.len().saturating_sub(MOST);
        succeeded.drain(..excess);
        let names: Vec<_> = succeeded.iter().map(NodeId::as_str).collect();
        Some((SUCCEEDS, names.join(",")))
    }

    /// Whether the sessions of a node are here.
    pub(crate) fn has_taken(&self, node: &NodeId) -> bool {
        self.succeeded.lock().contains(node)
    }
}

impl Node {
    /// Hands everything over that can be, for at most about `patience`, and lets the rest end.
    pub(crate) async fn retire(&self, mesh: &Mesh, patience: Duration) {
        let until = Instant::now() + patience;
        mesh.say(LEAVING, "1").await;
        self.hand_sessions_over(mesh, until).await;
        // Calls that run here for others, and there for clients of this node.
        self.requests_end(until).await;
    }

    /// Hands all legacy sessions to another node: one and the same, which the others are told.
    async fn hand_sessions_over(&self, mesh: &Mesh, until: Instant) {
        let leaving = self.succession.leaving.lock().clone();
        let mut heirs = mesh.connected();
        heirs.retain(|node| !leaving.contains(node));
        // All nodes that leave at once choose the same, which makes the ways short.
        heirs.sort_unstable();
        if heirs.is_empty() {
            return;
        }
        let sessions = self.engine.http_sessions();
        stentor_engine::log!(info, count = sessions.len(), heir = %heirs[0], "sessions are handed over");
        let handed_over = stream::iter(sessions).map(|session| {
            let heirs = &heirs;
            async move {
                let patience = until.saturating_duration_since(Instant::now());
                let leaving = self.engine.release_session(&session, patience).await?;
                self.hand_over(leaving, heirs).await
            }
        });
        let moved: Vec<_> = handed_over.buffer_unordered(AT_ONCE).collect().await;
        // What was under way to this node when they left it.
        sleep(IN_BETWEEN).await;
        for (leaving, heir) in moved.into_iter().flatten() {
            self.hand_after(&leaving, &heir).await;
        }
    }

    /// Tells the heir of a session what was heard for it since it was handed over.
    async fn hand_after(&self, leaving: &Leaving, heir: &NodeId) {
        let mut parts = vec![leaving.heard_since()];
        while let Some(mut part) = parts.pop().filter(|part| !part.is_empty()) {
            let (session, principal) = (leaving.id().clone(), leaving.principal());
            let errand = Errand::Session { session, principal, act: Act::Heard(part.clone()) };
            match self.ask_in_turn(heir, errand).await {
                Ok(mut conversation) => drop(conversation.next().await),
                // In two halves, the first one first.
                Err(SendError::TooLarge) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    stentor_engine::log!(warn, session = ?leaving.id(), %error, "notices of a session are lost");
                }
            }
        }
    }

    async fn hand_over(&self, mut leaving: Leaving, heirs: &[NodeId]) -> Option<(Leaving, NodeId)> {
        let record = leaving.take()?;
        for heir in heirs {
            let mut record = record.clone();
            loop {
                match self.ask_in_turn(heir, Errand::Adopt(Box::new(record.clone()))).await {
                    Ok(mut conversation) => {
                        if matches!(conversation.next().await, Some(Said::Over)) {
                            self.succession.moved.lock().insert(leaving.id().clone(), heir.clone());
                            leaving.arrived();
                            return Some((leaving, heir.clone()));
                        }
                        break;
                    }
                    // An answer is lost rather than the session.
                    Err(SendError::TooLarge) if record.leave_out_some() => {}
                    Err(_) => break,
                }
            }
        }
        stentor_engine::log!(warn, session = ?leaving.id(), "no other node takes a session");
        None
    }
}
