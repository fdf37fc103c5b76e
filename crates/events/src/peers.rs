//! The same extension on the other nodes of a cluster.
//!
//! Each node numbers what is emitted on it, and sends it to all others, which add it to their logs. So
//! streams and polls are served from the log of the node that has them, and a cursor of one node is
//! good on each. A node also compares logs with each other node every few seconds, so that nothing is
//! missing for long which any of them has.

mod feed;
mod message;
mod route;
mod watching;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use futures::future::join_all;
use parking_lot::Mutex;
use stentor_engine::{Engine, NodeId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use message::Have;
pub(crate) use message::{PeerMessage, answer};
pub(crate) use route::{rank, route};
pub(crate) use watching::look_at_members;

use crate::IDENTIFIER;
use crate::cursor::Cursor;
use crate::running::RunningType;
use crate::shared::Shared;

/// How often this node looks which others there are.
const LOOK: Duration = Duration::from_millis(100);

/// A node that was not seen for this time is gone: others continue its webhooks.
const GONE: Duration = Duration::from_secs(3);

/// The longest message about webhooks, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// How long a cursor waits that names an unknown origin.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// How long an emit waits for the other nodes. One that is slower is not waited for until it has all.
const PATIENCE: Duration = Duration::from_secs(1);

/// The other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    nodes: Mutex<HashMap<NodeId, Arc<Peer>>>,
    /// Whether there are any, so that a single node pays nothing for them.
    some: AtomicBool,
    /// Something was emitted here, or a type has come.
    grown: Notify,
    /// A node has more, or is gone.
    moved: Notify,
}

/// Another node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    state: Mutex<PeerState>,
}

#[derive(Debug, Default)]
struct PeerState {
    types: BTreeSet<Arc<str>>,
    epoch: Option<u64>,
    /// By type: the number up to which it has what was emitted here.
    has: HashMap<Arc<str>, u64>,
    /// Whether it is not waited for.
    lags: bool,
    /// Whether it has been told of all webhooks of this node.
    has_webhooks: bool,
    /// What both nodes tell each other of what they watch.
    talk: watching::Talk,
    feed: Option<AbortOnDropHandle<()>>,
    seen: Option<Instant>,
}

impl Peer {
    fn new(node: &NodeId) -> Self {
        Self { node: node.clone(), state: Mutex::default() }
    }
}

