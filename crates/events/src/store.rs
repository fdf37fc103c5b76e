//! Where webhooks and logs are kept that must outlive the process.

#[cfg(feature = "redb")]
pub(crate) mod file;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "redb", feature = "redis"))]
pub(crate) mod sealed;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use foldhash::HashMap;
use futures::future::{BoxFuture, FutureExt as _, ready};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stentor_engine::NodeId;
use stentor_engine::identity::Identity;

use crate::cursor::Origin;
use crate::error::Numbers;
use crate::occurrence::Occurrence;
use crate::webhook::SubscriptionKey;

/// A webhook as a store keeps it.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredWebhook {
    pub(crate) key: SubscriptionKey,
    pub(crate) identity: Option<Identity>,
    pub(crate) numbers: Numbers,
    /// The secrets that sign, the newest first, and until when the second one does.
    pub(crate) secret: String,
    pub(crate) previous: Option<(String, SystemTime)>,
    pub(crate) expires: Option<SystemTime>,
    /// All occurrences at or before it were delivered or abandoned.
    pub(crate) watermark: String,
    pub(crate) paused: bool,
}

impl StoredWebhook {
    /// The id of the subscription, by which a store finds it.
    #[must_use]
    pub fn id(&self) -> String {
        self.key.id()
    }

    /// Until when it has to be kept; `None` for as long as it is not removed.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

impl fmt::Debug for StoredWebhook {
    /// Without secrets, because logs must not contain them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredWebhook").field("key", &self.key).finish_non_exhaustive()
    }
}

/// An occurrence as stores and other nodes keep it.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredOccurrence {
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
    /// Between nodes: whether the sender does not have the occurrence before this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_first: bool,
}

impl StoredOccurrence {
    /// The name of the event type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.name
    }

    pub(crate) fn of(origin: &Origin, seq: u64, occurrence: &Occurrence) -> Option<Self> {
        let Occurrence { id, name, at, data, only_for, .. } = occurrence;
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(Self {
            node: origin.node.clone(),
            epoch: origin.epoch,
            seq,
            id: id.clone(),
            name: name.clone(),
            at: u64::try_from(at).unwrap_or(u64::MAX),
            data: RawValue::from_string(String::from_utf8(data.to_vec()).ok()?).ok()?,
            only_for: only_for.clone(),
            is_first: false,
        })
    }

    /// Says whether the sender does not have the occurrence before this one.
    pub(crate) fn first_kept(self, is_first: bool) -> Self {
        Self { is_first, ..self }
    }

    /// Whether the sender does not have the occurrence before this one.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Who has numbered it, its number, and the occurrence.
    pub(crate) fn into_parts(self) -> (Arc<Origin>, u64, Occurrence) {
        let origin = Arc::new(Origin { node: self.node, epoch: self.epoch });
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.at);
        let data = Bytes::from(Box::<str>::from(self.data).into_string());
        let mut occurrence = Occurrence::new(self.id, self.name, at, data);
        occurrence.only_for = self.only_for;
        (origin, self.seq, occurrence)
    }
}

/// A store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of events: {0}")]
pub struct StoreError(pub String);

/// Keeps webhooks, and the logs of [durable](crate::EventType::durable) types, for a process that comes
/// after this one. Implement it for a database of your own.
///
/// A webhook is written with all its parts each time. It contains the secret of its client: encrypt
/// what others can read.
pub trait EventsStore: fmt::Debug + Send + Sync + 'static {
    /// Whether what is kept outlives a crash of the process. Only then webhooks without expiry are
    /// granted.
    fn is_durable(&self) -> bool;

    /// Adds or replaces webhooks. Returns when they are kept.
    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Removes webhooks by their ids.
    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All webhooks that are kept.
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>>;

    /// Adds an occurrence to the log of its type, of which the last `keep` are kept. Returns when it is
    /// kept.
    fn append(
        &self,
        occurrence: StoredOccurrence,
        keep: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The log of a type, in the order in which it was written.
    fn read<'a>(
        &'a self,
        event_type: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredOccurrence>, StoreError>>;
}

/// Keeps everything in memory: for an engine that is stopped and started again in one process.
#[derive(Debug, Default)]
pub struct MemoryEventsStore {
    webhooks: Mutex<HashMap<String, StoredWebhook>>,
    logs: Mutex<HashMap<Arc<str>, VecDeque<String>>>,
}

impl EventsStore for MemoryEventsStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.webhooks.lock();
        kept.extend(webhooks.into_iter().map(|webhook| (webhook.id(), webhook)));
        ready(Ok(())).boxed()
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.webhooks.lock();
        ids.iter().for_each(|id| {
            kept.remove(id);
        });
        ready(Ok(())).boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>> {
        ready(Ok(self.webhooks.lock().values().cloned().collect())).boxed()
    }

    fn append(
        &self,
        occurrence: StoredOccurrence,
        keep: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut logs = self.logs.lock();
        let log = logs.entry(occurrence.name.clone()).or_default();
        log.extend(serde_json::to_string(&occurrence));
        let excess = log.len().saturating_sub(keep);
        log.drain(..excess);
        ready(Ok(())).boxed()
    }

    fn read<'a>(
        &'a self,
        event_type: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredOccurrence>, StoreError>> {
        let logs = self.logs.lock();
        let log = logs.get(event_type).into_iter().flatten();
        let read = log.filter_map(|json| serde_json::from_str(json).ok()).collect();
        ready(Ok(read)).boxed()
    }
}
