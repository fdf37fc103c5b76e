//! Metrics for operators, through the [`metrics`] facade. The names are those of OpenTelemetry's
//! conventions for MCP, where these have one.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `mcp.server.operation.duration` | histogram, seconds | `mcp.method.name`, `error.type`: a JSON-RPC code, or `tool_error` |
//! | `mcp.server.session.duration` | histogram, seconds | `kind`, `reason` |
//! | `stentor.frames.delivered`, `.coalesced`, `.dropped` | counters | `class` |
//! | `stentor.progress.conflated`, `.refused` | counters | |
//! | `stentor.streams.closed` | counter | |
//! | `stentor.restarts` | counter | `actor` |
//! | `stentor.principals.refused` | counter | `of`: `sessions`, `listens`, `calls` or `subscriptions` |
//! | `stentor.held.bytes`, `stentor.requests.bytes` | gauges | |
//! | `stentor.sessions` | gauge | `kind`: `pipe`, `http` or `listen` |
//! | `stentor.calls.running`, `stentor.calls.awaiting_input` | gauges | |
//! | `stentor.http.refused` | counter | `status`: of responses with 4xx and 5xx |
//! | `stentor.peers` | gauge | `state`: `connected` or `unreachable` |
//! | `stentor.peers.in_flight.bytes` | gauge | |
//! | `stentor.peers.requests` | gauge | `direction`: `incoming` or `outgoing` |
//! | `stentor.session_store.errors` | counter | |
//! | `stentor.redis.lost` (feature `redis`) | counter | |
//! | `stentor.events.emitted` (feature `events`) | counter | `type` |
//! | `stentor.events.lag` (feature `events`) | gauge | `type` |
//! | `stentor.events.gaps` (feature `events`) | counter | `mode`: `poll`, `push` or `webhook` |
//! | `stentor.events.webhook.attempts` (feature `events`) | counter | `result`: `delivered` or `failed` |
//! | `stentor.events.webhook.abandoned` (feature `events`) | counter | |
//!
//! Each is described to the recorder, with its unit. Histograms need buckets ([`BUCKETS`]) if they are
//! to be added up over nodes.
//!
//! Install a recorder before the engine starts. Counters of frames and gauges are updated every
//! five seconds, and by [`Engine::record_metrics`](crate::Engine::record_metrics). Histograms add up two engines of one process;
//! counters of frames and gauges do not. Give each engine its own recorder, or read
//! [`Engine::counters`](crate::Engine::counters).

use std::time::Duration;

use metrics::{
    Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use stentor_delivery::CountersView;
use stentor_delivery::policy::Class;
use stentor_wire::Method;

use crate::node_view::{NodeState, NodeView, PeerRequestCounts};
use crate::reasons::{CallOutcome, EndReason, SessionKind};

const OPERATION: &str = "mcp.server.operation.duration";
const SESSION: &str = "mcp.server.session.duration";
const METHOD: &str = "mcp.method.name";

/// Bounds of buckets for durations, in seconds, as OpenTelemetry's conventions for MCP name them.
pub const BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What an engine has now.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// Bytes that are kept of what clients sent.
    pub(crate) requests: usize,
    /// By kind.
    pub(crate) sessions: [(SessionKind, usize); 3],
    pub(crate) calls: usize,
    pub(crate) awaiting_input: usize,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) peer_requests: PeerRequestCounts,
}

/// The histograms that every request needs, looked up once.
#[derive(Debug)]
pub(crate) struct Metrics {
    operations: foldhash::HashMap<Method, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        describe();
        let operation =
            |method: &Method| histogram!(OPERATION, METHOD => method.as_str().to_owned());
        let known = Method::KNOWN.iter().map(|method| (method.clone(), operation(method)));
        Self { operations: known.collect() }
    }
}

impl Metrics {
    pub(crate) fn operation(&self, method: &Method, outcome: CallOutcome, took: Duration) {
        match (self.operations.get(method), outcome.error_type()) {
            (Some(histogram), None) => histogram.record(took),
            (known, error) => {
                // A name that a client made up must not become a label.
                let method = known.map_or("_OTHER", |_| method.as_str()).to_owned();
                let error = error.unwrap_or_default();
                histogram!(OPERATION, METHOD => method, "error.type" => error).record(took);
            }
        }
    }

