//! The endpoint, served in each way, and raw HTTP requests to it.
#![allow(dead_code, unreachable_pub, reason = "each suite takes what it needs")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::{Config, Context, Engine, EngineBuilder, ToolError, tool};
use stentor_transport::http::{HttpConfig, Principal, router, serve_on, serve_on_layered};
use stentor_wire::meta_key;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower::util::option_layer;

/// How an endpoint is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    Serve,
    Layered,
    Router,
}

pub const SERVED_BY: [ServedBy; 3] = [ServedBy::Serve, ServedBy::Layered, ServedBy::Router];

#[derive(Clone, Debug)]
pub struct Server {
    pub engine: Engine,
    pub address: SocketAddr,
}

impl Server {
    pub async fn start(road: ServedBy, tune: impl Fn(&mut Config, &mut HttpConfig)) -> Self {
        Self::start_at(road, "127.0.0.1:0", None, tune).await
    }

    /// Each request has this principal, unless the endpoint is served without layers.
    pub async fn start_at(
        road: ServedBy,
        address: &str,
        principal: Option<&str>,
        tune: impl Fn(&mut Config, &mut HttpConfig),
    ) -> Self {
        let (mut config, mut http) = (Config::default(), HttpConfig::default());
        tune(&mut config, &mut http);
        let builder = Engine::builder("test", "1").configure(|it| *it = config);
        Self::serving(road, address, principal, builder, http).await
    }

    /// Serves the engine of a builder, with some small tools.
    pub async fn serving(
        road: ServedBy,
        address: &str,
        principal: Option<&str>,
        builder: EngineBuilder,
        http: HttpConfig,
    ) -> Self {
        let engine = builder
            .tool(tool("echo", || async { "echo" }))
            .tool(tool("whoami", |who: Principal| async move { who.to_string() }))
            .tool(tool("talk", |ctx: Context| async move {
                ctx.info("on and on");
                std::future::pending::<Result<&str, ToolError>>().await
            }))
            .start()
            .await
            .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        match road {
            ServedBy::Serve => {
                let serving = serve_on(engine.clone(), listener, http, std::future::pending());
                tokio::spawn(serving);
            }
            ServedBy::Layered => {
                let named = principal.map(|name| axum::Extension(Principal(name.into())));
                let (engine, layer) = (engine.clone(), option_layer(named));
                tokio::spawn(serve_on_layered(
                    engine,
                    listener,
                    http,
                    layer,
                    std::future::pending(),
                ));
            }
            ServedBy::Router => {
                let mut app = router(engine.clone(), http);
                if let Some(principal) = principal {
                    app = app.layer(axum::Extension(Principal(principal.into())));
                }
                let app = app.into_make_service_with_connect_info::<SocketAddr>();
                tokio::spawn(async move { axum::serve(listener, app).await });
            }
        }
        Self { engine, address }
    }

