//! What nodes say to each other, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_engine::NodeId;

use super::watching::{self, Watches, look_at_members};
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
    /// Arguments that clients of the sender watch.
    Watches(Watches),
}

/// What a node has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Have {
    /// Differs for each process of a node.
    pub(crate) epoch: u64,
    /// By type: whose occurrences it knows.
    pub(crate) types: BTreeMap<Arc<str>, Vec<Known>>,
    /// The types that have hooks.
    #[serde(default)]
    pub(super) hooked: BTreeSet<Arc<str>>,
    /// In an answer: the number up to which it has heard what the asker watches.
    #[serde(default)]
    pub(super) heard: Option<u64>,
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
        let (epoch, all) = (shared.epoch(), shared.all());
        let hooked = all.iter().filter(|it| it.watches.has_hooks()).map(|it| it.name()).collect();
        Self { epoch, types: all.iter().map(known).collect(), hooked, heard: None }
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
                watching::forget(&shared, std::slice::from_ref(&node));
            }
            have.note(&shared);
            shared.peers.compared();
            look_at_members(&shared);
            let heard = Some(shared.peers.heard(&node));
            let here = Have { heard, ..Have::here(&shared) };
            serde_json::to_vec(&here).map_or(nothing, Bytes::from)
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
        Ok(PeerMessage::Watches(message)) => {
            watching::receive(&shared, message);
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