    pub(crate) fn session(&self, kind: SessionKind, reason: EndReason, took: Duration) {
        let (kind, reason) = (kind.as_str(), reason.as_str());
        histogram!(SESSION, "kind" => kind, "reason" => reason).record(took);
    }

    pub(crate) fn refused(&self, status: u16) {
        counter!("stentor.http.refused", "status" => status.to_string()).increment(1);
    }

    pub(crate) fn restarted(&self, actor: &'static str) {
        counter!("stentor.restarts", "actor" => actor).increment(1);
    }

    /// Updates the metrics whose values the engine counts itself.
    pub(crate) fn record(&self, counters: &CountersView, gauges: &Gauges) {
        for class in Class::ALL {
            let (index, class) = (class as usize, class.as_str());
            counter!("stentor.frames.delivered", "class" => class)
                .absolute(counters.delivered[index]);
            counter!("stentor.frames.coalesced", "class" => class)
                .absolute(counters.coalesced[index]);
            counter!("stentor.frames.dropped", "class" => class).absolute(counters.dropped[index]);
        }
        counter!("stentor.progress.conflated").absolute(counters.conflated);
        counter!("stentor.progress.refused").absolute(counters.refused);
        counter!("stentor.streams.closed").absolute(counters.closed);
        gauge!("stentor.held.bytes").set(counters.held as f64);
        gauge!("stentor.requests.bytes").set(gauges.requests as f64);
        for (kind, count) in gauges.sessions {
            gauge!("stentor.sessions", "kind" => kind.as_str()).set(count as f64);
        }
        gauge!("stentor.calls.running").set(gauges.calls as f64);
        gauge!("stentor.calls.awaiting_input").set(gauges.awaiting_input as f64);
        for (state, connected) in [("connected", true), ("unreachable", false)] {
            let is_so = |it: &&NodeView| it.state == NodeState::Alive && it.connected == connected;
            let count = gauges.nodes.iter().filter(is_so).count();
            gauge!("stentor.peers", "state" => state).set(count as f64);
        }
        let in_flight: u64 = gauges.nodes.iter().map(|it| it.in_flight).sum();
        gauge!("stentor.peers.in_flight.bytes").set(in_flight as f64);
        let PeerRequestCounts { incoming, outgoing } = gauges.peer_requests;
        gauge!("stentor.peers.requests", "direction" => "incoming").set(incoming as f64);
        gauge!("stentor.peers.requests", "direction" => "outgoing").set(outgoing as f64);
    }
}

fn describe() {
    describe_histogram!(OPERATION, Unit::Seconds, "From a request to its response");
    describe_histogram!(SESSION, Unit::Seconds, "From the begin of a session to its end");
    let count = Unit::Count;
    describe_counter!("stentor.frames.delivered", count, "Messages that clients have taken");
    describe_counter!("stentor.frames.coalesced", count, "Messages that another one replaced");
    describe_counter!("stentor.frames.dropped", count, "Messages dropped for slow clients");
    describe_counter!("stentor.progress.conflated", count, "Progress that a later one replaced");
    describe_counter!("stentor.progress.refused", count, "Progress that was no progress");
    describe_counter!("stentor.streams.closed", count, "Streams closed as nobody read them");
    describe_counter!("stentor.restarts", count, "Actors that crashed and began anew");
    describe_counter!("stentor.principals.refused", count, "Requests beyond a principal's limit");
    describe_counter!("stentor.http.refused", count, "HTTP requests that were refused");
    describe_counter!("stentor.session_store.errors", count, "Sessions that were not stored");
    describe_gauge!(
        "stentor.held.bytes",
        Unit::Bytes,
        "What waits for clients, or is kept for them"
    );
    describe_gauge!("stentor.requests.bytes", Unit::Bytes, "What is kept of requests");
    describe_gauge!("stentor.sessions", count, "Open sessions");
    describe_gauge!("stentor.calls.running", count, "Calls that run");
    describe_gauge!("stentor.peers", count, "Other nodes that have not gone");
    describe_gauge!("stentor.peers.in_flight.bytes", Unit::Bytes, "What they have not handled");
    describe_gauge!("stentor.peers.requests", count, "Requests that nodes serve for each other");
    describe_gauge!("stentor.calls.awaiting_input", count, "Calls that wait for a client's answer");
}
