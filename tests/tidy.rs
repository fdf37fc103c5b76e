//! What keeps the tree readable: words, lengths, links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines that a Rust file may have.
const MAX_LINES: usize = 500;

/// Folders of the workspace that are read.
const FOLDERS: [&str; 4] = ["crates", "examples", "tests", "docs"];

/// Files of the root that are read.
const IN_ROOT: [&str; 4] = ["README.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"];

/// Files that name retired words on purpose: the glossary, this test, and decisions of the past.
const HISTORY: [&str; 3] = ["docs/GLOSSARY.md", "tests/tidy.rs", "docs/adr/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// All files of the project with one of these extensions, as paths from its root.
fn files(extensions: &[&str]) -> Vec<String> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => collect(&path, found),
                // A link is read where it leads.
                false if path.is_symlink() => {}
                false => found.push(path),
            }
        }
    }
    let root = root();
    let mut found: Vec<_> = IN_ROOT.map(|name| root.join(name)).into();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut found);
    }
    let has_extension = |path: &PathBuf| {
        path.extension().is_some_and(|it| extensions.iter().any(|wanted| it == *wanted))
    };
    let relative = |path: PathBuf| path.strip_prefix(&root).ok()?.to_str().map(str::to_owned);
    let mut files: Vec<_> = found.into_iter().filter(has_extension).filter_map(relative).collect();
    files.sort();
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words that the glossary retires: those of the first column of its last table.
fn retired_words() -> BTreeSet<String> {
    let glossary = read("docs/GLOSSARY.md");
    let (_, table) = glossary.split_once("## Retired words").expect("the table of retired words");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let words = rows.skip(1).flat_map(|cell| {
        let (words, _) = cell.split_once('(').unwrap_or((cell, ""));
        words.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>()
    });
    words.collect()
}

/// The words of a line, also those that a name is made of: `OpenErrand` and `open_errand` have two.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if letter.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words
}

