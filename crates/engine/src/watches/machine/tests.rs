//! Single steps of a machine, and random steps of several nodes.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn uri(number: usize) -> Arc<str> {
    format!("a://{number}").into()
}

fn name(index: usize) -> NodeId {
    NodeId::new(format!("n{index}")).unwrap()
}

fn own(hooks: u32) -> Option<HookOffer<u32>> {
    Some(HookOffer { own: Some(hooks), others: Vec::new() })
}

fn told(watched: bool, running: bool) -> Output<u32> {
    Output::Tell(uri(0), WatchState { watched, running })
}

fn run(hook: Hook, hooks: u32) -> Output<u32> {
    Output::Run(hook, uri(0), hooks)
}

#[test]
fn a_watcher_that_flaps_while_a_hook_runs_ends_in_the_newest_state() {
    let mut machine = Machine::new(name(0));
    machine.local(&uri(0), true, own(1));
    assert_eq!(machine.outputs(), [run(Hook::Watch, 1), told(true, true)]);
    for watched in [false, true, false, true] {
        machine.local(&uri(0), watched, own(1));
        assert_eq!(machine.outputs(), [told(watched, true)], "one hook at a time");
    }
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [], "it is watched");
    machine.local(&uri(0), false, own(1));
    machine.local(&uri(0), true, own(1));
    let outputs = machine.outputs();
    assert_eq!(outputs, [run(Hook::Unwatch, 1), told(false, true), told(true, true)]);
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [run(Hook::Watch, 1)]);
    machine.local(&uri(0), false, own(1));
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [told(false, true), run(Hook::Unwatch, 1)]);
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [told(false, false)]);
    assert!(machine.uris.is_empty());
}

#[test]
fn only_uris_with_hooks_are_kept_and_reported() {
    let mut machine = Machine::<u32>::new(name(0));
    for number in 0..100 {
        machine.local(&uri(number), true, None);
    }
    assert!(machine.uris.is_empty() && machine.outputs().is_empty());
    let hooked = |it: &str| (it == "a://0").then(|| own(1)).flatten();
    let all: Vec<_> = (0..100).map(uri).collect();
    machine.recount(&all, hooked);
    assert_eq!(machine.outputs(), [run(Hook::Watch, 1), told(true, true)]);
    assert_eq!(machine.uris.len(), 1);
    machine.recount(&all, |_| None);
    assert_eq!(machine.outputs(), [told(false, true)], "its first hook still runs");
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [run(Hook::Unwatch, 1)]);
    machine.finished(&uri(0));
    assert!(machine.uris.is_empty());
}

#[test]
fn a_replaced_item_ends_its_hooks_before_the_new_ones_begin() {
    let mut machine = Machine::new(name(0));
    machine.local(&uri(0), true, own(1));
    machine.finished(&uri(0));
    machine.outputs();
    machine.recount([&uri(0)], |_| own(2));
    assert_eq!(machine.outputs(), [run(Hook::Unwatch, 1)]);
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [run(Hook::Watch, 2)]);
}

#[test]
fn a_node_waits_for_the_one_that_ran_the_hooks_before_and_takes_over_when_it_is_gone() {
    let mut machine = Machine::new(name(0));
    let state = WatchState { watched: true, running: true };
    machine.remote(&name(1), &uri(0), state, own(1));
    assert_eq!(machine.outputs(), []);
    machine.local(&uri(0), true, own(1));
    assert_eq!(machine.outputs(), [told(true, false)]);
    machine.forget(&name(1));
    assert_eq!(machine.outputs(), [run(Hook::Watch, 1), told(true, true)]);
    machine.close();
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [told(false, true), run(Hook::Unwatch, 1)]);
    machine.local(&uri(0), true, own(1));
    machine.finished(&uri(0));
    assert_eq!(machine.outputs(), [told(false, false)]);
}

const NODES: usize = 3;
const URIS: usize = 3;

/// What a node reports to another one.
#[derive(Clone, Copy, Debug)]
enum Report {
    /// The hooks that it offers, for all URIs, or none.
    Offer(bool),
    Watch(usize, WatchState),
}

