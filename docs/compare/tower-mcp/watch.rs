use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tower::util::MapRequestLayer;
use tower_mcp::context::{NotificationSender, ServerNotification, notification_channel};
use tower_mcp::protocol::{McpRequest, ReadResourceResult, RequestId};
use tower_mcp::{
    BoxError, HttpTransport, McpRouter, ResourceBuilder, RouterRequest, SubscriptionClose,
    SubscriptionObserver,
};

const URI: &str = "feed://price";

struct Feed {
    price: AtomicU64,
    changes: NotificationSender,
    watchers: Mutex<Vec<RequestId>>,
    upstream: Mutex<JoinSet<()>>,
}

impl Feed {
    fn on_request(self: &Arc<Self>, request: &RouterRequest) {
        let McpRequest::SubscriptionsListen(params) = &request.inner else { return };
        let filter = params.notifications.iter();
        if !filter.flat_map(|it| it.resource_subscriptions.iter().flatten()).any(|uri| uri == URI) {
            return;
        }
        let mut watchers = self.watchers.lock().unwrap();
        if watchers.is_empty() {
            let feed = self.clone();
            self.upstream.lock().unwrap().spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    feed.price.fetch_add(1, Ordering::Relaxed);
                    let changed = ServerNotification::ResourceUpdated { uri: URI.to_owned() };
                    feed.changes.send(changed).await.ok();
                }
            });
        }
        watchers.push(request.id.clone());
    }
}

impl SubscriptionObserver for Feed {
    fn on_close(&self, close: SubscriptionClose) {
        let mut watchers = self.watchers.lock().unwrap();
        let Some(at) = watchers.iter().position(|id| *id == close.subscription_id) else { return };
        watchers.remove(at);
        if watchers.is_empty() {
            self.upstream.lock().unwrap().abort_all();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (changes, changed) = notification_channel(64);
    let feed = Arc::new(Feed {
        price: AtomicU64::new(0),
        changes,
        watchers: Mutex::default(),
        upstream: Mutex::default(),
    });
    let read = feed.clone();
    let resource = ResourceBuilder::new(URI)
        .name("price")
        .handler(move || {
            let price = read.price.load(Ordering::Relaxed).to_string();
            std::future::ready(Ok(ReadResourceResult::text(URI, price)))
        })
        .build();
    let router = McpRouter::new()
        .server_info("watch", "1.0.0")
        .resource(resource)
        .with_subscription_observer(feed.clone());
    HttpTransport::with_notifications(router, changed)
        .layer(MapRequestLayer::new(move |request: RouterRequest| {
            feed.on_request(&request);
            request
        }))
        .serve("127.0.0.1:8000")
        .await?;
    Ok(())
}