#[test]
fn no_retired_word_comes_back() {
    let retired = retired_words();
    assert!(retired.contains("errand") && retired.len() > 20, "{retired:?}");
    let mut found = Vec::new();
    for path in files(&["rs", "md", "sh", "py", "mjs", "toml"]) {
        if HISTORY.iter().any(|it| path.starts_with(it)) {
            continue;
        }
        for (index, line) in read(&path).lines().enumerate() {
            let is_retired = |word: &String| {
                let singular = word.strip_suffix('s').unwrap_or(word);
                let names_a_lane = singular == "lane" && !path.starts_with("crates/");
                (retired.contains(word) || retired.contains(singular)) && !names_a_lane
            };
            if let Some(word) = words(line).into_iter().find(is_retired) {
                found.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    assert!(found.is_empty(), "see docs/GLOSSARY.md:\n{}", found.join("\n"));
}

/// Crates whose modules stand in layers: each imports only modules below it.
const LAYERED: [&str; 5] = ["wire", "delivery", "engine", "transport", "cluster"];

/// What each module of a crate imports from its other modules. A folder belongs to its module; tests
/// and comments do not count.
fn imports(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let source = format!("crates/{name}/src/");
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for path in files(&["rs"]) {
        let Some(file) = path.strip_prefix(&source) else { continue };
        let module = file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        if module == "lib" || file.contains("/tests") {
            continue;
        }
        let text = read(&path);
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code: String = code.collect::<Vec<_>>().join(" ");
        let named = code.split("crate::").skip(1).flat_map(|rest| {
            let group = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let paths: Vec<_> =
                group.map_or_else(|| vec![rest], |group| group.split(',').collect());
            let first = |path: &str| -> String {
                path.trim().chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
            };
            paths.into_iter().map(first).collect::<Vec<_>>()
        });
        let others = named.filter(|other| *other != module);
        imports.entry(module.clone()).or_default().extend(others);
    }
    imports
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    for name in LAYERED {
        let mut left = imports(name);
        assert!(left.len() > 2, "{name}: {left:?}");
        // Modules that import nothing that is left are taken away, until nothing more is.
        loop {
            let modules: BTreeSet<_> = left.keys().cloned().collect();
            let before = left.len();
            left.retain(|_, imported| !imported.is_disjoint(&modules));
            if left.len() == before {
                break;
            }
        }
        let modules: Vec<_> = left.keys().collect();
        assert!(modules.is_empty(), "{name}: a circle, or above one: {modules:?}");
    }
}

#[test]
fn the_modules_of_the_engine_stand_in_the_rows_of_the_table() {
    let document = read("docs/ARCHITECTURE.md");
    let section = document.split("### The rows of the engine").nth(1).unwrap_or_default();
    let rows = section.lines().skip_while(|line| !line.starts_with("|--"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let modules = rows.filter_map(|row| row.split('|').nth(2));
    let order: Vec<_> = modules.flat_map(|it| it.split('`').skip(1).step_by(2)).collect();
    let place = |module: &str| order.iter().position(|it| *it == module);
    let imports = imports("engine");
    let (mut missing, mut upward) = (Vec::new(), Vec::new());
    for (module, imported) in &imports {
        let Some(own) = place(module) else {
            missing.push(module);
            continue;
        };
        let above = imported.iter().filter(|it| imports.contains_key(*it));
        upward.extend(above.filter(|it| place(it) > Some(own)).map(|it| (module, it)));
    }
    assert!(missing.is_empty() && order.len() == imports.len(), "not in the table: {missing:?}");
    assert!(upward.is_empty(), "imports of modules in higher rows: {upward:?}");
}

#[test]
fn no_file_is_too_long() {
    let length = |path: &String| read(path).lines().count();
    let mut long = files(&["rs"]);
    long.retain(|path| length(path) > MAX_LINES);
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:?}");
}

/// The targets of the links of a document, without those in blocks of code.
fn links(document: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in document.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        let after = line.split("](").skip(1);
        links.extend(after.filter_map(|rest| rest.split(')').next()).map(str::to_owned));
    }
    links
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(anchor).collect()
}

/// Where the project's own files are on the web.
const ONLINE: &str = "https://github.com/stentor-rs/stentor/";

/// The file of the project to which a link of a document leads, without its anchor. `None` for a
/// link that leads out of the project.
fn target(document: &str, file: &str) -> Option<PathBuf> {
    if let Some(online) = file.strip_prefix(ONLINE) {
        let (kind, path) = online.split_once("/main/")?;
        let path = root().join(path);
        // A folder has an address of another kind.
        return Some(if (kind == "tree") == path.is_dir() { path } else { PathBuf::new() });
    }
    if file.contains("://") || file.starts_with("mailto:") {
        return None;
    }
    let document = root().join(document);
    Some(if file.is_empty() { document } else { document.with_file_name(file) })
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files(&["md"]) {
        for link in links(&read(&path)) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let Some(target) = target(&path, file) else { continue };
            let leads = match (target.exists(), anchor) {
                (exists, "") => exists,
                (exists, anchor) => {
                    exists
                        && anchors(&fs::read_to_string(&target).unwrap_or_default())
                            .contains(anchor)
                }
            };
            // A registry shows the README, too, where a relative link leads nowhere.
            if !leads || path == "README.md" && !file.is_empty() && !file.starts_with(ONLINE) {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_comparison_has_the_numbers_that_its_script_counts() {
    let script = root().join("docs/compare/count.sh");
    let counted = std::process::Command::new("bash").arg(script).output().expect("bash");
    let counted = String::from_utf8(counted.stdout).expect("a table");
    let table = counted.trim_end();
    assert!(table.lines().count() > 2, "{table}");
    assert!(read("docs/COMPARE.md").contains(table), "the table is to be:\n{table}");
}

/// The tests that the table of invariants names: words in backticks that are names of functions.
fn tests_of(row: &str) -> Vec<&str> {
    let tests = row.rsplit('|').nth(1).unwrap_or_default();
    let quoted = tests.split('`').skip(1).step_by(2);
    quoted.filter(|it| it.contains('_') && !it.contains(['/', '.'])).collect()
}

#[test]
fn each_guarantee_has_an_invariant_and_each_invariant_a_test() {
    let architecture = read("docs/ARCHITECTURE.md");
    let (_, table) = architecture.split_once("## Invariants").expect("the table of invariants");
    let rows = table.lines().filter_map(|line| {
        let number = line.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok()?;
        Some((number, line))
    });
    let invariants: BTreeMap<_, _> = rows.collect();
    let code: String = files(&["rs"]).iter().map(|file| read(file)).collect();
    let missing: Vec<_> = invariants
        .values()
        .flat_map(|row| tests_of(row))
        .filter(|test| !code.contains(&format!("fn {test}(")))
        .collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");

    let guarantees = read("docs/GUARANTEES.md");
    let is_list = |text: &str| text.chars().all(|it| it.is_ascii_digit() || ", ".contains(it));
    let named = guarantees.split(['(', ')', '|']).filter(|text| is_list(text));
    let numbers: Vec<u32> =
        named.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse().ok()).collect();
    assert!(numbers.len() > 40, "{numbers:?}");
    let unknown: Vec<_> = numbers.iter().filter(|it| !invariants.contains_key(it)).collect();
    assert!(unknown.is_empty(), "invariants that do not exist: {unknown:?}");
}

/// The names of metrics after this macro.
fn metrics_after<'a>(code: &'a str, macro_: &str) -> BTreeSet<&'a str> {
    let calls = code.split(macro_).skip(1);
    calls.filter_map(|it| it.trim_start().strip_prefix('"')?.split('"').next()).collect()
}

#[test]
fn each_metric_is_described_and_listed() {
    let page = read("crates/engine/src/metrics.rs");
    // `a.b.c`, `.d` in one row are `a.b.c` and `a.b.d`.
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("//! | `")) {
        let cell = row.split('|').nth(1).unwrap_or_default();
        let mut first = "";
        for name in cell.split('`').skip(1).step_by(2) {
            match name.strip_prefix('.') {
                Some(_) => listed.insert(format!("{}{name}", first.rsplit_once('.').unwrap().0)),
                None => {
                    first = name;
                    listed.insert(name.to_owned())
                }
            };
        }
    }
    let sources = files(&["rs"]);
    let code: String =
        sources.iter().filter(|it| it.starts_with("crates/")).map(|it| read(it)).collect();
    for kind in ["counter", "gauge", "histogram"] {
        let described = metrics_after(&code, &format!("describe_{kind}!("));
        let used = metrics_after(&code, &format!(" {kind}!("));
        assert_eq!(used, described, "used and described: {kind}");
        let unlisted: Vec<_> = used.iter().filter(|it| !listed.contains(**it)).collect();
        assert!(unlisted.is_empty(), "metrics.rs does not list {unlisted:?}");
    }
}
