//! When a changed list is announced: once all nodes show it.
//!
//! A client that hears of a change reads the list from any node. So the node where something changed
//! waits until the others have confirmed that they show it, and then tells them to announce it, as it
//! does itself. A node that does not confirm in time is not waited for again until it does.
//!
//! Pure, but for the clock that it is told.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use stentor_engine::{ListKind, NodeId};
use tokio::time::Instant;

/// How long a change waits for the other nodes.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a node waits for the word of the node where something changed. It does not come from one
/// that was given up, or that has come back: by then the others should have noticed, too.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) type Lists = BTreeSet<ListKind>;

/// Changes that clients of this node are not told of yet.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Changes of this node.
    own: VecDeque<Change>,
    /// Nodes that are connected, how far each has confirmed, and whether it is waited for.
    nodes: HashMap<NodeId, Confirmed>,
    /// Changes of other nodes, which this one shows.
    foreign: HashMap<NodeId, VecDeque<Change>>,
}

#[derive(Debug)]
struct Change {
    seq: u64,
    lists: Lists,
    until: Instant,
}

#[derive(Debug)]
struct Confirmed {
    seq: u64,
    is_awaited: bool,
}

/// What is to be announced now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settled {
    /// Up to where this node's own changes are to be announced everywhere, if any.
    pub(crate) own: Option<u64>,
    /// What this node is to announce.
    pub(crate) lists: Lists,
}

impl Settling {
    /// These lists of this node changed, as its feed says up to `seq`.
    pub(crate) fn changed(&mut self, seq: u64, lists: Lists, now: Instant) {
        if !lists.is_empty() {
            self.own.push_back(Change { seq, lists, until: now + PATIENCE });
        }
    }

    /// A node is connected: it is waited for.
    pub(crate) fn up(&mut self, node: &NodeId) {
        self.nodes.insert(node.clone(), Confirmed { seq: 0, is_awaited: true });
    }

    /// A node shows what this one has told up to here.
    pub(crate) fn confirmed(&mut self, node: &NodeId, seq: u64) {
        if let Some(confirmed) = self.nodes.get_mut(node) {
            *confirmed = Confirmed { seq: seq.max(confirmed.seq), is_awaited: true };
        }
    }

    /// A node is not connected any more: it is not waited for.
    pub(crate) fn down(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// This node shows what another one has told up to here, or that it has gone, which changes these
    /// lists.
    pub(crate) fn shown(&mut self, node: &NodeId, seq: u64, lists: Lists, now: Instant) {
        if !lists.is_empty() {
            let change = Change { seq, lists, until: now + FOREIGN_PATIENCE };
            self.foreign.entry(node.clone()).or_default().push_back(change);
        }
    }

    /// All nodes show what another one has told up to here.
    pub(crate) fn settled_elsewhere(&mut self, node: &NodeId, seq: u64) -> Lists {
        let mut lists = Lists::new();
        if let Some(changes) = self.foreign.get_mut(node) {
            // Not only the first ones: what it offered in a run before this one has other numbers.
            changes.retain(|change| {
                let settled = change.seq <= seq;
                if settled {
                    lists.extend(change.lists.iter().copied());
                }
                !settled
            });
            if changes.is_empty() {
                self.foreign.remove(node);
            }
        }
        lists
    }

    /// What all nodes show by now, or what has waited for long enough.
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
            settled
                .lists
                .extend(self.own.pop_front().map(|change| change.lists).unwrap_or_default());
        }
        for changes in self.foreign.values_mut() {
            while let Some(change) = changes.pop_front_if(|change| change.until <= now) {
                settled.lists.extend(change.lists);
            }
        }
        self.foreign.retain(|_, changes| !changes.is_empty());
        settled
    }

    /// When it is time to look again, unless something happens before.
    pub(crate) fn next(&self) -> Option<Instant> {
        let foreign = self.foreign.values().filter_map(VecDeque::front);
        self.own.front().into_iter().chain(foreign).map(|change| change.until).min()
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.foreign.values().map(VecDeque::len).sum::<usize>()
    }

    /// How many nodes have not confirmed what this one has told up to here.
    pub(crate) fn behind(&self, seq: u64) -> usize {
        self.nodes.values().filter(|confirmed| confirmed.seq < seq).count()
    }

    /// Everything that waits.
    pub(crate) fn all(&mut self) -> Lists {
        let foreign = self.foreign.drain().flat_map(|(_, changes)| changes);
        let all: HashSet<_> = self.own.drain(..).chain(foreign).flat_map(|it| it.lists).collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: ListKind = ListKind::Tools;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn tools() -> Lists {
        Lists::from([TOOLS])
    }

    #[test]
    fn a_change_is_announced_when_all_nodes_show_it() {
        let (mut settling, now) = (Settling::default(), Instant::now());
        for name in ["a", "b"] {
            settling.up(&node(name));
            settling.confirmed(&node(name), 0);
        }
        settling.changed(3, tools(), now);
        assert_eq!(settling.settled(now), Settled::default());
        settling.confirmed(&node("a"), 3);
        assert_eq!(settling.settled(now), Settled::default());
        settling.confirmed(&node("b"), 4);
        assert_eq!(settling.settled(now), Settled { own: Some(3), lists: tools() });
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn without_other_nodes_nothing_waits() {
        let (mut settling, now) = (Settling::default(), Instant::now());
        settling.changed(1, tools(), now);
        assert_eq!(settling.settled(now), Settled { own: Some(1), lists: tools() });
    }

    #[test]
    fn a_node_that_freezes_holds_up_one_change_for_a_moment_and_no_other() {
        let (mut settling, now) = (Settling::default(), Instant::now());
        settling.up(&node("a"));
        settling.confirmed(&node("a"), 0);
        settling.changed(1, tools(), now);
        assert_eq!(settling.settled(now), Settled::default());
        assert_eq!(settling.next(), Some(now + PATIENCE));
        let later = now + PATIENCE;
        assert_eq!(settling.settled(later), Settled { own: Some(1), lists: tools() });
        settling.changed(2, tools(), later);
        assert_eq!(settling.settled(later), Settled { own: Some(2), lists: tools() });
        settling.confirmed(&node("a"), 2);
        settling.changed(3, tools(), later);
        assert_eq!(settling.settled(later), Settled::default(), "it is waited for again");
        settling.down(&node("a"));
        assert_eq!(settling.settled(later), Settled { own: Some(3), lists: tools() });
    }

    #[test]
    fn a_change_elsewhere_is_announced_on_the_word_of_its_node_or_without_it_after_a_while() {
        let (mut settling, now) = (Settling::default(), Instant::now());
        settling.shown(&node("a"), 5, tools(), now);
        assert_eq!(settling.settled_elsewhere(&node("a"), 4), Lists::new());
        assert_eq!(settling.settled_elsewhere(&node("a"), 5), tools());
        settling.shown(&node("a"), 6, tools(), now);
        settling.shown(&node("a"), 2, Lists::from([ListKind::Prompts]), now);
        assert_eq!(settling.settled_elsewhere(&node("a"), 2), Lists::from([ListKind::Prompts]));
        assert_eq!(settling.settled(now), Settled::default());
        let settled = settling.settled(now + FOREIGN_PATIENCE);
        assert_eq!(settled, Settled { own: None, lists: tools() });
        settling.shown(&node("a"), 7, tools(), now);
        settling.changed(1, Lists::from([ListKind::Prompts]), now);
        assert_eq!(settling.all(), Lists::from([TOOLS, ListKind::Prompts]));
    }
}
