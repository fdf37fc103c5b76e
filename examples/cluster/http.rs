//! The HTTP of the clients: one connection per request, and Server-Sent Events.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::balancer::SERVED_BY;
use crate::stage::Failure;

/// How long the head of a response may take: the node may be frozen while it has the request.
const PATIENCE: Duration = Duration::from_secs(3);

/// A response, whose body is read as it arrives. Dropping it closes the connection.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// The node that sent it, or the address that was asked.
    pub(crate) from: String,
    /// The id of the legacy session that it opened.
    pub(crate) session: Option<String>,
    is_stream: bool,
    body: Incoming,
    unread: BytesMut,
    events: VecDeque<Event>,
    _connection: JoinSet<()>,
}

pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

pub(crate) async fn send(
    to: SocketAddr,
    method: Method,
    headers: &[(&'static str, String)],
    body: String,
) -> Result<Reply, Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header(HOST, to.to_string())
        .header(ACCEPT, "application/json, text/event-stream")
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let mut tasks = JoinSet::new();
    let responding = async {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The reader of the body gets the connection's errors, too.
        tasks.spawn(async move { drop(connection.await) });
        Ok::<_, Failure>(sender.send_request(request).await?)
    };
    let (head, body) = timeout(PATIENCE, responding).await??.into_parts();
    let header = |name| {
        let value = head.headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    Ok(Reply {
        status: head.status,
        from: header(SERVED_BY).unwrap_or_else(|| to.to_string()),
        session: header("mcp-session-id"),
        is_stream: header("content-type").is_some_and(|of| of.starts_with("text/event-stream")),
        body,
        unread: BytesMut::new(),
        events: VecDeque::new(),
        _connection: tasks,
    })
}

impl Reply {
    /// The next event of a stream, or any other body as one event; `None` at its proper end. Fails
    /// if the body breaks off.
    pub(crate) async fn event(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else {
                let data = String::from_utf8(self.unread.split().to_vec())?;
                let whole = !self.is_stream && !data.is_empty();
                return Ok(whole.then_some(Event { id: None, data }));
            };
            if let Ok(data) = frame?.into_data() {
                self.unread.extend_from_slice(&data);
            }
            while self.is_stream
                && let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n")
            {
                let block = self.unread.split_to(end + 2);
                self.events.push_back(parse(str::from_utf8(&block)?));
            }
        }
    }

    /// The response with this id. Messages before it go to `meanwhile`.
    pub(crate) async fn answer(
        mut self,
        id: u64,
        mut meanwhile: impl FnMut(&Value),
    ) -> Result<Value, Failure> {
        let status = self.status;
        let waiting = async {
            while let Some(event) = self.event().await? {
                let Ok(mut message) = serde_json::from_str::<Value>(&event.data) else { continue };
                if message["id"] != id {
                    meanwhile(&message);
                } else if message["error"].is_null() {
                    return Ok(message["result"].take());
                } else {
                    return Err(Failure::from(message["error"]["message"].to_string()));
                }
            }
            Err(Failure::from(format!("there was no answer, but {status}")))
        };
        timeout(PATIENCE, waiting).await?
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event { id: None, data: String::new() };
    for line in block.lines() {
        match line.split_once(':') {
            Some(("id", id)) => event.id = Some(id.trim_start().to_owned()),
            Some(("data", data)) => event.data.push_str(data.trim_start()),
            _ => {}
        }
    }
    event
}
