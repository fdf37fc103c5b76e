//! A minimal HTTP client: thousands must fit on one machine, and a request can be broken off
//! anywhere.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};
use stentor_tests::{
    Era, LEGACY_VERSION, META_CAPABILITIES, META_LOG_LEVEL, META_VERSION, MODERN_VERSION,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// One connection, for one request after the other.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
    left: Left,
    text: String,
    /// Added to each request, if there is one.
    token: Option<String>,
    /// The `Last-Event-ID` of what was read so far.
    pub(crate) last_id: Option<String>,
}

/// The unread part of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Bytes(usize),
    Chunks,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) session: Option<String>,
}

impl Http {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self::on(stream, to))
    }

    /// A client that will stop reading. Small buffers make the server's socket buffer little, too.
    pub(crate) async fn connect_narrow(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(2_048)?;
        socket2::SockRef::from(&socket).set_tcp_mss(536)?;
        Ok(Self::on(socket.connect(to).await?, to))
    }

    /// A client on an open connection.
    pub(crate) fn on(stream: TcpStream, host: SocketAddr) -> Self {
        let (left, text) = (Left::Nothing, String::new());
        let stream = BufReader::with_capacity(2_048, stream);
        Self { stream, host, left, text, token: None, last_id: None }
    }

    /// The same client with a token.
    pub(crate) fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> io::Result<Head> {
        let mut bytes = request.to_bytes(self.host);
        if let Some(token) = &self.token {
            let line = format!("authorization: Bearer {token}\r\n");
            // After the first line.
            let at = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            bytes.splice(at..at, line.into_bytes());
        }
        self.write(bytes).await?;
        self.head().await
    }

    /// Writes bytes that need not be a whole request.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    async fn head(&mut self) -> io::Result<Head> {
        // Skips the rest of the previous response.
        while self.data().await?.is_some() {}
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = Head { status: status.ok_or(io::ErrorKind::InvalidData)?, session: None };
        self.left = Left::Nothing;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name {
                "mcp-session-id" => head.session = Some(value.to_owned()),
                "transfer-encoding" => self.left = Left::Chunks,
                "content-length" => self.left = Left::Bytes(number(value, 10)?),
                _ => {}
            }
        }
        Ok(head)
    }

    /// The next message of the response as text; `None` after the last one.
    pub(crate) async fn data(&mut self) -> io::Result<Option<String>> {
        loop {
            while let Some(end) = self.text.find('\n') {
                let line: String = self.text.drain(..=end).collect();
                match line.trim_end().split_once(": ") {
                    Some(("id", id)) => self.last_id = Some(id.to_owned()),
                    Some(("data", data)) => return Ok(Some(data.to_owned())),
                    _ => {}
                }
            }
            match self.left {
                Left::Nothing if self.text.is_empty() => return Ok(None),
                // A JSON body, which has no line breaks.
                Left::Nothing => return Ok(Some(std::mem::take(&mut self.text))),
                Left::Bytes(length) => {
                    self.left = Left::Nothing;
                    self.read(length).await?;
                }
                Left::Chunks => {
                    let length = number(&self.line().await?, 16)?;
                    self.read(length).await?;
                    self.line().await?;
                    if length == 0 {
                        self.left = Left::Nothing;
                    }
                }
            }
        }
    }

    pub(crate) async fn message(&mut self) -> io::Result<Option<Value>> {
        let data = self.data().await?;
        Ok(data.map(|data| serde_json::from_str(&data)).transpose()?)
    }

    async fn read(&mut self, length: usize) -> io::Result<()> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        self.text += std::str::from_utf8(&bytes).map_err(io::Error::other)?;
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn number(text: &str, radix: u32) -> io::Result<usize> {
    usize::from_str_radix(text, radix).map_err(io::Error::other)
}

pub(crate) struct Request {
    method: &'static str,
    headers: String,
    body: String,
}

impl Request {
    fn post(headers: String, body: &Value) -> Self {
        let headers = format!(
            "content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             {headers}"
        );
        Self { method: "POST", headers, body: body.to_string() }
    }

