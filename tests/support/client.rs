//! One client for all lanes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, DuplexStream, WriteHalf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::pipe::{Ending, RawPipe};
use crate::web::{request, with_modern_meta};
use crate::{
    Call, Era, LEGACY_VERSION, Lane, MARK, META_CAPABILITIES, META_SUBSCRIPTION, MODERN_VERSION,
    Reply, Server, Transport, soon,
};

/// A client in one lane. Legacy ones have been through the handshake.
#[derive(Debug)]
pub struct Client {
    lane: Lane,
    version: String,
    capabilities: Value,
    ids: Arc<AtomicI64>,
    link: Link,
}

#[derive(Debug)]
enum Link {
    /// Where the server is, and the session of a legacy client.
    Http(SocketAddr, String),
    Pipe(Box<PipeLink>),
}

#[derive(Debug)]
struct PipeLink {
    writer: tokio::sync::Mutex<WriteHalf<DuplexStream>>,
    routes: Arc<Mutex<Routes>>,
    notices: Mutex<Option<UnboundedReceiver<Value>>>,
    ending: Ending,
}

/// Where the messages of one pipe go.
#[derive(Debug)]
struct Routes {
    /// Requests without a response, by their ids as JSON.
    open: HashMap<String, Route>,
    /// Where a legacy client reads what belongs to no request.
    notices: UnboundedSender<Value>,
    /// What belongs to nothing.
    strays: Vec<Value>,
}

#[derive(Debug)]
struct Route {
    token: Value,
    is_listen: bool,
    to: UnboundedSender<Value>,
}

impl Routes {
    fn route(&mut self, message: Value) {
        let meta = &message["params"]["_meta"];
        let method = message["method"].as_str().unwrap_or_default();
        if method.is_empty() {
            return match self.open.remove(&message["id"].to_string()) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        if let Some(subscription) = meta.get(META_SUBSCRIPTION) {
            return match self.open.get(&subscription.to_string()).filter(|it| it.is_listen) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        if is_change(method) {
            return deliver(&self.notices, message);
        }
        let token = &message["params"]["progressToken"];
        let mut calls = self.open.values().filter(|route| !route.is_listen);
        if method == "notifications/progress" {
            return match calls.find(|route| route.token == *token) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        // On a pipe nothing tells which request a log message belongs to.
        let calls: Vec<_> = calls.collect();
        match (&calls[..], method) {
            ([], "notifications/message") => self.strays.push(message),
            ([], _) => deliver(&self.notices, message),
            (calls, _) => calls.iter().for_each(|route| deliver(&route.to, message.clone())),
        }
    }
}

fn deliver(to: &UnboundedSender<Value>, message: Value) {
    // The test may not be interested any more.
    let _ = to.send(message);
}

fn is_change(method: &str) -> bool {
    method.ends_with("/list_changed") || method == "notifications/resources/updated"
}

impl PipeLink {
    fn open(server: &Server) -> Self {
        let (writer, mut lines, ending) = RawPipe::open(server).into_parts();
        let (to, notices) = mpsc::unbounded_channel();
        let routes = Routes { open: HashMap::new(), notices: to, strays: Vec::new() };
        let routes = Arc::new(Mutex::new(routes));
        let reading = routes.clone();
        tokio::spawn(async move {
            while let Some(message) = lines.wait().await {
                reading.lock().route(message);
            }
            let mut routes = reading.lock();
            routes.open.clear();
            routes.notices = mpsc::unbounded_channel().0;
        });
        let writer = tokio::sync::Mutex::new(writer);
        Self { writer, routes, notices: Mutex::new(Some(notices)), ending }
    }

    async fn write(&self, message: &str) {
        let line = format!("{message}\n");
        let mut writer = self.writer.lock().await;
        soon("the server to read", writer.write_all(line.as_bytes())).await.expect("an open pipe");
    }

    async fn request(&self, id: &Value, method: &str, params: Value) -> UnboundedReceiver<Value> {
        let (to, from) = mpsc::unbounded_channel();
        let token = params["_meta"]["progressToken"].clone();
        let is_listen = method == "subscriptions/listen";
        self.routes.lock().open.insert(id.to_string(), Route { token, is_listen, to });
        self.write(&request(id, method, params)).await;
        from
    }
}

impl Client {
    /// Connects a client, a legacy one with the newest version.
    pub async fn connect(server: &Server, lane: Lane) -> Self {
        Self::speaking(server, lane, LEGACY_VERSION).await
    }

    /// Connects a client, a legacy one with this version.
    pub async fn speaking(server: &Server, lane: Lane, version: &str) -> Self {
        let link = match lane.transport {
            Transport::Http => Link::Http(server.address, String::new()),
            Transport::Stdio => Link::Pipe(Box::new(PipeLink::open(server))),
        };
        Self::over(link, lane, version, json!({})).await
    }

    /// Connects a client over HTTP to whatever serves there, with these capabilities.
    pub async fn at(address: SocketAddr, era: Era, capabilities: Value) -> Self {
        let lane = Lane { transport: Transport::Http, era };
        let link = Link::Http(address, String::new());
        Self::over(link, lane, LEGACY_VERSION, capabilities).await
    }

    async fn over(link: Link, lane: Lane, version: &str, capabilities: Value) -> Self {
        let version = if lane.is_legacy() { version } else { MODERN_VERSION }.to_owned();
        let ids = Arc::new(AtomicI64::new(1));
        let mut client = Self { lane, version, capabilities, ids, link };
        if lane.is_legacy() {
            client.initialize().await;
        }
        client
    }

    /// The same client, that turns to another address from here on.
    #[must_use]
    pub fn through(&self, address: SocketAddr) -> Self {
        let Link::Http(_, session) = &self.link else { panic!("a pipe has no address") };
        Self {
            lane: self.lane,
            version: self.version.clone(),
            capabilities: self.capabilities.clone(),
            ids: self.ids.clone(),
            link: Link::Http(address, session.clone()),
        }
    }

    async fn initialize(&mut self) {
        let params = json!({
            "protocolVersion": self.version,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "raw", "version": "0.0.1"},
        });
        let response = match &mut self.link {
            Link::Http(address, session) => {
                let call = Call::post(request(&json!(0), "initialize", params));
                let mut reply = call.send(*address).await;
                *session = reply.header("mcp-session-id").to_owned();
                reply.message().await
            }
            Link::Pipe(pipe) => {
                let mut answers = pipe.request(&json!(0), "initialize", params).await;
                soon("the answer to initialize", answers.recv()).await
            }
        };
        let response = response.expect("an answer to initialize");
        assert_eq!(response["result"]["protocolVersion"], self.version, "{response}");
        self.notify("notifications/initialized", json!({})).await;
        // Whatever an `initialize` sets off has happened when the next request is answered.
        self.ask("ping", json!({})).await;
    }

    /// The lane the client is at home in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Where a client on HTTP turns to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match &self.link {
            Link::Http(address, _) => *address,
            Link::Pipe(_) => panic!("a pipe has no address"),
        }
    }

