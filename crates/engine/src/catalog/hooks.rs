//! The pure part of hooks: whose hooks watch a URI.

use std::sync::Arc;

use foldhash::HashMap;

use super::remote_items::Offer;
use super::{Catalog, LocalItems, RemoteItems};
use crate::handler::{Hooks, TemplateVars};
use crate::ids::NodeId;
use crate::items::ItemKind;

/// The hooks of one item, on all nodes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ItemHooks {
    /// Its hooks on this node.
    pub(crate) own: Option<Hooks>,
    /// The other nodes that offer it with hooks.
    pub(crate) others: Vec<NodeId>,
}

/// All items with hooks.
pub(super) type Hooked = HashMap<(ItemKind, Arc<str>), ItemHooks>;

pub(super) fn hooked(local: &LocalItems, remote: &RemoteItems) -> Hooked {
    let resources = local.resources.entries();
    let resources = resources.map(|(key, _, it)| (ItemKind::Resources, key, it.hooks()));
    let templates = local.templates.entries();
    let templates = templates.map(|(key, _, it)| (ItemKind::Templates, key, it.hooks()));
    let mut hooked = Hooked::default();
    for (kind, key, hooks) in resources.chain(templates).filter(|(.., hooks)| !hooks.is_empty()) {
        hooked.entry((kind, key.clone())).or_default().own = Some(hooks.clone());
    }
    for (node, kind, key) in remote.hooked() {
        hooked.entry((kind, key.clone())).or_default().others.push(node.clone());
    }
    hooked
}

impl Catalog {
    /// The hooks of a URI in its normal form, and the variables of the URI: those of the item that
    /// is read under it. `None` if that has no hooks on any node.
    pub(crate) fn hooks(&self, normal: &str) -> Option<(&ItemHooks, TemplateVars)> {
        let shown = &self.shown;
        if shown.hooked.is_empty() {
            return None;
        }
        if let Some(resource) = shown.find(&shown.resources, normal, normal) {
            let key = match resource {
                Offer::Local(resource) => resource.uri().into(),
                Offer::Remote(remote) => remote.key().clone(),
            };
            let item = shown.hooked.get(&(ItemKind::Resources, key))?;
            return Some((item, TemplateVars::new()));
        }
        let (key, vars) = shown.templates.entries().find_map(|(key, _, template)| {
            let vars = match template {
                Offer::Local(template) => template.variables(normal)?,
                Offer::Remote(remote) => remote.variables(normal)?,
            };
            Some((key, vars))
        })?;
        Some((shown.hooked.get(&(ItemKind::Templates, key.clone()))?, vars))
    }

    /// Whether this node offers this item with hooks.
    pub(super) fn has_hooks(&self, kind: ItemKind, key: &Arc<str>) -> bool {
        let item = self.shown.hooked.get(&(kind, key.clone()));
        item.is_some_and(|item| item.own.is_some())
    }

    /// Whether URIs may have other hooks than `before`.
    pub(crate) fn hooks_differ(&self, before: &Self) -> bool {
        let (now, before) = (&self.shown, &before.shown);
        let are_some = !(now.hooked.is_empty() && before.hooked.is_empty());
        are_some
            && (now.hooked != before.hooked
                || now.resources.differs(&before.resources)
                || now.templates.differs(&before.templates))
    }
}
