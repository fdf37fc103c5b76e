//! Clients of both eras. They know one address, and nothing about nodes.
//!
//! Each client reads the lists once at the start, and later only what a notice says has changed. A
//! legacy client resumes its stream with `Last-Event-ID`, and starts over only when its session has
//! ended. A modern client opens a new listen and reads everything that it may have missed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::http::{Reply, send};
use crate::stage::{Failure, Stage};
use crate::table::{How, Learned};

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
/// The pause before a stream is resumed, as the server requests, and before any retry.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// The protocol of one client with one address.
pub(crate) struct Protocol {
    era: Era,
    to: SocketAddr,
    session: Option<String>,
    ids: u64,
}

/// A client that listens for ever.
pub(crate) struct Client {
    number: usize,
    stage: Arc<Stage>,
    protocol: Protocol,
    /// The resource that it subscribes to.
    watches: String,
}

impl Protocol {
    pub(crate) fn new(era: Era, to: SocketAddr) -> Self {
        Self { era, to, session: None, ids: 0 }
    }

    /// Sends a request. The caller reads the response.
    async fn request(&mut self, method: &str, mut params: Value) -> Result<(u64, Reply), Failure> {
        self.ids += 1;
        let mut headers = Vec::new();
        if self.era == Era::Modern {
            let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
            headers.extend(name.map(|name| ("mcp-name", name)));
            headers.push(("mcp-method", method.to_owned()));
            headers.push(("mcp-protocol-version", MODERN.to_owned()));
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": info(),
                "io.modelcontextprotocol/clientCapabilities": {},
                "progressToken": self.ids,
            });
            params["_meta"] = meta;
        }
        let body = json!({"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params});
        Ok((self.ids, self.post(headers, &body).await?))
    }

    pub(crate) async fn ask(
        &mut self,
        method: &str,
        params: Value,
        meanwhile: impl FnMut(&Value),
    ) -> Result<Value, Failure> {
        let (id, reply) = self.request(method, params).await?;
        reply.answer(id, meanwhile).await
    }

    async fn post(
        &self,
        mut headers: Vec<(&'static str, String)>,
        body: &Value,
    ) -> Result<Reply, Failure> {
        headers.extend(self.session.clone().map(|session| ("mcp-session-id", session)));
        send(self.to, Method::POST, &headers, body.to_string()).await
    }

    async fn initialize(&mut self) -> Result<(), Failure> {
        self.session = None;
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info()});
        let (id, reply) = self.request("initialize", params).await?;
        let session = reply.session.clone();
        reply.answer(id, |_| {}).await?;
        self.session = session;
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post(Vec::new(), &ready).await?;
        Ok(())
    }

    pub(crate) async fn tools(&mut self) -> Result<BTreeSet<String>, Failure> {
        let (mut tools, mut params) = (BTreeSet::new(), json!({}));
        loop {
            let page = self.ask("tools/list", params, |_| {}).await?;
            let names = page["tools"].as_array().into_iter().flatten();
            tools.extend(names.filter_map(|tool| tool["name"].as_str().map(str::to_owned)));
            match &page["nextCursor"] {
                Value::Null => return Ok(tools),
                cursor => params = json!({"cursor": cursor}),
            }
        }
    }

    async fn text(&mut self, uri: &str) -> Result<String, Failure> {
        let read = self.ask("resources/read", json!({"uri": uri}), |_| {}).await?;
        Ok(read["contents"][0]["text"].as_str().unwrap_or_default().to_owned())
    }
}

fn info() -> Value {
    json!({"name": "stentor-cluster-example", "version": env!("CARGO_PKG_VERSION")})
}

