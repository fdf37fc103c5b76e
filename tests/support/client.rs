//! One test client for all lanes.

mod exchange;
mod pipe_link;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use exchange::Source;
use pipe_link::PipeLink;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::web::{request, with_modern_meta};
use crate::{
    Call, Era, LEGACY_VERSION, Lane, MARK, META_CAPABILITIES, MODERN_VERSION, Server, Transport,
    soon,
};

pub use exchange::{Answer, Exchange, Notices};

/// A client in one lane. A legacy client has completed the handshake.
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
    /// The server's address, and the session id of a legacy client.
    Http(SocketAddr, String),
    Pipe(Box<PipeLink>),
}

impl Client {
    /// Connects a client. A legacy client uses the newest legacy version.
    pub async fn connect(server: &Server, lane: Lane) -> Self {
        Self::speaking(server, lane, LEGACY_VERSION).await
    }

    /// Connects a client. A legacy client uses this version.
    pub async fn speaking(server: &Server, lane: Lane, version: &str) -> Self {
        let link = match lane.transport {
            Transport::Http => Link::Http(server.address, String::new()),
            Transport::Stdio => Link::Pipe(Box::new(PipeLink::open(server))),
        };
        Self::over(link, lane, version, json!({})).await
    }

    /// Connects a client over HTTP to any server at this address, with these capabilities.
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

    /// The same client, which sends its requests to another address from now on.
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
        // When the next request is answered, everything that `initialize` triggers has happened.
        self.ask("ping", json!({})).await;
    }

    /// The client's lane.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The address to which an HTTP client sends requests.
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

    /// Sends a request. Its messages and its response are read from the [`Exchange`].
    pub async fn request(&self, method: &str, params: Value) -> Exchange {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.request_as(json!(id), method, params).await
    }

    /// Like [`request`](Self::request), with an id that the test chooses.
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

    /// Sends a request that must succeed, and returns its result.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.request(method, params).await.answer().await.result().clone()
    }

    /// Calls a tool. The call may still run when this returns.
    pub async fn start(&self, tool: &str, arguments: Value) -> Exchange {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Like [`start`](Self::start), with members for `_meta`.
    pub async fn start_with(&self, tool: &str, arguments: Value, meta: Value) -> Exchange {
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.request("tools/call", params).await
    }

    /// Calls a tool and waits for its answer.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.start(tool, arguments).await.answer().await
    }

    /// The names or URIs of a whole list, read page by page. `kind` is `tools`, `resources`,
    /// `resources/templates` or `prompts`.
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

    /// Cancels a request in the way of the lane, and checks that it is not answered.
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

    /// Returns when the server has handled everything that was sent before.
    pub async fn nudge(&self) {
        match self.lane.era {
            Era::Legacy => self.ask("ping", json!({})).await,
            Era::Modern => self.ask("server/discover", json!({})).await,
        };
    }

    /// Checks that the pipe received no message that belongs to no request.
    pub async fn expect_no_strays(&self) {
        self.nudge().await;
        if let Link::Pipe(pipe) = &self.link {
            assert_eq!(pipe.routes.lock().strays, Vec::<Value>::new());
        }
    }

    /// Subscribes to all lists, to the updates of `uris`, and to the marks.
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

    /// Reads the notices that a legacy client receives without a subscription.
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

    /// Opens a modern listen, and checks that the acknowledgment comes first.
    pub async fn listen(&self, filter: Value) -> Notices {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.listen_as(json!(id), filter).await
    }

    /// Like [`listen`](Self::listen), with an id that the test chooses.
    pub async fn listen_as(&self, id: Value, filter: Value) -> Notices {
        let params = json!({"notifications": filter});
        let Exchange { id, source } = self.request_as(id, "subscriptions/listen", params).await;
        let mut notices = Notices { subscription: Some(id), granted: json!({}), source };
        let first = notices.next().await.expect("an acknowledgment");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        notices.granted = first["params"]["notifications"].clone();
        notices
    }

    /// Ends a modern listen in the way of the lane.
    pub async fn stop_listening(&self, notices: Notices) {
        let Notices { subscription: Some(id), source, .. } = notices else {
            panic!("legacy clients unsubscribe");
        };
        self.cancel(Exchange { id, source }).await;
    }

    /// Disconnects in the orderly way: closes the pipe, or deletes the session.
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
