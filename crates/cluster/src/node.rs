//! An engine as a node: what joins it to the mesh, the feeds and the errands.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use stentor_engine::peers::{Conversation, Errand, Fact, Peers, Reach, Said, Unreachable};
use stentor_engine::port::Refused;
use stentor_engine::{Engine, ListKind, NodeId, SessionId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::config::ClusterConfig;
use crate::errands::{Asked, Served};
use crate::frame::{Foreign, Frame};
use crate::leave::Succession;
use crate::mesh::{Mesh, MeshHandler, PeerInfo, Receipt, SendError, unguessable};
use crate::post::Post;
use crate::replica::{Effect, Replica};
use crate::settle::{Lists, Settled, Settling};

/// So many nodes may have left one after the other for the sessions of the first to be found.
const MOST_SUCCESSIONS: usize = 16;

/// Of more nodes than this, those that are gone are forgotten: names may be used once.
const MOST_KNOWN: usize = 1024;

/// How long it may take until there is room for an errand on the way to another node.
const ROOM: Duration = Duration::from_secs(5);

/// What a node is made of.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) succession: Succession,
    post: Post,
    replica: Mutex<Replica>,
    settling: Mutex<Settling>,
    /// The engine's catalog is to be looked at, and these lists of it have changed.
    catalog_changed: Mutex<Option<Lists>>,
    /// There is something new to tell.
    news: Notify,
    asked: Arc<Asked>,
    served: Arc<Served>,
    /// What gossip says of other nodes; `false` for those that are given up.
    known: Mutex<HashMap<NodeId, bool>>,
    /// Something was heard of other nodes.
    heard: Notify,
    has_seeds: bool,
    /// It leaves, or has been left.
    leaves: AtomicBool,
    started: Instant,
    /// How long it takes until all others are known.
    settles: Duration,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node", self.engine.node()).finish_non_exhaustive()
    }
}