    /// The id of a legacy HTTP session.
    #[must_use]
    pub fn session(&self) -> &str {
        match &self.link {
            Link::Http(_, session) => session,
            Link::Pipe(_) => panic!("a pipe has no session id"),
        }
    }

    /// Sends a request; what it says and its response are read from the [`Exchange`].
    pub async fn request(&self, method: &str, params: Value) -> Exchange {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.request_as(json!(id), method, params).await
    }

    /// As [`request`](Self::request), with an id of one's own.
    pub async fn request_as(&self, id: Value, method: &str, mut params: Value) -> Exchange {
        if self.lane.era == Era::Modern {
            let meta = &mut params["_meta"];
            if meta[META_CAPABILITIES].is_null() {
                meta[META_CAPABILITIES] = self.capabilities.clone();
            }
            params = with_modern_meta(params);
        }
        let source = match &self.link {
            Link::Http(address, session) => {
                let call = match self.lane.era {
                    Era::Modern => Call::modern(&id, method, params),
                    Era::Legacy => Call::post(request(&id, method, params))
                        .with("mcp-session-id", session)
                        .with("mcp-protocol-version", &self.version),
                };
                Source::Http(Box::new(call.send(*address).await))
            }
            Link::Pipe(pipe) => Source::Pipe(pipe.request(&id, method, params).await),
        };
        Exchange { id, source }
    }

