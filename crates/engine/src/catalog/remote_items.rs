//! The pure part of a catalog of several nodes: the items of each node, and what clients see of
//! them.
//!
//! An item that several nodes define in the same way is one item. Where nodes define an item
//! differently, clients see the definition of most nodes; of equally frequent definitions, the
//! smaller one. So all nodes that know of the same nodes show the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use stentor_wire::Era;
use stentor_wire::headers::ParamHeaders;
use stentor_wire::model::Tool;

use super::definition::Definition;
use super::list::{Json, List};
use crate::access::Access;
use crate::handler::{TemplateVars, ToolDescriptor, UriTemplate};
use crate::ids::NodeId;
use crate::items::{Conflict, ItemKind};

/// An item that clients see, and where it is.
#[derive(Debug)]
pub(crate) enum Offer<E> {
    Local(Arc<E>),
    /// Only on other nodes.
    Remote(RemoteOffer),
}

impl<E> Clone for Offer<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Local(entry) => Self::Local(entry.clone()),
            Self::Remote(remote) => Self::Remote(remote.clone()),
        }
    }
}

impl<E> Json for Offer<E>
where
    Arc<E>: Json,
{
    fn json(&self, era: Era) -> &Bytes {
        match self {
            Self::Local(entry) => entry.json(era),
            Self::Remote(remote) => remote.json(era),
        }
    }
}

/// An item that other nodes offer, all with the same definition.
#[derive(Clone, Debug)]
pub(crate) struct RemoteOffer {
    item: Arc<RemoteItem>,
    nodes: Arc<[NodeId]>,
    next_node: Arc<AtomicUsize>,
}

/// An item of another node, with the parts of its definition that this node needs.
#[derive(Debug)]
struct RemoteItem {
    definition: Definition,
    descriptor: Option<ToolDescriptor>,
    headers: ParamHeaders,
    pattern: Option<UriTemplate>,
}

impl RemoteItem {
    fn new(definition: Definition) -> Self {
        let (mut descriptor, mut headers, mut pattern) = (None, ParamHeaders::default(), None);
        match definition.kind {
            ItemKind::Tools => {
                if let Ok(tool) = serde_json::from_slice::<Tool>(&definition.json) {
                    descriptor =
                        Some(ToolDescriptor::from_definition(&tool, definition.json.clone()));
                    headers = ParamHeaders::from_schema(&tool.input_schema).unwrap_or_default();
                }
            }
            ItemKind::Templates => pattern = UriTemplate::new(&definition.key).ok(),
            ItemKind::Resources | ItemKind::Prompts => {}
        }
        Self { definition, descriptor, headers, pattern }
    }
}

impl RemoteOffer {
    pub(super) fn json(&self, era: Era) -> &Bytes {
        let json = &self.item.definition.json;
        self.item.descriptor.as_ref().map_or(json, |descriptor| descriptor.json(era))
    }

    /// Whether it is a template that fits a URI, given in its normal form.
    pub(super) fn fits(&self, normal: &str) -> bool {
        self.item.pattern.as_ref().is_some_and(|pattern| pattern.fits(normal))
    }

    /// The name or URI of the item.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.item.definition.key
    }

    /// The variables of a URI in its normal form, if it is a template that the URI fits.
    pub(super) fn variables(&self, normal: &str) -> Option<TemplateVars> {
        self.item.pattern.as_ref()?.variables(normal)
    }

    /// The headers that repeat arguments of a tool.
    pub(crate) fn headers(&self) -> &ParamHeaders {
        &self.item.headers
    }

    /// The nodes that offer it. Each call begins with another node.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        let first = self.next_node.fetch_add(1, Ordering::Relaxed) % self.nodes.len().max(1);
        self.nodes[first..].iter().chain(&self.nodes[..first])
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct RemoteItems(Arc<BTreeMap<NodeId, Vec<Arc<RemoteItem>>>>);

