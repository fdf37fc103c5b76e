//! A resource whose upstream runs while some client watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stentor::prelude::*;
use tokio::task::JoinSet;

const URI: &str = "feed://price";

#[derive(Clone, Default)]
struct Feed {
    price: Arc<AtomicU64>,
    upstream: Arc<Mutex<JoinSet<()>>>,
}

async fn read(State(feed): State<Feed>) -> String {
    feed.price.load(Ordering::Relaxed).to_string()
}

async fn start(State(feed): State<Feed>, watch: Watch) {
    let price = feed.price.clone();
    feed.upstream.lock().unwrap().spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            price.fetch_add(1, Ordering::Relaxed);
            watch.send_updated();
        }
    });
}

async fn stop(State(feed): State<Feed>) {
    feed.upstream.lock().unwrap().abort_all();
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder("watch", "1.0.0")
        .state(Feed::default())
        .resource(resource(URI, "price", read).on_watch(start).on_unwatch(stop))
        .start()
        .await?;
    stentor::http::serve(engine, "127.0.0.1:8000").await?;
    Ok(())
}
