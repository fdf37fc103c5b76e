//! Lists that are not the same for all: their pages, and what a change means to each viewer.

use proptest::sample::subsequence;

use super::*;
use crate::access::Delta;
use crate::identity::{Identity, Labels};

const LABELS: [&str; 3] = ["a", "b", "c"];
const KINDS: [ItemKind; 3] = [ItemKind::Tools, ItemKind::Resources, ItemKind::Prompts];

fn viewer(labels: &[&'static str]) -> Viewer {
    Viewer::Known(Identity::named("x"), labels.iter().copied().collect::<Labels>())
}

fn viewers() -> Vec<Viewer> {
    let some = (0..8).map(|bits: usize| {
        let has = LABELS.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        viewer(&has.map(|(_, label)| *label).collect::<Vec<_>>())
    });
    some.chain([Viewer::Everything, Viewer::Stranger]).collect()
}

fn item(kind: ItemKind, name: u8, labels: &[&'static str], text: u8) -> Item {
    let labels = labels.iter().copied();
    let (key, text, open) = (format!("x:{name}"), format!("text {text}"), labels.len() == 0);
    macro_rules! item {
        ($new:expr) => {
            if open {
                $new.description(text).into()
            } else {
                $new.description(text).only_for(labels).into()
            }
        };
    }
    match kind {
        ItemKind::Resources => item!(crate::resource(key, "r", || async { "" })),
        ItemKind::Prompts => item!(crate::prompt(key, || async { "" })),
        _ => item!(tool(key, || async { "" })),
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, u8, Vec<&'static str>, u8),
    Remove(usize, u8),
}

impl Change {
    fn mutation(&self) -> Mutation {
        match self {
            Self::Put(kind, name, labels, text) => {
                Mutation::Put(item(KINDS[*kind], *name, labels, *text))
            }
            Self::Remove(kind, name) => Mutation::remove(KINDS[*kind], format!("x:{name}")),
        }
    }
}

fn change(names: u8) -> impl Strategy<Value = Change> {
    let labels = prop_oneof![1 => Just(Vec::new()), 2 => subsequence(&LABELS, 1..=2)];
    prop_oneof![
        2 => (0..3_usize, 0..names, labels, 0..2_u8)
            .prop_map(|(kind, name, labels, text)| Change::Put(kind, name, labels, text)),
        1 => (0..3_usize, 0..names).prop_map(|(kind, name)| Change::Remove(kind, name)),
    ]
}

fn applied(catalog: &Catalog, changes: &[Change]) -> (Catalog, ListChanges) {
    let checked = changes.iter().map(|it| it.mutation().check(&States::default()));
    catalog.apply(checked.collect::<Result<_, _>>().unwrap()).unwrap()
}

/// The names on one page, and the cursor of the next.
fn page_of(
    catalog: &Catalog,
    kind: ItemKind,
    cursor: Option<&str>,
    size: usize,
    viewer: &Viewer,
) -> (Vec<Value>, Option<String>) {
    let json = catalog.page(kind, Era::Modern, cursor, size, Some(viewer)).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    let cursor = json.get("nextCursor").map(|cursor| cursor.as_str().unwrap().to_owned());
    let items = json.as_object_mut().unwrap().values_mut().find_map(Value::as_array_mut);
    (std::mem::take(items.unwrap()), cursor)
}

fn whole(catalog: &Catalog, kind: ItemKind, viewer: &Viewer) -> Vec<Value> {
    let (items, cursor) = page_of(catalog, kind, None, usize::MAX, viewer);
    assert_eq!(cursor, None);
    items
}

fn concerns(delta: &Delta, viewer: &Viewer) -> bool {
    delta.concerns(|rule| rule.admits(viewer))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_change_concerns_exactly_those_whose_lists_differ(
        begin in prop::collection::vec(change(5), 0..12),
        changes in prop::collection::vec(change(5), 1..6),
    ) {
        let (before, _) = applied(&Catalog::default(), &begin);
        let (after, mut all) = applied(&before, &changes);
        for kind in KINDS {
            let delta = all.of(kind.list());
            for viewer in &viewers() {
                let (then, now) = (whole(&before, kind, viewer), whole(&after, kind, viewer));
                prop_assert_eq!(concerns(delta, viewer), then != now, "{:?} {:?}", kind, viewer);
            }
        }
    }

    #[test]
    fn the_differences_of_two_viewers_are_the_lists_that_look_different(
        changes in prop::collection::vec(change(5), 0..8),
    ) {
        let (catalog, _) = applied(&Catalog::default(), &changes);
        for one in &viewers() {
            for other in &viewers() {
                let kinds: Vec<_> = catalog.differences(one, other).kinds().collect();
                for kind in KINDS {
                    let differ = whole(&catalog, kind, one) != whole(&catalog, kind, other);
                    prop_assert_eq!(kinds.contains(&kind.list()), differ, "{:?}", kind);
                }
            }
        }
    }

    #[test]
    fn pages_are_full_and_cursors_stay_good_whoever_reads(
        changes in prop::collection::vec(change(12), 0..30),
        later in prop::collection::vec(change(12), 0..6),
        size in 1..5_usize,
    ) {
        let (catalog, _) = applied(&Catalog::default(), &changes);
        let (now, _) = applied(&catalog, &later);
        for kind in KINDS {
            for viewer in &viewers() {
                let all = whole(&catalog, kind, viewer);
                let (mut read, mut cursor) = (Vec::new(), None);
                loop {
                    let (items, next) = page_of(&catalog, kind, cursor.as_deref(), size, viewer);
                    read.extend(items.iter().cloned());
                    prop_assert_eq!(next.is_some(), read.len() < all.len(), "no empty page follows");
                    let Some(next) = next else { break };
                    prop_assert_eq!(items.len(), size);
                    // Another viewer goes on with this cursor, also after a change.
                    let last = items.last().unwrap()[key_of(kind)].clone();
                    for other in &viewers() {
                        let (rest, _) = page_of(&catalog, kind, Some(&next), usize::MAX, other);
                        let expected = after(&whole(&catalog, kind, &Viewer::Everything), kind, &last);
                        let seen = whole(&catalog, kind, other);
                        let expected: Vec<_> =
                            expected.into_iter().filter(|it| seen.contains(it)).collect();
                        prop_assert_eq!(rest, expected);
                        prop_assert!(now.page(kind, Era::Modern, Some(&next), size, Some(other)).is_ok());
                    }
                    cursor = Some(next);
                }
                prop_assert_eq!(read, all);
            }
        }
    }
}

fn key_of(kind: ItemKind) -> &'static str {
    if kind == ItemKind::Resources { "uri" } else { "name" }
}

/// The items after the one with this key.
fn after(items: &[Value], kind: ItemKind, last: &Value) -> Vec<Value> {
    let position = items.iter().position(|it| it[key_of(kind)] == *last).unwrap();
    items[position + 1..].to_vec()
}

#[test]
fn a_long_list_in_another_order_is_told_to_everybody() {
    let put = |name: u8| Change::Put(0, name, vec![LABELS[usize::from(name) % 3]], 0);
    let (before, _) = applied(&Catalog::default(), &(0..=255).map(put).collect::<Vec<_>>());
    // All but the first go to the end, in their order.
    let again: Vec<_> = (1..=255).flat_map(|name| [Change::Remove(0, name), put(name)]).collect();
    let (_, mut changes) = applied(&before, &again);
    assert!(changes.is_empty(), "nothing is in another order: {changes:?}");
    let again: Vec<_> =
        (0..=255).rev().flat_map(|name| [Change::Remove(0, name), put(name)]).collect();
    let (_, mut reversed) = applied(&before, &again);
    assert!(concerns(reversed.of(ListKind::Tools), &viewer(&["a"])));
    assert!(!concerns(changes.of(ListKind::Tools), &viewer(&["a"])));
}
