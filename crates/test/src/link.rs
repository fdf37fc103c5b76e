//! The connection of a client: it sends, and routes each message to what it belongs to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use stentor_engine::Engine;
use stentor_engine::transport_api::Pipe;
use stentor_wire::{
    Era, ErrorObject, LogLevel, Message, Method, ProtocolVersion, code, meta_key, notification,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::Notice;
use crate::ask::Answers;
use crate::raw::{Messages, Raw, request};

/// How long a change may wait for its announcement before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a request receives.
#[derive(Debug)]
pub(crate) enum Event {
    /// The parameters of a progress notification.
    Progress(Value),
    /// The parameters of a log message.
    Log(Value),
    /// The filter that a listen was granted.
    Acknowledged(Value),
    /// The response. Nothing follows.
    Response(Result<Value, ErrorObject>),
}

/// A request that was sent, and what it receives.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The id of the request, or of its newest retry.
    pub(crate) id: Arc<AtomicI64>,
    pub(crate) events: UnboundedReceiver<Event>,
}

/// A request without a response.
#[derive(Debug)]
struct Open {
    method: String,
    params: Value,
    /// Its progress token: the id of its first try.
    token: i64,
    id: Arc<AtomicI64>,
    events: UnboundedSender<Event>,
}

#[derive(Debug, Default)]
struct Routes {
    is_closed: bool,
    open: HashMap<i64, Open>,
    notices: Vec<UnboundedSender<Notice>>,
    level: Option<LogLevel>,
}

/// What the client says of itself.
#[derive(Clone, Debug)]
pub(crate) struct ClientMeta {
    pub(crate) version: ProtocolVersion,
    pub(crate) info: Value,
    pub(crate) capabilities: Value,
}

impl ClientMeta {
    /// The `_meta` of a modern request.
    fn meta(&self) -> Map<String, Value> {
        let members = [
            (meta_key::PROTOCOL_VERSION, self.version.as_str().into()),
            (meta_key::CLIENT_INFO, self.info.clone()),
            (meta_key::CLIENT_CAPABILITIES, self.capabilities.clone()),
        ];
        members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// The connection. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    engine: Engine,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    pipe: Pipe,
    identity: ClientMeta,
    answers: Answers,
    ids: AtomicI64,
    /// What the client sends, in order. Sending waits for nothing, because the task that reads
    /// sends answers, and a server accepts nothing from a client that does not read.
    out: UnboundedSender<Value>,
    routes: Mutex<Routes>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub(crate) fn new(engine: Engine, raw: Raw, identity: ClientMeta, answers: Answers) -> Self {
        let (pipe, messages) = raw.into_parts();
        let (out, sent) = mpsc::unbounded_channel();
        let (ids, routes) = (AtomicI64::new(1), Mutex::default());
        let inner = Arc::new(Inner { pipe, identity, answers, ids, out, routes });
        let task = tokio::spawn(serve(inner.clone(), messages, sent));
        Self { engine, inner, task }
    }

    pub(crate) fn era(&self) -> Era {
        self.inner.identity.version.era()
    }

    /// The least severe log message that modern requests ask for from now on.
    pub(crate) fn set_level(&self, level: LogLevel) {
        self.inner.routes.lock().level = Some(level);
    }

    /// Sends a request.
    pub(crate) fn begin(&self, method: &str, params: Value) -> Exchange {
        let (to, events) = mpsc::unbounded_channel();
        let token = self.inner.ids.fetch_add(1, Ordering::Relaxed);
        let id = Arc::new(AtomicI64::new(token));
        let params = match params {
            Value::Null => json!({}),
            params => params,
        };
        let method = method.to_owned();
        self.inner.send_request(Open { method, params, token, id: id.clone(), events: to }, token);
        Exchange { id, events }
    }

    /// Sends a request and waits for its result.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Result<Value, ErrorObject> {
        let mut exchange = self.begin(method, params);
        loop {
            match exchange.events.recv().await {
                Some(Event::Response(outcome)) => return outcome,
                Some(_) => {}
                None => return Err(ended()),
            }
        }
    }

