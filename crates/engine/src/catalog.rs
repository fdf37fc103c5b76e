//! The lists at one revision, and how mutations change them: pure, without the registry's actor.

mod definition;
mod hooks;
mod list;
mod list_cache;
mod mutation;
mod remote_items;
mod restricted;
mod toolbox;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use foldhash::HashMap;
use stentor_wire::{Era, uri};

use crate::access::{Access, ListChanges, Viewer};
use crate::handler::{PromptEntry, Reader, ResourceEntry, TemplateEntry, ToolEntry};
use crate::ids::{NodeId, Revision};
use crate::items::{Conflict, ItemKind};
pub use definition::Definition;
use hooks::{Hooked, hooked};
use list::{InvalidCursor, Json, List};
pub use list_cache::ListCache;
pub(crate) use mutation::Checked;
use mutation::Entry;
pub use mutation::{CatalogError, Change, Item, Mutation};
pub(crate) use remote_items::{Offer, RemoteOffer};
use remote_items::{RemoteItems, union};
use restricted::Restricted;
pub use toolbox::Toolbox;

/// The lists at one revision. Immutable: a mutation makes a new catalog, and readers keep theirs.
///
/// Clients see the items of all nodes of a cluster; without a cluster, the items of this engine.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: Revision,
    next_ordinal: u64,
    local: LocalItems,
    remote: RemoteItems,
    shown: Arc<Shown>,
}

#[derive(Clone, Debug, Default)]
struct LocalItems {
    tools: List<Arc<ToolEntry>>,
    resources: List<Arc<ResourceEntry>>,
    templates: List<Arc<TemplateEntry>>,
    prompts: List<Arc<PromptEntry>>,
}

impl LocalItems {
    fn settle(&mut self) {
        self.tools.settle();
        self.resources.settle();
        self.templates.settle();
        self.prompts.settle();
    }
}

/// The items of all nodes, as clients see them.
#[derive(Debug, Default)]
struct Shown {
    tools: List<Offer<ToolEntry>>,
    resources: List<Offer<ResourceEntry>>,
    templates: List<Offer<TemplateEntry>>,
    prompts: List<Offer<PromptEntry>>,
    conflicts: Vec<Conflict>,
    restricted: Restricted,
    hooked: Hooked,
    /// Resource URIs and URI templates that are not in their normal form, by that form.
    spelled: OnceLock<HashMap<String, Arc<str>>>,
}

macro_rules! has_json {
    ($($entry:ty),*) => {
        $(impl Json for Arc<$entry> {
            fn json(&self, _era: Era) -> &Bytes {
                &self.json
            }
        })*
    };
}

has_json!(ResourceEntry, TemplateEntry, PromptEntry);

/// An item of this node, for which its author says who may see and use it.
trait HasAccess {
    fn access(&self) -> &Access;
}

macro_rules! has_access {
    ($($entry:ty),*) => {
        $(impl HasAccess for Arc<$entry> {
            fn access(&self) -> &Access {
                <$entry>::access(self)
            }
        })*
    };
}

has_access!(ToolEntry, ResourceEntry, TemplateEntry, PromptEntry);

impl Json for Arc<ToolEntry> {
    fn json(&self, era: Era) -> &Bytes {
        ToolEntry::json(self, era)
    }
}

impl Catalog {
    /// The revision of these lists.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The names of the tools, in the order of the list.
    pub fn tool_names(&self) -> impl Iterator<Item = &str> {
        self.shown.tools.keys()
    }

    /// The URIs of the resources, in the order of the list.
    pub fn resource_uris(&self) -> impl Iterator<Item = &str> {
        self.shown.resources.keys()
    }

    /// The URI templates, in the order of the list.
    pub fn uri_templates(&self) -> impl Iterator<Item = &str> {
        self.shown.templates.keys()
    }

    /// The names of the prompts, in the order of the list.
    pub fn prompt_names(&self) -> impl Iterator<Item = &str> {
        self.shown.prompts.keys()
    }

