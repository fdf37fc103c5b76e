//! HTTP, byte for byte: one connection per request, and Server-Sent Events.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN_VERSION, soon};

/// The `Accept` header of a POST.
const BOTH: &str = "application/json, text/event-stream";

/// One HTTP request to the endpoint.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// A request with any method and no headers.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self { method, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A POST of any body, with the headers that every POST has.
    #[must_use]
    pub fn post(body: impl Into<Bytes>) -> Self {
        let call = Self { body: body.into(), ..Self::new(Method::POST) };
        call.with(ACCEPT, BOTH).with(CONTENT_TYPE, "application/json")
    }

    /// A correct modern request, including its headers. Members of `params._meta` are kept.
    #[must_use]
    pub fn modern(id: &Value, method: &str, params: Value) -> Self {
        let params = with_modern_meta(params);
        let name = match method {
            "tools/call" | "prompts/get" => params["name"].as_str(),
            "resources/read" => params["uri"].as_str(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params["taskId"].as_str(),
            _ => None,
        };
        let name = name.filter(|name| name.is_ascii()).map(str::to_owned);
        let version = params["_meta"][META_VERSION].as_str().unwrap_or_default().to_owned();
        let mut call = Self::post(request(id, method, params))
            .with("mcp-protocol-version", &version)
            .with("mcp-method", method);
        if let Some(name) = name {
            call = call.with("mcp-name", &name);
        }
        call
    }

    /// A message on a legacy session.
    #[must_use]
    pub fn legacy(session: &str, message: &Value) -> Self {
        Self::post(message.to_string()).with("mcp-session-id", session)
    }

    /// The GET that opens a legacy session's stream of notices.
    #[must_use]
    pub fn get(session: &str) -> Self {
        Self::new(Method::GET).with(ACCEPT, "text/event-stream").with("mcp-session-id", session)
    }

    /// The DELETE that ends a legacy session.
    #[must_use]
    pub fn delete(session: &str) -> Self {
        Self::new(Method::DELETE).with("mcp-session-id", session)
    }

    /// Sets a header.
    #[must_use]
    pub fn with(mut self, name: impl TryInto<HeaderName>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value);
        self.headers.insert(name, value);
        self
    }

    /// Adds a header, even if one of the same name exists.
    #[must_use]
    pub fn and(mut self, name: impl TryInto<HeaderName>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value);
        self.headers.append(name, value);
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Removes a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends the request. `Host` is the address of the connection, unless the test has set it.
    pub async fn send(mut self, to: SocketAddr) -> Reply {
        let host = to.to_string();
        self.headers.entry(HOST).or_insert(HeaderValue::from_str(&host).expect("an address"));
        self.send_as_is(to).await
    }

    /// Sends the request without any header of the harness.
    pub async fn send_as_is(self, to: SocketAddr) -> Reply {
        let stream = TcpStream::connect(to).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.expect("an HTTP connection");
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // The reader of the body gets the error, too.
            let _ = connection.await;
        }));
        let mut request = http::Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = http::Uri::from_static("/mcp");
        *request.headers_mut() = self.headers;
        let response = soon("the head of a response", sender.send_request(request)).await;
        let (head, body) = response.expect("a response").into_parts();
        Reply {
            status: head.status,
            headers: head.headers,
            body,
            unread: BytesMut::new(),
            events: VecDeque::new(),
            _connection: connection,
        }
    }
}

fn header(name: impl TryInto<HeaderName>, value: impl AsRef<[u8]>) -> (HeaderName, HeaderValue) {
    let name = name.try_into().unwrap_or_else(|_| panic!("not the name of a header"));
    (name, HeaderValue::from_bytes(value.as_ref()).expect("the value of a header"))
}

/// The JSON of a request.
pub(crate) fn request(id: &Value, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// Adds the members that the `_meta` of a modern request must have, where they are missing.
pub(crate) fn with_modern_meta(mut params: Value) -> Value {
    let wanted = json!({
        META_VERSION: MODERN_VERSION,
        META_CLIENT: {"name": "raw", "version": "0.0.1"},
        META_CAPABILITIES: {},
    });
    if params["_meta"].is_null() {
        params["_meta"] = json!({});
    }
    let Value::Object(wanted) = wanted else { unreachable!("written as an object") };
    if let Value::Object(meta) = &mut params["_meta"] {
        for (key, value) in wanted {
            meta.entry(key).or_insert(value);
        }
    }
    params
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A comment, which only keeps the connection alive.
    Comment,
    /// Data, and the event's id if it has one.
    Data(String, Option<String>),
}

/// A response. Its head has arrived; its body is read as it arrives. Dropping it closes the
/// connection.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    unread: BytesMut,
    events: VecDeque<Event>,
    _connection: AbortOnDropHandle<()>,
}

impl Reply {
    /// A header as text; empty if missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// Whether the body is an event stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.header("content-type") == "text/event-stream"
    }

    /// The next part of the body; `None` at its proper end.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            let frame = soon("more of a body", self.body.frame()).await?;
            let frame = frame.expect("the body does not break off");
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// The rest of the body.
    pub async fn text(mut self) -> String {
        while let Some(chunk) = self.chunk().await {
            self.unread.extend_from_slice(&chunk);
        }
        String::from_utf8(self.unread.to_vec()).expect("UTF-8")
    }

    /// The whole body as JSON.
    pub async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next event of a stream; `None` at its proper end.
    pub async fn event(&mut self) -> Option<Event> {
        assert!(self.is_stream(), "not a stream: {} {:?}", self.status, self.headers);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let Some(chunk) = self.chunk().await else {
                assert!(self.unread.is_empty(), "the stream ends within an event");
                return None;
            };
            self.unread.extend_from_slice(&chunk);
            while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let block = self.unread.split_to(end + 2);
                self.events.push_back(parse(std::str::from_utf8(&block).expect("UTF-8")));
            }
        }
    }

    /// The next message, from a stream or from the whole body; `None` after the last one.
    pub async fn message(&mut self) -> Option<Value> {
        if self.is_stream() {
            loop {
                // An event without data only carries an id.
                if let Event::Data(data, _) = self.event().await?
                    && !data.is_empty()
                {
                    return Some(serde_json::from_str(&data).expect("an event is one message"));
                }
            }
        }
        while let Some(chunk) = self.chunk().await {
            self.unread.extend_from_slice(&chunk);
        }
        let body = self.unread.split();
        (!body.is_empty()).then(|| serde_json::from_slice(&body).expect("a body is one message"))
    }
}

/// Parses one event strictly: only the grammar that this server writes is accepted.
fn parse(block: &str) -> Event {
    let (mut data, mut id, mut is_comment) = (None, None, false);
    for line in block.lines().filter(|line| !line.is_empty()) {
        match line.split_once(':').expect("a field or a comment") {
            ("", _) => is_comment = true,
            ("data", value) => {
                let value = value.strip_prefix(' ').unwrap_or(value);
                assert!(data.replace(value.to_owned()).is_none(), "one line of data an event");
            }
            ("id", value) => id = Some(value.trim_start().to_owned()),
            ("event" | "retry", _) => {}
            (field, _) => panic!("unknown field {field}"),
        }
    }
    match data {
        Some(data) => Event::Data(data, id),
        None if is_comment => Event::Comment,
        None => panic!("an event without data: {block:?}"),
    }
}
