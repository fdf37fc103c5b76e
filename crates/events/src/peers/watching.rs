//! Nodes tell each other which arguments their clients watch, so that one of them runs the hooks of an
//! event type for all.
//!
//! A node tells each other one its whole list once, then what changes, in order: each message has a
//! number. With its list of types a node says which number it has heard last. If that is another one
//! than the teller knows, because the other one took it for gone, it is told the whole list again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use stentor_engine::{Engine, NodeId};
use tokio::time::Instant;

use super::message::PeerMessage;
use super::{Peer, Peers, ask};
use crate::running::RunningType;
use crate::shared::Shared;
use crate::watches::{Members, Said, WeakWatches};

/// About how many bytes of arguments are in one message.
const PART_BYTES: usize = 256 << 10;

/// Changes of which a node is told one by one. After more it is told the whole list.
const MAX_CHANGES: usize = 10_000;

/// How long hooks wait for what a node says of itself.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// The name of a type, and arguments.
type Key = (Arc<str>, Arc<str>);

/// What of some arguments is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    name: Arc<str>,
    arguments: Arc<str>,
    said: Said,
}

/// What another node and this one have told each other.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The types of the other node that have hooks.
    hooked: BTreeSet<Arc<str>>,
    /// Whether it has been told the whole list; the number of the last message; what has changed since.
    told: bool,
    number: u64,
    changed: HashMap<Key, WeakWatches>,
    /// The number of the last message that came.
    heard: u64,
    /// The whole list that is coming.
    coming: Option<HashSet<Key>>,
    /// Since when its whole list is missing.
    unheard: Option<Instant>,
}

impl Talk {
    /// The node has these types with hooks, and has heard this one up to this number. `is_new` if it is
    /// another process than before.
    pub(super) fn learn(&mut self, hooked: BTreeSet<Arc<str>>, heard: Option<u64>, is_new: bool) {
        self.hooked = hooked;
        if is_new {
            self.told = false;
            self.hear_anew();
        }
        if heard.is_some_and(|heard| heard != self.number) {
            self.told = false;
        }
    }

    /// The other node has to tell its whole list again.
    fn hear_anew(&mut self) {
        (self.heard, self.coming, self.unheard) = (0, None, Some(Instant::now()));
    }
}

impl Peers {
    /// The nodes that have a type with hooks, besides this one.
    fn hooked(&self, name: &str) -> (Vec<NodeId>, bool) {
        let (nodes, now) = (self.nodes.lock(), Instant::now());
        let (mut others, mut unheard) = (Vec::new(), false);
        for peer in nodes.values() {
            let state = peer.state.lock();
            if state.talk.hooked.contains(name) {
                others.push(peer.node.clone());
                unheard |= state.talk.unheard.is_some_and(|since| now - since < HEARD_WITHIN);
            }
        }
        others.sort_unstable();
        (others, unheard)
    }

    /// The number of the last message of a node about what it watches.
    pub(super) fn heard(&self, node: &NodeId) -> u64 {
        let nodes = self.nodes.lock();
        nodes.get(node).map_or(0, |peer| peer.state.lock().talk.heard)
    }

    /// What this node says of these arguments has changed.
    pub(crate) fn tell_watch(
        &self,
        name: &Arc<str>,
        arguments: &Arc<str>,
        watches: impl Fn() -> WeakWatches,
    ) {
        if !self.are_some() {
            return;
        }
        for peer in self.nodes.lock().values() {
            let talk = &mut peer.state.lock().talk;
            if talk.told {
                talk.changed.insert((name.clone(), arguments.clone()), watches());
                talk.told = talk.changed.len() <= MAX_CHANGES;
            }
        }
        self.grown.notify_waiters();
    }

    /// All nodes have to tell this one their whole lists again: there is a type that they concern.
    pub(crate) fn hear_anew(&self) {
        self.nodes.lock().values().for_each(|peer| peer.state.lock().talk.hear_anew());
    }

