//! Rules, deltas and classes, compared with a naive view of the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::changes::Side;
use super::*;
use crate::identity::{Identity, Labels};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn term() -> impl Strategy<Value = Term> {
    let name = prop::sample::select(&NAMES[..]);
    (name, any::<bool>()).prop_map(|(name, is_label)| match is_label {
        true => Term::Label(name.into()),
        false => Term::Scope(name.into()),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let clause = prop::collection::btree_set(term(), 1..3);
    prop::collection::btree_set(clause, 0..3).prop_map(Rule::of)
}

fn viewer() -> impl Strategy<Value = Viewer> {
    let known = (subsequence(&NAMES, 0..=4), subsequence(&NAMES, 0..=4));
    let known = known.prop_map(|(labels, scopes)| {
        let labels: Labels = labels.into_iter().collect();
        Viewer::Known(Identity::named("x").scopes(scopes), labels)
    });
    prop_oneof![1 => Just(Viewer::Everything), 1 => Just(Viewer::Stranger), 6 => known]
}

/// A list: who sees each item, and what it looks like.
type List = BTreeMap<u8, (Rule, bool)>;

fn list(most: u8) -> impl Strategy<Value = List> {
    let most = usize::from(most);
    prop::collection::btree_map(0..most as u8, (rule(), any::<bool>()), 0..=most)
}

fn seen<'a>(list: &'a List, viewer: &Viewer) -> Vec<(&'a u8, bool)> {
    let seen = list.iter().filter(|(_, (rule, _))| rule.admits(viewer));
    seen.map(|(key, (_, look))| (key, *look)).collect()
}

fn delta(before: &List, after: &List) -> Delta {
    let mut delta = Delta::default();
    let rule = |side: Option<&(Rule, bool)>| -> Side { side.map(|(rule, _)| rule.clone()) };
    let look = |side: Option<&(Rule, bool)>| side.map(|(_, look)| *look);
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (then, now) = (before.get(key), after.get(key));
        delta.touch(rule(then), rule(now), look(then) != look(now));
    }
    delta
}