#[derive(Debug)]
struct Node {
    machine: Machine<u32>,
    /// Its own hooks, if it offers any. A replaced item has others.
    hooks: Option<u32>,
    local: [bool; URIS],
    /// The nodes that it knows to offer hooks.
    known: BTreeMap<usize, bool>,
    /// The hook that runs, and the one that ran last.
    running: [Option<(Hook, u32)>; URIS],
    last: [Option<(Hook, u32)>; URIS],
    watches: BTreeMap<usize, WatchState>,
}

impl Node {
    fn new(index: usize) -> Self {
        Self {
            machine: Machine::new(name(index)),
            hooks: None,
            local: [false; URIS],
            known: BTreeMap::new(),
            running: [None; URIS],
            last: [None; URIS],
            watches: BTreeMap::new(),
        }
    }

    fn offer(&self) -> Option<HookOffer<u32>> {
        let others: Vec<_> =
            self.known.iter().filter(|(_, offers)| **offers).map(|(it, _)| name(*it)).collect();
        let offer = HookOffer { own: self.hooks, others };
        (offer.own.is_some() || !offer.others.is_empty()).then_some(offer)
    }

    fn recount(&mut self) {
        let offer = self.offer();
        let local: Vec<_> = (0..URIS).filter(|it| self.local[*it]).map(uri).collect();
        self.machine.recount(&local, |_| offer.clone());
    }
}

struct World {
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), VecDeque<Report>>,
}

