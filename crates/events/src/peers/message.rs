//! What nodes say to each other, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::NodeId;

use crate::running::RunningType;
use crate::shared::Shared;
use crate::store::{StoredOccurrence, StoredWebhook};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeerMessage {
    /// Who the sender is and which types it has. The answer is a [`Have`].
    Hello { node: NodeId, types: BTreeSet<Arc<str>> },
    /// Occurrences that the sender has.
    Append(Vec<StoredOccurrence>),
    /// Webhooks that the sender delivers, and those that have ended.
    Webhooks { node: NodeId, put: Vec<StoredWebhook>, ended: Vec<String> },
}

/// What a node has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Have {
    /// By type: the cursor at the end of its log.
    pub(crate) types: BTreeMap<Arc<str>, String>,
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
        Ok(PeerMessage::Hello { node, types }) => {
            shared.peers.learn(&node, types);
            let all = shared.all();
            let have = |running: &Arc<RunningType>| {
                (running.name(), running.log.lock().end().seen.to_string())
            };
            let have = Have { types: all.iter().map(have).collect() };
            serde_json::to_vec(&have).map_or(nothing, Bytes::from)
        }
        Ok(PeerMessage::Append(occurrences)) => {
            for sent in occurrences {
                receive(&shared, sent);
            }
            nothing
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

fn receive(shared: &Shared, sent: StoredOccurrence) {
    if let Some(running) = shared.find(sent.event_type()) {
        let (origin, seq, occurrence) = sent.into_parts();
        running.receive(&origin, seq, occurrence);
    }
}
