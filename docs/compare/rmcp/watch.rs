use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::Router;
use rmcp::model::{
    ListResourcesResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, Resource, ResourceContents, ServerCapabilities, ServerConfig,
    SubscriptionFilter,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const URI: &str = "feed://price";

#[derive(Clone, Default)]
struct Server {
    price: Arc<AtomicU64>,
    changed: Arc<Notify>,
    upstream: Arc<Mutex<Weak<JoinSet<()>>>>,
}

impl Server {
    /// The upstream, which runs while a watcher holds it.
    fn watch(&self) -> Arc<JoinSet<()>> {
        let mut running = self.upstream.lock().unwrap();
        running.upgrade().unwrap_or_else(|| {
            let (server, mut upstream) = (self.clone(), JoinSet::new());
            upstream.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    server.price.fetch_add(1, Ordering::Relaxed);
                    server.changed.notify_waiters();
                }
            });
            let upstream = Arc::new(upstream);
            *running = Arc::downgrade(&upstream);
            upstream
        })
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder().enable_resources().enable_resources_subscribe().build(),
        )
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new(URI, "price")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if request.uri != URI {
            return Err(ErrorData::resource_not_found("no such resource", None));
        }
        let price = self.price.load(Ordering::Relaxed).to_string();
        Ok(ReadResourceResult::new(vec![ResourceContents::text(price, URI)]).into())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let watched = context.accepted().resource_subscriptions.iter().flatten();
        let _upstream = watched.clone().any(|uri| uri == URI).then(|| self.watch());
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = self.changed.notified() => {
                    context.sink().notify_resource_updated(URI).await.ok();
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::default();
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(LocalSessionManager::default()),
        Default::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