    /// Notes a message of a node. `None` if this process of the node is unknown, and has to tell all
    /// again. Else the whole list, if this is its last part.
    fn hear(&self, node: &NodeId, message: &Watches) -> Option<Option<HashSet<Key>>> {
        let nodes = self.nodes.lock();
        let mut state = nodes.get(node)?.state.lock();
        if state.epoch != Some(message.epoch) {
            return None;
        }
        let talk = &mut state.talk;
        // What does not follow what was heard last leaves something out: the whole list comes then.
        if message.begins || message.number == talk.heard + 1 {
            talk.heard = message.number;
        }
        if message.begins {
            talk.coming = Some(HashSet::default());
        }
        if let Some(coming) = &mut talk.coming {
            coming.extend(message.told.iter().map(|it| (it.name.clone(), it.arguments.clone())));
        }
        if !message.ends {
            return Some(None);
        }
        let whole = talk.coming.take();
        if whole.is_some() {
            talk.unheard = None;
        }
        Some(whole)
    }
}

/// What a node tells another one of the arguments that its clients watch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Watches {
    node: NodeId,
    /// Of the process that tells it.
    epoch: u64,
    number: u64,
    /// Whether a whole list begins with this message, and whether it ends.
    begins: bool,
    ends: bool,
    told: Vec<Told>,
}

/// Another node tells something.
pub(super) fn receive(shared: &Shared, message: Watches) {
    let Some(whole) = shared.peers.hear(&message.node, &message) else { return };
    for Told { name, arguments, said } in message.told {
        if let Some(running) = shared.find(&name) {
            running.watches.said(&message.node, &arguments, said);
        }
    }
    if let Some(whole) = whole {
        for running in shared.all() {
            let name = running.name();
            let is_told = |arguments: &str| whole.contains(&(name.clone(), arguments.into()));
            running.watches.says_no_more(&message.node, is_told);
        }
        look_at_members(shared);
    }
}

/// Nodes that are gone, or were restarted, watch nothing any more.
pub(super) fn forget(shared: &Shared, gone: &[NodeId]) {
    let all = shared.all();
    for node in gone {
        all.iter().for_each(|running| running.watches.says_no_more(node, |_| false));
        // What a new process has told meanwhile is forgotten, too.
        if let Some(peer) = shared.peers.nodes.lock().get(node) {
            peer.state.lock().talk.hear_anew();
        }
    }
    look_at_members(shared);
}

/// Each type with hooks is told which nodes there are for it.
pub(crate) fn look_at_members(shared: &Shared) {
    let Some(engine) = shared.engine.load_full() else { return };
    for running in shared.all() {
        let (others, unheard) = shared.peers.hooked(&running.name());
        let own = running.watches.has_hooks().then(|| engine.node().clone());
        running.watches.members(Members { own, others, unheard });
    }
}

/// Tells a node what it has to know. `None` if it does not answer.
pub(super) async fn tell(shared: &Shared, engine: &Engine, peer: &Peer) -> Option<()> {
    let hooked: Vec<_> = shared.all().into_iter().filter(|it| it.watches.has_hooks()).collect();
    let (whole, told) = {
        let mut state = peer.state.lock();
        let changed = std::mem::take(&mut state.talk.changed);
        let whole = !state.talk.told;
        if whole && hooked.is_empty() {
            return Some(());
        }
        // What changes from here on is told afterwards.
        state.talk.told = true;
        drop(state);
        match whole {
            true => (true, all(&hooked)),
            false => (false, changed.into_iter().map(Told::now).collect()),
        }
    };
    let mut left = told.into_iter().peekable();
    let mut begins = whole;
    while begins || left.peek().is_some() {
        let told = part(&mut left);
        let ends = whole && left.peek().is_none();
        let number = peer.state.lock().talk.number + 1;
        let (node, epoch) = (engine.node().clone(), shared.epoch());
        let message = Watches { node, epoch, number, begins, ends, told };
        ask(engine, &peer.node, &PeerMessage::Watches(message)).await?;
        peer.state.lock().talk.number = number;
        begins = false;
    }
    Some(())
}