    /// Sends a request that is to succeed, and gives its result.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.request(method, params).await.answer().await.result().clone()
    }

    /// Calls a tool; it may still run when this returns.
    pub async fn start(&self, tool: &str, arguments: Value) -> Exchange {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// As [`start`](Self::start), with members for `_meta`.
    pub async fn start_with(&self, tool: &str, arguments: Value, meta: Value) -> Exchange {
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.request("tools/call", params).await
    }

    /// Calls a tool and waits for its answer.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.start(tool, arguments).await.answer().await
    }

    /// The names, or URIs, of everything on a list, page by page. `kind` is `tools`,
    /// `resources`, `resources/templates` or `prompts`.
    pub async fn list(&self, kind: &str) -> Vec<String> {
        let (mut all, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.ask(&format!("{kind}/list"), params).await;
            all.extend(names(kind, &page));
            match page.get("nextCursor") {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return all,
            }
        }
    }

    /// Sends a notification.
    pub async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        match &self.link {
            Link::Http(address, session) => {
                let call = match self.lane.era {
                    Era::Modern => Call::post(message.to_string()),
                    Era::Legacy => Call::legacy(session, &message),
                };
                let call = call.with("mcp-protocol-version", &self.version);
                let reply = call.send(*address).await;
                assert_eq!(reply.status, 202, "{message}");
                assert_eq!(reply.text().await, "");
            }
            Link::Pipe(pipe) => pipe.write(&message.to_string()).await,
        }
    }

    /// Gives a request up, in the way of the lane, and checks that it is not answered.
    pub async fn cancel(&self, mut exchange: Exchange) {
        if self.lane == Lane::HTTP_MODERN {
            return drop(exchange);
        }
        let params = json!({"requestId": exchange.id, "reason": "changed my mind"});
        self.notify("notifications/cancelled", params).await;
        match &mut exchange.source {
            Source::Http(reply) => assert_eq!(reply.message().await, None, "it was cancelled"),
            Source::Pipe(messages) => {
                self.nudge().await;
                assert_eq!(messages.try_recv().ok(), None, "it was cancelled");
            }
        }
    }

    /// Returns when what was sent before has been handled.
    pub async fn nudge(&self) {
        match self.lane.era {
            Era::Legacy => self.ask("ping", json!({})).await,
            Era::Modern => self.ask("server/discover", json!({})).await,
        };
    }

    /// Checks that nothing arrived on the pipe that belongs to nothing.
    pub async fn expect_no_strays(&self) {
        self.nudge().await;
        if let Link::Pipe(pipe) = &self.link {
            assert_eq!(pipe.routes.lock().strays, Vec::<Value>::new());
        }
    }

    /// Hears everything: all lists, the updates of `uris`, and the marks.
    pub async fn hear(&self, uris: &[&str]) -> Notices {
        let uris: Vec<_> = uris.iter().copied().chain([MARK]).collect();
        if self.lane.era == Era::Modern {
            return self
                .listen(json!({
                    "toolsListChanged": true,
                    "promptsListChanged": true,
                    "resourcesListChanged": true,
                    "resourceSubscriptions": uris,
                }))
                .await;
        }
        for uri in uris {
            self.ask("resources/subscribe", json!({"uri": uri})).await;
        }
        self.notices().await
    }

    /// Reads what a legacy client hears without asking.
    pub async fn notices(&self) -> Notices {
        assert!(self.lane.is_legacy(), "modern clients listen");
        let source = match &self.link {
            Link::Http(address, session) => {
                let reply = Call::get(session).send(*address).await;
                assert_eq!(reply.status, 200);
                Source::Http(Box::new(reply))
            }
            Link::Pipe(pipe) => {
                Source::Pipe(pipe.notices.lock().take().expect("notices are read once"))
            }
        };
        Notices { subscription: None, granted: json!({}), source }
    }

    /// Listens, in the modern era, and checks that the acknowledgment comes first.
    pub async fn listen(&self, filter: Value) -> Notices {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.listen_as(json!(id), filter).await
    }

    /// As [`listen`](Self::listen), with an id of one's own.
    pub async fn listen_as(&self, id: Value, filter: Value) -> Notices {
        let params = json!({"notifications": filter});
        let Exchange { id, source } = self.request_as(id, "subscriptions/listen", params).await;
        let mut notices = Notices { subscription: Some(id), granted: json!({}), source };
        let first = notices.next().await.expect("an acknowledgment");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        notices.granted = first["params"]["notifications"].clone();
        notices
    }

    /// Stops a modern listen, in the way of the lane.
    pub async fn stop_listening(&self, notices: Notices) {
        let Notices { subscription: Some(id), source, .. } = notices else {
            panic!("legacy clients unsubscribe");
        };
        self.cancel(Exchange { id, source }).await;
    }

    /// Leaves as a client does that ends: closes the pipe, or deletes the session.
    pub async fn leave(self) {
        match self.link {
            Link::Http(address, session) if self.lane.is_legacy() => {
                let reply = Call::delete(&session).send(address).await;
                assert!(reply.status.is_success(), "{}", reply.status);
            }
            Link::Http(..) => {}
            Link::Pipe(pipe) => {
                pipe.writer.lock().await.shutdown().await.expect("an open pipe");
                pipe.ending.served().await.expect("the pipe ended well");
            }
        }
    }
}

/// The names, or URIs, on one page of a list.
fn names(kind: &str, page: &Value) -> Vec<String> {
    let (member, key) = match kind {
        "resources" => ("resources", "uri"),
        "resources/templates" => ("resourceTemplates", "uriTemplate"),
        kind => (kind, "name"),
    };
    let entries = page[member].as_array().unwrap_or_else(|| panic!("no {member}: {page}"));
    entries.iter().map(|entry| entry[key].as_str().expect("a name").to_owned()).collect()
}