impl World {
    fn new() -> Self {
        let pairs = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b)));
        let links = pairs.filter(|(a, b)| a != b).map(|pair| (pair, VecDeque::new())).collect();
        Self { nodes: (0..NODES).map(Node::new).collect(), links }
    }

    fn tell(&mut self, from: usize, report: Report) {
        for ((_, _), link) in self.links.iter_mut().filter(|((it, _), _)| *it == from) {
            link.push_back(report);
        }
    }

    /// Does what the machine of a node asks for.
    fn perform(&mut self, at: usize) -> Result<(), TestCaseError> {
        for output in self.nodes[at].machine.outputs() {
            let node = &mut self.nodes[at];
            let number = |uri: Arc<str>| uri[4..].parse::<usize>().unwrap();
            match output {
                Output::Run(hook, uri, hooks) => {
                    let uri = number(uri);
                    prop_assert_eq!(node.running[uri], None, "one hook of a URI at a time");
                    let before = node.last[uri].map(|(hook, _)| hook);
                    match hook {
                        Hook::Watch => prop_assert_ne!(before, Some(Hook::Watch)),
                        Hook::Unwatch => {
                            prop_assert_eq!(node.last[uri], Some((Hook::Watch, hooks)));
                        }
                    }
                    (node.running[uri], node.last[uri]) =
                        (Some((hook, hooks)), Some((hook, hooks)));
                }
                Output::Tell(uri, state) => {
                    let uri = number(uri);
                    node.watches.insert(uri, state);
                    self.tell(at, Report::Watch(uri, state));
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize, to: usize) -> Result<bool, TestCaseError> {
        let report = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let node = &mut self.nodes[to];
        match report {
            None => return Ok(false),
            Some(Report::Offer(offers)) => {
                node.known.insert(from, offers);
                node.recount();
            }
            Some(Report::Watch(number, state)) => {
                let offer = node.offer();
                node.machine.remote(&name(from), &uri(number), state, offer);
            }
        }
        self.perform(to)?;
        Ok(true)
    }

    /// A node dies, the others notice it, and it starts again without any state.
    fn restart(&mut self, at: usize) -> Result<(), TestCaseError> {
        self.nodes[at] = Node::new(at);
        for other in (0..NODES).filter(|it| *it != at) {
            let node = &mut self.nodes[other];
            node.machine.forget(&name(at));
            node.known.remove(&at);
            node.recount();
            let mut reports = vec![Report::Offer(node.hooks.is_some())];
            reports.extend(node.watches.iter().map(|(uri, state)| Report::Watch(*uri, *state)));
            self.links.insert((other, at), reports.into());
            self.links.insert((at, other), VecDeque::new());
            self.perform(other)?;
        }
        Ok(())
    }

    fn finish(&mut self, at: usize, number: usize) -> Result<bool, TestCaseError> {
        let ran = self.nodes[at].running[number].take().is_some();
        if ran {
            self.nodes[at].machine.finished(&uri(number));
            self.perform(at)?;
        }
        Ok(ran)
    }

    /// Everything arrives, and all hooks end.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for round in 0.. {
            prop_assert!(round < 1_000, "it never ends");
            let mut moved = false;
            for at in 0..NODES {
                for other in (0..NODES).filter(|it| *it != at) {
                    moved |= self.deliver(other, at)?;
                }
                for number in 0..URIS {
                    moved |= self.finish(at, number)?;
                }
            }
            if !moved {
                return Ok(());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for number in 0..URIS {
            let is_watched = self.nodes.iter().any(|node| node.local[number]);
            let offers = self.nodes.iter().filter_map(|node| node.hooks).collect::<Vec<_>>();
            let watching: Vec<_> = self
                .nodes
                .iter()
                .filter(|node| matches!(node.last[number], Some((Hook::Watch, _))))
                .collect();
            let expected = usize::from(is_watched && !offers.is_empty());
            prop_assert_eq!(watching.len(), expected, "uri {}", number);
            for node in watching {
                prop_assert_eq!(node.last[number], node.hooks.map(|it| (Hook::Watch, it)));
            }
        }
        let offered = self.nodes.iter().any(|node| node.hooks.is_some());
        let watched = (0..URIS).any(|uri| self.nodes.iter().any(|node| node.local[uri]));
        if !(offered && watched) {
            prop_assert!(self.nodes.iter().all(|node| node.machine.uris.is_empty()));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Watch(usize, usize, bool),
    Offer(usize, Option<u32>),
    Finish(usize, usize),
    Deliver(usize, usize),
    Recount(usize),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    let pair = (0..NODES, 0..URIS);
    prop_oneof![
        6 => (pair.clone(), any::<bool>()).prop_map(|((node, uri), it)| Step::Watch(node, uri, it)),
        3 => (node.clone(), proptest::option::weighted(0.7, 0..3_u32))
            .prop_map(|(node, hooks)| Step::Offer(node, hooks)),
        6 => pair.prop_map(|(node, uri)| Step::Finish(node, uri)),
        10 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Deliver(from, to)),
        1 => node.clone().prop_map(Step::Recount),
        1 => node.prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn exactly_one_node_watches_what_is_watched_and_offered_once_all_is_quiet(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Watch(at, number, watched) => {
                    let node = &mut world.nodes[at];
                    node.local[number] = watched;
                    let offer = node.offer();
                    node.machine.local(&uri(number), watched, offer);
                    world.perform(at)?;
                }
                Step::Offer(at, hooks) => {
                    world.nodes[at].hooks = hooks;
                    world.nodes[at].recount();
                    world.tell(at, Report::Offer(hooks.is_some()));
                    world.perform(at)?;
                }
                Step::Finish(at, number) => {
                    world.finish(at, number)?;
                }
                Step::Deliver(from, to) => {
                    world.deliver(from, to)?;
                }
                Step::Recount(at) => {
                    world.nodes[at].recount();
                    world.perform(at)?;
                }
                Step::Restart(at) => world.restart(at)?,
            }
        }
        world.settle()?;
        world.check()?;
    }

    #[test]
    fn a_uri_moves_only_to_or_from_a_node_that_comes_or_goes(which in any::<Index>()) {
        let all: Vec<_> = (0..5).map(name).collect();
        let number = uri(which.index(10_000));
        let best = |nodes: &[NodeId]| {
            nodes.iter().max_by_key(|node| rank(node, &number)).cloned().unwrap()
        };
        let before = best(&all[..4]);
        let after = best(&all);
        prop_assert!(after == before || after == all[4]);
    }
}