/// Tells the others what is new, whenever there is something.
pub(crate) async fn publish(node: Arc<Node>, mesh: Mesh) {
    loop {
        let next = node.settling.lock().next();
        tokio::select! {
            () = mesh.stopped() => return node.is_alone(),
            () = node.news.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        node.look_at_catalog();
        for peer in node.connected() {
            node.tell_news(&peer);
        }
        node.announce_settled();
    }
}

impl Node {
    /// A node that has no mesh yet.
    pub(crate) fn new(engine: Engine, config: &ClusterConfig) -> Self {
        let node = Self {
            engine,
            succession: Succession::default(),
            post: Post::default(),
            replica: Mutex::new(Replica::new(unguessable())),
            settling: Mutex::default(),
            catalog_changed: Mutex::new(Some(Lists::new())),
            news: Notify::new(),
            asked: Arc::default(),
            served: Arc::new(Served::new(config.max_errands)),
            known: Mutex::default(),
            heard: Notify::new(),
            has_seeds: !config.seeds.is_empty(),
            leaves: AtomicBool::new(false),
            started: Instant::now(),
            settles: 2 * config.give_up_after,
        };
        node.look_at_catalog();
        node
    }

    /// From here on it can send.
    pub(crate) fn opens(&self, mesh: Mesh) {
        self.post.opens(mesh);
        for peer in self.connected() {
            // Those that were faster could not be told.
            let have = self.replica.lock().have(&peer);
            self.perform(&peer, [have]);
        }
    }

    pub(crate) fn mesh(&self) -> Option<&Mesh> {
        self.post.mesh()
    }

    /// Requests of clients that are being done for other nodes, and by them for this one.
    pub(crate) fn errands(&self) -> (usize, usize) {
        (self.served.len(), self.asked.len())
    }

    /// What [`Cluster::unsettled`](crate::Cluster::unsettled) counts.
    pub(crate) fn unsettled(&self) -> usize {
        // Whoever looks at the catalog holds it, and a change is in one of the two or the other.
        let replica = self.replica.lock();
        let unseen = self.catalog_changed.lock().is_some();
        let settling = self.settling.lock();
        settling.len() + settling.behind(replica.told()) + usize::from(unseen)
    }

    /// Waits until it [is ready](Self::is_ready), or has waited long enough for seeds.
    pub(crate) async fn ready(&self) {
        let until = self.started + self.settles;
        while !self.is_ready() {
            let heard = self.heard.notified();
            if self.is_ready() || timeout_at(until, heard).await.is_err() {
                return;
            }
        }
    }

    /// Leaves the others in order.
    pub(crate) async fn leave(&self) {
        let Some(mesh) = self.mesh() else { return };
        self.retire(mesh, self.engine.drain_timeout()).await;
        self.leaves.store(true, Ordering::Release);
        mesh.leave().await;
        self.forget_peers();
    }

    /// Has the feed say what the engine offers now.
    fn look_at_catalog(&self) {
        // Locked first, so that no older one comes after a newer one, and nobody who finds nothing
        // to do is ahead of who is still at it.
        let mut replica = self.replica.lock();
        let changed = self.catalog_changed.lock().take();
        if let Some(lists) = changed {
            let seq = replica.offer(self.engine.catalog().snapshot().definitions());
            self.settling.lock().changed(seq, lists, Instant::now());
        }
    }

    /// Announces what all nodes show by now, here and there.
    fn announce_settled(&self) {
        // Locked until the engine knows: who finds nothing unsettled finds it there.
        let mut settling = self.settling.lock();
        let Settled { own, lists } = settling.settled(Instant::now());
        self.announce(lists);
        drop(settling);
        if let Some(seq) = own {
            for peer in self.connected() {
                self.post.soon(&peer, Frame::Settled(seq));
            }
        }
    }

    fn announce(&self, lists: Lists) {
        if !lists.is_empty() {
            self.engine.announce_lists(lists.into_iter().collect());
        }
    }

    fn connected(&self) -> Vec<NodeId> {
        self.mesh().map(Mesh::connected).unwrap_or_default()
    }

    /// Whether it shows what all others offer.
    fn is_ready(&self) -> bool {
        let known = self.known.lock();
        let mut alive = known.iter().filter(|(_, alive)| **alive).map(|(node, _)| node).peekable();
        let is_alone = alive.peek().is_none();
        let replica = self.replica.lock();
        if is_alone { !self.has_seeds } else { alive.all(|node| replica.shows(node)) }
    }

    /// There are no other nodes any more, and this one has not left them in order: what they offer
    /// disappears.
    pub(crate) fn is_alone(&self) {
        if self.leaves.swap(true, Ordering::AcqRel) {
            return;
        }
        let known: Vec<_> = self.known.lock().keys().cloned().collect();
        for node in &known {
            self.down(node);
        }
        self.forget_peers();
        for node in known {
            self.engine.peer_offers(node, 0, None);
        }
    }

    /// The engine is on its own again.
    fn forget_peers(&self) {
        self.engine.join_peers(None);
        let waiting = self.settling.lock().all();
        self.announce(waiting);
    }

    /// Tells a node what is new for it, as far as there is room.
    fn tell_news(&self, peer: &NodeId) {
        // Locked while it is sent, so that nobody else sends the same.
        let mut replica = self.replica.lock();
        while let Some(update) = replica.news_for(peer) {
            let to = update.to;
            match self.post.now(peer, &Frame::News(update)) {
                Ok(()) => replica.sent(peer, to),
                // It goes on when there is room, or a link.
                Err(SendError::NoRoom | SendError::NotConnected) => return,
                Err(SendError::TooLarge) => {
                    stentor_engine::log!(error, %peer, "what is offered here is too large for another node");
                    return;
                }
            }
        }
    }

    /// Waits until the requests that are done for other nodes now, and by them, have ended: not for
    /// those that begin meanwhile.
    pub(crate) async fn requests_end(&self, until: Instant) {
        let (asked, served) = (self.asked.requests(), self.served.requests());
        while Instant::now() < until
            && !(asked.is_disjoint(&self.asked.requests())
                && served.is_disjoint(&self.served.requests()))
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a node on an errand as soon as there is room for it, and for so long as it takes when the
    /// node keeps up.
    pub(crate) async fn ask_in_turn(
        &self,
        node: &NodeId,
        errand: Errand,
    ) -> Result<Conversation, SendError> {
        let asked = self.asked.ask_in_turn(&self.post, node, errand);
        timeout(ROOM, asked).await.unwrap_or(Err(SendError::NoRoom))
    }

    /// A session of another node comes here.
    fn takes_from(&self, node: &NodeId) {
        if let (Some((key, value)), Some(mesh)) =
            (self.succession.takes_from(node), self.mesh().cloned())
        {
            tokio::spawn(async move { mesh.say(key, &value).await });
        }
    }

    /// A node of a newer release may wait for an answer.
    fn on_foreign(&self, from: &NodeId, frame: &[u8]) {
        match Foreign::decode(frame) {
            Some(Foreign::Ask(number)) => {
                self.post.soon(from, Frame::Said(number, Said::Refused(Refused::Unreachable)));
            }
            Some(Foreign::Said(number)) => self.asked.said_something_else(from, number),
            None => {}
        }
    }

    fn perform(&self, peer: &NodeId, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Offers(seq, definitions) => {
                    self.engine.peer_offers(peer.clone(), seq, definitions);
                }
                Effect::Unchanged(seq) => self.post.soon(peer, Frame::Shown(seq)),
                Effect::Told(facts) => self.engine.peer_told(facts),
                Effect::Missed => self.engine.peer_was_missed(),
                Effect::Have(position) => self.post.soon(peer, Frame::Have(position)),
            }
        }
    }
}

impl MeshHandler for Node {
    fn alive(&self, node: &NodeId, said: &BTreeMap<String, String>) {
        self.succession.heard(node, said);
        self.known.lock().insert(node.clone(), true);
        self.heard.notify_waiters();
    }

    fn up(&self, node: &NodeId, info: &PeerInfo) {
        stentor_engine::log!(info, %node, address = %info.addr, "a node is connected");
        self.settling.lock().up(node);
        let effects = self.replica.lock().up(node);
        self.perform(node, effects);
    }

