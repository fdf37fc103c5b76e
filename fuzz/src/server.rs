//! A whole server behind its HTTP endpoint.

use std::cell::LazyCell;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use stentor::http::{HttpConfig, router};
use stentor::serde_json::{Value, from_slice, from_str, json};
use stentor::transport_api::wire::headers::encode_value;
use stentor::{
    Context, Engine, Resource, ToolError,
    handler::{PromptArgs, PromptError, ResourceError, TemplateVars},
    prompt, raw_tool, resource_template,
};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

use super::text;

/// What an input says instead of the id of a session, which it cannot know.
const SESSION: &str = "$SESSION";

/// How often an answer that is a stream is looked at.
const LOOKS: usize = 32;

thread_local! {
    static SERVER: LazyCell<Server> = LazyCell::new(Server::start);
}

struct Server {
    runtime: Runtime,
    router: Router,
}

/// An answer, as far as it has come.
struct Answer {
    status: StatusCode,
    session: Option<String>,
    body: Bytes,
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let schema = json!({"type": "object", "properties": {
            "text": {"type": "string", "x-mcp-header": "Text"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
        }});
        let echo = raw_tool("echo", schema, |arguments: Value, ctx: Context| async move {
            ctx.report_progress(1.0, None, "half");
            Ok::<_, ToolError>(arguments.to_string())
        });
        let review = prompt("review", |args: PromptArgs| async move {
            Ok::<_, PromptError>(format!("{args:?}"))
        });
        let engine = Engine::builder("fuzz", "1")
            .tool(echo)
            .prompt(review.argument("code", "", true))
            .resource(Resource::text("docs://readme", "readme", "text"))
            .start();
        let engine = runtime.block_on(engine).expect("valid items");
        Self { runtime, router: router(engine, HttpConfig::default()) }
    }

    /// Sends a request, and checks what holds for each answer.
    async fn send(router: &Router, request: Request<Body>) -> Answer {
        let shown = format!("{request:?}");
        let Ok(response) = router.clone().oneshot(request).await;
        let (head, mut body) = response.into_parts();
        let session = head.headers.get("mcp-session-id").and_then(|id| id.to_str().ok());
        let session = session.map(str::to_owned);
        let mut read = Vec::new();
        for _ in 0..LOOKS {
            match body.frame().now_or_never() {
                None => tokio::task::yield_now().await,
                Some(None) => break,
                Some(Some(frame)) => {
                    read.extend(
                        frame.ok().and_then(|frame| frame.into_data().ok()).iter().flatten(),
                    );
                }
            }
        }
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{shown}");
        let answer = Answer { status: head.status, session, body: read.into() };
        for message in answer.messages() {
            assert_ne!(message["error"]["code"], -32603, "{shown}: {message}");
        }
        answer
    }

    async fn open_session(router: &Router) -> String {
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "fuzz", "version": "1"},
        }});
        let request = post().body(Body::from(message.to_string()));
        let answer = Self::send(router, request.expect("a request")).await;
        answer.session.expect("a session")
    }
}

impl Answer {
    /// The messages that have come whole, of JSON or of events.
    fn messages(&self) -> Vec<Value> {
        match from_slice(&self.body) {
            Ok(message) => vec![message],
            Err(_) => self.fields("data").filter_map(|data| from_str(&data).ok()).collect(),
        }
    }

    /// The fields of this name in the events.
    fn fields(&self, name: &str) -> impl Iterator<Item = String> {
        let prefix = format!("{name}: ");
        let lines: Vec<_> = text(&self.body).lines().map(str::to_owned).collect();
        lines.into_iter().filter_map(move |line| line.strip_prefix(&prefix).map(str::to_owned))
    }
}

/// A request with a message, without the headers that depend on it.
fn post() -> http::request::Builder {
    Request::post("/mcp")
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/json, text/event-stream")
        .header(header::CONTENT_TYPE, "application/json")
}

/// A request: its method and path in the first line, then its headers, an empty line, its body.
pub fn http(input: &[u8]) {
    let input = text(input);
    let (head, body) = input.split_once("\n\n").unwrap_or((&input, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or_default();
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    SERVER.with(|server| {
        server.runtime.block_on(async {
            let session = match input.contains(SESSION) {
                true => Server::open_session(&server.router).await,
                false => String::new(),
            };
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                let value = value.replace(SESSION, &session);
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                    request = request.header(name, value);
                }
            }
            if let Ok(request) = request.body(Body::from(body.replace(SESSION, &session))) {
                Server::send(&server.router, request).await;
            }
        });
    });
}

/// The `Last-Event-ID` with which a client returns to a stream.
pub fn cursor(input: &[u8]) {
    let Ok(cursor) = HeaderValue::from_bytes(input) else { return };
    SERVER.with(|server| {
        server.runtime.block_on(async {
            let session = Server::open_session(&server.router).await;
            let get = |cursor: HeaderValue| {
                Request::get("/mcp")
                    .header(header::HOST, "localhost")
                    .header(header::ACCEPT, "text/event-stream")
                    .header("mcp-session-id", &session)
                    .header("last-event-id", cursor)
                    .body(Body::empty())
                    .expect("a request")
            };
            let answer = Server::send(&server.router, get(cursor)).await;
            assert!(!answer.status.is_server_error(), "{}", answer.status);
            // What the server gives out, it accepts.
            for id in answer.fields("id") {
                let id = HeaderValue::from_str(&id).expect("a header");
                let again = Server::send(&server.router, get(id)).await;
                assert_eq!(again.status, StatusCode::OK);
            }
        });
    });
}

/// A URI template in the first line, and a URI in the second.
pub fn template(input: &[u8]) {
    let input = text(input);
    let (template, uri) = input.split_once('\n').unwrap_or((&input, ""));
    let items = resource_template(template, "it", |vars: TemplateVars, _ctx: Context| async move {
        Ok::<_, ResourceError>(vars.keys().cloned().collect::<Vec<_>>().join(" "))
    });
    SERVER.with(|server| {
        server.runtime.block_on(async {
            let Ok(engine) = Engine::builder("template", "1").item(items).start().await else {
                return;
            };
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {
                "uri": uri,
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            }});
            let request = post()
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "resources/read")
                .header("mcp-name", &*encode_value(uri))
                .body(Body::from(message.to_string()))
                .expect("a request");
            let router = router(engine.clone(), HttpConfig::default());
            let answer = Server::send(&router, request).await;
            for message in answer.messages() {
                let names = message["result"]["contents"][0]["text"].as_str().unwrap_or_default();
                for name in names.split_whitespace() {
                    assert!(template.contains(name), "{template}: {message}");
                }
            }
            engine.shutdown().await;
        });
    });
}
