//! The effects of actors that die.

#[path = "supervision/engines.rs"]
mod engines;
#[path = "supervision/hub_and_registry.rs"]
mod hub_and_registry;
#[path = "supervision/sessions.rs"]
mod sessions;
mod support;

use std::time::Duration;

use stentor_engine::{Engine, SessionKind, tool};
use tokio::time::sleep;

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

fn named(name: &str) -> stentor_engine::Tool {
    tool(name, || async { "" })
}

/// Waits until the restarted actors have finished their start.
async fn settle(engine: &Engine) {
    while engine.observe().await.is_err() {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(100)).await;
}

fn pipes(engine: &Engine) -> Vec<stentor_engine::SessionView> {
    engine.sessions().into_iter().filter(|session| session.kind == SessionKind::Pipe).collect()
}
