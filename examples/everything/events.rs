//! Event types, and the tools by which a test controls them.

#[path = "events/controls.rs"]
mod controls;
#[path = "events/types.rs"]
mod types;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stentor::EngineBuilder;
use stentor::events::{
    Events, EventsHandle, EventsStore, RedbEventsStore, StoreKey, WebhookConfig,
};
use tokio::sync::Notify;

use types::Types;

/// Whose webhooks are those of clients without a credential.
const EVERYBODY: &str = "everybody";

/// The server can be started again in its process, over the same webhooks.
#[derive(Clone)]
pub(crate) struct Restarts(Arc<Inner>);

struct Inner {
    generation: AtomicU64,
    asked: Notify,
    store: Arc<dyn EventsStore>,
}

impl Restarts {
    /// Keeps everything in this file; or in one that nobody else sees, and that is gone with the
    /// process.
    pub(crate) async fn new(file: Option<&str>) -> Result<Self, Box<dyn Error>> {
        // A real server has a key of its own, and keeps it apart.
        let key = StoreKey::new(*b"a key that is for a fixture only");
        let store = match file {
            Some(file) => RedbEventsStore::open(file, key).await?,
            None => {
                let name = format!("stentor-everything-{}.redb", std::process::id());
                let path = std::env::temp_dir().join(name);
                let store = RedbEventsStore::open(&path, key).await?;
                // Where that is impossible, the file stays.
                let _ = std::fs::remove_file(path);
                store
            }
        };
        let (generation, asked) = (AtomicU64::new(0), Notify::new());
        Ok(Self(Arc::new(Inner { generation, asked, store: Arc::new(store) })))
    }

    /// Asks for a restart. Returns the coming generation.
    fn ask(&self) -> u64 {
        self.0.asked.notify_one();
        self.generation() + 1
    }

    pub(crate) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// A generation has begun: all nodes show what it offers.
    pub(crate) fn begun(&self) {
        self.0.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }
}

/// Adds the extension without types: other nodes of the cluster have some.
pub(crate) fn offer_nothing(
    server: EngineBuilder,
    with_tokens: bool,
) -> (EngineBuilder, EventsHandle) {
    let events = Events::new().webhooks(webhooks(with_tokens));
    let handle = events.handle();
    (server.extension(events), handle)
}

fn webhooks(with_tokens: bool) -> WebhookConfig {
    let mut webhooks = WebhookConfig::new();
    webhooks.min_ttl = Duration::from_secs(4);
    webhooks.drop_after = Duration::from_secs(2);
    if !with_tokens {
        webhooks.everybody = Some(EVERYBODY.into());
    }
    webhooks.agreed = vec!["https://conformance.invalid/mcp-events".into()];
    webhooks
}

/// Adds the extension with its types, and the tools.
pub(crate) fn offer(
    server: EngineBuilder,
    restarts: &Restarts,
    with_tokens: bool,
    with_restart: bool,
) -> Result<(EngineBuilder, EventsHandle), Box<dyn Error>> {
    let types = Types::default();
    let mut events = Events::new()
        .webhooks(webhooks(with_tokens))
        .store(restarts.0.store.clone())
        .configure(|config| {
            config.page_size = 4;
            config.heartbeat = Duration::from_secs(10);
        });
    for event_type in types.all() {
        events = events.add(&event_type);
    }
    types.emit_now_and_then();
    let handle = events.handle();
    let controls = controls::Controls::new(types, handle.clone(), restarts.clone());
    Ok((controls.offer(server.extension(events), with_restart), handle))
}