/// Where messages come from.
#[derive(Debug)]
enum Source {
    Http(Box<Reply>),
    Pipe(UnboundedReceiver<Value>),
}

impl Source {
    async fn next(&mut self) -> Option<Value> {
        let message = match self {
            Self::Http(reply) => reply.message().await,
            Self::Pipe(messages) => soon("a message", messages.recv()).await,
        }?;
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        Some(message)
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Http(reply) => *reply,
            Self::Pipe(_) => panic!("a pipe has no responses of HTTP"),
        }
    }
}

/// A request that was sent: what is said for it, and its response. Dropping it closes its
/// stream, on HTTP.
#[derive(Debug)]
pub struct Exchange {
    id: Value,
    source: Source,
}

impl Exchange {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &Value {
        &self.id
    }

    /// The next message, the response last.
    pub async fn next(&mut self) -> Option<Value> {
        self.source.next().await
    }

    /// The response and what is said before it. On HTTP also checks that nothing follows.
    pub async fn answer(mut self) -> Answer {
        let mut answer = Answer { said: Vec::new(), response: None };
        while let Some(message) = self.next().await {
            assert_eq!(answer.response, None, "nothing follows the response but {message}");
            if message.get("method").is_some() {
                answer.said.push(message);
                continue;
            }
            if message.get("id").is_some() || message.get("result").is_some() {
                assert_eq!(message["id"], self.id, "{message}");
            }
            answer.response = Some(message);
            if matches!(self.source, Source::Pipe(_)) {
                break;
            }
        }
        answer
    }

    /// The HTTP response, as far as it has not been read.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match &self.source {
            Source::Http(reply) => reply,
            Source::Pipe(_) => panic!("a pipe has no responses of HTTP"),
        }
    }

    /// As [`reply`](Self::reply), to read it event by event.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        self.source.into_reply()
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The notifications before the response.
    pub said: Vec<Value>,
    /// The response, if there was one.
    pub response: Option<Value>,
}

impl Answer {
    /// The result.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.member("result")
    }

    /// The error of the protocol.
    #[must_use]
    pub fn error(&self) -> &Value {
        self.member("error")
    }

    fn member(&self, name: &str) -> &Value {
        let member = self.response.as_ref().and_then(|response| response.get(name));
        member.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The text of a tool's result.
    #[must_use]
    pub fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {self:?}"))
    }

    /// The parameters of the notifications with this method.
    #[must_use]
    pub fn heard(&self, method: &str) -> Vec<&Value> {
        let of_method = self.said.iter().filter(|message| message["method"] == method);
        of_method.map(|message| &message["params"]).collect()
    }

    /// The values of the progress that was reported.
    #[must_use]
    pub fn progress(&self) -> Vec<f64> {
        let values = self.heard("notifications/progress").into_iter();
        values.map(|params| params["progress"].as_f64().expect("a number")).collect()
    }
}

/// The notices of a client, as they come.
#[derive(Debug)]
pub struct Notices {
    subscription: Option<Value>,
    /// What the acknowledgment of a modern listen grants.
    pub granted: Value,
    source: Source,
}

impl Notices {
    /// The next message. Checks that it belongs to this subscription, or to none in the legacy
    /// era.
    pub async fn next(&mut self) -> Option<Value> {
        let message = self.source.next().await?;
        let found = match message.get("method") {
            Some(_) => message["params"]["_meta"].get(META_SUBSCRIPTION),
            None => message["result"]["_meta"].get(META_SUBSCRIPTION),
        };
        assert_eq!(found, self.subscription.as_ref(), "{message}");
        Some(message)
    }

    /// The next message in short: `tools/list_changed`, `resources/updated test://static`.
    pub async fn heard(&mut self) -> String {
        let message = self.next().await.expect("another notice");
        let method = message["method"].as_str().unwrap_or_else(|| panic!("a notice: {message}"));
        let method = method.strip_prefix("notifications/").unwrap_or(method);
        match message["params"]["uri"].as_str() {
            Some(uri) => format!("{method} {uri}"),
            None => method.to_owned(),
        }
    }

    /// Everything before the mark.
    pub async fn until_mark(&mut self) -> Vec<String> {
        let (mark, mut all) = (format!("resources/updated {MARK}"), Vec::new());
        loop {
            match self.heard().await {
                heard if heard == mark => return all,
                heard => all.push(heard),
            }
        }
    }

    /// The HTTP response that they come with, as far as it has not been read.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        self.source.into_reply()
    }

    /// Reads to the proper end of the stream: the final result of a modern listen, nothing in
    /// the legacy era.
    pub async fn end(mut self) -> Option<Value> {
        let last = self.next().await;
        if last.is_some() && matches!(self.source, Source::Http(_)) {
            assert_eq!(self.next().await, None, "nothing follows the result");
        }
        last
    }
}
