//! Clients of both eras, and what they believe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::transport_api::{Answer, RequestSender};
use stentor_engine::{Engine, ListKind};
use stentor_wire::{Era, Message, ProtocolVersion, Request, meta_key};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The lists as one client reads them, by method.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lists(BTreeMap<&'static str, Value>);

/// The methods that read what one notice is about.
fn methods(kind: ListKind) -> &'static [&'static str] {
    match kind {
        ListKind::Tools => &["tools/list"],
        ListKind::Resources => &["resources/list", "resources/templates/list"],
        ListKind::Prompts => &["prompts/list"],
    }
}

impl Lists {
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<ListKind> {
        let differs = |kind: &ListKind| {
            methods(*kind).iter().any(|method| self.0.get(method) != other.0.get(method))
        };
        ListKind::ALL.into_iter().filter(differs).collect()
    }
}

/// A legacy session, or a listen, of a client that uses one node. The session may be on another.
pub(crate) struct Client {
    engine: Engine,
    /// The id of the session, of a legacy client.
    session: Option<String>,
    sender: Mutex<RequestSender>,
    heard: Mutex<BTreeSet<ListKind>>,
    believed: Mutex<Lists>,
    /// Where what is heard goes, once the client reads again what it hears of.
    again: Mutex<Option<UnboundedSender<ListKind>>>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sender = self.sender.lock().unwrap();
        match &self.session {
            Some(session) => write!(f, "legacy {session} {sender:?}"),
            None => write!(f, "modern {sender:?}"),
        }
    }
}

impl Client {
    /// A legacy session on `home`, used through `engine`.
    pub(crate) async fn legacy(engine: &Engine, home: &Engine, sender: RequestSender) -> Arc<Self> {
        let session = home.open_http_session(sender.clone()).await.unwrap();
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        });
        all(session.request(request(Era::Legacy, "initialize", params)).await.unwrap()).await;
        let id = session.id().as_str().to_owned();
        let through = engine.http_session(&id, &sender).await.unwrap();
        let receiver = through.attach().await.unwrap();
        Self::begin(engine, Some(id), sender, receiver)
    }

    pub(crate) async fn modern(engine: &Engine, sender: RequestSender) -> Arc<Self> {
        let all = json!({
            "toolsListChanged": true, "resourcesListChanged": true, "promptsListChanged": true,
        });
        let params = json!({ "notifications": all });
        let request = request(Era::Modern, "subscriptions/listen", params);
        let version = ProtocolVersion::V2026_07_28;
        let answer = engine.answer(version, request, sender.clone()).await.unwrap();
        let Answer::Stream(receiver) = answer else { panic!("no stream") };
        Self::begin(engine, None, sender, receiver)
    }

    fn begin(
        engine: &Engine,
        session: Option<String>,
        sender: RequestSender,
        mut receiver: StreamReceiver,
    ) -> Arc<Self> {
        let client = Arc::new(Self {
            engine: engine.clone(),
            session,
            sender: Mutex::new(sender),
            heard: Mutex::default(),
            believed: Mutex::default(),
            again: Mutex::default(),
        });
        let listening = client.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.next(&mut batch).await {
                for message in batch.drain(..).map(read) {
                    let method = message["method"].as_str();
                    let kind = ListKind::ALL.into_iter().find(|it| Some(it.method()) == method);
                    if let Some(kind) = kind {
                        listening.hear(kind);
                    }
                }
            }
        });
        client
    }

    fn hear(&self, kind: ListKind) {
        self.heard.lock().unwrap().insert(kind);
        if let Some(again) = &*self.again.lock().unwrap() {
            let _ = again.send(kind);
        }
    }

    pub(crate) fn heard(&self) -> BTreeSet<ListKind> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn forget_heard(&self) {
        self.heard.lock().unwrap().clear();
    }

    pub(crate) fn believed(&self) -> Lists {
        self.believed.lock().unwrap().clone()
    }

    /// A legacy client comes with another credential, with a ping.
    pub(crate) async fn comes_as(&self, sender: RequestSender) {
        *self.sender.lock().unwrap() = sender;
        self.ask("ping", json!({})).await;
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let sender = self.sender.lock().unwrap().clone();
        match &self.session {
            Some(session) => {
                let session = self.engine.http_session(session, &sender).await.unwrap();
                let request = request(Era::Legacy, method, params);
                all(session.request(request).await.unwrap()).await.pop().unwrap()
            }
            None => {
                let request = request(Era::Modern, method, params);
                let version = ProtocolVersion::V2026_07_28;
                match self.engine.answer(version, request, sender).await.unwrap() {
                    Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
                    Answer::Stream(receiver) => all(receiver).await.pop().unwrap(),
                }
            }
        }
    }

    /// Reads all pages of one list.
    async fn list(&self, method: &str) -> Value {
        let (mut items, mut params) = (Vec::new(), json!({}));
        loop {
            let mut answer = self.ask(method, params).await;
            let result = answer["result"].as_object_mut().expect("a page");
            let page = result.values_mut().find_map(Value::as_array_mut).expect("a list");
            items.append(page);
            match result.get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return items.into(),
            }
        }
    }

    async fn lists(&self, kind: ListKind) -> Lists {
        let mut lists = Lists::default();
        for method in methods(kind) {
            lists.0.insert(method, self.list(method).await);
        }
        lists
    }

    pub(crate) async fn all_lists(&self) -> Lists {
        let mut all = Lists::default();
        for kind in ListKind::ALL {
            all.0.append(&mut self.lists(kind).await.0);
        }
        all
    }

    /// From here on the client reads again what it hears of, and believes what it reads.
    pub(crate) async fn begin_to_read_again(self: &Arc<Self>) {
        let (again, told) = unbounded_channel();
        *self.again.lock().unwrap() = Some(again);
        let lists = self.all_lists().await;
        *self.believed.lock().unwrap() = lists;
        tokio::spawn(self.clone().read_again(told));
    }

    async fn read_again(self: Arc<Self>, mut told: UnboundedReceiver<ListKind>) {
        while let Some(kind) = told.recv().await {
            let mut lists = self.lists(kind).await;
            self.believed.lock().unwrap().0.append(&mut lists.0);
        }
    }
}

fn read(delivered: Delivered) -> Value {
    let mut out = BytesMut::new();
    delivered.frame.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

async fn all(mut receiver: StreamReceiver) -> Vec<Value> {
    let (mut batch, mut messages) = (Vec::new(), Vec::new());
    while receiver.next(&mut batch).await {
        messages.extend(batch.drain(..).map(read));
    }
    messages
}

fn request(era: Era, method: &str, mut params: Value) -> Box<Request> {
    if era == Era::Modern {
        params["_meta"] = json!({
            meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: {},
        });
    }
    let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    match Message::decode(&Bytes::from(text)) {
        Ok(Message::Request(request)) => request,
        other => panic!("no request: {other:?}"),
    }
}
