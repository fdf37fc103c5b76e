//! The settings of an engine, and their defaults.

use std::sync::Arc;
use std::time::Duration;

use stentor_delivery::policy::{Budget, Limits, Retention};
use stentor_delivery::{EventStore, MemoryEventStore};
use stentor_wire::bounds::MAX_ARGUMENT_VALUES;

use crate::call::StateKey;
use crate::catalog::ListCache;
use crate::ids::NodeId;
use crate::request_budget::RequestBudget;
use crate::session::SessionStore;
use crate::tasks::TaskConfig;

/// Limits and times of an engine.
///
/// Change them with [`EngineBuilder::configure`](crate::EngineBuilder::configure).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this engine in a cluster, which is part of all ids that it gives out.
    ///
    /// Default: a random name. With a name of its own, a node that restarts is the same node, and
    /// finds its tasks in a store again.
    pub node: NodeId,
    /// How long changes of one list or resource that follow each other within 250 µs wait, to be
    /// announced together. The first of them is announced at once. Default 10 ms.
    pub coalesce_window: Duration,
    /// Entries on one page of a list. Default 1,000.
    pub page_size: usize,
    /// How long modern clients may cache a list, and whether one user's copy may serve another.
    /// Default: no caching; list changes are announced anyway.
    pub list_cache: ListCache,
    /// Sessions that may be open at once. With HTTP, one more is refused with 503. Default 100,000.
    pub max_sessions: usize,
    /// Requests of one session that may run at once. Default 1,000.
    pub max_requests_per_session: usize,
    /// Modern HTTP requests that may run at once, over all clients.
    ///
    /// Above that, a request of a caller with a smaller share than another ends the oldest request
    /// of the largest share; any other request is refused. Shares are counted as in
    /// [`max_awaiting_input`](Self::max_awaiting_input), from half of this limit on. Default
    /// 10,000.
    pub max_stateless_calls: usize,
    /// Resources that one session may watch at once. Default 1,000.
    pub max_subscriptions: usize,
    /// A legacy HTTP session ends, and with it the calls that still run, when its client has no
    /// stream open and sends nothing for this time. Default 30 minutes.
    pub session_idle_timeout: Duration,
    /// A session is passive, and has no actor, when its client has sent no message for this time.
    /// The next message gives it one again, from a pool, which costs next to nothing. `None` keeps
    /// one actor from the opening of the session to its end, for hosts that watch it. With 0 a
    /// session has an actor while it has messages. Default 0.
    pub passivate_after: Option<Duration>,
    /// Legacy HTTP sessions that are kept although their clients have sent no request and have not
    /// listened for a second or two. Above that, the least recently seen ones end. Default 1,000.
    pub max_unused_sessions: usize,
    /// Sessions of this kind that are kept although their clients were seen to disconnect, as
    /// crashing clients do. Above that, those that were left first end at once. Default 100.
    pub max_left_sessions: usize,
    /// How long calls and tasks may run on after a shutdown began, or after the client of a pipe
    /// has closed its input: one limit for both together, if one leads to the other. Default 7 s,
    /// so that a whole shutdown takes less than the 10 s that Docker waits before it kills.
    pub drain_timeout: Duration,
    /// Modern calls that may wait for their client's answer at once.
    ///
    /// For one more, the oldest call of the largest share gives way: it ends, and its client gets
    /// an error if it answers after all. Everything of one principal counts as one share, else
    /// everything of one address; within these, each session or connection counts for itself.
    /// Default 10,000.
    pub max_awaiting_input: usize,
    /// The bytes that those calls may take together, counted as for [`requests`](Self::requests).
    /// Above that, a call gives way as well. Less than half of the budget of requests leaves space
    /// for calls that run. Default 96 MiB.
    pub max_awaiting_input_bytes: usize,
    /// How long a call waits for its client's answer to a question. Default 5 minutes.
    pub ask_timeout: Duration,
    /// The keys that seal what a modern client sends back with its answer. The first key seals, and
    /// all keys open, so that keys can be rotated. Default: one random key.
    pub state_keys: Vec<StateKey>,
    /// A call that runs longer than this ends with an error. Default: no limit.
    pub call_timeout: Option<Duration>,
    /// The most values that a tool call may have, with the names of members. A call with more is
    /// refused. Any other message may have [`MAX_VALUES`](stentor_wire::bounds::MAX_VALUES), which
    /// is also the least that this can be. Default 100,000.
    pub max_argument_values: usize,
    /// How many bytes may be kept of what clients sent.
    pub requests: RequestBudget,
    /// How much may wait unread on one stream.
    pub limits: Limits,
    /// How much of what was read a legacy HTTP stream keeps for a client that reconnects.
    pub retention: Retention,
    /// How much all streams may keep together.
    pub budget: Budget,
    /// The store of frames that were read. Default: [`MemoryEventStore`].
    pub event_store: Arc<dyn EventStore>,
    /// The store of legacy HTTP sessions that must survive their node.
    ///
    /// All nodes need the same store, and should have the same `event_store`. Nodes that share a
    /// store must know each other as peers, or must not run at the same time: without peers, a node
    /// takes over any session that it is asked for. Default: none, and a session ends with its
    /// node.
    pub session_store: Option<Arc<dyn SessionStore>>,
    /// How tasks are kept: calls whose result the client fetches later.
    pub tasks: TaskConfig,
    /// An HTTP stream is closed when frames wait and its client reads nothing for this time.
    /// Default 1 minute.
    pub stall_timeout: Duration,
    /// How long a request of a legacy HTTP session on another node waits, after that node was lost,
    /// for the node to be reached again or to be given up. After that, or when the session has
    /// ended with its node, the request is answered with an error. Default 10 s.
    pub reconnect_timeout: Duration,
    /// Streams of answered requests that a legacy HTTP session keeps for a client that reconnects.
    /// Default 8.
    pub kept_streams: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeId::random(),
            coalesce_window: Duration::from_millis(10),
            page_size: 1_000,
            list_cache: ListCache::default(),
            max_sessions: 100_000,
            max_requests_per_session: 1_000,
            max_stateless_calls: 10_000,
            max_subscriptions: 1_000,
            session_idle_timeout: Duration::from_secs(30 * 60),
            passivate_after: Some(Duration::ZERO),
            max_unused_sessions: 1_000,
            max_left_sessions: 100,
            drain_timeout: Duration::from_secs(7),
            max_awaiting_input: 10_000,
            max_awaiting_input_bytes: 96 * 1024 * 1024,
            ask_timeout: Duration::from_secs(5 * 60),
            state_keys: Vec::new(),
            call_timeout: None,
            max_argument_values: MAX_ARGUMENT_VALUES,
            requests: RequestBudget::default(),
            limits: Limits::default(),
            retention: Retention::default(),
            budget: Budget::default(),
            event_store: Arc::new(MemoryEventStore),
            session_store: None,
            tasks: TaskConfig::default(),
            stall_timeout: Duration::from_secs(60),
            reconnect_timeout: Duration::from_secs(10),
            kept_streams: 8,
        }
    }
}
