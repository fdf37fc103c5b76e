//! `docs/LIMITS.md` lists each limit of the code with its default, and no other limit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).expect("a file of the workspace")
}

/// The Rust files of all crates.
fn sources() -> Vec<String> {
    let (mut folders, mut sources) = (vec![root().join("crates")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                sources.push(read(path));
            }
        }
    }
    sources
}

/// The default that a doc comment names.
fn default_of(comment: &str) -> Option<String> {
    let (_, after) = comment.rsplit_once("Default")?;
    let text = after.trim_start_matches([':', ' ']).trim();
    // A number may contain a comma or a point.
    let end = text
        .match_indices(['.', ','])
        .map(|(at, _)| at)
        .find(|at| !text[at + 1..].starts_with(|next: char| next.is_ascii_digit()));
    Some(text[..end.unwrap_or(text.len())].split(';').next()?.trim().to_owned())
}

/// All limits of a file: their names, and the defaults in their docs.
fn declared(source: &str) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    let (mut owner, mut comment) = (None, String::new());
    for line in source.lines() {
        let text = line.trim();
        if let Some(more) = text.strip_prefix("/// ") {
            comment.push_str(more);
            comment.push(' ');
            continue;
        }
        if let Some(name) = text.strip_prefix("pub struct ") {
            let name = name.split([' ', '<', '(']).next().unwrap_or_default();
            let holds_limits = ["Config", "Limits", "Retention", "Budget"];
            owner = Some(name.to_owned())
                .filter(|name| holds_limits.iter().any(|it| name.ends_with(it)));
        } else if line.starts_with('}') {
            owner = None;
        } else if let (Some(owner), Some(field)) = (&owner, text.strip_prefix("pub ")) {
            let (name, kind) = field.split_once(':').unwrap_or_default();
            let kind = kind.trim().trim_end_matches(',');
            if ["usize", "u32", "Duration", "Option<Duration>"].contains(&kind) {
                found.insert(format!("{owner}::{name}"), default_of(&comment));
            }
        } else if let Some(name) = text.strip_prefix("pub const MAX_")
            && source.contains("//! Bounds on what a client writes")
        {
            let name = name.split(':').next().unwrap_or_default();
            found.insert(format!("MAX_{name}"), None);
        }
        if !text.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

#[test]
fn the_docs_have_every_limit_with_its_default_and_no_other() {
    let docs = read(root().join("docs/LIMITS.md"));
    let row = |line: &str| -> Option<(String, String)> {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim().to_owned()))
    };
    let told: BTreeMap<_, _> = docs.lines().filter_map(row).collect();
    let declared: BTreeMap<_, _> = sources().iter().flat_map(|source| declared(source)).collect();
    assert!(declared.len() > 50, "{} limits", declared.len());
    let missing: Vec<_> = declared.keys().filter(|name| !told.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/LIMITS.md lacks {missing:?}");
    let unknown: Vec<_> = told.keys().filter(|name| !declared.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "docs/LIMITS.md has {unknown:?}, which the code has not");
    let differ: Vec<_> = declared
        .iter()
        .filter_map(|(name, default)| Some((name, default.as_ref()?, &told[name])))
        .filter(|(_, default, told)| default != told)
        .collect();
    assert!(differ.is_empty(), "defaults differ, code and docs: {differ:#?}");
}