    /// Items that nodes of a cluster define differently. Clients see the definition of most nodes;
    /// every node shows the same.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.shown.conflicts
    }

    /// The definitions of this engine's own items, for other nodes.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        fn of<E: Json + HasAccess>(
            kind: ItemKind,
            list: &List<E>,
        ) -> impl Iterator<Item = Definition> {
            list.entries().map(move |(key, ordinal, entry)| Definition {
                kind,
                key: key.clone(),
                ordinal,
                json: entry.json(Era::Modern).clone(),
                has_hooks: false,
                access: entry.access().clone(),
            })
        }
        let local = &self.local;
        let mut definitions: Vec<_> = of(ItemKind::Tools, &local.tools)
            .chain(of(ItemKind::Resources, &local.resources))
            .chain(of(ItemKind::Templates, &local.templates))
            .chain(of(ItemKind::Prompts, &local.prompts))
            .collect();
        for definition in &mut definitions {
            definition.has_hooks = self.has_hooks(definition.kind, &definition.key);
        }
        definitions
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Offer<ToolEntry>> {
        self.shown.tools.get(name)
    }

    pub(crate) fn local_tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.local.tools.get(name)
    }

    pub(crate) fn local_prompt(&self, name: &str) -> Option<&Arc<PromptEntry>> {
        self.local.prompts.get(name)
    }

    pub(crate) fn local_template(&self, uri_template: &str) -> Option<&Arc<TemplateEntry>> {
        self.shown.find(&self.local.templates, uri_template, &uri::normal(uri_template))
    }

    pub(crate) fn local_reader(&self, uri: &str) -> Option<Reader> {
        if let Some(resource) = self.local.resources.get(uri) {
            return Some(resource.reader());
        }
        let normal = uri::normal(uri);
        match self.shown.find(&self.local.resources, uri, &normal) {
            Some(resource) => Some(resource.reader()),
            None => self.local.templates.iter().find_map(|template| template.reader(&normal)),
        }
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Offer<PromptEntry>> {
        self.shown.prompts.get(name)
    }

    pub(crate) fn template(&self, uri_template: &str) -> Option<&Offer<TemplateEntry>> {
        self.shown.find(&self.shown.templates, uri_template, &uri::normal(uri_template))
    }

    /// The reader of a URI: the resource with that URI in any spelling, or the first template that
    /// fits.
    pub(crate) fn reader(&self, uri: &str) -> Option<Readable> {
        let readable = |offer: &Offer<ResourceEntry>| match offer {
            Offer::Local(resource) => Readable::Local(resource.reader()),
            Offer::Remote(remote) => Readable::Remote(remote.clone()),
        };
        if let Some(as_listed) = self.shown.resources.get(uri) {
            return Some(readable(as_listed));
        }
        let normal = uri::normal(uri);
        let resource = self.shown.find(&self.shown.resources, uri, &normal);
        resource.map(readable).or_else(|| {
            self.shown.templates.iter().find_map(|template| match template {
                Offer::Local(template) => template.reader(&normal).map(Readable::Local),
                Offer::Remote(remote) => {
                    remote.fits(&normal).then(|| Readable::Remote(remote.clone()))
                }
            })
        })
    }

    pub(crate) fn page(
        &self,
        kind: ItemKind,
        era: Era,
        cursor: Option<&str>,
        size: usize,
        viewer: Option<&Viewer>,
    ) -> Result<Bytes, InvalidCursor> {
        let shown = &self.shown;
        let sees = |key: &str| self.sees(viewer, kind, key);
        match kind {
            ItemKind::Tools => shown.tools.page("tools", era, cursor, size, sees),
            ItemKind::Resources => shown.resources.page("resources", era, cursor, size, sees),
            ItemKind::Templates => {
                shown.templates.page("resourceTemplates", era, cursor, size, sees)
            }
            ItemKind::Prompts => shown.prompts.page("prompts", era, cursor, size, sees),
        }
    }

    /// The catalog after all `mutations`, and how the lists that clients see changed. If there are
    /// any, the revision grows.
    pub(crate) fn apply(
        &self,
        mutations: Vec<Checked>,
    ) -> Result<(Self, ListChanges), CatalogError> {
        let mut next = self.clone();
        for mutation in mutations {
            next.apply_one(mutation)?;
        }
        next.local.settle();
        Ok(next.rebuilt(self))
    }

    /// The catalog when another node offers these items, or nothing any more; and how the
    /// lists changed.
    pub(crate) fn with_remote(
        &self,
        node: &NodeId,
        definitions: Option<Vec<Definition>>,
    ) -> (Self, ListChanges) {
        let mut next = self.clone();
        next.remote = self.remote.with(node, definitions);
        next.rebuilt(self)
    }

    /// Rebuilds the items that clients see. Returns how the lists changed since `before`.
    fn rebuilt(mut self, before: &Self) -> (Self, ListChanges) {
        let (local, remote, mut conflicts) = (&self.local, &self.remote, Vec::new());
        let found = &mut conflicts;
        self.shown = Arc::new(Shown {
            tools: union(&local.tools, remote, ItemKind::Tools, found),
            resources: union(&local.resources, remote, ItemKind::Resources, found),
            templates: union(&local.templates, remote, ItemKind::Templates, found),
            prompts: union(&local.prompts, remote, ItemKind::Prompts, found),
            conflicts,
            restricted: Restricted::of(local, remote),
            hooked: hooked(local, remote),
            spelled: OnceLock::new(),
        });
        let changes = self.shown.changes_since(&before.shown);
        if !changes.is_empty() {
            self.revision.0 += 1;
        }
        (self, changes)
    }

    fn apply_one(&mut self, mutation: Checked) -> Result<(), CatalogError> {
        let (entry, replace) = match mutation {
            Checked::Add(entry) => (entry, false),
            Checked::Put(entry) => (entry, true),
            Checked::Remove(kind, key) => {
                match kind {
                    ItemKind::Tools => self.local.tools.remove(&key),
                    ItemKind::Resources => self.local.resources.remove(&key),
                    ItemKind::Templates => self.local.templates.remove(&key),
                    ItemKind::Prompts => self.local.prompts.remove(&key),
                }
                return Ok(());
            }
        };
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        fn put<E>(
            list: &mut List<Arc<E>>,
            (kind, key): (ItemKind, &str),
            ordinal: u64,
            entry: Arc<E>,
            replace: bool,
        ) -> Result<(), CatalogError> {
            match list.put(key, ordinal, entry.clone(), replace) {
                true => Ok(()),
                false => Err(CatalogError::Exists { kind, key: key.to_owned() }),
            }
        }
        let local = &mut self.local;
        match entry {
            Entry::Tool(tool) => {
                let key = (ItemKind::Tools, tool.name());
                put(&mut local.tools, key, ordinal, tool.clone(), replace)
            }
            Entry::Resource(resource) => {
                let key = (ItemKind::Resources, resource.uri());
                put(&mut local.resources, key, ordinal, resource.clone(), replace)
            }
            Entry::Template(template) => {
                let key = (ItemKind::Templates, template.uri_template());
                put(&mut local.templates, key, ordinal, template.clone(), replace)
            }
            Entry::Prompt(prompt) => {
                let key = (ItemKind::Prompts, prompt.name());
                put(&mut local.prompts, key, ordinal, prompt.clone(), replace)
            }
        }
    }
}

impl Shown {
    /// The entry of this URI: as it is spelled, in its normal form, or in another spelling of that
    /// form.
    fn find<'a, E>(&self, list: &'a List<E>, uri: &str, normal: &str) -> Option<&'a E> {
        let found = list.get(uri).or_else(|| list.get(normal));
        found.or_else(|| list.get(self.spelled().get(normal)?))
    }

    /// Built at the first lookup of a URI that is not in the lists.
    fn spelled(&self) -> &HashMap<String, Arc<str>> {
        self.spelled.get_or_init(|| {
            let all = self.resources.entries().map(|(key, ..)| key);
            let all = all.chain(self.templates.entries().map(|(key, ..)| key));
            let mut spelled = HashMap::default();
            for key in all {
                let normal = uri::normal(key);
                if *normal != **key {
                    spelled.entry(normal).or_insert_with(|| key.clone());
                }
            }
            spelled
        })
    }
}

pub(crate) enum Readable {
    Local(Reader),
    Remote(RemoteOffer),
}

#[cfg(test)]
mod tests;
