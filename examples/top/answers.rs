//! What the nodes say in an answer of the console, put together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value;

use crate::text::{list, number, sum, text};

/// Values of a rate that are kept: more than a terminal is wide.
const KEPT: usize = 400;

/// The names of all nodes of an answer.
pub(crate) fn names(answer: &Value) -> Vec<String> {
    let mut names: Vec<_> =
        list(answer, "nodes").iter().map(|it| text(it, "node").to_owned()).collect();
    names.extend(answered(answer).flat_map(|(_, it)| {
        list(it, "peers").iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    }));
    names.sort_unstable();
    names.dedup();
    names
}

/// The nodes that have answered, and what.
pub(crate) fn answered(answer: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let nodes = list(answer, "nodes").iter();
    nodes.filter(|it| it.get("error").is_none()).map(|it| (text(it, "node"), &it["answer"]))
}

/// The nodes that have not, and why.
pub(crate) fn errors(answer: &Value) -> impl Iterator<Item = (&str, &str)> {
    let nodes = list(answer, "nodes").iter();
    nodes.filter(|it| it.get("error").is_some()).map(|it| (text(it, "node"), text(it, "error")))
}

/// A list of each node, in one.
pub(crate) fn all<'a>(answer: &'a Value, name: &str) -> Vec<(&'a str, &'a Value)> {
    let of_node =
        |(node, it): (&'a str, &'a Value)| list(it, name).iter().map(move |it| (node, it));
    answered(answer).flat_map(of_node).collect()
}

/// The sessions of all nodes, slow ones first.
pub(crate) fn sessions(answer: &Value) -> Vec<(&str, &Value)> {
    let mut sessions = all(answer, "sessions");
    sessions.sort_by_key(|(_, it)| {
        Reverse((it["slow"] == true, number(it, "unread"), number(it, "heldBytes")))
    });
    sessions
}

/// What happened on all nodes, oldest first.
pub(crate) fn log(answer: &Value) -> Vec<(&str, &Value)> {
    let mut entries = all(answer, "entries");
    entries.sort_by_key(|(_, it)| number(it, "at"));
    entries
}

/// One item of the catalog, and the nodes that have it.
pub(crate) struct Item<'a> {
    pub(crate) item: &'a Value,
    pub(crate) nodes: Vec<&'a str>,
    /// Whether somebody else sees it on another node, or it needs other scopes there.
    pub(crate) differs: bool,
}

pub(crate) fn catalog(answer: &Value) -> Vec<Item<'_>> {
    let mut items = BTreeMap::<(&str, &str), Item<'_>>::new();
    for (node, item) in all(answer, "items") {
        let key = (text(item, "kind"), text(item, "key"));
        let known =
            items.entry(key).or_insert_with(|| Item { item, nodes: Vec::new(), differs: false });
        known.nodes.push(node);
        let same = ["restricted", "labels", "scopes"].iter().all(|it| item[it] == known.item[it]);
        known.differs |= !same || !item["conflict"].is_null();
    }
    items.into_values().collect()
}

/// The counters of a node: how long it was up then, and what it had delivered and lost.
type Counted = (u64, u64, u64);

/// Frames a second, from the counters of one overview after the other.
#[derive(Default)]
pub(crate) struct Rates {
    before: HashMap<String, Counted>,
    pub(crate) delivered: VecDeque<u64>,
    pub(crate) lost: VecDeque<u64>,
}

impl Rates {
    pub(crate) fn add(&mut self, overview: &Value) {
        let counted = answered(overview).map(|(node, it)| {
            let frames = &it["frames"];
            let lost = sum(&frames["dropped"]).saturating_add(sum(&frames["closed"]));
            (node.to_owned(), (number(it, "upMs"), sum(&frames["delivered"]), lost))
        });
        let now: HashMap<_, _> = counted.collect();
        let (mut delivered, mut lost, mut is_known) = (0_u64, 0_u64, false);
        for (node, now) in &now {
            // By the node's own time: the answer of all of them waits for the slowest one. One that has
            // begun again counts from 0.
            let before = self.before.get(node).filter(|before| before.0 < now.0);
            let Some(before) = before else { continue };
            is_known = true;
            let ms = now.0 - before.0;
            let second = |before: u64, now: u64| now.saturating_sub(before).saturating_mul(1_000);
            delivered = delivered.saturating_add(second(before.1, now.1) / ms);
            lost = lost.saturating_add(second(before.2, now.2).div_ceil(ms));
        }
        if is_known {
            push(&mut self.delivered, delivered);
            push(&mut self.lost, lost);
        }
        self.before = now;
    }
}

fn push(rates: &mut VecDeque<u64>, rate: u64) {
    if rates.len() >= KEPT {
        rates.pop_front();
    }
    rates.push_back(rate);
}
