//! The connection: received messages in order, and the reason if it breaks.

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

use rmcp::model::{ServerNotification as Note, *};
use rmcp::service::*;
use rmcp::transport::{StreamableHttpClientTransport, streamable_http_client as http};
use tokio::{sync::mpsc, time::sleep};

/// The time limit of operations that should be immediate.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// rmcp ends a listen when this many of its notifications are queued. The default is only 64.
const BACKLOG: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Queues the notifications of the connection, so that one place prints them in order.
pub(crate) struct Inbox(mpsc::UnboundedSender<Note>);

impl Service<RoleClient> for Inbox {
    async fn handle_request(
        &self,
        request: ServerRequest,
        _: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        match request {
            ServerRequest::PingRequest(_) => Ok(ClientResult::empty(())),
            _ => Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "watch only watches", None)),
        }
    }

    async fn handle_notification(
        &self,
        note: Note,
        _: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        let _ = self.0.send(note); // the receiver is dropped when the program ends
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("stentor-watch", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
    }
}

pub(crate) type Client = RunningService<RoleClient, Inbox>;

/// Connects in the given era; by default in the newest that the server supports.
pub(crate) async fn connect(
    url: &str,
    era: &str,
) -> Result<(Client, mpsc::UnboundedReceiver<Note>), String> {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lifecycle = match era {
        "modern" => ClientLifecycleMode::Discover { preferred_versions },
        "legacy" => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
    };
    let client = reqwest::Client::builder().connect_timeout(PATIENCE).build().map_err(reason)?;
    let config = http::StreamableHttpClientTransportConfig::with_uri(url);
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let (sender, inbox) = mpsc::unbounded_channel();
    let connected = Inbox(sender).serve_with_lifecycle(transport, lifecycle).await;
    Ok((connected.map_err(|e| format!("cannot connect to {url}: {}", reason(e)))?, inbox))
}

/// Subscribes to everything. Legacy servers send list changes without a subscription.
pub(crate) async fn listen(
    client: &Client,
    info: &ServerPeerInfo,
    resources: impl Iterator<Item = String>,
) -> Result<Option<Subscription>, ServiceError> {
    let updates = info.capabilities.resources.as_ref().and_then(|r| r.subscribe) == Some(true);
    let uris = resources.filter(|_| updates);
    if !info.protocol_version.has_initialize() {
        let filter = SubscriptionFilter::builder().tools_list_changed().prompts_list_changed();
        let filter = filter.resources_list_changed().resource_subscriptions(uris).build();
        return client.listen_with_capacity(filter, BACKLOG).await.map(Some);
    }
    if info.capabilities.logging.is_some() {
        client.set_level(SetLevelRequestParams::new(LoggingLevel::Debug)).await?;
    }
    for uri in uris {
        client.subscribe(SubscribeRequestParams::new(uri)).await?;
    }
    Ok(None)
}

/// The next notification of the listen, or `None` when the server has ended it.
pub(crate) async fn next(
    peer: &Peer<RoleClient>,
    listen: &mut Option<Subscription>,
) -> Result<Option<Note>, String> {
    let lost = |e| format!("the connection is lost: {}", reason(e));
    let Some(listen) = listen else {
        // In a legacy session rmcp reconnects its stream silently and for ever, so send pings.
        loop {
            sleep(PATIENCE / 2).await;
            match peer.send_request(ClientRequest::PingRequest(PingRequest::default())).await {
                Ok(_) | Err(ServiceError::McpError(_)) => {}
                Err(e) => return Err(lost(e)),
            }
        }
    };
    let note = listen.next().await.map_err(lost)?;
    match listen.end() {
        Some(SubscriptionEnd::Abrupt) => Err(lost(ServiceError::TransportClosed)),
        Some(SubscriptionEnd::Lagged { .. }) => Err("more notifications than can be shown".into()),
        _ => Ok(note),
    }
}

/// The root cause of an error: not the layers of the client, but "Connection refused".
pub(crate) fn reason(error: impl Error + 'static) -> String {
    let mut error: &(dyn Error + 'static) = &error;
    loop {
        // These errors do not return their source.
        let startup = error.downcast_ref::<ClientInitializeError>();
        let transport = error.downcast_ref::<http::StreamableHttpError<reqwest::Error>>();
        error = match (startup, transport, error.source()) {
            (Some(ClientInitializeError::TransportError { error, .. }), ..) => error,
            (Some(ClientInitializeError::LegacyFallbackFailed { fallback, .. }), ..) => &**fallback,
            (_, Some(http::StreamableHttpError::Client(error)), _) => error,
            (.., Some(source)) => source,
            _ => return error.to_string(),
        }
    }
}