/// All that this node says.
fn all(hooked: &[Arc<RunningType>]) -> Vec<Told> {
    let mut told = Vec::new();
    for running in hooked {
        let name = running.name();
        let says = running.watches.says_all().into_iter();
        told.extend(says.map(|(arguments, said)| Told { name: name.clone(), arguments, said }));
    }
    told
}

/// What goes into the next message.
fn part(left: &mut impl Iterator<Item = Told>) -> Vec<Told> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    while bytes < PART_BYTES
        && let Some(told) = left.next()
    {
        bytes += told.arguments.len() + told.name.len();
        part.push(told);
    }
    part
}

impl Told {
    /// What is said now. Of a type that is gone nothing is.
    fn now(((name, arguments), watches): (Key, WeakWatches)) -> Self {
        let said = watches.says(&arguments);
        Self { name, arguments, said }
    }
}

/// The node did not answer: it is told the whole list when it does.
pub(super) fn lost(peer: &Peer) {
    peer.state.lock().talk.told = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_heard_something_else_is_told_all_again() {
        let mut talk = Talk { told: true, number: 7, ..Talk::default() };
        talk.learn(BTreeSet::new(), None, false);
        talk.learn(BTreeSet::new(), Some(7), false);
        assert!(talk.told);
        // It has taken this node for gone.
        talk.learn(BTreeSet::new(), Some(0), false);
        assert!(!talk.told);
        let mut talk = Talk { told: true, number: 7, heard: 3, ..Talk::default() };
        talk.learn(BTreeSet::new(), Some(7), true);
        assert!(!talk.told && talk.heard == 0 && talk.unheard.is_some());
    }

    #[test]
    fn a_long_list_is_sent_in_parts() {
        let arguments: Arc<str> = "x".repeat(16 << 10).into();
        let told =
            || Told { name: "n".into(), arguments: arguments.clone(), said: Said::default() };
        let mut left = std::iter::repeat_with(told).take(100);
        let mut parts = Vec::new();
        loop {
            match part(&mut left) {
                last if last.is_empty() => break,
                next => parts.push(next.len()),
            }
        }
        assert_eq!(parts.iter().sum::<usize>(), 100);
        assert!(parts.len() > 5 && parts.iter().all(|it| *it <= 16), "{parts:?}");
    }

    #[test]
    fn a_list_that_comes_in_parts_is_whole_with_the_last_one() {
        let (peers, node) = (Peers::default(), NodeId::new("b").unwrap());
        let message = |number, begins, ends, of: &str| {
            let told = Told { name: "n".into(), arguments: of.into(), said: Said::default() };
            Watches { node: node.clone(), epoch: 9, number, begins, ends, told: vec![told] }
        };
        assert!(peers.hear(&node, &message(1, true, true, "x")).is_none(), "it is unknown");
        assert_eq!(peers.heard(&node), 0);
        let peer = Arc::new(Peer::new(&node));
        peers.nodes.lock().insert(node.clone(), peer.clone());
        peer.state.lock().epoch = Some(8);
        assert!(peers.hear(&node, &message(1, true, true, "x")).is_none(), "of another process");
        peer.state.lock().epoch = Some(9);
        assert_eq!(peers.hear(&node, &message(1, true, false, "x")), Some(None));
        let whole = peers.hear(&node, &message(2, false, true, "y")).flatten().unwrap();
        assert_eq!((whole.len(), peers.heard(&node)), (2, 2));
        // A change is no list.
        assert_eq!(peers.hear(&node, &message(3, false, false, "z")), Some(None));
        assert_eq!(peers.heard(&node), 3);
        // A change or the rest of a list is not enough for who has to hear all.
        peers.hear_anew();
        assert_eq!(peers.hear(&node, &message(4, false, true, "z")), Some(None));
        let is_unheard =
            || peers.nodes.lock().values().all(|it| it.state.lock().talk.unheard.is_some());
        assert!(peers.heard(&node) == 0 && is_unheard());
        assert!(peers.hear(&node, &message(5, true, true, "z")).flatten().is_some());
        assert!(peers.heard(&node) == 5 && !is_unheard());
    }
}
