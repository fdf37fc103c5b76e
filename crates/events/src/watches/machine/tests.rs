use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn arguments(name: &str) -> Arc<str> {
    name.into()
}

/// Nodes that tell each other everything, in order, when the test lets them.
#[derive(Default)]
struct Nodes {
    machines: BTreeMap<NodeId, Machine<()>>,
    /// From whom, to whom, what.
    telling: VecDeque<(NodeId, NodeId, Arc<str>, Said)>,
    /// Hooks that run.
    running: Vec<(NodeId, Arc<str>)>,
    /// Those who have begun: by arguments.
    begun: BTreeMap<Arc<str>, BTreeSet<NodeId>>,
    /// All hooks.
    log: Vec<(NodeId, Hook)>,
}

impl Nodes {
    fn of(names: &[&str]) -> Self {
        let mut nodes = Self::default();
        for name in names {
            nodes.machines.insert(node(name), Machine::new("type".into()));
        }
        nodes.members();
        nodes
    }

    fn members(&mut self) {
        let all: Vec<_> = self.machines.keys().cloned().collect();
        for own in &all {
            let others = all.iter().filter(|it| *it != own).cloned().collect();
            let members = Members { own: Some(own.clone()), others, unheard: false };
            self.on(own, |machine| machine.members(members));
        }
    }

    fn on(&mut self, node: &NodeId, input: impl FnOnce(&mut Machine<()>)) {
        let Some(machine) = self.machines.get_mut(node) else { return };
        input(machine);
        let outputs = machine.outputs();
        for output in outputs {
            match output {
                Output::Run(hook, of) => {
                    self.log.push((node.clone(), hook));
                    let begun = self.begun.entry(of.clone()).or_default();
                    match hook {
                        Hook::Begin => assert!(begun.insert(node.clone()), "twice on {node}"),
                        Hook::End => assert!(begun.contains(node)),
                    }
                    self.running.push((node.clone(), of));
                }
                Output::Tell(of) => {
                    let said = self.machines[node].says(&of);
                    for to in self.machines.keys().filter(|it| *it != node) {
                        self.telling.push_back((node.clone(), to.clone(), of.clone(), said));
                    }
                }
            }
        }
    }

    /// The oldest message arrives.
    fn hear(&mut self) -> bool {
        let Some((from, to, of, said)) = self.telling.pop_front() else { return false };
        self.on(&to, |machine| machine.said(&from, &of, said));
        true
    }

    /// The oldest hook ends.
    fn finish(&mut self) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let (node, of) = self.running.remove(0);
        let ends = self.machines.get(&node).is_some_and(|it| !it.all[&of].begun);
        if ends {
            self.begun.entry(of.clone()).or_default().remove(&node);
        }
        self.on(&node, |machine| machine.finished(&of));
        true
    }

    fn settle(&mut self) {
        while self.hear() || self.finish() {}
    }

    fn watch(&mut self, name: &str, of: &str, add: bool) {
        self.on(&node(name), |machine| {
            machine.local(&arguments(of), |watched| match add {
                true => watched.holders += 1,
                false => watched.holders -= 1,
            });
        });
    }

    /// A node comes, and the others tell it all.
    fn join(&mut self, name: &str) {
        self.machines.insert(node(name), Machine::new("type".into()));
        for (from, machine) in &self.machines {
            for (of, said) in machine.says_all() {
                self.telling.push_back((from.clone(), node(name), of.clone(), said));
            }
        }
        // Until it has heard them, it does not begin.
        let others = self.machines.keys().filter(|it| **it != node(name)).cloned().collect();
        let members = Members { own: Some(node(name)), others, unheard: true };
        self.on(&node(name), |machine| machine.members(members));
        while self.hear() {}
        self.members();
    }

    /// A node dies, with what it has begun.
    fn die(&mut self, name: &str) {
        let gone = node(name);
        self.machines.remove(&gone);
        // A new process of its name is not taken for it.
        self.telling.retain(|(from, to, ..)| *from != gone && *to != gone);
        self.running.retain(|(node, _)| *node != gone);
        for begun in self.begun.values_mut() {
            begun.remove(&gone);
        }
        for left in self.machines.keys().cloned().collect::<Vec<_>>() {
            self.on(&left, |machine| machine.says_no_more(&gone, |_| false));
        }
        self.members();
    }

    /// Who has begun.
    fn runners(&self, of: &str) -> Vec<&str> {
        let begun = self.begun.get(of).into_iter().flatten();
        begun.map(NodeId::as_str).collect()
    }

    /// The one with the highest rank.
    fn best(&self, of: &str) -> String {
        let best = self.machines.keys().max_by_key(|node| rank(&format!("type\0{of}"), node));
        best.unwrap().as_str().to_owned()
    }

    fn other_than(&self, one: &str) -> String {
        self.machines.keys().find(|it| it.as_str() != one).unwrap().as_str().to_owned()
    }
}

