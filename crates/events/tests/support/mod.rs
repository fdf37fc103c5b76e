//! What the suites have in common: a type of occurrences, and clients that read streams.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::{Engine, EngineBuilder};
use stentor_events::{EventType, Events, EventsConfig, IDENTIFIER, event_type};
use stentor_test::Raw;
use stentor_wire::{Era, meta_key};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) const ACTIVE: &str = "notifications/events/active";
pub(crate) const EVENT: &str = "notifications/events/event";
pub(crate) const HEARTBEAT: &str = "notifications/events/heartbeat";
pub(crate) const FAILED: &str = "notifications/events/error";
pub(crate) const TERMINATED: &str = "notifications/events/terminated";
pub(crate) const LIST_CHANGED: &str = "notifications/events/list_changed";

/// How long something may take to come: with paused time no time at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// The arguments of a subscription.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Filter {
    #[serde(default)]
    pub(crate) queue: Option<String>,
}

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) queue: String,
}

impl Job {
    pub(crate) fn in_queue(number: u64, queue: &str) -> Self {
        Self { number, queue: queue.to_owned() }
    }
}

pub(crate) type Jobs = EventType<Filter, Job>;

/// A type that keeps the last 100 occurrences, each for an hour.
pub(crate) fn jobs(name: &str) -> Jobs {
    without_replay(name).replay(100, Duration::from_secs(3600))
}

pub(crate) fn without_replay(name: &str) -> Jobs {
    event_type::<Filter, Job>(name)
        .matches(|filter, job| filter.queue.as_ref().is_none_or(|queue| *queue == job.queue))
}

/// Emits occurrences with these numbers into the queue `q`.
pub(crate) async fn emit(jobs: &Jobs, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        jobs.emit(Job::in_queue(number, "q")).await.unwrap();
    }
}

pub(crate) fn server() -> EngineBuilder {
    Engine::builder("test", "1")
}

/// An engine with these types, and these settings of the extension.
pub(crate) async fn engine_with(types: &[&Jobs], change: impl FnOnce(&mut EventsConfig)) -> Engine {
    let events = types.iter().fold(Events::new(), |events, it| events.add(it));
    server().extension(events.configure(change)).start().await.unwrap()
}

pub(crate) async fn engine(types: &[&Jobs]) -> Engine {
    engine_with(types, |_| ()).await
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("no object: {other}"),
    }
}

/// A client that sends what the test says, and sorts what comes back by its stream.
pub(crate) struct Peer {
    raw: Raw,
    era: Era,
    capabilities: Value,
    sent: i64,
    received: VecDeque<Value>,
}

impl Peer {
    async fn open(engine: &Engine, era: Era, identity: Option<Identity>) -> Self {
        let mut builder = stentor_test::Client::builder(engine).era(era);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let raw = builder.raw().await;
        Self { raw, era, capabilities: json!({}), sent: 0, received: VecDeque::new() }
    }

    /// A modern client whom nobody knows.
    pub(crate) async fn stranger(engine: &Engine) -> Self {
        Self::open(engine, Era::Modern, None).await
    }

    pub(crate) async fn known(engine: &Engine, identity: Identity) -> Self {
        Self::open(engine, Era::Modern, Some(identity)).await
    }

    pub(crate) async fn named(engine: &Engine, principal: &str) -> Self {
        Self::known(engine, Identity::named(principal)).await
    }

    pub(crate) async fn legacy(engine: &Engine, principal: &str) -> Self {
        Self::open(engine, Era::Legacy, Some(Identity::named(principal))).await
    }

    /// The client declares the extension from now on.
    pub(crate) fn declares(mut self) -> Self {
        self.capabilities = json!({"extensions": {IDENTIFIER: {}}});
        self
    }

    /// Sends a request, and returns its id.
    pub(crate) async fn send(&mut self, method: &str, mut params: Value) -> i64 {
        self.sent += 1;
        if self.era == Era::Modern {
            params["_meta"] = json!({
                meta_key::PROTOCOL_VERSION: "2026-07-28",
                meta_key::CLIENT_CAPABILITIES: self.capabilities,
            });
        }
        self.raw.request(self.sent, method, params).await;
        self.sent
    }

