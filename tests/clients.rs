//! The official Rust client, which knows nothing of this server: in both eras, over HTTP and over a
//! pipe.
#![allow(deprecated, reason = "MCP deprecates log messages, but clients still ask for them")]

use std::collections::BTreeSet;

use rmcp::model::{ServerNotification as Note, *};
use rmcp::service::*;
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use stentor_tests::{Lane, Phase, Server, eventually, in_every_lane, soon};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Queues the notifications of a connection.
struct Inbox(UnboundedSender<Note>);

impl Service<RoleClient> for Inbox {
    async fn handle_request(
        &self,
        _: ServerRequest,
        _: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "this client answers nothing", None))
    }

    async fn handle_notification(
        &self,
        note: Note,
        _: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        let _ = self.0.send(note);
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("rmcp", "3"))
    }
}

struct Client {
    lane: Lane,
    service: RunningService<RoleClient, Inbox>,
    inbox: UnboundedReceiver<Note>,
}

impl Client {
    async fn connect(server: &Server, lane: Lane) -> Self {
        let lifecycle = if lane.is_legacy() {
            ClientLifecycleMode::Initialize
        } else {
            ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            }
        };
        Self::connect_by(server, lane, lifecycle).await
    }

    async fn connect_by(server: &Server, lane: Lane, lifecycle: ClientLifecycleMode) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let connecting = async {
            if lane.is_http() {
                // Needed if another crate in the build selects the TLS of reqwest.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let url = format!("http://{}/mcp", server.address);
                let transport = StreamableHttpClientTransport::from_uri(url);
                Inbox(sender).serve_with_lifecycle(transport, lifecycle).await
            } else {
                let (pipe, _) = server.pipe(1 << 20);
                Inbox(sender).serve_with_lifecycle(pipe, lifecycle).await
            }
        };
        let service = soon("rmcp to connect", connecting).await.expect("a connection");
        Self { lane, service, inbox }
    }

    fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    async fn start(&self, tool: &str, arguments: Value) -> RequestHandle<RoleClient> {
        let mut meta = RequestMetaObject::new();
        // Ignored in the legacy era.
        meta.set_log_level(LoggingLevel::Warning);
        let Value::Object(arguments) = arguments else { panic!("no object: {arguments}") };
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        self.peer().send_cancellable_request(request, options).await.expect("a request")
    }

    async fn call(&self, tool: &str, arguments: Value) -> CallToolResult {
        let handle = self.start(tool, arguments).await;
        match soon("an answer", handle.await_response()).await {
            Ok(ServerResult::CallToolResult(result)) => result,
            other => panic!("no result of a tool: {other:?}"),
        }
    }

    /// Subscribes in the way of the era. In the modern era the subscription carries the notices; in
    /// the legacy era the inbox does.
    async fn listen(&self, uri: &str) -> Option<Subscription> {
        if self.lane.is_legacy() {
            let params = SubscribeRequestParams::new(uri);
            self.peer().subscribe(params).await.expect("a subscription");
            return None;
        }
        let filter = SubscriptionFilter::builder().tools_list_changed().resource_subscription(uri);
        let listening = self.peer().listen(filter.build());
        Some(soon("an acknowledgment", listening).await.expect("a subscription"))
    }

    async fn heard(&mut self, subscription: &mut Option<Subscription>) -> Note {
        match subscription {
            Some(subscription) => {
                let next = soon("a notice", subscription.next()).await;
                next.expect("a notice").expect("an open subscription")
            }
            None => soon("a notice", self.inbox.recv()).await.expect("an open inbox"),
        }
    }
}

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().expect("a text").text
}

in_every_lane![
    rmcp_lists_reads_and_calls,
    rmcp_receives_progress_and_log_messages,
    rmcp_receives_changes,
    rmcp_cancels,
    rmcp_disconnects,
    rmcp_uses_an_extension,
];

