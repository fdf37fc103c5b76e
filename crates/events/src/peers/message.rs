//! What nodes say to each other, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::NodeId;

use crate::cursor::Origin;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::store::{StoredOccurrence, StoredWebhook};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeerMessage {
    /// Who the sender is and which types it has. The answer is a [`Have`].
    Hello { node: NodeId, have: Have },
    /// Occurrences that the sender has. The answer is an [`Appended`].
    Append(Vec<StoredOccurrence>),
    /// Webhooks that the sender delivers, and those that have ended.
    Webhooks { node: NodeId, put: Vec<StoredWebhook>, ended: Vec<String> },
}

/// What a node has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Have {
    /// Differs for each process of a node.
    pub(crate) epoch: u64,
    /// By type: whose occurrences it knows.
    pub(crate) types: BTreeMap<Arc<str>, Vec<Known>>,
}

/// How far a node knows the occurrences of one origin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    node: NodeId,
    epoch: u64,
    pub(crate) last: u64,
    dropped: u64,
}

impl Known {
    pub(crate) fn origin(&self) -> Arc<Origin> {
        Arc::new(Origin { node: self.node.clone(), epoch: self.epoch })
    }
}

impl Have {
    /// What this node has.
    pub(crate) fn here(shared: &Shared) -> Self {
        let known = |running: &Arc<RunningType>| {
            let log = running.log.lock();
            let known = log.origins().map(|(origin, last, dropped)| {
                let (node, epoch) = (origin.node.clone(), origin.epoch);
                Known { node, epoch, last, dropped }
            });
            (running.name(), known.collect())
        };
        let epoch = shared.epoch();
        Self { epoch, types: shared.all().iter().map(known).collect() }
    }

    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.types.keys().cloned().collect()
    }

    /// Notes whose occurrences there are, before any of them comes: so a cursor that names them is no
    /// lost position.
    pub(crate) fn note(&self, shared: &Shared) {
        for (name, known) in &self.types {
            let Some(running) = shared.find(name) else { continue };
            let mut log = running.log.lock();
            known.iter().for_each(|known| log.learn(known.origin(), known.dropped));
        }
    }
}

/// What became of occurrences.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Appended {
    /// Some were refused, because others have to come before them. The sender compares anew.
    pub(crate) refused: bool,
}

impl PeerMessage {
    /// `None` if it cannot be encoded.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }
}

/// Answers another node.
pub(crate) async fn answer(shared: Arc<Shared>, message: Bytes) -> Bytes {
    let nothing = Bytes::from_static(b"{}");
    match serde_json::from_slice(&message) {
        Ok(PeerMessage::Hello { node, have }) => {
            if shared.peers.learn(&node, &have) {
                shared.webhooks.take_over(&shared, Some(&node));
            }
            have.note(&shared);
            shared.peers.compared();
            serde_json::to_vec(&Have::here(&shared)).map_or(nothing, Bytes::from)
        }
        Ok(PeerMessage::Append(occurrences)) => {
            let mut appended = Appended::default();
            for sent in occurrences {
                appended.refused |= !receive(&shared, sent);
            }
            serde_json::to_vec(&appended).map_or(nothing, Bytes::from)
        }
        Ok(PeerMessage::Webhooks { node, put, ended }) => {
            shared.webhooks.learn(&shared, &node, put, &ended);
            nothing
        }
        Err(error) => {
            tracing::warn!(%error, "a message of another node is not understood");
            nothing
        }
    }
}

/// Adds an occurrence of another node. `false` if others of its origin have to come before it.
fn receive(shared: &Shared, sent: StoredOccurrence) -> bool {
    let Some(running) = shared.find(sent.event_type()) else { return true };
    let is_first = sent.is_first();
    let (origin, seq, occurrence) = sent.into_parts();
    running.receive(&origin, seq, is_first, occurrence)
}
