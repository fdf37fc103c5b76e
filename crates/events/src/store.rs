//! Where webhooks are kept that must outlive the process.

use std::fmt;
use std::time::SystemTime;

use foldhash::HashMap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stentor_engine::identity::Identity;

use crate::error::Numbers;
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
    pub(crate) suspended: bool,
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

/// A store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of webhooks: {0}")]
pub struct StoreError(pub String);

/// Keeps webhooks, for a process that comes after this one. Implement it for a database of your own.
///
/// A webhook is written with all its parts each time. It contains the secret of its client: encrypt
/// what others can read.
pub trait WebhookStore: fmt::Debug + Send + Sync + 'static {
    /// Whether what is kept outlives a crash of the process. Only then webhooks without expiry are
    /// granted.
    fn is_durable(&self) -> bool;

    /// Adds or replaces webhooks. Returns when they are kept.
    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Removes webhooks by their ids.
    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All webhooks that are kept.
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>>;
}

/// Keeps webhooks in memory: for an engine that is stopped and started again in one process.
#[derive(Debug, Default)]
pub struct MemoryWebhookStore {
    webhooks: Mutex<HashMap<String, StoredWebhook>>,
}

impl WebhookStore for MemoryWebhookStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.webhooks.lock();
        kept.extend(webhooks.into_iter().map(|webhook| (webhook.id(), webhook)));
        async { Ok(()) }.boxed()
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.webhooks.lock();
        ids.iter().for_each(|id| {
            kept.remove(id);
        });
        async { Ok(()) }.boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>> {
        let all = self.webhooks.lock().values().cloned().collect();
        async move { Ok(all) }.boxed()
    }
}