impl Client {
    pub(crate) fn new(number: usize, to: SocketAddr, watches: String, stage: Arc<Stage>) -> Self {
        // Half of the clients use each era.
        let era = if number.is_multiple_of(2) { Era::Modern } else { Era::Legacy };
        Self { number, stage, protocol: Protocol::new(era, to), watches }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let ended = match self.protocol.era {
                Era::Legacy => self.session().await,
                Era::Modern => self.listen().await,
            };
            if let Err(why) = ended {
                self.say(format!("tries again: {why}"));
                sleep(PAUSE).await;
            }
        }
    }

    async fn session(&mut self) -> Result<(), Failure> {
        self.protocol.initialize().await?;
        let session = self.protocol.session.clone().ok_or("there is no session")?;
        let home = session.split('.').next().unwrap_or_default().replace('-', " ");
        self.protocol.ask("resources/list", json!({}), |_| {}).await?;
        let watch = json!({"uri": self.watches});
        // The node with the resource may be unavailable.
        let _ = self.protocol.ask("resources/subscribe", watch, |_| {}).await;
        let (mut last, mut is_new) = (None, true);
        loop {
            let mut headers = vec![("mcp-session-id", session.clone())];
            headers.extend(last.clone().map(|id| ("last-event-id", id)));
            let opened = send(self.protocol.to, Method::GET, &headers, String::new()).await;
            let mut stream = match opened {
                Ok(stream) if stream.status.is_success() => stream,
                Ok(refused) if refused.status == StatusCode::NOT_FOUND => {
                    self.say(format!("is told that its session on {home} is gone, begins anew"));
                    return Ok(());
                }
                // The balancer has no node, or a node cannot reach another node at the moment.
                _ => {
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let through = self.stage.name_of(&stream.from);
            if is_new {
                is_new = false;
                let opens = format!("has a session on {home}; its stream comes through {through}");
                self.say(opens);
                self.look(How::Looked).await?;
                self.stage.ledger().enters(self.number);
            } else {
                self.say(format!("is back, through {through}, and resumes where it was"));
            }
            match self.read(&mut stream, &mut last).await {
                Ok(end) => self.say(format!("{end}: its stream through {through}")),
                // It resumes before the notice that it could not process.
                Err(why) => self.say(format!("leaves its stream through {through}: {why}")),
            }
            sleep(PAUSE).await;
        }
    }

    async fn listen(&mut self) -> Result<(), Failure> {
        self.protocol.ask("server/discover", json!({}), |_| {}).await?;
        let wants = json!({"toolsListChanged": true, "resourceSubscriptions": [&self.watches]});
        let params = json!({"notifications": wants});
        let (_, mut stream) = self.protocol.request("subscriptions/listen", params).await?;
        if !stream.status.is_success() {
            return Err(stream.status.to_string().into());
        }
        let through = self.stage.name_of(&stream.from);
        self.say(format!("listens through {through}"));
        self.look(How::Looked).await?;
        self.stage.ledger().enters(self.number);
        let end = self.read(&mut stream, &mut None).await?;
        self.say(format!("{end}: its listen through {through}"));
        Ok(())
    }

    /// Processes the stream until it ends. Returns in words how it ended.
    async fn read(
        &mut self,
        stream: &mut Reply,
        last: &mut Option<String>,
    ) -> Result<&'static str, Failure> {
        loop {
            let event = match stream.event().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok("ended in order"),
                Err(_) => return Ok("broke off"),
            };
            let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
            match message["method"].as_str() {
                Some("notifications/tools/list_changed") => self.look_at_tools(How::Told).await?,
                Some("notifications/resources/updated") => self.look_at_note(How::Told).await?,
                _ => {}
            }
            // Set only now: a notice that could not be processed must be sent again.
            *last = event.id.or(last.take());
        }
    }

    async fn look(&mut self, how: How) -> Result<(), Failure> {
        self.look_at_tools(how).await?;
        self.look_at_note(how).await
    }

    async fn look_at_tools(&mut self, how: How) -> Result<(), Failure> {
        let tools = self.protocol.tools().await?;
        let learned = self.stage.ledger().reads_tools(self.number, &tools, how);
        self.tell(learned, how);
        Ok(())
    }

    async fn look_at_note(&mut self, how: How) -> Result<(), Failure> {
        match self.protocol.text(&self.watches).await {
            Ok(text) => {
                let learned = self.stage.ledger().reads_text(self.number, &text, how);
                self.tell(learned, how);
                Ok(())
            }
            // The node with the resource may be unavailable.
            Err(_) if how == How::Looked => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, learned: Vec<Learned>, how: How) {
        let how = if how == How::Told { "hears" } else { "sees" };
        for Learned { what, after } in learned {
            self.say(format!("{how} after {} ms: {what}", after.as_millis()));
        }
    }

    fn say(&self, what: impl std::fmt::Display) {
        let era = if self.protocol.era == Era::Legacy { "legacy" } else { "modern" };
        self.stage.say(format!("client {}", self.number), format!("({era}) {what}"));
    }
}
