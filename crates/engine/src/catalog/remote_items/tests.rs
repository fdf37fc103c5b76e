use proptest::prelude::*;
use serde_json::Value;
use stentor_wire::Era;

use crate::catalog::{Catalog, Mutation, Offer};
use crate::handler::{Json, tool};
use crate::ids::NodeId;
use crate::items::ItemKind;
use crate::states::States;

fn node(index: usize) -> NodeId {
    NodeId::new(format!("n{index}")).unwrap()
}

fn offering(tools: &[(&str, &str)]) -> Catalog {
    let add = |(name, description): &(&str, &str)| {
        let tool = tool(*name, || async { "" }).description(*description);
        Mutation::add(tool).check(&States::default()).unwrap()
    };
    Catalog::default().apply(tools.iter().map(add).collect()).unwrap().0
}

/// The catalog of each node, once all nodes know each other.
fn joined(nodes: &[Catalog]) -> Vec<Catalog> {
    let of = |own: usize| {
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != own);
        others.fold(nodes[own].clone(), |catalog, (other, offers)| {
            catalog.with_remote(&node(other), Some(offers.definitions())).0
        })
    };
    (0..nodes.len()).map(of).collect()
}

fn listed(catalog: &Catalog) -> Value {
    serde_json::from_slice(&catalog.page(ItemKind::Tools, Era::Modern, None, 1_000, None).unwrap())
        .unwrap()
}

fn described(catalog: &Catalog, name: &str) -> String {
    let listed = listed(catalog);
    let tools = listed["tools"].as_array().unwrap();
    let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
    tool["description"].as_str().unwrap().to_owned()
}

#[test]
fn an_item_of_all_nodes_is_listed_once_and_served_locally() {
    let same = || offering(&[("a", "x"), ("b", "x")]);
    for catalog in joined(&[same(), same(), same()]) {
        assert_eq!(catalog.tool_names().collect::<Vec<_>>(), ["a", "b"], "in the order of adding");
        assert!(matches!(catalog.tool("a"), Some(Offer::Local(_))));
        assert_eq!(catalog.conflicts(), []);
    }
}

#[test]
fn each_node_shows_each_era_the_same_of_a_tool_whichever_node_offers_it() {
    fn page(catalog: &Catalog, era: Era) -> Value {
        serde_json::from_slice(&catalog.page(ItemKind::Tools, era, None, 1_000, None).unwrap())
            .unwrap()
    }
    let lists = tool("a", || async { Json(vec![1_u8]) });
    let checked = Mutation::add(lists).check(&States::default()).unwrap();
    let offering = Catalog::default().apply(vec![checked]).unwrap().0;
    for catalog in joined(&[offering, Catalog::default()]) {
        let (modern, legacy) = (page(&catalog, Era::Modern), page(&catalog, Era::Legacy));
        assert_eq!(modern["tools"][0]["outputSchema"]["type"], "array");
        assert_eq!(legacy["tools"][0].get("outputSchema"), None);
        assert_eq!(legacy["tools"][0]["inputSchema"], modern["tools"][0]["inputSchema"]);
    }
}

#[test]
fn an_item_of_another_node_is_listed_until_that_node_leaves() {
    let nodes = [offering(&[("a", "x")]), offering(&[("b", "x")])];
    let here = &joined(&nodes)[0];
    assert_eq!(here.tool_names().collect::<Vec<_>>(), ["a", "b"]);
    let Some(Offer::Remote(remote)) = here.tool("b") else { panic!("it is not here") };
    assert_eq!(remote.nodes().collect::<Vec<_>>(), [&node(1)]);

    let (again, lists) = here.with_remote(&node(1), Some(nodes[1].definitions()));
    assert_eq!(
        (again.revision(), lists.is_empty()),
        (here.revision(), true),
        "nothing new is no change"
    );

    let (without, lists) = here.with_remote(&node(1), None);
    assert_eq!(without.tool_names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(lists.kinds().collect::<Vec<_>>(), [stentor_wire::ListKind::Tools]);
}

#[test]
fn of_different_definitions_the_one_of_most_nodes_is_shown() {
    let nodes = [offering(&[("a", "old")]), offering(&[("a", "new")]), offering(&[("a", "new")])];
    for (index, catalog) in joined(&nodes).iter().enumerate() {
        assert_eq!(described(catalog, "a"), "new");
        let [conflict] = catalog.conflicts() else { panic!("one conflict is reported") };
        assert_eq!((conflict.local_is_hidden, &*conflict.key), (index == 0, "a"));
        let hidden: &[NodeId] = if index == 0 { &[] } else { &[node(0)] };
        assert_eq!(conflict.hidden, hidden);
    }
}

proptest! {
    #[test]
    fn every_node_shows_the_same_in_the_same_order(
        nodes in proptest::collection::vec(
            proptest::collection::btree_map("[a-e]", "[xy]", 0..5),
            1..5,
        ),
        shuffle in any::<prop::sample::Index>(),
        size in 1_usize..4,
    ) {
        let offers: Vec<_> = nodes
            .iter()
            .map(|tools| {
                let mut tools: Vec<_> = tools.iter().map(|(a, b)| (&**a, &**b)).collect();
                let by = shuffle.index(tools.len().max(1));
                tools.rotate_left(by);
                offering(&tools)
            })
            .collect();
        let catalogs = joined(&offers);
        for catalog in &catalogs {
            prop_assert_eq!(listed(catalog), listed(&catalogs[0]));
            prop_assert_eq!(catalog.conflicts().len(), catalogs[0].conflicts().len());
        }
        // A client that reads each page on another node reads the whole list.
        let (mut names, mut cursor, mut turn) = (Vec::new(), None::<String>, 0);
        loop {
            let catalog = &catalogs[turn % catalogs.len()];
            let page = catalog.page(ItemKind::Tools, Era::Modern, cursor.as_deref(), size, None).unwrap();
            let page: Value = serde_json::from_slice(&page).unwrap();
            let tools = page["tools"].as_array().unwrap().iter();
            names.extend(tools.map(|tool| tool["name"].as_str().unwrap().to_owned()));
            turn += 1;
            match page["nextCursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        prop_assert_eq!(names, catalogs[0].tool_names().collect::<Vec<_>>());
    }
}
