//! Which node serves a request.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use stentor_engine::{NodeId, Requester};
use stentor_wire::Params;

use crate::shared::Shared;
use crate::webhook::id_of;

#[derive(Debug, Deserialize)]
struct Asked {
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    #[serde(default)]
    delivery: Option<Delivery>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    url: String,
}

/// The nodes that serve a request instead of this one; none if this one does.
///
/// A list, a poll and a stream are served by each node that has the types. A webhook belongs to one
/// node: the one that delivers it, or would.
pub(crate) fn route(
    shared: &Shared,
    requester: &Requester,
    method: &str,
    params: &Params,
) -> Vec<NodeId> {
    if !shared.peers.are_some() {
        return Vec::new();
    }
    if method == "events/list" {
        return with_more_types(shared);
    }
    // What cannot be read is refused here.
    let Ok(asked) = params.parse::<Asked>() else { return Vec::new() };
    match (method, asked.delivery) {
        ("events/subscribe" | "events/unsubscribe", Some(delivery)) => {
            let Some(principal) = shared.webhooks.principal_of(requester) else {
                return if_not_here(shared, &asked.name);
            };
            let arguments = asked.arguments.unwrap_or_default();
            match id_of(&principal, &asked.name, &arguments, &delivery.url) {
                Ok(id) => owner(shared, &id, &asked.name),
                Err(_) => if_not_here(shared, &asked.name),
            }
        }
        _ => if_not_here(shared, &asked.name),
    }
}

/// The nodes that have a type which this one does not have.
fn if_not_here(shared: &Shared, name: &str) -> Vec<NodeId> {
    match shared.find(name) {
        Some(_) => Vec::new(),
        None => shared.peers.with_type(name),
    }
}

/// The node to which a webhook belongs, unless that is this one.
fn owner(shared: &Shared, id: &str, name: &str) -> Vec<NodeId> {
    if shared.webhooks.find(id).is_some() {
        return Vec::new();
    }
    let mut nodes = shared.peers.with_type(name);
    if let Some(owner) = shared.webhooks.owner_of(id).filter(|it| nodes.contains(it)) {
        return vec![owner];
    }
    let own = shared.engine.load().as_ref().map(|engine| engine.node().clone());
    nodes.extend(own.clone().filter(|_| shared.find(name).is_some()));
    match nodes.into_iter().max_by_key(|node| rank(id, node)) {
        Some(best) if Some(&best) != own.as_ref() => vec![best],
        _ => Vec::new(),
    }
}

/// A node that has more types than this one, and all that there are.
fn with_more_types(shared: &Shared) -> Vec<NodeId> {
    let own: BTreeSet<Arc<str>> = shared.all().iter().map(|it| it.name()).collect();
    let others = shared.peers.types();
    let all: BTreeSet<_> = others.iter().flat_map(|(_, it)| it).chain(&own).cloned().collect();
    if own.len() == all.len() {
        return Vec::new();
    }
    let full = others.into_iter().filter(|(_, types)| types.len() == all.len());
    full.map(|(node, _)| node).collect()
}

/// How much a node is the one for a webhook: the highest rank is. Each node finds the same.
pub(crate) fn rank(id: &str, node: &NodeId) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(id);
    hash.update([0]);
    hash.update(node.as_str());
    let mut rank = [0; 8];
    rank.copy_from_slice(&hash.finalize()[..8]);
    rank
}
