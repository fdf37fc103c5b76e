//! A client of the protocol, as small as it can be: requests, and the messages that answer them.

use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::stage::Failure;

const VERSION: &str = "2026-07-28";

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mcp {
    http: Client,
    url: String,
}

impl Mcp {
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        // A proxy of the environment cannot reach this machine.
        let http = Client::builder().no_proxy().build()?;
        Ok(Self { http, url: url.to_owned() })
    }

    /// Sends a request. All messages that come back are to be read, the answer last.
    pub(crate) async fn send(&self, method: &str, mut params: Value) -> Result<Messages, Failure> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "events-example", "version": "1.0.0"},
            "io.modelcontextprotocol/clientCapabilities":
                {"extensions": {"io.modelcontextprotocol/events": {}}},
        });
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.http.post(&self.url);
        let response = request
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", method)
            .body(body.to_string())
            .send()
            .await?;
        Ok(Messages { response, unread: Vec::new() })
    }

    /// Sends a request, and waits for its result.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let mut messages = self.send(method, params).await?;
        while let Some(mut message) = messages.next().await? {
            if let Some(error) = message.get("error") {
                return Err(format!("{method}: {error}").into());
            }
            if let Some(result) = message.get_mut("result") {
                return Ok(result.take());
            }
        }
        Err(format!("{method}: no answer").into())
    }
}

/// The body of a response: one message as JSON, or an event stream. Dropping it closes the stream.
pub(crate) struct Messages {
    response: Response,
    unread: Vec<u8>,
}

impl Messages {
    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Some(message) = message(&line) {
                    return Ok(Some(message));
                }
            }
            match self.response.chunk().await? {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return Ok(message(&std::mem::take(&mut self.unread))),
            }
        }
    }
}

/// The message of a line: of the whole body, or of an event.
fn message(line: &[u8]) -> Option<Value> {
    serde_json::from_slice(line.strip_prefix(b"data:").unwrap_or(line)).ok()
}
