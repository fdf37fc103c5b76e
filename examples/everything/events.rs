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
use stentor::events::{Events, MemoryWebhookStore, WebhookConfig};
use tokio::sync::Notify;

use types::Types;

/// Whose webhooks are those of clients without a credential.
const EVERYBODY: &str = "everybody";

/// The server can be started again in its process, over the same webhooks.
#[derive(Clone, Default)]
pub(crate) struct Restarts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    generation: AtomicU64,
    asked: Notify,
    store: Arc<MemoryWebhookStore>,
}

impl Restarts {
    /// Asks for a restart. Returns the coming generation.
    fn ask(&self) -> u64 {
        self.0.asked.notify_one();
        self.generation() + 1
    }

    pub(crate) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }
}

/// Adds the extension without types: other nodes of the cluster have some.
pub(crate) fn offer_nothing(server: EngineBuilder) -> EngineBuilder {
    server.extension(Events::new().webhooks(webhooks(&Restarts::default())))
}

fn webhooks(restarts: &Restarts) -> WebhookConfig {
    let mut webhooks = WebhookConfig::new();
    webhooks.min_ttl = Duration::from_secs(4);
    webhooks.drop_after = Duration::from_secs(2);
    webhooks.everybody = Some(EVERYBODY.into());
    webhooks.agreed = vec!["https://conformance.invalid/mcp-events".into()];
    webhooks.store = restarts.0.store.clone();
    webhooks
}

/// Adds the extension with its types, and the tools.
pub(crate) fn offer(
    server: EngineBuilder,
    restarts: &Restarts,
    with_restart: bool,
) -> Result<EngineBuilder, Box<dyn Error>> {
    restarts.0.generation.fetch_add(1, Ordering::Relaxed);
    let types = Types::default();
    let mut events = Events::new().webhooks(webhooks(restarts)).configure(|config| {
        config.page_size = 4;
        config.heartbeat = Duration::from_secs(10);
    });
    for event_type in types.all() {
        events = events.add(&event_type);
    }
    types.emit_now_and_then();
    let controls = controls::Controls::new(types, events.handle(), restarts.clone());
    Ok(controls.offer(server.extension(events), with_restart))
}