impl Peers {
    /// Whether a node is there, or was not long ago.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.nodes.lock().contains_key(node)
    }

    /// The nodes that have a type.
    pub(crate) fn with_type(&self, name: &str) -> Vec<NodeId> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        let nodes = self.nodes.lock();
        let with = nodes.values().filter(|peer| peer.state.lock().types.contains(name));
        with.map(|peer| peer.node.clone()).collect()
    }

    /// The types of each node.
    fn types(&self) -> Vec<(NodeId, BTreeSet<Arc<str>>)> {
        let nodes = self.nodes.lock();
        nodes.values().map(|it| (it.node.clone(), it.state.lock().types.clone())).collect()
    }

    pub(crate) fn are_some(&self) -> bool {
        self.some.load(Ordering::Acquire)
    }

    /// Sends on what was emitted here, or a type that has come.
    pub(crate) fn wake(&self) {
        if self.are_some() {
            self.grown.notify_waiters();
        }
    }

    /// Waits until all nodes have what was emitted here up to this number, but for those that are slow.
    pub(crate) async fn have(&self, name: &str, seq: u64) {
        if !self.are_some() {
            return;
        }
        self.grown.notify_waiters();
        let until = Instant::now() + PATIENCE;
        loop {
            let moved = self.moved.notified();
            let waited: Vec<_> = {
                let nodes = self.nodes.lock();
                let lacks = |peer: &Arc<Peer>| {
                    let state = peer.state.lock();
                    let has = state.has.get(name).copied().unwrap_or_default();
                    !state.lags && state.types.contains(name) && has < seq
                };
                nodes.values().filter(|peer| lacks(peer)).cloned().collect()
            };
            if waited.is_empty() {
                return;
            }
            if tokio::time::timeout_at(until, moved).await.is_err() {
                for peer in waited {
                    tracing::warn!(node = %peer.node, "a node is slow to take events");
                    peer.state.lock().lags = true;
                }
                return;
            }
        }
    }

    /// Sends a message to all nodes, and waits a while for each.
    pub(crate) async fn tell_all(&self, engine: &Engine, message: &PeerMessage) {
        let peers: Vec<_> = self.nodes.lock().values().cloned().collect();
        let message = message.encode().filter(|it| it.len() <= MAX_MESSAGE);
        let telling = peers.iter().map(|peer| async {
            let told = match &message {
                Some(message) => {
                    let asked = engine.ask_peer(&peer.node, IDENTIFIER, message.clone());
                    matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)))
                }
                None => false,
            };
            if !told {
                // It is told of all at the next comparison.
                peer.state.lock().has_webhooks = false;
            }
        });
        join_all(telling).await;
    }

    /// Looks at the other nodes as long as it is polled.
    pub(crate) async fn watch(&self, shared: &Arc<Shared>) {
        loop {
            self.look(shared);
            sleep(LOOK).await;
        }
    }

    fn look(&self, shared: &Arc<Shared>) {
        let Some(engine) = shared.engine.load_full() else { return };
        let (now, alive) = (Instant::now(), engine.peers());
        let gone: Vec<NodeId> = {
            let mut nodes = self.nodes.lock();
            for node in &alive {
                let peer = nodes.entry(node.clone()).or_insert_with(|| Arc::new(Peer::new(node)));
                let mut state = peer.state.lock();
                state.seen = Some(now);
                if state.feed.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
                    let feeding = feed::run(shared.clone(), peer.clone());
                    state.feed = Some(AbortOnDropHandle::new(tokio::spawn(feeding)));
                }
            }
            for (node, peer) in nodes.iter() {
                if !alive.contains(node) {
                    let mut state = peer.state.lock();
                    (state.feed, state.lags) = (None, true);
                }
            }
            let is_gone =
                |peer: &Arc<Peer>| peer.state.lock().seen.is_none_or(|seen| now - seen > GONE);
            let gone: Vec<_> =
                nodes.values().filter(|it| is_gone(it)).map(|it| it.node.clone()).collect();
            nodes.retain(|node, _| !gone.contains(node));
            self.some.store(!nodes.is_empty(), Ordering::Release);
            gone
        };
        if !gone.is_empty() {
            self.moved.notify_waiters();
            watching::forget(shared, &gone);
        }
    }

    /// Logs were compared: more may be known now.
    fn compared(&self) {
        self.moved.notify_waiters();
    }

    /// Waits a while until the log knows whose occurrences a cursor names, if it comes from another node
    /// or there are some: this one may have just started.
    pub(crate) async fn know(&self, running: &RunningType, cursor: Option<&Cursor>) {
        let Some(cursor) = cursor else { return };
        let own = &running.origin().node;
        if !self.are_some() && cursor.origins().all(|origin| origin.node == *own) {
            return;
        }
        let until = Instant::now() + KNOWN_WITHIN;
        loop {
            let moved = self.moved.notified();
            if running.log.lock().knows(cursor)
                || tokio::time::timeout_at(until, moved).await.is_err()
            {
                return;
            }
        }
    }

    /// What another node says of itself. `true` if it is another process than before: what that had is
    /// gone.
    fn learn(&self, node: &NodeId, have: &Have) -> bool {
        let mut nodes = self.nodes.lock();
        let peer = nodes.entry(node.clone()).or_insert_with(|| Arc::new(Peer::new(node)));
        let mut state = peer.state.lock();
        (state.types, state.seen) = (have.names(), Some(Instant::now()));
        let before = state.epoch.replace(have.epoch);
        let is_new = before != Some(have.epoch);
        if is_new {
            state.has_webhooks = false;
        }
        state.talk.learn(have.hooked.clone(), have.heard, is_new);
        drop(state);
        self.some.store(true, Ordering::Release);
        before.is_some_and(|before| before != have.epoch)
    }
}

/// Sends a message to one node.
async fn ask(engine: &Engine, node: &NodeId, message: &PeerMessage) -> Option<Bytes> {
    let asked = engine.ask_peer(node, IDENTIFIER, message.encode()?);
    timeout(Duration::from_secs(10), asked).await.ok()?.ok()
}