impl RemoteItems {
    /// The same items when `node` offers `definitions`, or nothing any more.
    pub(super) fn with(&self, node: &NodeId, definitions: Option<Vec<Definition>>) -> Self {
        let mut nodes = BTreeMap::clone(&self.0);
        let before = nodes.remove(node).unwrap_or_default();
        if let Some(definitions) = definitions {
            let mut known: HashMap<_, _> = before
                .into_iter()
                .map(|item| ((item.definition.kind, item.definition.key.clone()), item))
                .collect();
            // An unchanged definition keeps its item, so its schema is parsed only once.
            let item = |definition: Definition| {
                let known = known.remove(&(definition.kind, definition.key.clone()));
                let same = known.filter(|known| known.definition == definition);
                same.unwrap_or_else(|| Arc::new(RemoteItem::new(definition)))
            };
            nodes.insert(node.clone(), definitions.into_iter().map(item).collect());
        }
        Self(Arc::new(nodes))
    }

    /// The items with hooks, and their nodes.
    pub(super) fn hooked(&self) -> impl Iterator<Item = (&NodeId, ItemKind, &Arc<str>)> {
        let items = self.0.iter().flat_map(|(node, items)| items.iter().map(move |it| (node, it)));
        let hooked = items.filter(|(_, item)| item.definition.has_hooks);
        hooked.map(|(node, item)| (node, item.definition.kind, &item.definition.key))
    }

    /// The access to all items.
    pub(super) fn accesses(&self) -> impl Iterator<Item = (ItemKind, &Arc<str>, &Access)> {
        let items = self.0.values().flatten().map(|item| &item.definition);
        items.map(|it| (it.kind, &it.key, &it.access))
    }

    fn on<'a>(
        &'a self,
        kind: ItemKind,
    ) -> impl Iterator<Item = (&'a NodeId, &'a Arc<RemoteItem>)> + 'a {
        let items = self.0.iter().flat_map(|(node, items)| items.iter().map(move |it| (node, it)));
        items.filter(move |(_, item)| item.definition.kind == kind)
    }
}

/// The nodes that define an item in the same way.
struct Group<'a, E> {
    json: &'a Bytes,
    local: Option<&'a E>,
    remote: Vec<(&'a NodeId, &'a Arc<RemoteItem>)>,
    ordinal: u64,
}

impl<E> Group<'_, E> {
    fn size(&self) -> usize {
        self.remote.len() + usize::from(self.local.is_some())
    }
}

pub(super) fn union<E>(
    local: &List<Arc<E>>,
    remote: &RemoteItems,
    kind: ItemKind,
    conflicts: &mut Vec<Conflict>,
) -> List<Offer<E>>
where
    Arc<E>: Json,
{
    if remote.0.is_empty() {
        let entry = |(key, ordinal, entry): (&Arc<str>, u64, &Arc<E>)| {
            (key.clone(), ordinal, Offer::Local(entry.clone()))
        };
        return List::of(local.entries().map(entry));
    }
    let mut items: BTreeMap<&Arc<str>, Vec<Group<'_, Arc<E>>>> = BTreeMap::new();
    for (key, ordinal, entry) in local.entries() {
        let group = Group {
            json: entry.json(Era::Modern),
            local: Some(entry),
            remote: Vec::new(),
            ordinal,
        };
        items.entry(key).or_default().push(group);
    }
    for (node, item) in remote.on(kind) {
        let Definition { key, ordinal, json, .. } = &item.definition;
        let groups = items.entry(key).or_default();
        match groups.iter_mut().find(|group| group.json == json) {
            Some(group) => {
                group.ordinal = group.ordinal.min(*ordinal);
                group.remote.push((node, item));
            }
            None => {
                let remote = vec![(node, item)];
                groups.push(Group { json, local: None, remote, ordinal: *ordinal });
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
        let (mut hidden, mut local_is_hidden) = (Vec::new(), false);
        for group in groups {
            hidden.extend(group.remote.iter().map(|(node, _)| (*node).clone()));
            local_is_hidden |= group.local.is_some();
        }
        if local_is_hidden || !hidden.is_empty() {
            conflicts.push(Conflict { kind, key: key.clone(), hidden, local_is_hidden });
        }
        let offer = match (shown.local, shown.remote.first()) {
            (Some(entry), _) => Offer::Local(entry.clone()),
            (None, Some((_, item))) => Offer::Remote(RemoteOffer {
                item: (*item).clone(),
                nodes: shown.remote.iter().map(|(node, _)| (*node).clone()).collect(),
                next_node: Arc::default(),
            }),
            (None, None) => continue,
        };
        entries.push((key.clone(), shown.ordinal, offer));
    }
    List::of(entries)
}

#[cfg(test)]
mod tests;