proptest! {
    #[test]
    fn a_delta_concerns_exactly_those_whose_lists_differ(
        before in list(5),
        after in list(5),
        viewers in prop::collection::vec(viewer(), 1..8),
    ) {
        let delta = delta(&before, &after);
        for viewer in &viewers {
            let differs = seen(&before, viewer) != seen(&after, viewer);
            prop_assert_eq!(delta.concerns(|rule| rule.admits(viewer)), differs, "{:?}", viewer);
        }
        prop_assert!(!delta.is_nothing() || before == after);
    }

    #[test]
    fn joined_deltas_concern_those_whom_one_of_them_concerns(
        lists in prop::collection::vec(list(4), 2..6),
        viewer in viewer(),
    ) {
        let deltas: Vec<_> = lists.windows(2).map(|pair| delta(&pair[0], &pair[1])).collect();
        let concerns = |delta: &Delta| delta.concerns(|rule| rule.admits(&viewer));
        let any = deltas.iter().any(concerns);
        let mut all = Delta::default();
        deltas.into_iter().for_each(|delta| all.join(delta));
        prop_assert_eq!(concerns(&all), any);
    }

    #[test]
    fn many_different_changes_concern_everybody_they_concern_and_cost_little(
        lists in prop::collection::vec(list(40), 2..4),
        viewer in viewer(),
    ) {
        let mut all = Delta::default();
        let mut differs = false;
        for pair in lists.windows(2) {
            all.join(delta(&pair[0], &pair[1]));
            differs |= seen(&pair[0], &viewer) != seen(&pair[1], &viewer);
        }
        // Told too often is allowed, told too rarely never.
        prop_assert!(!differs || all.concerns(|rule| rule.admits(&viewer)));
        prop_assert!(all.is_for_all() || all.terms().count() < 64 * 2 * 4);
    }

    #[test]
    fn only_who_fulfils_both_rules_fulfils_both_together(
        one in rule(),
        other in rule(),
        viewer in viewer(),
    ) {
        let both = one.admits(&viewer) && other.admits(&viewer);
        prop_assert_eq!(one.and(&other).admits(&viewer), both);
        prop_assert_eq!(one.and(&other), other.and(&one));
    }

    #[test]
    fn viewers_who_are_the_same_see_the_same(
        one in viewer(),
        other in viewer(),
        rules in prop::collection::vec(rule(), 1..8),
    ) {
        prop_assert!(one.is_same(&one));
        if one.is_same(&other) {
            for rule in &rules {
                prop_assert_eq!(rule.admits(&one), rule.admits(&other));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(Viewer),
    Leave(prop::sample::Index),
    /// A member gets other rights.
    Change(prop::sample::Index, Viewer),
    Learn(Rule),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => viewer().prop_map(Step::Join),
        2 => index().prop_map(Step::Leave),
        1 => (index(), viewer()).prop_map(|(index, viewer)| Step::Change(index, viewer)),
        2 => rule().prop_map(Step::Learn),
    ]
}

/// The classes as the hub uses them.
#[derive(Default)]
struct Hub {
    classes: ViewerClasses,
    members: Vec<(Viewer, ViewerClass)>,
}

impl Hub {
    fn learn(&mut self, new: bool) {
        if new {
            self.classes.begin_again(Vec::new);
            for (viewer, class) in &mut self.members {
                *class = self.classes.join(viewer);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(viewer) => {
                let class = self.classes.join(&viewer);
                self.members.push((viewer, class));
            }
            Step::Leave(index) if !self.members.is_empty() => {
                let (_, class) = self.members.swap_remove(index.index(self.members.len()));
                self.classes.leave(class);
            }
            Step::Change(index, viewer) if !self.members.is_empty() => {
                let member = index.index(self.members.len());
                let class = self.classes.join(&viewer);
                let (_, before) = std::mem::replace(&mut self.members[member], (viewer, class));
                self.classes.leave(before);
            }
            Step::Learn(rule) => {
                let new = self.classes.learn([&rule]);
                self.learn(new);
            }
            Step::Leave(_) | Step::Change(..) => {}
        }
    }
}

proptest! {
    #[test]
    fn asking_a_class_is_asking_each_member(
        steps in prop::collection::vec(step(), 1..40),
        rule in rule(),
        (before, after) in (list(4), list(4)),
    ) {
        let mut hub = Hub::default();
        for step in steps {
            hub.step(step);
            let new = hub.classes.learn([&rule]);
            hub.learn(new);
            let seen_by = hub.classes.who_sees(&rule);
            for (viewer, class) in &hub.members {
                prop_assert_eq!(seen_by.by(*class), rule.admits(viewer), "{:?}", viewer);
            }
            let delta = delta(&before, &after);
            let new = hub.classes.learn_from(&delta);
            hub.learn(new);
            let concerned = hub.classes.concerned(&delta);
            for (viewer, class) in &hub.members {
                let differs = seen(&before, viewer) != seen(&after, viewer);
                prop_assert_eq!(concerned.by(*class), differs, "{:?}", viewer);
            }
        }
        let active = hub.classes.active();
        let classes: BTreeSet<_> = hub.members.iter().map(|(_, class)| format!("{class:?}")).collect();
        prop_assert_eq!(active, classes.len());
        // Classes without members are used again.
        let most = hub.classes.capacity();
        for (_, class) in hub.members.drain(..) {
            hub.classes.leave(class);
        }
        prop_assert_eq!(hub.classes.active(), 0);
        for _ in 0..most {
            let class = hub.classes.join(&Viewer::Stranger);
            hub.classes.leave(class);
        }
        prop_assert_eq!(hub.classes.capacity(), most);
    }
}

#[test]
fn rights_that_no_rule_names_make_no_classes() {
    let mut classes = ViewerClasses::default();
    let rule = Rule::of([Clause::from([Term::Label("admin".into())])].into());
    assert!(classes.learn([&rule]) && !classes.learn([&rule]));
    let of = |user: usize, labels: &[&str]| {
        let labels = labels.iter().copied().map(String::from).chain([format!("user-{user}")]);
        Viewer::Known(Identity::named("x"), labels.collect())
    };
    for user in 0..1_000 {
        classes.join(&of(user, &[]));
        classes.join(&of(user, &["admin"]));
    }
    assert_eq!(classes.active(), 2);
}
