//! The pure part of the registry: the lists at one revision, and what a change makes of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use foldhash::HashMap;
use stentor_wire::{Era, ListKind, uri};

use super::abroad::{Abroad, Conflict, ForeignShelves, union};
use super::list::{InvalidCursor, Json, List};
use super::mutation::{CatalogError, Checked, Entry, Shelf};
use crate::handler::{PromptEntry, Reader, ResourceEntry, TemplateEntry, ToolEntry};
use crate::ids::{NodeId, Revision};
use crate::peers::Definition;

/// The lists at one revision. Immutable: a change makes a new one, and readers keep theirs.
///
/// Clients see what all nodes of a cluster offer; without one, what this engine does.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: Revision,
    next_ordinal: u64,
    own: Shelves,
    /// What other nodes offer.
    abroad: ForeignShelves,
    /// What clients see.
    shown: Arc<Shown>,
}

/// What this engine offers.
#[derive(Clone, Debug, Default)]
struct Shelves {
    tools: List<Arc<ToolEntry>>,
    resources: List<Arc<ResourceEntry>>,
    templates: List<Arc<TemplateEntry>>,
    prompts: List<Arc<PromptEntry>>,
}

impl Shelves {
    /// Puts what is left in order, after some was removed.
    fn settle(&mut self) {
        self.tools.settle();
        self.resources.settle();
        self.templates.settle();
        self.prompts.settle();
    }
}

/// What all nodes offer.
#[derive(Debug, Default)]
struct Shown {
    tools: List<Offer<ToolEntry>>,
    resources: List<Offer<ResourceEntry>>,
    templates: List<Offer<TemplateEntry>>,
    prompts: List<Offer<PromptEntry>>,
    conflicts: Vec<Conflict>,
    /// The URIs of resources and templates that are not in their normal form, by that.
    spelled: OnceLock<HashMap<String, Arc<str>>>,
}

/// Where an item is that clients see.
#[derive(Debug)]
pub(crate) enum Offer<E> {
    /// Here.
    Own(Arc<E>),
    /// On other nodes only.
    Abroad(Abroad),
}

impl<E> Clone for Offer<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Own(entry) => Self::Own(entry.clone()),
            Self::Abroad(abroad) => Self::Abroad(abroad.clone()),
        }
    }
}