async fn rmcp_lists_reads_and_calls(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let peer = client.peer();
    let info = peer.peer_info().expect("the server has introduced itself");
    assert_eq!(info.server_info.as_ref().map(|it| it.name.as_str()), Some("fixture"));
    assert_eq!(info.protocol_version.has_initialize(), lane.is_legacy());

    let catalog = server.engine.catalog().snapshot();
    let tools = peer.list_all_tools().await.expect("tools");
    let names: BTreeSet<_> = tools.iter().map(|tool| &*tool.name).collect();
    assert_eq!(names, catalog.tool_names().collect());
    let resources = peer.list_all_resources().await.expect("resources");
    let uris: BTreeSet<_> = resources.iter().map(|resource| &*resource.uri).collect();
    assert_eq!(uris, catalog.resource_uris().collect());
    assert_eq!(peer.list_all_resource_templates().await.expect("templates").len(), 1);
    assert_eq!(peer.list_all_prompts().await.expect("prompts").len(), 2);

    assert_eq!(text(&client.call("echo", json!({"text": "grüß Gott"})).await), "grüß Gott");
    // rmcp must encode names that are not ASCII, and parameters in headers.
    assert_eq!(text(&client.call("größe", json!({})).await), "groß");
    eventually("the parameters to be in the headers", async || {
        // rmcp 3.11 sometimes ignores a list that arrived as an event stream (its
        // `drain_queued_stream_messages` does not store the tools' headers). A client whose headers
        // are refused should read the list again.
        peer.list_all_tools().await.expect("tools");
        let handle = client.start("region", json!({"region": "Süd", "limit": 3})).await;
        match handle.await_response().await {
            Ok(ServerResult::CallToolResult(result)) => text(&result) == "Süd",
            Err(ServiceError::McpError(error)) if error.code.0 == -32020 => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
    let failed = client.call("fail", json!({})).await;
    assert_eq!((failed.is_error, text(&failed)), (Some(true), "the printer is out of paper"));
    let sum = client.call("sum", json!({"a": 2, "b": 3})).await;
    assert_eq!(sum.structured_content, Some(json!({"sum": 5})));
    let handle = client.start("panic", json!({})).await;
    let error = handle.await_response().await.expect_err("an error of the protocol");
    assert!(matches!(error, ServiceError::McpError(error) if error.code.0 == -32603));

    let read = peer.read_resource(ReadResourceRequestParams::new("test://users/7")).await;
    let read = serde_json::to_value(read.expect("a resource")).expect("JSON");
    assert_eq!(read["contents"][0]["text"], "user 7");
    let arguments = json!({"name": "Ann"}).as_object().cloned().expect("an object");
    let params = GetPromptRequestParams::new("greet").with_arguments(arguments);
    let prompt = peer.get_prompt(params).await.expect("a prompt");
    let prompt = serde_json::to_value(prompt).expect("JSON");
    assert_eq!(prompt["messages"][0]["content"]["text"], "Greet Ann in a plain way.");
    let completed = peer.complete_prompt_argument("greet", "style", "fr", None).await;
    assert_eq!(completed.expect("a completion").values, ["friendly", "frank"]);
}

async fn rmcp_receives_progress_and_log_messages(lane: Lane) {
    let server = Server::start().await;
    let mut client = Client::connect(&server, lane).await;
    if lane.is_legacy() {
        let params = SetLevelRequestParams::new(LoggingLevel::Warning);
        client.peer().set_level(params).await.expect("a level");
    }
    let handle = client.start("count", json!({"n": 50})).await;
    let token = handle.progress_token.clone();
    let result = soon("an answer", handle.await_response()).await;
    assert!(matches!(result, Ok(ServerResult::CallToolResult(_))), "{result:?}");
    // rmcp handles each notification in its own task, so it does not keep their order.
    let mut progress = Vec::new();
    while progress.len() < 50 {
        match client.heard(&mut None).await {
            Note::ProgressNotification(note) if note.params.progress_token == token => {
                progress.push(note.params.progress);
            }
            note => panic!("not the progress of the call: {note:?}"),
        }
    }
    progress.sort_by(f64::total_cmp);
    assert_eq!(progress, (1..=50).map(f64::from).collect::<Vec<_>>());

    client.call("log", json!({})).await;
    let mut logged = Vec::new();
    while logged.len() < 6 {
        match client.heard(&mut None).await {
            Note::LoggingMessageNotification(note) => logged.push(note.params.data.to_string()),
            note => panic!("not a log message: {note:?}"),
        }
    }
    logged.sort();
    let data = ["alert", "critical", "emergency", "error", "warning"].map(|it| format!("\"{it}\""));
    assert_eq!(logged[..5], data);
    assert_eq!(logged[5], "{\"free\":0}");
}

async fn rmcp_receives_changes(lane: Lane) {
    let server = Server::start().await;
    let mut client = Client::connect(&server, lane).await;
    let mut subscription = client.listen("test://clock").await;
    let names = async |client: &Client| {
        let tools = client.peer().list_all_tools().await.expect("tools");
        tools.into_iter().map(|tool| tool.name.into_owned()).collect::<Vec<_>>()
    };
    client.call("add", json!({"kind": "tools", "name": "by-rmcp"})).await;
    let note = client.heard(&mut subscription).await;
    assert!(matches!(note, Note::ToolListChangedNotification(_)), "{note:?}");
    assert!(names(&client).await.contains(&"by-rmcp".to_owned()));
    server.settle().await;
    server.engine.catalog().remove_tool("by-rmcp").await.expect("a running engine");
    let note = client.heard(&mut subscription).await;
    assert!(matches!(note, Note::ToolListChangedNotification(_)), "{note:?}");
    assert!(!names(&client).await.contains(&"by-rmcp".to_owned()));
    server.settle().await;
    server.engine.send_resource_updated("test://static");
    server.settle().await;
    client.call("touch", json!({"uri": "test://clock"})).await;
    match client.heard(&mut subscription).await {
        Note::ResourceUpdatedNotification(note) => assert_eq!(note.params.uri, "test://clock"),
        note => panic!("not the update of a resource: {note:?}"),
    }
    if let Some(mut subscription) = subscription {
        subscription.cancel().await.expect("a cancellation");
        eventually("the listen to end", async || server.activity().await.subscribers == 0).await;
    }
}

async fn rmcp_cancels(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let handle = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    handle.cancel(Some("changed my mind".to_owned())).await.expect("a cancellation");
    server.stage.reached("a", Phase::Stopped).await;
    assert_eq!(text(&client.call("echo", json!({"text": "hello"})).await), "hello");
}

async fn rmcp_disconnects(lane: Lane) {
    let server = Server::start().await;
    let mut client = Client::connect(&server, lane).await;
    let subscription = client.listen("test://clock").await;
    soon("rmcp to close", client.service.close()).await.expect("rmcp did not panic");
    drop((client, subscription));
    server.unused().await;
}

#[tokio::test]
async fn rmcp_detects_the_era() {
    let server = Server::start().await;
    for lane in [Lane::HTTP_MODERN, Lane::STDIO_MODERN] {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let lifecycle = ClientLifecycleMode::Auto { preferred_versions, legacy_version: None };
        let client = Client::connect_by(&server, lane, lifecycle).await;
        let info = client.peer().peer_info().expect("the server has introduced itself");
        assert_eq!(info.protocol_version, ProtocolVersion::V_2026_07_28);
    }
}

async fn rmcp_uses_an_extension(lane: Lane) {
    let server = Server::start().await;
    let mut client = Client::connect(&server, lane).await;
    let info = client.peer().peer_info().expect("the server has introduced itself");
    let extensions = info.capabilities.extensions.clone().expect("extensions");
    let settings = extensions.get("com.example/arithmetic").expect("the fixture's own");
    assert_eq!(settings.get("operations"), Some(&json!(["sum"])));
    let request = CustomRequest::new("arithmetic/sum", Some(json!({"of": [1, 2, 4]})));
    let asked = client.peer().send_request(ClientRequest::CustomRequest(request));
    let answer = match soon("an answer", asked).await {
        Ok(ServerResult::CustomResult(result)) => result.0,
        other => panic!("no result of a method: {other:?}"),
    };
    assert_eq!(answer["total"], 7);
    if lane.is_legacy() {
        let note = loop {
            match soon("a notice", client.inbox.recv()).await.expect("an open inbox") {
                Note::CustomNotification(note) => break note,
                // The call also reports progress.
                Note::ProgressNotification(_) => {}
                other => panic!("no notification of the extension: {other:?}"),
            }
        };
        assert_eq!(note.method, "notifications/arithmetic/summed");
        assert_eq!(note.params, Some(json!({"total": 7})));
    }
}