    fn down(&self, node: &NodeId) {
        stentor_engine::log!(info, %node, "the link to a node is gone");
        self.replica.lock().down(node);
        self.settling.lock().down(node);
        // Nobody waits for it any more.
        self.news.notify_one();
        self.asked.lost(node);
        self.served.lost(node);
    }

    fn room(&self, node: &NodeId) {
        self.tell_news(node);
    }

    fn dead(&self, node: &NodeId) {
        stentor_engine::log!(info, %node, "a node is gone");
        let mut known = self.known.lock();
        known.insert(node.clone(), false);
        if known.len() > MOST_KNOWN {
            // Who is not known is as gone as who is known to be.
            known.retain(|_, alive| *alive);
        }
        drop(known);
        self.heard.notify_waiters();
        let effect = self.replica.lock().dead(node);
        self.perform(node, effect);
    }

    fn frame(&self, from: &NodeId, frame: Bytes, receipt: Receipt) {
        let bytes = frame.len();
        let frame = match Frame::decode(&frame) {
            Ok(frame) => frame,
            Err(error) => {
                stentor_engine::log!(warn, %from, %error, "a node says what is not understood");
                return self.on_foreign(from, &frame);
            }
        };
        match frame {
            Frame::Have(position) => {
                let known = self.replica.lock().has(from, position);
                if let Some(seq) = known {
                    self.settling.lock().confirmed(from, seq);
                }
                self.tell_news(from);
            }
            Frame::News(update) => {
                let effects = self.replica.lock().news(from, update);
                self.perform(from, effects);
            }
            Frame::Shown(seq) => {
                self.settling.lock().confirmed(from, seq);
                self.announce_settled();
            }
            Frame::Settled(seq) => {
                let mut settling = self.settling.lock();
                self.announce(settling.settled_elsewhere(from, seq));
            }
            Frame::Ask(number, errand) => {
                if matches!(errand, Errand::Adopt(_)) {
                    self.takes_from(from);
                }
                let errand = (errand, receipt);
                self.served.begin(&self.engine, &self.post, from, number, errand);
            }
            Frame::Said(number, said) => self.asked.said(from, number, said, bytes),
            Frame::Took(number, count) => self.served.took(from, number, count),
            Frame::Answer(number, message) => self.served.answer(from, number, &message),
            Frame::HangUp(number) => self.served.hang_up(from, number),
        }
    }
}

impl Peers for Node {
    fn reach(&self, node: &NodeId) -> Reach {
        let mut node = node.clone();
        for _ in 0..MOST_SUCCESSIONS {
            if node == *self.engine.node() {
                return Reach::Here;
            }
            if self.mesh().is_some_and(|mesh| mesh.is_connected(&node)) {
                return Reach::There(node);
            }
            if self.succession.has_taken(&node) {
                return Reach::Here;
            }
            match self.succession.successor(&node) {
                Some(successor) => node = successor,
                None => break,
            }
        }
        let node = &node;
        match self.known.lock().get(node) {
            Some(true) => Reach::Away,
            Some(false) => Reach::Gone,
            // A node that has just begun does not know all others yet.
            None if self.started.elapsed() < self.settles => Reach::Away,
            None => Reach::Gone,
        }
    }

    fn ask(&self, node: &NodeId, errand: Errand) -> Result<Conversation, Unreachable> {
        if node == self.engine.node() {
            // What it was to be asked for has come here meanwhile.
            return Ok(self.engine.ask_itself(errand));
        }
        self.asked.ask(&self.post, node, errand)
    }

    fn moved(&self, session: &SessionId) -> Option<NodeId> {
        self.succession.moved(session).or_else(|| {
            // One that is unknown here may be from a run before this one, which has left; but not one
            // that is somewhere else.
            let named = NodeId::of(session.as_str());
            match named.map_or(Reach::Here, |node| self.reach(&node)) {
                Reach::Here | Reach::Gone => self.succession.successor(self.engine.node()),
                Reach::There(_) | Reach::Away => None,
            }
        })
    }

    fn catalog_changed(&self, lists: &[ListKind]) {
        self.catalog_changed.lock().get_or_insert_default().extend(lists);
        self.news.notify_one();
    }

    fn registry_restarted(&self) {
        // Of this engine's own catalog, too, a change may not have been told.
        self.catalog_changed(&[]);
        let shown = self.replica.lock().shown();
        for (node, offers) in shown {
            self.perform(&node, [offers]);
        }
        self.engine.peer_was_missed();
    }

    fn offer_shown(&self, node: &NodeId, seq: u64, lists: &[ListKind]) {
        self.heard.notify_waiters();
        let lists = lists.iter().copied().collect();
        self.settling.lock().shown(node, seq, lists, Instant::now());
        self.post.soon(node, Frame::Shown(seq));
        // When to look again may be sooner.
        self.news.notify_one();
    }

    fn tell(&self, fact: Fact) {
        // After what was changed before.
        self.look_at_catalog();
        self.replica.lock().tell(fact);
        self.news.notify_one();
    }
}