impl<E> Json for Offer<E>
where
    Arc<E>: Json,
{
    fn json(&self, era: Era) -> &Bytes {
        match self {
            Self::Own(entry) => entry.json(era),
            Self::Abroad(abroad) => abroad.json(era),
        }
    }
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

    /// What nodes of a cluster define differently. Clients see the definition that most nodes
    /// have, on every node the same.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.shown.conflicts
    }

    /// What this engine itself offers, for other nodes.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        fn of<E: Json>(shelf: Shelf, list: &List<E>) -> impl Iterator<Item = Definition> {
            list.entries().map(move |(key, ordinal, entry)| Definition {
                shelf,
                key: key.clone(),
                ordinal,
                json: entry.json(Era::Modern).clone(),
            })
        }
        let own = &self.own;
        of(Shelf::Tools, &own.tools)
            .chain(of(Shelf::Resources, &own.resources))
            .chain(of(Shelf::Templates, &own.templates))
            .chain(of(Shelf::Prompts, &own.prompts))
            .collect()
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Offer<ToolEntry>> {
        self.shown.tools.get(name)
    }

    /// A tool of this engine itself.
    pub(crate) fn own_tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.own.tools.get(name)
    }

    /// A prompt of this engine itself.
    pub(crate) fn own_prompt(&self, name: &str) -> Option<&Arc<PromptEntry>> {
        self.own.prompts.get(name)
    }

    /// A resource template of this engine itself.
    pub(crate) fn own_template(&self, uri_template: &str) -> Option<&Arc<TemplateEntry>> {
        self.shown.find(&self.own.templates, uri_template, &uri::normal(uri_template))
    }

    /// How this engine itself reads a URI.
    pub(crate) fn own_reader(&self, uri: &str) -> Option<Reader> {
        if let Some(resource) = self.own.resources.get(uri) {
            return Some(resource.reader());
        }
        let normal = uri::normal(uri);
        match self.shown.find(&self.own.resources, uri, &normal) {
            Some(resource) => Some(resource.reader()),
            None => self.own.templates.iter().find_map(|template| template.reader(&normal)),
        }
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Offer<PromptEntry>> {
        self.shown.prompts.get(name)
    }

    pub(crate) fn template(&self, uri_template: &str) -> Option<&Offer<TemplateEntry>> {
        self.shown.find(&self.shown.templates, uri_template, &uri::normal(uri_template))
    }

    /// How to read a URI: a resource of that URI, however it is spelled, or the first template that
    /// fits.
    pub(crate) fn reader(&self, uri: &str) -> Option<Readable> {
        let readable = |offer: &Offer<ResourceEntry>| match offer {
            Offer::Own(resource) => Readable::Own(resource.reader()),
            Offer::Abroad(abroad) => Readable::Abroad(abroad.clone()),
        };
        if let Some(as_listed) = self.shown.resources.get(uri) {
            return Some(readable(as_listed));
        }
        let normal = uri::normal(uri);
        let resource = self.shown.find(&self.shown.resources, uri, &normal);
        resource.map(readable).or_else(|| {
            self.shown.templates.iter().find_map(|template| match template {
                Offer::Own(template) => template.reader(&normal).map(Readable::Own),
                Offer::Abroad(abroad) => {
                    abroad.fits(&normal).then(|| Readable::Abroad(abroad.clone()))
                }
            })
        })
    }

    /// A page of a list as the JSON of its result.
    pub(crate) fn page(
        &self,
        shelf: Shelf,
        era: Era,
        cursor: Option<&str>,
        size: usize,
    ) -> Result<Bytes, InvalidCursor> {
        let shown = &self.shown;
        match shelf {
            Shelf::Tools => shown.tools.page("tools", era, cursor, size),
            Shelf::Resources => shown.resources.page("resources", era, cursor, size),
            Shelf::Templates => shown.templates.page("resourceTemplates", era, cursor, size),
            Shelf::Prompts => shown.prompts.page("prompts", era, cursor, size),
        }
    }

    /// The catalog after all of `mutations`, and the lists that look different then. The
    /// revision grows if any does.
    pub(crate) fn apply(
        &self,
        mutations: Vec<Checked>,
    ) -> Result<(Self, Vec<ListKind>), CatalogError> {
        let mut next = self.clone();
        for mutation in mutations {
            next.apply_one(mutation)?;
        }
        next.own.settle();
        Ok(next.shown_anew(self))
    }

    /// The catalog when another node offers this, or nothing any more.
    pub(crate) fn with_abroad(
        &self,
        node: &NodeId,
        definitions: Option<Vec<Definition>>,
    ) -> (Self, Vec<ListKind>) {
        let mut next = self.clone();
        next.abroad = self.abroad.with(node, definitions);
        next.shown_anew(self)
    }

    /// Makes what clients see of what there is now.
    fn shown_anew(mut self, before: &Self) -> (Self, Vec<ListKind>) {
        let (own, abroad, mut conflicts) = (&self.own, &self.abroad, Vec::new());
        let found = &mut conflicts;
        self.shown = Arc::new(Shown {
            tools: union(&own.tools, abroad, Shelf::Tools, found),
            resources: union(&own.resources, abroad, Shelf::Resources, found),
            templates: union(&own.templates, abroad, Shelf::Templates, found),
            prompts: union(&own.prompts, abroad, Shelf::Prompts, found),
            conflicts,
            spelled: OnceLock::new(),
        });
        let differs = |kind: &ListKind| self.shown.differs(&before.shown, *kind);
        let lists: Vec<_> = ListKind::ALL.into_iter().filter(differs).collect();
        if !lists.is_empty() {
            self.revision.0 += 1;
        }
        (self, lists)
    }

    fn apply_one(&mut self, mutation: Checked) -> Result<(), CatalogError> {
        let (entry, replace) = match mutation {
            Checked::Add(entry) => (entry, false),
            Checked::Put(entry) => (entry, true),
            Checked::Remove(shelf, key) => {
                match shelf {
                    Shelf::Tools => self.own.tools.remove(&key),
                    Shelf::Resources => self.own.resources.remove(&key),
                    Shelf::Templates => self.own.templates.remove(&key),
                    Shelf::Prompts => self.own.prompts.remove(&key),
                }
                return Ok(());
            }
        };
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        fn put<E>(
            list: &mut List<Arc<E>>,
            (shelf, key): (Shelf, &str),
            ordinal: u64,
            entry: Arc<E>,
            replace: bool,
        ) -> Result<(), CatalogError> {
            match list.put(key, ordinal, entry.clone(), replace) {
                true => Ok(()),
                false => Err(CatalogError::Exists(shelf.noun(), key.to_owned())),
            }
        }
        let own = &mut self.own;
        match entry {
            Entry::Tool(tool) => {
                let key = (Shelf::Tools, tool.name());
                put(&mut own.tools, key, ordinal, tool.clone(), replace)
            }
            Entry::Resource(resource) => {
                let key = (Shelf::Resources, resource.uri());
                put(&mut own.resources, key, ordinal, resource.clone(), replace)
            }
            Entry::Template(template) => {
                let key = (Shelf::Templates, template.uri_template());
                put(&mut own.templates, key, ordinal, template.clone(), replace)
            }
            Entry::Prompt(prompt) => {
                let key = (Shelf::Prompts, prompt.name());
                put(&mut own.prompts, key, ordinal, prompt.clone(), replace)
            }
        }
    }
}

impl Shown {
    /// What has this URI, as it is spelled, in its normal form, or spelled in a way of its own.
    fn find<'a, E>(&self, list: &'a List<E>, uri: &str, normal: &str) -> Option<&'a E> {
        let found = list.get(uri).or_else(|| list.get(normal));
        found.or_else(|| list.get(self.spelled().get(normal)?))
    }

    /// Made when it is first looked for something under a URI that is not in the lists.
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

    fn differs(&self, other: &Self, kind: ListKind) -> bool {
        match kind {
            ListKind::Tools => self.tools.differs(&other.tools),
            ListKind::Resources => {
                self.resources.differs(&other.resources) || self.templates.differs(&other.templates)
            }
            ListKind::Prompts => self.prompts.differs(&other.prompts),
        }
    }
}

/// What reads a URI.
pub(crate) enum Readable {
    Own(Reader),
    Abroad(Abroad),
}

#[cfg(test)]
mod tests;