    pub(crate) async fn notify(&self, method: &str, params: Value) {
        self.raw.send(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Cancels a request.
    pub(crate) async fn cancel(&self, id: i64) {
        self.notify("notifications/cancelled", json!({"requestId": id})).await;
    }

    /// The first message that fits, of those that have come and those that will.
    async fn find(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.received.iter().position(&fits) {
            return self.received.remove(at).unwrap();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let next = timeout_at(until, self.raw.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{what} does not come"));
            let next = next.unwrap_or_else(|| panic!("the session has ended before {what}"));
            if fits(&next) {
                return next;
            }
            self.received.push_back(next);
        }
    }

    /// The result of a request, or its error.
    pub(crate) async fn answer(&mut self, id: i64) -> Result<Value, Value> {
        let is_answer = |it: &Value| it["id"] == id && it.get("method").is_none();
        let mut answer = self.find(&format!("the answer to {id}"), is_answer).await;
        match answer.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(answer["result"].take()),
        }
    }

    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    pub(crate) async fn list(&mut self, params: Value) -> Value {
        self.ask("events/list", params).await.unwrap()
    }

    pub(crate) async fn poll(&mut self, params: Value) -> Value {
        self.ask("events/poll", params).await.unwrap()
    }

    /// Opens a stream, whose first message is still to be read.
    pub(crate) async fn stream(&mut self, params: Value) -> i64 {
        self.send("events/stream", params).await
    }

    /// Opens a stream, and reads its `active`.
    pub(crate) async fn opened(&mut self, params: Value) -> (i64, Value) {
        let id = self.stream(params).await;
        let (method, params) = self.next_with_beats(id).await;
        assert_eq!(method, ACTIVE, "it is first: {params}");
        (id, params)
    }

    /// The next message of a stream: its method, or `result` or `refused`, and its parameters.
    pub(crate) async fn next_with_beats(&mut self, id: i64) -> (String, Value) {
        let of_stream = |it: &Value| {
            it["params"]["_meta"][meta_key::SUBSCRIPTION_ID] == id
                || (it["id"] == id && it.get("method").is_none())
        };
        let mut next = self.find(&format!("a message of the stream {id}"), of_stream).await;
        for (kind, member) in [("result", "result"), ("refused", "error")] {
            if let Some(value) = next.get_mut(member) {
                return (kind.to_owned(), value.take());
            }
        }
        (next["method"].as_str().unwrap().to_owned(), next["params"].take())
    }

    /// As [`next_with_beats`](Self::next_with_beats), without heartbeats.
    pub(crate) async fn next(&mut self, id: i64) -> (String, Value) {
        for _ in 0..100 {
            let next = self.next_with_beats(id).await;
            if next.0 != HEARTBEAT {
                return next;
            }
        }
        panic!("nothing but heartbeats on the stream {id}");
    }

    /// The numbers of the next occurrences of a stream, which come without anything else.
    pub(crate) async fn numbers(&mut self, id: i64, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let (method, params) = self.next(id).await;
            assert_eq!(method, EVENT, "after {numbers:?}: {params}");
            numbers.push(params["data"]["number"].as_u64().unwrap());
        }
        numbers
    }

    /// The error with which a stream is terminated, and after which its result comes.
    pub(crate) async fn terminated(&mut self, id: i64) -> Value {
        let (method, mut params) = self.next(id).await;
        assert_eq!(method, TERMINATED, "{params}");
        self.ended(id).await;
        params["error"].take()
    }

    /// The result of a stream is its next message.
    pub(crate) async fn ended(&mut self, id: i64) {
        let (kind, result) = self.next(id).await;
        assert_eq!(kind, "result", "{result}");
        assert_eq!(result["resultType"], "complete");
        assert_eq!(result["_meta"][meta_key::SUBSCRIPTION_ID], id);
    }

    /// The messages that have come and were not read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &Value> {
        self.received.iter()
    }
}

/// The numbers of the occurrences in an answer to a poll.
pub(crate) fn polled(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|it| it["data"]["number"].as_u64().unwrap()).collect()
}

/// Waits until something holds, which other tasks are about to do.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: it does not come to this"));
}
