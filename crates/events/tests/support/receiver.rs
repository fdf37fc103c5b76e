//! The endpoint of a client: a small HTTP server, and what a test says to it.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use stentor_engine::{Engine, EngineBuilder};
use stentor_events::{Events, EventsHandle, WebhookConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::support::{Jobs, PATIENCE, Peer, server};

pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const NEW_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// A request, as the endpoint sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.body["type"] == kind
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.body["data"]["number"].as_u64()
    }

    /// Whether a receiver with this secret believes it.
    pub(crate) fn is_signed_by(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(&self.raw, &self.headers).is_ok()
    }
}

/// A status, and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) location: Option<String>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self { status, body: String::new(), location: None }
    }
}

/// The right answer to a challenge.
pub(crate) fn echo(seen: &Seen) -> Reply {
    Reply { body: json!({"challenge": seen.body["challenge"]}).to_string(), ..200.into() }
}

type Answers = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// The server. It answers challenges, and takes everything else, unless the test says otherwise.
pub(crate) struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Answers>>,
    /// Requests are answered while this is true.
    open: watch::Sender<bool>,
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answers: Answers =
            Arc::new(|seen| if seen.is("verification") { echo(seen) } else { 200.into() });
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            answers: Arc::new(Mutex::new(answers)),
            open: watch::channel(true).0,
        };
        let (seen, answers) = (receiver.seen.clone(), receiver.answers.clone());
        let open = receiver.open.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answers, open) = (seen.clone(), answers.clone(), open.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    answer(request, seen.clone(), answers.clone(), open.clone())
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        receiver
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/hook?key=1", self.origin())
    }

    /// Answers in this way from now on, challenges too.
    pub(crate) fn answer(&self, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.answers.lock() = Arc::new(answer);
    }

    /// Answers challenges as it should, and everything else with a status.
    pub(crate) fn answer_events(&self, status: impl Fn(&Seen) -> u16 + Send + Sync + 'static) {
        self.answer(
            move |seen| {
                if seen.is("verification") { echo(seen) } else { status(seen).into() }
            },
        );
    }

    /// Lets requests wait for their answers, or answers them.
    pub(crate) fn hold(&self, hold: bool) {
        let _ = self.open.send(!hold);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// All but the challenges.
    pub(crate) fn delivered(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|it| !it.is("verification")).collect()
    }

    /// The numbers of the occurrences that have come.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.seen().iter().filter_map(Seen::number).collect()
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|it| it.is(kind)).collect()
    }

    /// Waits until what has come fulfils this.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&[Seen]) -> bool) {
        let waiting = async {
            while !holds(&self.seen()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE.min(Duration::from_secs(20)), waiting).await.is_err() {
            let came: Vec<_> = self.seen().iter().map(|it| it.body.to_string()).collect();
            panic!("{what} does not come; came: {came:#?}");
        }
    }

    /// Waits until the occurrence with this number has come.
    pub(crate) async fn until_number(&self, number: u64) {
        let has = |seen: &[Seen]| seen.iter().any(|it| it.number() == Some(number));
        self.until(&format!("the occurrence {number}"), has).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Answers>>,
    mut open: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&raw).unwrap_or_default();
    let path = head.uri.to_string();
    let it = Seen { path, headers: head.headers, raw, body, at: Instant::now() };
    seen.lock().push(it.clone());
    let _ = open.wait_for(|is_open| *is_open).await;
    let answer = answers.lock().clone();
    let reply = answer(&it);
    let mut response = Response::builder().status(reply.status);
    if let Some(location) = reply.location {
        response = response.header("location", location);
    }
    Ok(response.body(Full::new(reply.body.into())).unwrap())
}

/// An engine with webhooks, and the receiver to which they may go.
pub(crate) struct World {
    pub(crate) receiver: Receiver,
    pub(crate) engine: Engine,
    pub(crate) handle: EventsHandle,
}

impl World {
    pub(crate) async fn new(types: &[&Jobs]) -> Self {
        Self::with(types, |_| ()).await
    }

    pub(crate) async fn with(types: &[&Jobs], change: impl FnOnce(&mut WebhookConfig)) -> Self {
        Self::build(types, change, |events| events, |builder| builder).await
    }

    pub(crate) async fn build(
        types: &[&Jobs],
        change: impl FnOnce(&mut WebhookConfig),
        events: impl FnOnce(Events) -> Events,
        builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let receiver = Receiver::new().await;
        let (engine, handle) = start(&receiver, types, change, events, builder).await;
        Self { receiver, engine, handle }
    }

    pub(crate) async fn ann(&self) -> Peer {
        Peer::named(&self.engine, "ann").await
    }

    /// The parameters of a subscribe to `job.done`, with further members.
    pub(crate) fn params(&self, more: Value) -> Value {
        params(&self.receiver.url(), more)
    }

    /// Adds a webhook of ann.
    pub(crate) async fn subscribed(&self) -> (Peer, Value) {
        let mut ann = self.ann().await;
        let answer = ann.ask("events/subscribe", self.params(json!({}))).await.unwrap();
        (ann, answer)
    }
}

pub(crate) async fn start(
    receiver: &Receiver,
    types: &[&Jobs],
    change: impl FnOnce(&mut WebhookConfig),
    events: impl FnOnce(Events) -> Events,
    builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> (Engine, EventsHandle) {
    let mut config = WebhookConfig::new().allow_origin(&receiver.origin()).unwrap();
    config.min_ttl = Duration::from_millis(500);
    config.attempt_timeout = Duration::from_secs(2);
    change(&mut config);
    let all = types.iter().fold(Events::new(), |events, it| events.add(it));
    let all = events(all.webhooks(config));
    let handle = all.handle();
    (builder(server()).extension(all).start().await.unwrap(), handle)
}

pub(crate) fn params(url: &str, more: Value) -> Value {
    let mut params = json!({
        "name": "job.done", "delivery": {"mode": "webhook", "url": url, "secret": SECRET},
    });
    for (name, value) in crate::support::object(more) {
        params[name] = value;
    }
    params
}
