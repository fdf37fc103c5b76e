//! When a changed list is announced: once all nodes show it.
//!
//! A client that is notified of a change may read the list from any node. So the node with the
//! change waits until the others have confirmed that they show it; then it announces the change,
//! and sends the others a message to do so too. After a node has not confirmed in time, later
//! changes do not wait for it until it confirms again.
//!
//! Pure: the caller passes the time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use stentor_engine::{ListChanges, NodeId};
use tokio::time::Instant;

/// How long a change waits for the other nodes to confirm it.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(250);

/// How long this node waits for another node to settle its change. The message does not come if
/// that node was given up, or has come back; after this time the others should show the change too.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Changes that this node has not announced to its clients yet.
#[derive(Debug, Default)]
pub(crate) struct AnnounceBarrier {
    own: VecDeque<Change>,
    /// The connected nodes, how far each has confirmed, and whether changes wait for it.
    nodes: HashMap<NodeId, Confirmed>,
    /// Changes of other nodes, which this node shows.
    remote: HashMap<NodeId, VecDeque<Change>>,
}

#[derive(Debug)]
struct Change {
    seq: u64,
    lists: ListChanges,
    until: Instant,
}

#[derive(Debug)]
struct Confirmed {
    seq: u64,
    is_awaited: bool,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settled {
    /// The number up to which all nodes announce this node's own changes, if any.
    pub(crate) own: Option<u64>,
    pub(crate) lists: ListChanges,
}

impl AnnounceBarrier {
    /// Adds a change of this node's lists, which the replication log contains up to `seq`.
    pub(crate) fn changed(&mut self, seq: u64, lists: ListChanges, now: Instant) {
        if !lists.is_empty() {
            self.own.push_back(Change { seq, lists, until: now + CONFIRM_TIMEOUT });
        }
    }

    /// A node has connected: changes wait for it.
    pub(crate) fn up(&mut self, node: &NodeId) {
        self.nodes.insert(node.clone(), Confirmed { seq: 0, is_awaited: true });
    }

    /// A node shows this node's facts up to `seq`.
    pub(crate) fn confirmed(&mut self, node: &NodeId, seq: u64) {
        if let Some(confirmed) = self.nodes.get_mut(node) {
            *confirmed = Confirmed { seq: seq.max(confirmed.seq), is_awaited: true };
        }
    }

