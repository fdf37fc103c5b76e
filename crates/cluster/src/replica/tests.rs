use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use stentor_engine::{ItemKind, Topic};

use super::*;

/// Several nodes, the messages in flight between them, and what each node shows its clients.
struct World {
    nodes: Vec<Node>,
    /// The messages in flight from one node to another, while there is a link.
    links: BTreeMap<(usize, usize), VecDeque<Frame>>,
}

struct Node {
    replica: Replica,
    offered: BTreeSet<u8>,
    shown: BTreeMap<usize, BTreeSet<u8>>,
    watched: BTreeMap<u8, bool>,
    /// What each node reports of URIs: whether it runs their hooks.
    watches: BTreeMap<usize, BTreeMap<u8, bool>>,
    /// The topics of each node that changed, in order; `None` means that all may have changed.
    received: BTreeMap<usize, Vec<Option<u8>>>,
    /// The topics that this node announced, in order.
    announced: Vec<u8>,
    first_up: BTreeMap<usize, usize>,
}

enum Frame {
    Have(Option<Position>),
    News(Update),
}

fn name(index: usize) -> NodeId {
    NodeId::new(format!("n{index}")).unwrap()
}

fn definition(name: u8) -> Definition {
    let json = Bytes::from(format!(r#"{{"name":"{name}"}}"#));
    Definition::new(ItemKind::Tools, name.to_string(), name.into(), json)
}

fn topic(uri: u8) -> Fact {
    Fact::Changed(Topic::Resource(uri.to_string().into()))
}

impl World {
    fn new(size: usize) -> Self {
        let node = |index| Node {
            replica: Replica::new(index as u64 + 1),
            offered: BTreeSet::new(),
            shown: BTreeMap::new(),
            watched: BTreeMap::new(),
            watches: BTreeMap::new(),
            received: BTreeMap::new(),
            announced: Vec::new(),
            first_up: BTreeMap::new(),
        };
        Self { nodes: (0..size).map(node).collect(), links: BTreeMap::new() }
    }

    fn perform(&mut self, at: usize, from: usize, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            let node = &mut self.nodes[at];
            match effect {
                Effect::Offers(_, Some(definitions)) => {
                    let names = definitions.iter().map(|it| it.key.parse().unwrap()).collect();
                    node.shown.insert(from, names);
                }
                Effect::Unchanged(_) => {}
                Effect::Offers(_, None) => {
                    node.shown.remove(&from);
                    node.watches.remove(&from);
                }
                Effect::Watches(reported) => {
                    assert!(node.shown.contains_key(&from), "it would not be forgotten");
                    let known = node.watches.entry(from).or_default();
                    for (uri, state) in reported {
                        let uri = uri.parse().unwrap();
                        match state.watched {
                            true => known.insert(uri, state.running),
                            false => known.remove(&uri),
                        };
                    }
                }
                Effect::Missed => node.received.entry(from).or_default().push(None),
                Effect::Notices(facts) => {
                    for fact in facts {
                        let Fact::Changed(Topic::Resource(uri)) = fact else { panic!("{fact:?}") };
                        node.received.entry(from).or_default().push(Some(uri.parse().unwrap()));
                    }
                }
                Effect::Have(position) => {
                    if let Some(link) = self.links.get_mut(&(at, from)) {
                        link.push_back(Frame::Have(position));
                    }
                }
            }
        }
    }

    fn up(&mut self, a: usize, b: usize) {
        if a == b || self.links.contains_key(&(a, b)) {
            return;
        }
        for (at, from) in [(a, b), (b, a)] {
            self.links.insert((at, from), VecDeque::new());
        }
        for (at, from) in [(a, b), (b, a)] {
            let effects = self.nodes[at].replica.up(&name(from));
            self.perform(at, from, effects);
        }
    }

    fn down(&mut self, a: usize, b: usize) {
        for (at, from) in [(a, b), (b, a)] {
            if self.links.remove(&(at, from)).is_some() {
                self.nodes[at].replica.down(&name(from));
            }
        }
    }

    fn dead(&mut self, at: usize, from: usize) {
        self.down(at, from);
        let effect = self.nodes[at].replica.dead(&name(from));
        self.perform(at, from, effect);
    }

    /// Sends what is new, in at most `space` updates.
    fn publish(&mut self, at: usize, to: usize, mut space: usize) {
        while let Some(link) = self.links.get_mut(&(at, to)).filter(|_| space > 0) {
            let Some(update) = self.nodes[at].replica.update_for(&name(to)) else { return };
            let position = update.to;
            link.push_back(Frame::News(update));
            self.nodes[at].replica.mark_sent(&name(to), position);
            space -= 1;
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let frame = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        match frame {
            None => return false,
            Some(Frame::Have(position)) => {
                self.nodes[to].replica.on_position(&name(from), position);
                if position.is_none() {
                    let announced = self.nodes[to].announced.len();
                    self.nodes[to].first_up.insert(from, announced);
                }
                self.publish(to, from, usize::MAX);
            }
            Some(Frame::News(update)) => {
                let effects = self.nodes[to].replica.on_update(&name(from), update);
                self.perform(to, from, effects);
            }
        }
        true
    }

    fn settle(&mut self) {
        let size = self.nodes.len();
        for (a, b) in (0..size).flat_map(|a| (0..size).map(move |b| (a, b))) {
            self.up(a, b);
        }
        let mut delivered = true;
        while delivered {
            delivered = false;
            for (a, b) in (0..size).flat_map(|a| (0..size).map(move |b| (a, b))) {
                self.publish(a, b, usize::MAX);
                while self.deliver(a, b) {
                    delivered = true;
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize, BTreeSet<u8>),
    Tell(usize, u8),
    Watch(usize, u8, Option<bool>),
    Up(usize, usize),
    Down(usize, usize),
    Dead(usize, usize),
    Publish(usize, usize),
    Deliver(usize, usize),
}

const SIZE: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let node = 0..SIZE;
    let pair = (0..SIZE, 0..SIZE);
    prop_oneof![
        2 => (node.clone(), proptest::collection::btree_set(0_u8..6, 0..5))
            .prop_map(|(node, names)| Step::Offer(node, names)),
        2 => (node.clone(), 0_u8..4).prop_map(|(node, uri)| Step::Tell(node, uri)),
        2 => (node, 0_u8..4, any::<Option<bool>>())
            .prop_map(|(node, uri, runs)| Step::Watch(node, uri, runs)),
        3 => pair.clone().prop_map(|(a, b)| Step::Up(a, b)),
        1 => pair.clone().prop_map(|(a, b)| Step::Down(a, b)),
        1 => pair.clone().prop_map(|(a, b)| Step::Dead(a, b)),
        3 => pair.clone().prop_map(|(a, b)| Step::Publish(a, b)),
        8 => pair.prop_map(|(a, b)| Step::Deliver(a, b)),
    ]
}

proptest! {
    #[test]
    fn after_any_split_all_show_the_same_and_have_heard_of_each_change(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(SIZE);
        for step in steps {
            match step {
                Step::Offer(node, names) => {
                    let node = &mut world.nodes[node];
                    node.replica.offer(names.iter().map(|name| definition(*name)).collect());
                    node.offered = names;
                }
                Step::Tell(node, uri) => {
                    world.nodes[node].replica.add_fact(topic(uri));
                    world.nodes[node].announced.push(uri);
                }
                Step::Watch(node, uri, runs) => {
                    let node = &mut world.nodes[node];
                    let running = runs == Some(true);
                    let state = WatchState { watched: runs.is_some(), running };
                    node.replica.add_fact(Fact::Watch(uri.to_string().into(), state));
                    node.watched.remove(&uri);
                    node.watched.extend(runs.map(|runs| (uri, runs)));
                }
                Step::Up(a, b) => world.up(a, b),
                Step::Down(a, b) => world.down(a, b),
                Step::Dead(a, b) if a != b => world.dead(a, b),
                Step::Dead(..) => {}
                Step::Publish(a, b) => world.publish(a, b, 1),
                Step::Deliver(a, b) => {
                    world.deliver(a, b);
                }
            }
        }
        world.settle();
        for (at, node) in world.nodes.iter().enumerate() {
            for (from, other) in world.nodes.iter().enumerate().filter(|(from, _)| *from != at) {
                prop_assert_eq!(node.shown.get(&from), Some(&other.offered), "at {} of {}", at, from);
                let watches = node.watches.get(&from).cloned().unwrap_or_default();
                prop_assert_eq!(&watches, &other.watched, "at {} of {}", at, from);
                // Each topic that changed since the two nodes first met was received, and none more
                // often than it changed.
                let since = other.first_up.get(&at).copied().unwrap_or_default();
                let changed = &other.announced[since..];
                let received = node.received.get(&from).map(Vec::as_slice).unwrap_or_default();
                for uri in 0..4 {
                    let count = |all: &[u8]| all.iter().filter(|it| **it == uri).count();
                    let times = received.iter().filter(|it| **it == Some(uri)).count();
                    prop_assert!(times <= count(&other.announced), "{} is told too often", uri);
                    let all_may_have = received.contains(&None);
                    prop_assert!(count(changed) == 0 || times > 0 || all_may_have, "{} is lost", uri);
                }
            }
        }
    }
}

#[test]
fn a_returning_node_is_shown_at_once_and_only_its_news_is_announced() {
    let mut world = World::new(2);
    world.nodes[0].replica.offer(vec![definition(1)]);
    world.settle();
    world.dead(1, 0);
    assert_eq!(world.nodes[1].shown.get(&0), None);
    world.nodes[0].replica.add_fact(topic(7));
    world.up(0, 1);
    assert_eq!(world.nodes[1].shown.get(&0), Some(&BTreeSet::from([1])), "before any frame");
    world.settle();
    assert_eq!(world.nodes[1].received.get(&0), Some(&vec![Some(7)]));
}

#[test]
fn a_restored_offer_confirms_only_facts_received_over_this_link() {
    let (mut sender, mut receiver) = (Replica::new(1), Replica::new(2));
    let (one, other) = (name(1), name(2));
    let seq = sender.offer(vec![definition(1)]);
    let shown = |replica: &Replica| match &replica.shown_offers()[..] {
        [(_, Effect::Offers(seq, Some(_)))] => *seq,
        effects => panic!("{effects:?}"),
    };
    receiver.up(&one);
    sender.on_position(&other, None);
    let update = sender.update_for(&other).expect("something new");
    receiver.on_update(&one, update);
    assert_eq!(shown(&receiver), seq);
    // The other end may be another run of the node now.
    receiver.down(&one);
    receiver.up(&one);
    assert_eq!(shown(&receiver), 0);
}