#[test]
fn one_node_runs_for_the_clients_of_all() {
    let mut nodes = Nodes::of(&["a", "b", "c"]);
    let best = nodes.best("x");
    for name in ["a", "b", "c"] {
        nodes.watch(name, "x", true);
        nodes.settle();
        assert_eq!(nodes.runners("x"), [&*best]);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(nodes.runners("x"), [&*best]);
        nodes.watch(name, "x", false);
        nodes.settle();
    }
    assert_eq!(nodes.runners("x"), [""; 0]);
    assert_eq!(nodes.log, [(node(&best), Hook::Begin), (node(&best), Hook::End)]);
    assert!(nodes.machines.values().all(|machine| machine.all.is_empty()));
}

#[test]
fn alone_it_tells_nobody_and_waits_for_nobody() {
    let mut nodes = Nodes::of(&["a"]);
    nodes.watch("a", "x", true);
    assert_eq!(nodes.runners("x"), ["a"]);
    nodes.watch("a", "x", false);
    nodes.settle();
    assert_eq!(nodes.log, [(node("a"), Hook::Begin), (node("a"), Hook::End)]);
}

#[test]
fn when_the_runner_dies_another_one_begins() {
    let mut nodes = Nodes::of(&["a", "b", "c"]);
    let first = nodes.best("x");
    let watcher = nodes.other_than(&first);
    nodes.watch(&watcher, "x", true);
    nodes.settle();
    nodes.die(&first);
    nodes.settle();
    assert_eq!(nodes.runners("x"), [&*nodes.best("x")]);
    // Who watched from the dead node counts no more.
    let last = nodes.other_than(&watcher);
    nodes.die(&watcher);
    nodes.settle();
    assert_eq!((nodes.runners("x"), nodes.best("x")), (vec![], last));
}

#[test]
fn the_new_runner_begins_when_the_old_one_has_ended() {
    let all = Nodes::of(&["a", "b"]);
    let best = all.best("x");
    let other = all.other_than(&best);
    let mut nodes = Nodes::of(&[&other]);
    nodes.watch(&other, "x", true);
    nodes.settle();
    assert_eq!(nodes.runners("x"), [&*other]);
    nodes.join(&best);
    // All was heard, and the hook still runs.
    while nodes.hear() {}
    assert_eq!(nodes.log.last(), Some(&(node(&other), Hook::End)));
    assert!(nodes.finish());
    assert_eq!(nodes.runners("x"), [""; 0]);
    nodes.settle();
    assert_eq!(nodes.runners("x"), [&*best]);
    // It leaves in order.
    nodes.on(&node(&best), Machine::close);
    nodes.settle();
    nodes.die(&best);
    nodes.settle();
    let hooks = nodes.log.iter().map(|(node, hook)| (node.as_str(), *hook)).collect::<Vec<_>>();
    let (best, other) = (&*best, &*other);
    let expected = [
        (other, Hook::Begin),
        (other, Hook::End),
        (best, Hook::Begin),
        (best, Hook::End),
        (other, Hook::Begin),
    ];
    assert_eq!(hooks, expected);
}