    pub(crate) fn down(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// This node shows another node's facts up to `seq`, or has removed the items of a dead node;
    /// that changes these lists.
    pub(crate) fn shown(&mut self, node: &NodeId, seq: u64, lists: ListChanges, now: Instant) {
        if !lists.is_empty() {
            let change = Change { seq, lists, until: now + SETTLE_TIMEOUT };
            self.remote.entry(node.clone()).or_default().push_back(change);
        }
    }

    /// All nodes show another node's facts up to `seq`: returns the lists to announce.
    pub(crate) fn settled_remotely(&mut self, node: &NodeId, seq: u64) -> ListChanges {
        let mut lists = ListChanges::default();
        if let Some(changes) = self.remote.get_mut(node) {
            // All changes are checked: an earlier run of the node counted with other numbers.
            changes.retain_mut(|change| {
                let settled = change.seq <= seq;
                if settled {
                    lists.join(std::mem::take(&mut change.lists));
                }
                !settled
            });
            if changes.is_empty() {
                self.remote.remove(node);
            }
        }
        lists
    }

    /// Removes the changes that all nodes show, and those that have waited too long.
    pub(crate) fn settled(&mut self, now: Instant) -> Settled {
        let mut settled = Settled::default();
        while let Some(change) = self.own.front() {
            let lags = |it: &&mut Confirmed| it.is_awaited && it.seq < change.seq;
            let mut laggards = self.nodes.values_mut().filter(lags).peekable();
            if laggards.peek().is_some() {
                if now < change.until {
                    break;
                }
                laggards.for_each(|confirmed| confirmed.is_awaited = false);
            }
            settled.own = Some(change.seq);
            settled.lists.join(self.own.pop_front().map(|it| it.lists).unwrap_or_default());
        }
        for changes in self.remote.values_mut() {
            while let Some(change) = changes.pop_front_if(|change| change.until <= now) {
                settled.lists.join(change.lists);
            }
        }
        self.remote.retain(|_, changes| !changes.is_empty());
        settled
    }

    /// The next deadline at which to call [`settled`](Self::settled), if nothing happens before.
    pub(crate) fn next(&self) -> Option<Instant> {
        let remote = self.remote.values().filter_map(VecDeque::front);
        self.own.front().into_iter().chain(remote).map(|change| change.until).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.remote.values().map(VecDeque::len).sum::<usize>()
    }

    /// The number of nodes that have not confirmed this node's facts up to `seq`.
    pub(crate) fn behind(&self, seq: u64) -> usize {
        self.nodes.values().filter(|confirmed| confirmed.seq < seq).count()
    }

    /// Removes all waiting changes and returns their lists.
    pub(crate) fn all(&mut self) -> ListChanges {
        let remote = self.remote.drain().flat_map(|(_, changes)| changes);
        let mut all = ListChanges::default();
        let changes = self.own.drain(..).chain(remote);
        changes.for_each(|change| all.join(change.lists));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use stentor_engine::remote::{
        Fact, PeerFacts, PeerRequest, PeerStream, Peers, Reach, Unreachable,
    };
    use stentor_engine::{Engine, ListKind, tool};

    use super::*;

    const TOOLS: ListKind = ListKind::Tools;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn tools() -> ListChanges {
        ListChanges::all([TOOLS])
    }

    #[test]
    fn a_change_is_announced_when_all_nodes_show_it() {
        let (mut barrier, now) = (AnnounceBarrier::default(), Instant::now());
        for name in ["a", "b"] {
            barrier.up(&node(name));
            barrier.confirmed(&node(name), 0);
        }
        barrier.changed(3, tools(), now);
        assert_eq!(barrier.settled(now), Settled::default());
        barrier.confirmed(&node("a"), 3);
        assert_eq!(barrier.settled(now), Settled::default());
        barrier.confirmed(&node("b"), 4);
        assert_eq!(barrier.settled(now), Settled { own: Some(3), lists: tools() });
        assert_eq!(barrier.next(), None);
    }

    #[test]
    fn without_other_nodes_no_change_waits() {
        let (mut barrier, now) = (AnnounceBarrier::default(), Instant::now());
        barrier.changed(1, tools(), now);
        assert_eq!(barrier.settled(now), Settled { own: Some(1), lists: tools() });
    }

    #[test]
    fn a_frozen_node_delays_one_change_and_no_later_change() {
        let (mut barrier, now) = (AnnounceBarrier::default(), Instant::now());
        barrier.up(&node("a"));
        barrier.confirmed(&node("a"), 0);
        barrier.changed(1, tools(), now);
        assert_eq!(barrier.settled(now), Settled::default());
        assert_eq!(barrier.next(), Some(now + CONFIRM_TIMEOUT));
        let later = now + CONFIRM_TIMEOUT;
        assert_eq!(barrier.settled(later), Settled { own: Some(1), lists: tools() });
        barrier.changed(2, tools(), later);
        assert_eq!(barrier.settled(later), Settled { own: Some(2), lists: tools() });
        barrier.confirmed(&node("a"), 2);
        barrier.changed(3, tools(), later);
        assert_eq!(barrier.settled(later), Settled::default(), "it is waited for again");
        barrier.down(&node("a"));
        assert_eq!(barrier.settled(later), Settled { own: Some(3), lists: tools() });
    }

    #[test]
    fn a_remote_change_is_announced_when_its_node_settles_it_or_after_a_timeout() {
        let (mut barrier, now) = (AnnounceBarrier::default(), Instant::now());
        barrier.shown(&node("a"), 5, tools(), now);
        assert_eq!(barrier.settled_remotely(&node("a"), 4), ListChanges::default());
        assert_eq!(barrier.settled_remotely(&node("a"), 5), tools());
        barrier.shown(&node("a"), 6, tools(), now);
        barrier.shown(&node("a"), 2, ListChanges::all([ListKind::Prompts]), now);
        assert_eq!(barrier.settled_remotely(&node("a"), 2), ListChanges::all([ListKind::Prompts]));
        assert_eq!(barrier.settled(now), Settled::default());
        let settled = barrier.settled(now + SETTLE_TIMEOUT);
        assert_eq!(settled, Settled { own: None, lists: tools() });
        barrier.shown(&node("a"), 7, tools(), now);
        barrier.changed(1, ListChanges::all([ListKind::Prompts]), now);
        assert_eq!(barrier.all(), ListChanges::all([TOOLS, ListKind::Prompts]));
    }

    /// Keeps what an engine reports of its catalog.
    #[derive(Clone, Debug, Default)]
    struct Reported(Arc<Mutex<Vec<ListChanges>>>);

    impl PeerFacts for Reported {
        fn catalog_changed(&self, changes: ListChanges) {
            self.0.lock().unwrap().push(changes);
        }

        fn offer_shown(&self, _node: &NodeId, _seq: u64, _changes: ListChanges) {}

        fn registry_restarted(&self) {}

        fn tell(&self, _fact: Fact) {}
    }

    impl Peers for Reported {
        fn reach(&self, _node: &NodeId) -> Reach {
            Reach::Dead
        }

        fn ask(&self, node: &NodeId, _: PeerRequest) -> Result<PeerStream, Unreachable> {
            Err(Unreachable(node.clone()))
        }
    }

    #[tokio::test]
    async fn changes_that_concern_some_are_joined_and_concern_no_others() {
        let engine = Engine::builder("test", "1").start().await.unwrap();
        let reported = Reported::default();
        engine.join_peers(Some(Arc::new(reported.clone())));
        for label in ["a", "b", "c"] {
            let new = tool(label, || async { "" }).only_for([label]);
            engine.catalog().add(new).await.unwrap();
        }
        engine.catalog().add(tool("open", || async { "" })).await.unwrap();
        let [a, b, c, open] = &reported.0.lock().unwrap()[..] else { panic!("{reported:?}") };
        let joined = |changes: &[&ListChanges]| {
            let mut all = ListChanges::default();
            changes.iter().for_each(|it| all.join((*it).clone()));
            all
        };

        let (mut barrier, now) = (AnnounceBarrier::default(), Instant::now());
        barrier.up(&node("x"));
        barrier.changed(1, a.clone(), now);
        barrier.changed(2, b.clone(), now);
        barrier.changed(3, c.clone(), now);
        barrier.confirmed(&node("x"), 2);
        let settled = barrier.settled(now);
        assert_eq!(settled, Settled { own: Some(2), lists: joined(&[a, b]) });
        assert_ne!(settled.lists, joined(&[a, b, c]));
        for (seq, changes) in [(1, a), (2, b), (3, c)] {
            barrier.shown(&node("y"), seq, changes.clone(), now);
        }
        assert_eq!(barrier.settled_remotely(&node("y"), 2), joined(&[a, b]));
        // What is left of both nodes, when this one leaves.
        assert_eq!(barrier.all(), joined(&[c, c]));
        barrier.changed(4, a.clone(), now);
        barrier.changed(5, open.clone(), now);
        barrier.confirmed(&node("x"), 5);
        assert_eq!(barrier.settled(now).lists, joined(&[open, a]), "it concerns everybody");
    }
}
