//! A subscriber of the host that panics, as that of `tracing-subscriber` does on a closed stderr.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{Ended, SessionKind};
use stentor_test::Client;
use support::engine;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static EVENTS: AtomicUsize = AtomicUsize::new(0);

struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("stentor") && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
        panic!("stderr is gone");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_ends_nothing() {
    std::panic::set_hook(Box::new(|_| {}));
    tracing::subscriber::set_global_default(Panics).unwrap();
    let engine = engine().start().await.unwrap();
    let client = Client::legacy(&engine).await;
    client.call_tool("echo", ()).await.unwrap();
    for target in [FaultTarget::Registry, FaultTarget::Hub, FaultTarget::TaskActors] {
        kill(&engine, target).await.unwrap();
        while engine.observe().await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    let sessions = engine.sessions();
    let session = sessions.iter().find(|session| session.kind == SessionKind::Pipe).unwrap();
    kill(&engine, FaultTarget::Session(session.id.clone())).await.unwrap();
    let error = client.call_tool("panic", ()).await.unwrap_err();
    assert_eq!(error.message, "the tool 'panic' panicked");
    assert_eq!(client.call_tool("echo", ()).await.unwrap().text(), "echo");
    assert!(EVENTS.load(Ordering::Relaxed) > 5, "all of that was logged");
    assert_eq!(engine.ended(), None);
    engine.shutdown().await;
    assert_eq!(engine.stopped().await, Ended::Shutdown);
}