    /// Sends a notification.
    pub(crate) fn notify(&self, method: &str, params: Value) {
        self.inner.send(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Cancels a request, which receives nothing more.
    pub(crate) fn cancel(&self, id: &AtomicI64, reason: &str) {
        let id = id.load(Ordering::Relaxed);
        if self.inner.routes.lock().open.remove(&id).is_some() {
            let cancelled = Method::Cancelled;
            self.notify(cancelled.as_str(), json!({"requestId": id, "reason": reason}));
        }
    }

    /// The notices that come from now on.
    pub(crate) fn notices(&self) -> UnboundedReceiver<Notice> {
        let (to, notices) = mpsc::unbounded_channel();
        let mut routes = self.inner.routes.lock();
        if !routes.is_closed {
            routes.notices.retain(|known| !known.is_closed());
            routes.notices.push(to);
        }
        notices
    }

    /// Returns when the client has received every notice of the changes up to now.
    ///
    /// A change that closely follows another is announced at the end of a window, so this waits for
    /// the ends of the windows that are open. The answer to a request then comes after all notices,
    /// because everything comes on one stream.
    pub(crate) async fn settle(&self) {
        loop {
            match self.engine.observe().await {
                Ok(view) if view.registry.open_windows == 0 => break,
                Err(_) if self.engine.ended().is_some() => break,
                // A window is open, or an actor is being replaced.
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        self.round_trip().await;
    }

    /// Returns when everything that the server has sent so far was received.
    pub(crate) async fn round_trip(&self) {
        let method = match self.era() {
            Era::Legacy => Method::Ping,
            Era::Modern => Method::Discover,
        };
        // An error is an answer, too.
        let _ = self.ask(method.as_str(), json!({})).await;
    }

    /// Closes the client's end, and waits until the server has closed the other.
    pub(crate) async fn close(&self) {
        self.inner.pipe.finish().await;
        // The task that receives has the other end.
        self.inner.out.closed().await;
    }
}

/// The error of a request whose session has ended.
pub(crate) fn ended() -> ErrorObject {
    ErrorObject::new(code::UNAVAILABLE, "the session has ended, or an answer of the test panicked")
}

/// Sends and receives until the session ends.
async fn serve(inner: Arc<Inner>, mut messages: Messages, mut sent: UnboundedReceiver<Value>) {
    /// Whoever still waits is told, also when an answer of the test panics.
    struct Close(Arc<Inner>);

    impl Drop for Close {
        fn drop(&mut self) {
            let mut routes = self.0.routes.lock();
            *routes = Routes { is_closed: true, ..Routes::default() };
        }
    }

    let close = Close(inner);
    let inner = &close.0;
    let receive = async {
        while let Some(message) = messages.next().await {
            inner.receive(message);
        }
    };
    let send = async {
        while let Some(message) = sent.recv().await {
            let line = Bytes::from(message.to_string());
            if inner.pipe.deliver(Message::decode(&line)).await.is_err() {
                break;
            }
        }
        // Responses that are on their way still arrive, until the session has ended.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = receive => {}
        () = send => {}
    }
}

impl Inner {
    fn send(&self, message: Value) {
        // The task that sends ends with the session.
        let _ = self.out.send(message);
    }

    /// Sends a request, or its retry.
    fn send_request(&self, open: Open, id: i64) {
        let mut routes = self.routes.lock();
        if routes.is_closed {
            return;
        }
        let mut params = open.params.clone();
        let mut meta = match self.identity.version.era() {
            Era::Legacy => Map::new(),
            Era::Modern => self.identity.meta(),
        };
        meta.insert("progressToken".to_owned(), open.token.into());
        if let Some(level) = routes.level {
            meta.insert(meta_key::LOG_LEVEL.to_owned(), level.as_str().into());
        }
        if let Some(own) = params.get_mut("_meta").and_then(Value::as_object_mut) {
            meta.append(own);
        }
        if let Value::Object(params) = &mut params {
            params.insert("_meta".to_owned(), meta.into());
        }
        let message = request(&id.into(), &open.method, params);
        open.id.store(id, Ordering::Relaxed);
        routes.open.insert(id, open);
        // While the routes are locked, so that a cancellation comes after it.
        self.send(message);
    }

    fn receive(&self, mut message: Value) {
        match (message.get("method").is_some(), message.get("id").is_some()) {
            (true, true) => self.answer(&message),
            (true, false) => self.notified(message),
            _ => {
                let open =
                    message["id"].as_i64().and_then(|id| self.routes.lock().open.remove(&id));
                let Some(open) = open else { return };
                let outcome = match message.get_mut("error").map(Value::take) {
                    Some(error) => Err(read_error(error)),
                    None => Ok(message["result"].take()),
                };
                self.responded(open, outcome);
            }
        }
    }

    /// Answers a question of the server.
    fn answer(&self, question: &Value) {
        let id = &question["id"];
        self.send(match self.answers.answer(question) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
        });
    }

    /// A response: the last of its request, unless the server asks in it.
    fn responded(&self, mut open: Open, outcome: Result<Value, ErrorObject>) {
        let outcome = match outcome {
            Ok(asked) if asked["resultType"] == "input_required" => self.answers_to(&asked),
            outcome => {
                let _ = open.events.send(Event::Response(outcome));
                return;
            }
        };
        match outcome {
            Ok(members) => {
                if let Value::Object(params) = &mut open.params {
                    params.remove("inputResponses");
                    params.remove("requestState");
                    params.extend(members);
                }
                let id = self.ids.fetch_add(1, Ordering::Relaxed);
                self.send_request(open, id);
            }
            Err(error) => {
                let _ = open.events.send(Event::Response(Err(error)));
            }
        }
    }

    /// The members of a retry that answer the questions in a result.
    fn answers_to(&self, asked: &Value) -> Result<Map<String, Value>, ErrorObject> {
        let mut members = Map::new();
        if let Some(state) = asked.get("requestState") {
            members.insert("requestState".to_owned(), state.clone());
        }
        let mut responses = Map::new();
        for (key, question) in asked["inputRequests"].as_object().into_iter().flatten() {
            responses.insert(key.clone(), self.answers.answer(question)?);
        }
        members.insert("inputResponses".to_owned(), responses.into());
        Ok(members)
    }

    fn notified(&self, mut message: Value) {
        let mut params = message["params"].take();
        let method = message["method"].as_str().unwrap_or_default();
        let mut routes = self.routes.lock();
        match method {
            notification::PROGRESS => {
                let token = &params["progressToken"];
                if let Some(open) = routes.open.values().find(|open| *token == open.token) {
                    let _ = open.events.send(Event::Progress(params));
                }
            }
            // The server no longer waits for an answer, which it had at once.
            notification::CANCELLED => {}
            notification::ACKNOWLEDGED => {
                let id = params["_meta"][meta_key::SUBSCRIPTION_ID].as_i64();
                if let Some(open) = id.and_then(|id| routes.open.get(&id)) {
                    let granted = params["notifications"].take();
                    let _ = open.events.send(Event::Acknowledged(granted));
                }
            }
            // On one stream, a log message does not say to which request it belongs.
            notification::MESSAGE if routes.has_calls() => {
                for open in routes.calls() {
                    let _ = open.events.send(Event::Log(params.clone()));
                }
            }
            method => {
                let notice = Notice::read(method, params);
                routes.notices.retain(|to| to.send(notice.clone()).is_ok());
            }
        }
    }
}

impl Routes {
    /// The open requests but for listens, which have no log messages.
    fn calls(&self) -> impl Iterator<Item = &Open> {
        self.open.values().filter(|open| open.method != Method::Listen.as_str())
    }

    fn has_calls(&self) -> bool {
        self.calls().next().is_some()
    }
}

fn read_error(error: Value) -> ErrorObject {
    let text = error.to_string();
    serde_json::from_value(error).unwrap_or_else(|_| ErrorObject::internal(text))
}