#[test]
fn a_node_that_was_not_heard_may_watch_already() {
    let mut machine = Machine::<()>::new("type".into());
    let (own, other) = match rank("type\0x", &node("a")) > rank("type\0x", &node("b")) {
        true => (node("a"), node("b")),
        false => (node("b"), node("a")),
    };
    let members =
        |unheard| Members { own: Some(own.clone()), others: vec![other.clone()], unheard };
    machine.members(members(true));
    machine.local(&arguments("x"), |watched| watched.holders += 1);
    assert_eq!(machine.outputs(), [Output::Tell(arguments("x"))]);
    machine.said(&other, &arguments("x"), Said { watched: true, running: true });
    machine.members(members(false));
    assert_eq!(machine.outputs(), []);
    machine.said(&other, &arguments("x"), Said { watched: true, running: false });
    assert_eq!(machine.outputs()[0], Output::Run(Hook::Begin, arguments("x")));
}

#[test]
fn a_node_without_hooks_runs_none() {
    let mut machine = Machine::<()>::new("type".into());
    machine.members(Members { own: None, others: vec![node("b")], unheard: false });
    machine.local(&arguments("x"), |watched| watched.holders += 1);
    assert_eq!(machine.outputs(), [Output::Tell(arguments("x"))]);
}

#[test]
fn a_flapping_watcher_makes_one_hook_run_after_the_other() {
    let mut nodes = Nodes::of(&["a", "b"]);
    let best = nodes.best("x");
    let other = nodes.other_than(&best);
    for _ in 0..100 {
        nodes.watch(&other, "x", true);
        nodes.hear();
        nodes.watch(&other, "x", false);
        nodes.hear();
        nodes.hear();
        assert!(nodes.running.len() <= 1);
    }
    nodes.settle();
    assert_eq!(nodes.runners("x"), [""; 0]);
    assert!(nodes.log.chunks(2).all(|it| it[0].1 == Hook::Begin && it[1].1 == Hook::End));
}

#[test]
fn a_closed_one_ends_and_begins_nothing() {
    let mut nodes = Nodes::of(&["a"]);
    nodes.watch("a", "x", true);
    nodes.settle();
    nodes.on(&node("a"), Machine::close);
    nodes.settle();
    nodes.watch("a", "x", true);
    nodes.watch("a", "y", true);
    nodes.settle();
    assert_eq!(nodes.log, [(node("a"), Hook::Begin), (node("a"), Hook::End)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, and in whatever order it is heard of: no two nodes watch at once, and at last
    /// exactly one does if some client wants it.
    #[test]
    fn at_most_one_node_watches_and_at_last_one_does(
        steps in prop::collection::vec((0..7_u8, 0..3_usize, any::<bool>()), 1..80),
    ) {
        let names = ["a", "b", "c"];
        let mut nodes = Nodes::of(&names[..2]);
        let mut held: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (kind, at, flag) in steps {
            let (name, of) = (names[at], ["x", "y"][usize::from(flag)]);
            let is_there = nodes.machines.contains_key(&node(name));
            match kind {
                0 | 1 if is_there => {
                    *held.entry((name, of)).or_default() += 1;
                    nodes.watch(name, of, true);
                }
                2 if held.get(&(name, of)).is_some_and(|count| *count > 0) => {
                    *held.entry((name, of)).or_default() -= 1;
                    nodes.watch(name, of, false);
                }
                3 if is_there && nodes.machines.len() > 1 => {
                    held.retain(|(holder, _), _| *holder != name);
                    nodes.die(name);
                }
                4 if !is_there => nodes.join(name),
                5 => _ = nodes.finish(),
                _ => _ = nodes.hear(),
            }
            for begun in nodes.begun.values() {
                prop_assert!(begun.len() <= 1, "{:?}", begun);
            }
        }
        nodes.settle();
        for of in ["x", "y"] {
            let is_wanted = held.iter().any(|((_, it), count)| *it == of && *count > 0);
            let best = nodes.best(of);
            let expected = if is_wanted { vec![&*best] } else { Vec::new() };
            prop_assert_eq!(nodes.runners(of), expected);
        }
    }
}