    /// The request that opens a legacy session.
    pub(crate) fn initialize() -> Self {
        Self::post(String::new(), &initialize(0))
    }

    /// The GET that opens a session's stream of notices.
    pub(crate) fn get(session: &str, last_id: Option<&str>) -> Self {
        let mut headers = format!("accept: text/event-stream\r\nmcp-session-id: {session}\r\n");
        if let Some(id) = last_id {
            let _ = write!(headers, "last-event-id: {id}\r\n");
        }
        Self { method: "GET", headers, body: String::new() }
    }

    /// The DELETE that ends a session.
    pub(crate) fn delete(session: &str) -> Self {
        let headers = format!("mcp-session-id: {session}\r\n");
        Self { method: "DELETE", headers, body: String::new() }
    }

    /// Its bytes, to be sent whole or in part.
    pub(crate) fn to_bytes(&self, host: SocketAddr) -> Vec<u8> {
        let Self { method, headers, body } = self;
        let length = body.len();
        format!(
            "{method} /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}\r\n\
             {body}"
        )
        .into_bytes()
    }
}

/// The sender of requests.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A client with this session id.
    Legacy(String),
    /// Any modern client.
    Modern,
}

impl Peer {
    /// A client of this era. A legacy client completes the handshake on this connection.
    pub(crate) async fn open(http: &mut Http, era: Era) -> io::Result<Self> {
        if era == Era::Modern {
            return Ok(Self::Modern);
        }
        let head = http.ask(&Request::initialize()).await?;
        let session = head.session.ok_or_else(|| io::Error::other("no session"))?;
        while http.data().await?.is_some() {}
        let peer = Self::Legacy(session);
        http.ask(&peer.notification("notifications/initialized", json!({}))).await?;
        Ok(peer)
    }

    pub(crate) fn session(&self) -> &str {
        match self {
            Self::Legacy(session) => session,
            Self::Modern => "",
        }
    }

    pub(crate) fn request(&self, id: u64, method: &str, params: Value) -> Request {
        let mut message = message(id, method, params);
        match self {
            Self::Legacy(_) => Request::post(self.session_headers(), &message),
            Self::Modern => {
                modernize(&mut message);
                let mut headers =
                    format!("mcp-protocol-version: {MODERN_VERSION}\r\nmcp-method: {method}\r\n");
                let params = &message["params"];
                if let Some(name) = params["name"].as_str().or(params["taskId"].as_str()) {
                    let _ = write!(headers, "mcp-name: {name}\r\n");
                }
                Request::post(headers, &message)
            }
        }
    }

    pub(crate) fn call(&self, id: u64, tool: &str, arguments: Value) -> Request {
        self.request(id, "tools/call", call(id, tool, arguments))
    }

    /// The request whose response carries this peer's notices: of the list of tools and, for a
    /// modern peer, of these resources.
    pub(crate) fn hear(&self, uris: &[String]) -> Request {
        match self {
            Self::Legacy(session) => Request::get(session, None),
            Self::Modern => self.request(1, "subscriptions/listen", listen(uris)),
        }
    }

    pub(crate) fn notification(&self, method: &str, params: Value) -> Request {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        Request::post(self.session_headers(), &message)
    }

    fn session_headers(&self) -> String {
        let session = self.session();
        format!("mcp-session-id: {session}\r\nmcp-protocol-version: {LEGACY_VERSION}\r\n")
    }
}

pub(crate) fn message(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(crate) fn initialize(id: u64) -> Value {
    let client = json!({"name": "soak", "version": "1"});
    let params =
        json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": client});
    message(id, "initialize", params)
}

/// The parameters of a call that asks for progress.
pub(crate) fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": id}})
}

pub(crate) fn listen(uris: &[String]) -> Value {
    json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}})
}

/// Turns a message into a modern request.
pub(crate) fn modernize(message: &mut Value) {
    let meta = &mut message["params"]["_meta"];
    meta[META_VERSION] = MODERN_VERSION.into();
    if meta[META_CAPABILITIES].is_null() {
        meta[META_CAPABILITIES] = json!({"elicitation": {"form": {}}});
    }
    meta[META_LOG_LEVEL] = "info".into();
}
