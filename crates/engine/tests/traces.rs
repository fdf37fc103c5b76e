//! The spans of calls in the traces of their clients, as an exporter of OpenTelemetry gets them.

#[path = "peers/nodes.rs"]
#[allow(dead_code, reason = "two nodes need a part of it")]
mod nodes;
mod support;

use std::time::Duration;

use opentelemetry::Value as Attribute;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::{Value, json};
use stentor_engine::transport_api::{Answer, RequestSender};
use stentor_engine::{
    CallError, Context, Engine, EngineBuilder, ToolError, prompt, resource_template, tool,
};
use stentor_test::Client;
use stentor_wire::{ErrorObject, ProtocolVersion, code};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What this thread exports, on which all of a test runs.
struct Traces {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _subscriber: DefaultGuard,
}

impl Traces {
    fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        let subscriber = tracing::subscriber::set_default(subscriber);
        Self { exporter, _provider: provider, _subscriber: subscriber }
    }

    /// The spans of this many calls, once all have ended.
    async fn of_calls(&self, count: usize) -> Vec<SpanData> {
        let ended = async {
            loop {
                let spans = self.exporter.get_finished_spans().unwrap();
                let is_of_call = |it: &SpanData| attribute(it, "mcp.method.name").is_some();
                let spans: Vec<_> = spans.into_iter().filter(is_of_call).collect();
                if spans.len() >= count {
                    return spans;
                }
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        let spans = ended.expect("the spans of all calls end");
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    async fn of_call(&self) -> SpanData {
        self.of_calls(1).await.pop().unwrap()
    }
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Attribute> {
    span.attributes.iter().find(|it| it.key.as_str() == key).map(|it| &it.value)
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    attribute(span, key).map(|value| value.as_str().into_owned())
}

fn traced(mut params: Value) -> Value {
    params["_meta"] = json!({
        "traceparent": format!("00-{TRACE}-{PARENT}-01"), "tracestate": "vendor=1",
    });
    params
}

fn is_of_client(span: &SpanData) -> bool {
    (span.span_context.trace_id().to_string(), span.parent_span_id.to_string())
        == (TRACE.to_owned(), PARENT.to_owned())
}

fn builder() -> EngineBuilder {
    support::engine()
        .tool(tool("fails", || async { Err::<String, _>(ToolError::new("no more paper")) }))
        .tool(tool("announces", |ctx: Context| async move {
            ctx.report_progress(1.0, Some(2.0), "half");
            ctx.error("the paper is wet");
            ctx.send_tool_list_changed();
            ctx.send_resource_updated("test://watched");
            "done"
        }))
        .tool(tool("says", |ctx: Context| async move {
            ctx.trace_context().traceparent.unwrap_or_default()
        }))
        .prompt(prompt("greet", || async { "Hello!" }))
        .resource_template(resource_template("refused://{id}", "refused", || async {
            Err::<String, _>(CallError::protocol(ErrorObject::new(-32050, "no")))
        }))
}

async fn start() -> Engine {
    builder().start().await.unwrap()
}

#[tokio::test]
async fn a_call_of_a_tool_is_a_child_of_its_clients_span() {
    let traces = Traces::new();
    let client = Client::connect(&start().await).await;
    client.start("tools/call", traced(json!({"name": "echo"}))).result().await.unwrap();
    let span = traces.of_call().await;
    assert_eq!((&*span.name, &span.span_kind), ("tools/call echo", &SpanKind::Server));
    assert!(is_of_client(&span) && span.parent_span_is_remote, "{span:#?}");
    assert_eq!(span.span_context.trace_state().header(), "vendor=1");
    assert_eq!(span.status, Status::Unset);
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("mcp.protocol.version", "2026-07-28"),
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "echo"),
    ] {
        assert_eq!(text(&span, key).as_deref(), Some(value), "{key}");
    }
    assert!(text(&span, "jsonrpc.request.id").is_some());
    for key in ["error.type", "gen_ai.prompt.name", "mcp.resource.uri", "subject", "resumed"] {
        assert_eq!(text(&span, key), None, "{key}");
    }
}

#[tokio::test]
async fn no_more_of_a_session_id_is_exported_than_may_be_logged() {
    let traces = Traces::new();
    let engine = start().await;
    let client = Client::legacy(&engine).await;
    client.call_tool("echo", ()).await.unwrap();
    let (span, sessions) = (traces.of_call().await, engine.sessions());
    let (told, id) = (text(&span, "mcp.session.id").unwrap(), sessions[0].id.as_str());
    assert!(id.starts_with(&told) && told.len() + 10 < id.len(), "{told} of {id}");
    assert!(!format!("{span:?}").contains(id));
    assert_eq!(text(&span, "mcp.protocol.version").as_deref(), Some("2025-11-25"));
}

#[tokio::test]
async fn a_request_without_a_valid_traceparent_begins_a_trace() {
    let traces = Traces::new();
    let client = Client::connect(&start().await).await;
    let zero = format!("00-{}-{PARENT}-01", "0".repeat(32));
    for traceparent in [None, Some("nonsense"), Some(&*zero), Some(&*"x".repeat(1_000))] {
        let mut params = json!({"name": "echo"});
        if let Some(traceparent) = traceparent {
            params["_meta"] = json!({ "traceparent": traceparent });
        }
        client.start("tools/call", params).result().await.unwrap();
    }
    // Calls of one session are not in one trace only because one actor makes them.
    let spans = traces.of_calls(4).await;
    assert!(spans.iter().all(|span| span.parent_span_id == SpanId::INVALID), "{spans:#?}");
    let ids = spans.iter().map(|span| span.span_context.trace_id());
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 4);
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_sample_is_not_exported() {
    let traces = Traces::new();
    let client = Client::connect(&start().await).await;
    let mut params = traced(json!({"name": "fails"}));
    params["_meta"]["traceparent"] = format!("00-{TRACE}-{PARENT}-00").into();
    client.start("tools/call", params).result().await.unwrap();
    client.call_tool("echo", ()).await.unwrap();
    assert_eq!(traces.of_call().await.name, "tools/call echo");
}

#[tokio::test]
async fn a_failure_is_told_as_in_the_metrics() {
    let traces = Traces::new();
    let client = Client::connect(&start().await).await;
    assert!(client.call_tool("fails", ()).await.unwrap().is_error());
    client.read_resource("refused://1").await.unwrap_err();
    client.call_tool("panic", ()).await.unwrap_err();
    let internal = code::INTERNAL_ERROR.to_string();
    for (name, error, message) in [
        ("tools/call fails", "tool_error", ""),
        ("resources/read", "-32050", "no"),
        ("tools/call panic", &internal, "the tool 'panic' panicked"),
    ] {
        let spans = traces.of_calls(3).await;
        let span = spans.iter().find(|span| span.name == name).unwrap();
        assert_eq!(text(span, "error.type").as_deref(), Some(error));
        let is_of_protocol = error != "tool_error";
        assert_eq!(text(span, "rpc.response.status_code").is_some(), is_of_protocol);
        assert_eq!(span.status, Status::error(message.to_owned()));
    }
}

#[tokio::test]
async fn a_call_that_its_client_cancels_has_not_failed() {
    let traces = Traces::new();
    let engine = start().await;
    let client = Client::connect(&engine).await;
    let call = client.start_tool("wait", ());
    while engine.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    call.cancel();
    let span = traces.of_call().await;
    assert_eq!((span.status.clone(), text(&span, "error.type")), (Status::Unset, None));
    assert!(text(&span, "cancelled").unwrap().starts_with("cancelled by the client"));
}

#[tokio::test]
async fn a_name_of_a_span_contains_a_prompt_and_no_uri() {
    let traces = Traces::new();
    let client = Client::connect(&start().await).await;
    client.get_prompt("greet", ()).await.unwrap();
    client.read_resource("test://watched").await.unwrap();
    let spans = traces.of_calls(2).await;
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(text(of("prompts/get greet"), "gen_ai.prompt.name").as_deref(), Some("greet"));
    let read = of("resources/read");
    assert_eq!(text(read, "mcp.resource.uri").as_deref(), Some("test://watched"));
    assert_eq!(text(read, "gen_ai.operation.name"), None);
}

#[tokio::test]
async fn what_a_call_announces_is_an_event_of_its_span() {
    let traces = Traces::new();
    let client = Client::legacy(&start().await).await;
    client.call_tool("announces", ()).await.unwrap();
    let span = traces.of_call().await;
    let names: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    let expected = [
        "notifications/progress",
        "notifications/message",
        "notifications/tools/list_changed",
        "notifications/resources/updated",
    ];
    assert_eq!(names, expected);
    // The messages are for the client.
    assert!(!format!("{span:?}").contains("half") && !format!("{span:?}").contains("wet"));
}

/// A modern request without a session, as over HTTP.
async fn answer(engine: &Engine, params: Value) {
    let mut params = params;
    let meta = support::modern_meta();
    for (key, value) in meta.as_object().unwrap() {
        params["_meta"][key] = value.clone();
    }
    let (version, request) =
        (ProtocolVersion::V2026_07_28, support::request(1, "tools/call", params));
    let answer = engine.answer(version, request, RequestSender::default()).await.unwrap();
    let Answer::Stream(mut receiver) = answer else { panic!("no call") };
    let mut batch = Vec::new();
    while receiver.next(&mut batch).await {}
}

#[tokio::test]
async fn a_request_in_a_span_of_the_host_is_its_child_or_linked_to_it() {
    use tracing::Instrument as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let traces = Traces::new();
    let engine = start().await;
    let host = tracing::info_span!("POST /mcp");
    answer(&engine, json!({"name": "echo"})).instrument(host.clone()).await;
    answer(&engine, traced(json!({"name": "echo"}))).instrument(host.clone()).await;
    let host = opentelemetry::trace::TraceContextExt::span(&host.context()).span_context().clone();
    let spans = traces.of_calls(2).await;
    let (own, child): (Vec<_>, Vec<_>) = spans.into_iter().partition(is_of_client);
    assert_eq!(child[0].parent_span_id, host.span_id());
    let links: Vec<&SpanContext> = own[0].links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links, [&host]);
}

#[tokio::test]
async fn a_call_that_runs_on_another_node_stays_in_its_trace() {
    let traces = Traces::new();
    let nodes = nodes::Nodes::default();
    let _far = nodes.start("far", builder()).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let clients = [Client::connect(&near).await, Client::legacy(&near).await];
    for client in clients {
        traces.exporter.reset();
        let said = client.start("tools/call", traced(json!({"name": "says"}))).reply().await;
        // The author's code sees what the client sent.
        assert_eq!(said.unwrap().text(), format!("00-{TRACE}-{PARENT}-01"));
        let spans = traces.of_calls(2).await;
        let (near, far): (Vec<_>, Vec<_>) = spans.into_iter().partition(is_of_client);
        assert_eq!((near.len(), far.len()), (1, 1));
        assert_eq!(far[0].span_context.trace_id().to_string(), TRACE);
        assert_eq!(far[0].parent_span_id, near[0].span_context.span_id());
        assert_eq!(far[0].span_context.trace_state().header(), "vendor=1");
        assert_eq!((&*near[0].name, &*far[0].name), ("tools/call says", "tools/call says"));
    }
}
