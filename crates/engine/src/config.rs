//! What can be tuned, and to what it is set without.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::NodeId;
use crate::outlet::policy::{Budget, Limits, Retention};
use crate::outlet::{EventStore, MemoryEventStore};
use crate::registry::Shelf;
use crate::request_budget::RequestBudget;
use crate::session::SessionStore;
use crate::task::StateKey;
use crate::tasks::TaskConfig;
use stentor_wire::bounds::MAX_ARGUMENT_VALUES;
use stentor_wire::encode::CacheHint;

/// Limits and times of an engine.
///
/// Change them with [`EngineBuilder::configure`](crate::EngineBuilder::configure).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this engine among those of a cluster, which stands in all ids that it gives out.
    /// Default: a random one. With a name of its own a node is the same one when it comes back, and
    /// the tasks that it has in a store are found there.
    pub node: NodeId,
    /// Of changes of one list or resource that follow each other closely, within 250 µs, the
    /// first is announced at once and the rest together when this time is over. Default 10 ms.
    pub coalesce_window: Duration,
    /// Entries on one page of a list. Default 1,000.
    pub page_size: usize,
    /// For how long modern clients may keep a list, and whether one user's copy may serve
    /// another. Default: not at all; list changes are told anyway.
    pub list_cache: ListCache,
    /// Sessions that may be open at once; with HTTP one more is refused with 503.
    /// Default 100,000.
    pub max_sessions: usize,
    /// Requests of one session that may run at once. Default 1,000.
    pub max_requests_per_session: usize,
    /// Modern HTTP requests that may run at once, over all clients. Beyond that, one of a caller with
    /// less than another ends the oldest of the greediest, counted as in
    /// [`max_suspended`](Self::max_suspended) from half of this on; any other is refused. Default 10,000.
    pub max_stateless_calls: usize,
    /// Resources that one session may watch at once. Default 1,000.
    pub max_subscriptions: usize,
    /// A legacy HTTP session whose client has no stream open and sends nothing for this time
    /// ends, and with it the calls that still run. Default 30 minutes.
    pub session_idle_timeout: Duration,
    /// Legacy HTTP sessions that may be kept although their clients have not asked for anything nor
    /// listened for a second or two: of more, those end that were heard of the longest ago.
    /// Default 1,000.
    pub max_unused_sessions: usize,
    /// As many of them may be kept although their clients were seen to go, as crashing ones do: of
    /// more, those that went first end at once. Default 100.
    pub max_left_sessions: usize,
    /// How long calls and tasks may go on running after a shutdown began, or the client of a pipe has
    /// ended its input: both together, where the one leads to the other. Default 7 s, with which all of a
    /// shutdown takes less than the 10 s that Docker waits before it kills.
    pub drain_timeout: Duration,
    /// Modern calls that may wait for their client's answer at once. For one more the oldest of whoever
    /// has the most gives way: it ends, and its client is told so if it answers after all. All that is
    /// known to be of one principal counts together, then all from one address, then each session or
    /// connection for itself. Default 10,000.
    pub max_suspended: usize,
    /// How many bytes they may take together, counted as for [`requests`](Self::requests); beyond it the
    /// same happens. Less than the half of that leaves room for calls that run. Default 96 MiB.
    pub max_suspended_bytes: usize,
    /// How long a call waits for its client's answer to a question. Default 5 minutes.
    pub ask_timeout: Duration,
    /// The keys that seal what a modern client sends back with its answer: the first seals,
    /// all open, so that keys can be rotated. Default: a random one.
    pub state_keys: Vec<StateKey>,
    /// A call that runs longer is ended with an error. Default: none.
    pub call_timeout: Option<Duration>,
    /// The most values that a call of a tool may have, with the names of members: one with more is
    /// refused. Any other message may have [`MAX_VALUES`](stentor_wire::bounds::MAX_VALUES), which is
    /// also the least that this can be. Default 100,000.
    pub max_argument_values: usize,
    /// How much may be kept of what clients sent.
    pub requests: RequestBudget,
    /// How much may wait unread on one stream.
    pub limits: Limits,
    /// How much that was read a legacy HTTP stream keeps for a client that comes back.
    pub retention: Retention,
    /// How much all streams may hold together.
    pub budget: Budget,
    /// Where what was read is kept. Default: [`MemoryEventStore`].
    pub event_store: Arc<dyn EventStore>,
    /// Where legacy HTTP sessions are kept that are to survive their node; all nodes need the same
    /// one, and should have the same `event_store`. Nodes that share one are to know each other as
    /// peers, or to be there one after the other: without peers a node takes any session that it is
    /// asked for. Default: none, and a session ends with its node.
    pub session_store: Option<Arc<dyn SessionStore>>,
    /// How calls are kept whose result is fetched later.
    pub tasks: TaskConfig,
    /// An HTTP stream whose client does not read for this long, although something waits, is
    /// closed. Default 1 minute.
    pub stall_timeout: Duration,
    /// How long a request of a legacy HTTP session on another node waits, once that node is lost while
    /// it answers, for it to be reached again or to be given up. After that the request is answered with
    /// an error, as it is when the session has ended with its node. Default 10 s.
    pub reconnect_timeout: Duration,
    /// Streams of answered requests that a legacy HTTP session keeps for a client that comes
    /// back. Default 8.
    pub kept_streams: usize,
}

/// For how long modern clients may keep what kind of list (2026-07-28,
/// server/utilities/caching). What one resource holds is said where it is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListCache {
    /// `tools/list`.
    pub tools: CacheHint,
    /// `resources/list`.
    pub resources: CacheHint,
    /// `resources/templates/list`.
    pub templates: CacheHint,
    /// `prompts/list`.
    pub prompts: CacheHint,
    /// `server/discover`.
    pub discover: CacheHint,
}

impl ListCache {
    /// The same for all of them.
    #[must_use]
    pub const fn all(hint: CacheHint) -> Self {
        Self { tools: hint, resources: hint, templates: hint, prompts: hint, discover: hint }
    }

    pub(crate) const fn of(&self, shelf: Shelf) -> CacheHint {
        match shelf {
            Shelf::Tools => self.tools,
            Shelf::Resources => self.resources,
            Shelf::Templates => self.templates,
            Shelf::Prompts => self.prompts,
        }
    }
}

impl Config {
    /// Requests of one session that may run at once, as permits of a semaphore are counted.
    pub(crate) fn max_requests(&self) -> usize {
        self.max_requests_per_session.min(u32::MAX as usize)
    }
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
            max_unused_sessions: 1_000,
            max_left_sessions: 100,
            drain_timeout: Duration::from_secs(7),
            max_suspended: 10_000,
            max_suspended_bytes: 96 * 1024 * 1024,
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
