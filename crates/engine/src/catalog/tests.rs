mod restricted;

use proptest::prelude::*;
use serde_json::Value;

use stentor_wire::ListKind;

use super::*;
use crate::catalog::list::encode_cursor;
use crate::handler::{Tool, raw_tool, tool};
use crate::states::States;

fn named(name: &str) -> Tool {
    tool(name, || async { "" })
}

fn apply(
    catalog: &Catalog,
    mutations: Vec<Mutation>,
) -> Result<(Catalog, Vec<ListKind>), CatalogError> {
    let checked = mutations.into_iter().map(|it| it.check(&States::default()));
    let checked = checked.collect::<Result<_, _>>()?;
    let (next, changes) = catalog.apply(checked)?;
    Ok((next, changes.kinds().collect()))
}

fn with(names: &[&str]) -> Catalog {
    let adds = names.iter().map(|name| Mutation::Add(named(name).into())).collect();
    apply(&Catalog::default(), adds).unwrap().0
}

fn page(catalog: &Catalog, cursor: Option<&str>, size: usize) -> (Vec<String>, Option<String>) {
    let json: Value = serde_json::from_slice(
        &catalog.page(ItemKind::Tools, Era::Modern, cursor, size, None).unwrap(),
    )
    .unwrap();
    let names = json["tools"].as_array().unwrap().iter();
    let names = names.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
    (names, json.get("nextCursor").map(|cursor| cursor.as_str().unwrap().to_owned()))
}

#[test]
fn a_transaction_is_applied_whole_or_not_at_all() {
    let catalog = with(&["a"]);
    let result =
        apply(&catalog, vec![Mutation::Add(named("b").into()), Mutation::Add(named("a").into())]);
    assert_eq!(
        result.unwrap_err(),
        CatalogError::Exists { kind: ItemKind::Tools, key: "a".to_owned() }
    );
    assert_eq!(catalog.tool_names().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn mutations_without_effect_keep_the_revision_and_announce_nothing() {
    let catalog = with(&["a", "b"]);
    for mutations in [
        vec![],
        vec![Mutation::remove(ItemKind::Tools, "x".to_owned())],
        vec![Mutation::Put(named("a").into())],
        vec![Mutation::Add(named("c").into()), Mutation::remove(ItemKind::Tools, "c".to_owned())],
    ] {
        let (next, lists) = apply(&catalog, mutations).unwrap();
        assert_eq!(lists, []);
        assert_eq!(next.revision(), catalog.revision());
    }
}

#[test]
fn a_template_changes_the_list_of_resources() {
    let template = crate::resource_template("a://{x}", "a", || async { "" });
    let (_, lists) = apply(&Catalog::default(), vec![Mutation::Add(template.into())]).unwrap();
    assert_eq!(lists, [ListKind::Resources]);
}

#[test]
fn a_bad_name_or_schema_is_refused_with_the_reason() {
    let error = apply(&Catalog::default(), vec![Mutation::Add(named("").into())]).unwrap_err();
    assert!(matches!(error, CatalogError::Name { kind: ItemKind::Tools, .. }), "{error}");
    let bad = raw_tool("x", serde_json::json!({"type": "string"}), || async { "" });
    let error = apply(&Catalog::default(), vec![Mutation::Add(bad.into())]).unwrap_err();
    assert_eq!(error.to_string(), "tool 'x' is invalid: the schema must have \"type\": \"object\"");
}

#[test]
fn a_schema_is_listed_as_it_was_given() {
    let schema =
        r#"{"type":"object","zeta":1.50,"$defs":{"b":{},"a":{}},"properties":{"y":{},"x":{}}}"#;
    let tool =
        raw_tool("x", serde_json::from_str::<serde_json::Value>(schema).unwrap(), || async { "" });
    let (catalog, _) = apply(&Catalog::default(), vec![Mutation::Add(tool.into())]).unwrap();
    let page = catalog.page(ItemKind::Tools, Era::Modern, None, 10, None).unwrap();
    let page = std::str::from_utf8(&page).unwrap();
    assert!(page.contains(&schema.replace("1.50", "1.5")), "{page}");
}

#[test]
fn a_cursor_that_the_list_did_not_give_out_is_refused() {
    let catalog = with(&["a"]);
    for cursor in ["", "x", "AAAA", &encode_cursor("prompts", 0, "a")] {
        assert_eq!(
            catalog.page(ItemKind::Tools, Era::Modern, Some(cursor), 1, None),
            Err(InvalidCursor),
            "{cursor}"
        );
    }
}

proptest! {
    #[test]
    fn pages_together_are_the_list_in_order(count in 0usize..30, size in 1usize..10) {
        let names: Vec<_> = (0..count).map(|n| format!("t{n}")).collect();
        let catalog = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut seen, mut cursor) = page(&catalog, None, size);
        while let Some(at) = cursor {
            let (more, next) = page(&catalog, Some(&at), size);
            prop_assert!(!more.is_empty());
            seen.extend(more);
            cursor = next;
        }
        prop_assert_eq!(seen, names);
    }

    #[test]
    fn a_cursor_survives_removals_and_additions(removed in proptest::collection::btree_set(0usize..20, 0..20), size in 1usize..8) {
        let names: Vec<_> = (0..20).map(|n| format!("t{n}")).collect();
        let catalog = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (first, cursor) = page(&catalog, None, size);
        let mut mutations: Vec<_> = removed.iter()
            .map(|n| Mutation::remove(ItemKind::Tools, names[*n].clone())).collect();
        mutations.push(Mutation::Add(named("new").into()));
        let (catalog, _) = apply(&catalog, mutations).unwrap();
        let (rest, _) = page(&catalog, cursor.as_deref(), 100);
        let mut expected: Vec<_> = (size..20).filter(|n| !removed.contains(n)).map(|n| names[n].clone()).collect();
        expected.push("new".to_owned());
        prop_assert_eq!(first.len(), size);
        prop_assert_eq!(rest, expected);
    }
}