    /// Sends a request over a connection of its own.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        ask.send(self.address).await
    }

    /// Opens a legacy session, and returns its id.
    pub async fn session(&self) -> String {
        let answer = self.ask(&Ask::initialize()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.one("mcp-session-id").expect("a session").to_owned();
        let message = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.ask(&Ask::legacy(&id, &message)).await.status, 202);
        id
    }
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Ask {
    pub fn new(method: &'static str) -> Self {
        Self { method, path: "/mcp".to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub fn post(body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::new("POST") }
            .with("accept", "application/json, text/event-stream")
            .with("content-type", "application/json")
    }

    pub fn initialize() -> Self {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        });
        Self::post(
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
                .to_string(),
        )
    }

    pub fn legacy(session: &str, message: &Value) -> Self {
        Self::post(message.to_string()).with("mcp-session-id", session)
    }

    pub fn modern(method: &str, mut params: Value) -> Self {
        params["_meta"] = json!({
            meta_key::PROTOCOL_VERSION: "2026-07-28",
            meta_key::CLIENT_INFO: {"name": "c", "version": "1"},
            meta_key::CLIENT_CAPABILITIES: {},
            meta_key::LOG_LEVEL: "info",
        });
        let name = params["name"].as_str().map(str::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let ask = Self::post(body.to_string())
            .with("mcp-protocol-version", "2026-07-28")
            .with("mcp-method", method);
        match name {
            Some(name) => ask.with("mcp-name", &name),
            None => ask,
        }
    }

    pub fn get(session: &str) -> Self {
        Self::new("GET").with("accept", "text/event-stream").with("mcp-session-id", session)
    }

    pub fn at(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(it, _)| it != name);
        self
    }

    /// The preflight request that a browser sends before the request of a page.
    pub fn preflight(origin: &str, method: &str, headers: &str) -> Self {
        Self::new("OPTIONS")
            .with("origin", origin)
            .with("access-control-request-method", method)
            .with("access-control-request-headers", headers)
    }

    /// Requests of every kind, as `(what, the request)`.
    pub fn every_kind() -> Vec<(&'static str, Self)> {
        let echo = json!({"name": "echo"});
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        vec![
            ("initialize", Self::initialize()),
            (
                "a legacy message",
                Self::legacy("any", &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})),
            ),
            ("a notification", Self::post(notification)),
            ("a response", Self::post(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)),
            ("GET", Self::get("any")),
            ("GET with an event id", Self::get("any").with("last-event-id", "0-1")),
            ("DELETE", Self::new("DELETE").with("mcp-session-id", "any")),
            ("a call", Self::modern("tools/call", echo)),
            ("a listen", Self::modern("subscriptions/listen", json!({"notifications": {}}))),
            ("a task", Self::modern("tasks/get", json!({"taskId": "any"}))),
            ("discover", Self::modern("server/discover", json!({}))),
            ("no JSON", Self::post("{")),
            ("what is not accepted", Self::new("POST")),
            ("another method", Self::new("PUT")),
            ("PATCH", Self::new("PATCH")),
            ("OPTIONS that is no preflight", Self::new("OPTIONS")),
        ]
    }

    async fn send(&self, to: SocketAddr) -> Answer {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            text.push_str(&format!("host: {to}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.method == "POST" {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str(&format!("connection: close\r\n\r\n{}", self.body));
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        timeout(Duration::from_secs(20), Answer::read(&mut stream, &mut read))
            .await
            .unwrap_or_else(|_| {
                panic!("no answer to {self:?}: {}", String::from_utf8_lossy(&read))
            });
        Answer::parse(read, stream)
    }
}

/// A response: of a stream, the head and the first bytes of the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    _stream: TcpStream,
}

impl Answer {
    async fn read(stream: &mut TcpStream, read: &mut Vec<u8>) {
        loop {
            let text = String::from_utf8_lossy(read);
            if text.contains("\r\n\r\n") && text.contains("content-type: text/event-stream") {
                return;
            }
            match stream.read_buf(read).await {
                Ok(0) => return,
                Ok(_) => {}
                // A reset after the response: the server did not read all of the request.
                Err(_) if !read.is_empty() => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn parse(read: Vec<u8>, stream: TcpStream) -> Self {
        let text = String::from_utf8(read).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.parse().expect("a number"),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
            _stream: stream,
        }
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(it, _)| it == name);
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that may occur once.
    pub fn one(&self, name: &str) -> Option<&str> {
        match self.all(name)[..] {
            [] => None,
            [value] => Some(value),
            _ => panic!("{name} is repeated: {self:?}"),
        }
    }

    /// The CORS headers of the response.
    pub fn cors(&self) -> Vec<&(String, String)> {
        self.headers.iter().filter(|(name, _)| name.starts_with("access-control-")).collect()
    }

    pub fn is_stream(&self) -> bool {
        self.one("content-type") == Some("text/event-stream")
    }
}
