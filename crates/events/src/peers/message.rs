//! What nodes say to each other, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stentor_engine::NodeId;

use crate::cursor::Origin;
use crate::log::Entry;
use crate::occurrence::Occurrence;
use crate::shared::Shared;
use crate::store::StoredWebhook;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeerMessage {
    /// Who the sender is and which types it has. The answer is a [`Have`].
    Hello { node: NodeId, types: BTreeSet<Arc<str>> },
    /// Occurrences that the sender has.
    Append(Vec<SentOccurrence>),
    /// Webhooks that the sender delivers, and those that have ended.
    Webhooks { node: NodeId, put: Vec<StoredWebhook>, ended: Vec<String> },
}

/// What a node has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Have {
    /// By type: the cursor at the end of its log.
    pub(crate) types: BTreeMap<Arc<str>, String>,
}

/// An occurrence on its way to another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentOccurrence {
    node: NodeId,
    epoch: u64,
    seq: u64,
    id: Arc<str>,
    name: Arc<str>,
    /// Milliseconds of the Unix epoch.
    at: u64,
    data: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only_for: Option<Arc<str>>,
}

impl PeerMessage {
    /// `None` if it cannot be encoded.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }
}

impl SentOccurrence {
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let Occurrence { id, name, at, data, only_for, .. } = &*entry.occurrence;
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(Self {
            node: entry.origin.node.clone(),
            epoch: entry.origin.epoch,
            seq: entry.seq,
            id: id.clone(),
            name: name.clone(),
            at: u64::try_from(at).unwrap_or(u64::MAX),
            data: RawValue::from_string(String::from_utf8(data.to_vec()).ok()?).ok()?,
            only_for: only_for.clone(),
        })
    }
}

/// Answers another node.
pub(crate) async fn answer(shared: Arc<Shared>, message: Bytes) -> Bytes {
    let nothing = Bytes::from_static(b"{}");
    match serde_json::from_slice(&message) {
        Ok(PeerMessage::Hello { node, types }) => {
            shared.peers.learn(&node, types);
            let all = shared.all();
            let have = |running: &Arc<crate::running::RunningType>| {
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

fn receive(shared: &Shared, sent: SentOccurrence) {
    let Some(running) = shared.find(&sent.name) else { return };
    let origin = Arc::new(Origin { node: sent.node, epoch: sent.epoch });
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(sent.at);
    let data = Bytes::from(Box::<str>::from(sent.data).into_string());
    let mut occurrence = Occurrence::new(sent.id, sent.name, at, data);
    occurrence.only_for = sent.only_for;
    running.receive(&origin, sent.seq, occurrence);
}
