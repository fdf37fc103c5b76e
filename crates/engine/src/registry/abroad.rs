//! The pure part of a catalog of several nodes: what each offers, and what clients see of it.
//!
//! The same item of several nodes is one. Where nodes define an item differently, clients see the
//! definition that most nodes have, and of those that equally many have the smaller one: so every
//! node that knows of the same nodes shows the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use stentor_wire::Era;
use stentor_wire::headers::ParamHeaders;
use stentor_wire::model::Tool;

use super::catalog::Offer;
use super::list::{Json, List};
use super::mutation::Shelf;
use crate::handler::{Told, UriTemplate};
use crate::ids::NodeId;
use crate::peers::Definition;

/// An item that nodes of a cluster define differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Conflict {
    /// Where it is.
    pub shelf: Shelf,
    /// Its name or URI.
    pub key: Arc<str>,
    /// The other nodes whose definition clients do not see.
    pub hidden: Vec<NodeId>,
    /// Whether this engine's own definition is one that clients do not see.
    pub own_is_hidden: bool,
}

/// An item that other nodes offer, all in the same way.
#[derive(Clone, Debug)]
pub(crate) struct Abroad {
    item: Arc<Foreign>,
    nodes: Arc<[NodeId]>,
    turn: Arc<AtomicUsize>,
}

/// An item as one other node offers it, and what is needed of it here.
#[derive(Debug)]
struct Foreign {
    definition: Definition,
    /// What clients are told of a tool.
    told: Option<Told>,
    headers: ParamHeaders,
    pattern: Option<UriTemplate>,
}

impl Foreign {
    fn new(definition: Definition) -> Self {
        let (mut told, mut headers, mut pattern) = (None, ParamHeaders::default(), None);
        match definition.shelf {
            Shelf::Tools => {
                if let Ok(tool) = serde_json::from_slice::<Tool>(&definition.json) {
                    told = Some(Told::said(&tool, definition.json.clone()));
                    headers = ParamHeaders::from_schema(&tool.input_schema).unwrap_or_default();
                }
            }
            Shelf::Templates => pattern = UriTemplate::new(&definition.key).ok(),
            Shelf::Resources | Shelf::Prompts => {}
        }
        Self { definition, told, headers, pattern }
    }
}

impl Abroad {
    pub(super) fn json(&self, era: Era) -> &Bytes {
        let json = &self.item.definition.json;
        self.item.told.as_ref().map_or(json, |told| told.json(era))
    }

    /// Whether it is a template that a URI, in its normal form, fits.
    pub(super) fn fits(&self, normal: &str) -> bool {
        self.item.pattern.as_ref().is_some_and(|pattern| pattern.fits(normal))
    }

    /// The headers that repeat arguments of a tool.
    pub(crate) fn headers(&self) -> &ParamHeaders {
        &self.item.headers
    }

    /// The nodes that offer it, each time another one first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len().max(1);
        self.nodes[first..].iter().chain(&self.nodes[..first])
    }
}

/// What each other node offers.
#[derive(Clone, Debug, Default)]
pub(super) struct ForeignShelves(Arc<BTreeMap<NodeId, Vec<Arc<Foreign>>>>);

impl ForeignShelves {
    /// The same when a node offers this, or nothing any more.
    pub(super) fn with(&self, node: &NodeId, definitions: Option<Vec<Definition>>) -> Self {
        let mut nodes = BTreeMap::clone(&self.0);
        let before = nodes.remove(node).unwrap_or_default();
        if let Some(definitions) = definitions {
            let mut known: HashMap<_, _> = before
                .into_iter()
                .map(|item| ((item.definition.shelf, item.definition.key.clone()), item))
                .collect();
            // What a schema says is found out once.
            let item = |definition: Definition| {
                let known = known.remove(&(definition.shelf, definition.key.clone()));
                let same = known.filter(|known| known.definition == definition);
                same.unwrap_or_else(|| Arc::new(Foreign::new(definition)))
            };
            nodes.insert(node.clone(), definitions.into_iter().map(item).collect());
        }
        Self(Arc::new(nodes))
    }

    fn on<'a>(&'a self, shelf: Shelf) -> impl Iterator<Item = (&'a NodeId, &'a Arc<Foreign>)> + 'a {
        let items = self.0.iter().flat_map(|(node, items)| items.iter().map(move |it| (node, it)));
        items.filter(move |(_, item)| item.definition.shelf == shelf)
    }
}

/// Those who define an item in the same way.
struct Group<'a, E> {
    json: &'a Bytes,
    own: Option<&'a E>,
    abroad: Vec<(&'a NodeId, &'a Arc<Foreign>)>,
    ordinal: u64,
}

impl<E> Group<'_, E> {
    fn size(&self) -> usize {
        self.abroad.len() + usize::from(self.own.is_some())
    }
}

/// What clients see of one shelf.
pub(super) fn union<E>(
    own: &List<Arc<E>>,
    abroad: &ForeignShelves,
    shelf: Shelf,
    conflicts: &mut Vec<Conflict>,
) -> List<Offer<E>>
where
    Arc<E>: Json,
{
    if abroad.0.is_empty() {
        let entry = |(key, ordinal, entry): (&Arc<str>, u64, &Arc<E>)| {
            (key.clone(), ordinal, Offer::Own(entry.clone()))
        };
        return List::of(own.entries().map(entry));
    }
    let mut items: BTreeMap<&Arc<str>, Vec<Group<'_, Arc<E>>>> = BTreeMap::new();
    for (key, ordinal, entry) in own.entries() {
        let group =
            Group { json: entry.json(Era::Modern), own: Some(entry), abroad: Vec::new(), ordinal };
        items.entry(key).or_default().push(group);
    }
    for (node, item) in abroad.on(shelf) {
        let Definition { key, ordinal, json, .. } = &item.definition;
        let groups = items.entry(key).or_default();
        match groups.iter_mut().find(|group| group.json == json) {
            Some(group) => {
                group.ordinal = group.ordinal.min(*ordinal);
                group.abroad.push((node, item));
            }
            None => {
                let abroad = vec![(node, item)];
                groups.push(Group { json, own: None, abroad, ordinal: *ordinal });
            }
        }
    }
    let mut entries = Vec::with_capacity(items.len());
    for (key, mut groups) in items {
        let better =
            |group: &Group<'_, Arc<E>>| (std::cmp::Reverse(group.size()), group.json.clone());
        groups.sort_by_cached_key(better);
        let mut groups = groups.into_iter();
        let Some(shown) = groups.next() else { continue };
        let (mut hidden, mut own_is_hidden) = (Vec::new(), false);
        for group in groups {
            hidden.extend(group.abroad.iter().map(|(node, _)| (*node).clone()));
            own_is_hidden |= group.own.is_some();
        }
        if own_is_hidden || !hidden.is_empty() {
            conflicts.push(Conflict { shelf, key: key.clone(), hidden, own_is_hidden });
        }
        let offer = match (shown.own, shown.abroad.first()) {
            (Some(entry), _) => Offer::Own(entry.clone()),
            (None, Some((_, item))) => Offer::Abroad(Abroad {
                item: (*item).clone(),
                nodes: shown.abroad.iter().map(|(node, _)| (*node).clone()).collect(),
                turn: Arc::default(),
            }),
            (None, None) => continue,
        };
        entries.push((key.clone(), shown.ordinal, offer));
    }
    List::of(entries)
}

#[cfg(test)]
mod tests;
