//! The pure part of the registry: the lists, and what a change makes of them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use indexmap::IndexMap;
use stentor_wire::ListKind;

use crate::handler::{
    Prompt, PromptEntry, Reader, Resource, ResourceEntry, ResourceTemplate, SchemaError,
    TemplateEntry, Tool, ToolEntry,
};
use crate::ids::Revision;

/// What can be in the catalog.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// A tool, known by its name.
    Tool(Tool),
    /// A resource, known by its URI.
    Resource(Resource),
    /// A resource template, known by its URI template.
    Template(ResourceTemplate),
    /// A prompt, known by its name.
    Prompt(Prompt),
}

macro_rules! into_item {
    ($($type:ty => $variant:ident,)*) => {
        $(impl From<$type> for Item {
            fn from(item: $type) -> Self {
                Self::$variant(item)
            }
        })*
    };
}

into_item! {
    Tool => Tool,
    Resource => Resource,
    ResourceTemplate => Template,
    Prompt => Prompt,
}

/// Which of the four shelves of the catalog something is on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Shelf {
    /// Tools.
    Tools,
    /// Resources.
    Resources,
    /// Resource templates.
    Templates,
    /// Prompts.
    Prompts,
}

impl Shelf {
    /// The list that clients are told about when the shelf changes.
    #[must_use]
    pub const fn list(self) -> ListKind {
        match self {
            Self::Tools => ListKind::Tools,
            Self::Resources | Self::Templates => ListKind::Resources,
            Self::Prompts => ListKind::Prompts,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Resources => "resource",
            Self::Templates => "resource template",
            Self::Prompts => "prompt",
        }
    }
}

/// One change of the catalog. Several are applied together: all of them or none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// Adds an item; an error if its name is taken.
    Add(Item),
    /// Adds an item, or puts it in the place of the one with its name.
    Put(Item),
    /// Removes an item; nothing happens if there is none.
    Remove(Shelf, String),
}

/// What applying mutations changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The revision that now is the latest.
    pub revision: Revision,
    /// The lists that clients see differently; empty if nothing changed.
    pub lists: Vec<ListKind>,
}

/// Why a change of the catalog is refused. Nothing of it has been applied then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// An item was added under a name that is taken.
    #[error("{0} '{1}' already exists")]
    Exists(&'static str, String),
    /// A name is empty or too long, or has characters that it must not have.
    #[error("{0} name '{1}' is invalid: {2}")]
    Name(&'static str, String, &'static str),
    /// A schema or template is refused.
    #[error("{0} '{1}' is invalid: {2}")]
    Schema(&'static str, String, SchemaError),
    /// The registry is gone: the engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
    /// The registry crashed and restarts. Look at the catalog before trying again: the change
    /// may have been made.
    #[error("the registry restarted during the change")]
    Interrupted,
}

/// An item that has been checked, which is the expensive part and needs no actor.
#[derive(Clone, Debug)]
pub(crate) enum Checked {
    Add(Entry),
    Put(Entry),
    Remove(Shelf, String),
}

#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Tool(Arc<ToolEntry>),
    Resource(Arc<ResourceEntry>),
    Template(Arc<TemplateEntry>),
    Prompt(Arc<PromptEntry>),
}

impl Mutation {
    /// Adds an item; an error if its name is taken.
    #[must_use]
    pub fn add(item: impl Into<Item>) -> Self {
        Self::Add(item.into())
    }

    /// Adds an item, or puts it in the place of the one with its name.
    #[must_use]
    pub fn put(item: impl Into<Item>) -> Self {
        Self::Put(item.into())
    }

    /// Removes a tool; nothing happens if there is none.
    #[must_use]
    pub fn remove_tool(name: impl Into<String>) -> Self {
        Self::Remove(Shelf::Tools, name.into())
    }

    /// Checks schemas, templates and names.
    pub(crate) fn check(self) -> Result<Checked, CatalogError> {
        Ok(match self {
            Self::Add(item) => Checked::Add(item.check()?),
            Self::Put(item) => Checked::Put(item.check()?),
            Self::Remove(shelf, key) => Checked::Remove(shelf, key),
        })
    }
}

impl Item {
    fn shelf(&self) -> Shelf {
        match self {
            Self::Tool(_) => Shelf::Tools,
            Self::Resource(_) => Shelf::Resources,
            Self::Template(_) => Shelf::Templates,
            Self::Prompt(_) => Shelf::Prompts,
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Tool(tool) => tool.name(),
            Self::Resource(resource) => resource.uri(),
            Self::Template(template) => template.uri_template(),
            Self::Prompt(prompt) => prompt.name(),
        }
    }

    fn check(self) -> Result<Entry, CatalogError> {
        let (noun, key) = (self.shelf().noun(), self.key().to_owned());
        let invalid = |why| CatalogError::Name(noun, key.clone(), why);
        if key.is_empty() {
            return Err(invalid("it is empty"));
        }
        if key.chars().any(char::is_control) {
            return Err(invalid("it has a control character"));
        }
        if matches!(self, Self::Tool(_)) && key.len() > 128 {
            return Err(invalid("it is longer than 128 characters"));
        }
        let refused = |error| CatalogError::Schema(noun, key.clone(), error);
        Ok(match self {
            Self::Tool(tool) => Entry::Tool(Arc::new(ToolEntry::check(tool).map_err(refused)?)),
            Self::Resource(resource) => {
                Entry::Resource(Arc::new(ResourceEntry::check(resource).map_err(refused)?))
            }
            Self::Template(template) => {
                Entry::Template(Arc::new(TemplateEntry::check(template).map_err(refused)?))
            }
            Self::Prompt(prompt) => {
                Entry::Prompt(Arc::new(PromptEntry::check(prompt).map_err(refused)?))
            }
        })
    }
}

/// The lists at one revision. Immutable: a change makes a new one, and readers keep theirs.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: Revision,
    next_ordinal: u64,
    tools: List<ToolEntry>,
    resources: List<ResourceEntry>,
    templates: List<TemplateEntry>,
    prompts: List<PromptEntry>,
}

impl Catalog {
    /// The revision of these lists.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The names of the tools, in the order of the list.
    pub fn tool_names(&self) -> impl Iterator<Item = &str> {
        self.tools.keys()
    }

    /// The URIs of the resources, in the order of the list.
    pub fn resource_uris(&self) -> impl Iterator<Item = &str> {
        self.resources.keys()
    }

    /// The URI templates, in the order of the list.
    pub fn uri_templates(&self) -> impl Iterator<Item = &str> {
        self.templates.keys()
    }

    /// The names of the prompts, in the order of the list.
    pub fn prompt_names(&self) -> impl Iterator<Item = &str> {
        self.prompts.keys()
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.tools.get(name)
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Arc<PromptEntry>> {
        self.prompts.get(name)
    }

    pub(crate) fn template(&self, uri_template: &str) -> Option<&Arc<TemplateEntry>> {
        self.templates.get(uri_template)
    }

    /// How to read a URI: a resource of that URI, or the first template that fits.
    pub(crate) fn reader(&self, uri: &str) -> Option<Reader> {
        match self.resources.get(uri) {
            Some(resource) => Some(resource.reader()),
            None => self.templates.iter().find_map(|template| template.reader(uri)),
        }
    }

    /// A page of a list as the JSON of its result.
    pub(crate) fn page(
        &self,
        shelf: Shelf,
        cursor: Option<&str>,
        size: usize,
    ) -> Result<Bytes, InvalidCursor> {
        match shelf {
            Shelf::Tools => self.tools.page("tools", cursor, size, |entry| &entry.json),
            Shelf::Resources => self.resources.page("resources", cursor, size, |entry| &entry.json),
            Shelf::Templates => {
                self.templates.page("resourceTemplates", cursor, size, |entry| &entry.json)
            }
            Shelf::Prompts => self.prompts.page("prompts", cursor, size, |entry| &entry.json),
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
        let lists: Vec<_> =
            ListKind::ALL.into_iter().filter(|kind| next.differs(self, *kind)).collect();
        if !lists.is_empty() {
            next.revision.0 += 1;
        }
        Ok((next, lists))
    }

    fn apply_one(&mut self, mutation: Checked) -> Result<(), CatalogError> {
        let (entry, replace) = match mutation {
            Checked::Add(entry) => (entry, false),
            Checked::Put(entry) => (entry, true),
            Checked::Remove(shelf, key) => {
                match shelf {
                    Shelf::Tools => self.tools.remove(&key),
                    Shelf::Resources => self.resources.remove(&key),
                    Shelf::Templates => self.templates.remove(&key),
                    Shelf::Prompts => self.prompts.remove(&key),
                }
                return Ok(());
            }
        };
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        let (noun, key, put) = match entry {
            Entry::Tool(tool) => {
                let key = tool.name().to_owned();
                (Shelf::Tools.noun(), key.clone(), self.tools.put(key, ordinal, tool, replace))
            }
            Entry::Resource(resource) => {
                let key = resource.uri().to_owned();
                let put = self.resources.put(key.clone(), ordinal, resource, replace);
                (Shelf::Resources.noun(), key, put)
            }
            Entry::Template(template) => {
                let key = template.uri_template().to_owned();
                let put = self.templates.put(key.clone(), ordinal, template, replace);
                (Shelf::Templates.noun(), key, put)
            }
            Entry::Prompt(prompt) => {
                let key = prompt.name().to_owned();
                (
                    Shelf::Prompts.noun(),
                    key.clone(),
                    self.prompts.put(key, ordinal, prompt, replace),
                )
            }
        };
        if put { Ok(()) } else { Err(CatalogError::Exists(noun, key)) }
    }

    fn differs(&self, other: &Self, kind: ListKind) -> bool {
        match kind {
            ListKind::Tools => self.tools.differs(&other.tools, |entry| &entry.json),
            ListKind::Resources => {
                self.resources.differs(&other.resources, |entry| &entry.json)
                    || self.templates.differs(&other.templates, |entry| &entry.json)
            }
            ListKind::Prompts => self.prompts.differs(&other.prompts, |entry| &entry.json),
        }
    }
}

/// A cursor that this server did not give out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub(crate) struct InvalidCursor;

/// One list in the order in which its entries were added.
///
/// Each entry keeps the ordinal of its addition. A cursor names the ordinal of the last entry
/// of a page, so it stays good whatever is added or removed meanwhile.
#[derive(Debug)]
struct List<E>(IndexMap<String, (u64, Arc<E>)>);

impl<E> Clone for List<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> Default for List<E> {
    fn default() -> Self {
        Self(IndexMap::new())
    }
}

impl<E> List<E> {
    fn get(&self, key: &str) -> Option<&Arc<E>> {
        self.0.get(key).map(|(_, entry)| entry)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<E>> {
        self.0.values().map(|(_, entry)| entry)
    }

    /// `false` if the key is taken and must not be replaced.
    fn put(&mut self, key: String, ordinal: u64, entry: Arc<E>, replace: bool) -> bool {
        match self.0.get_mut(&key) {
            Some((_, held)) if replace => *held = entry,
            Some(_) => return false,
            None => {
                self.0.insert(key, (ordinal, entry));
            }
        }
        true
    }

    fn remove(&mut self, key: &str) {
        self.0.shift_remove(key);
    }

    /// Whether clients see another list: code may change behind an unchanged descriptor.
    fn differs(&self, other: &Self, json: fn(&E) -> &Bytes) -> bool {
        self.0.len() != other.0.len()
            || self
                .0
                .values()
                .zip(other.0.values())
                .any(|((_, a), (_, b))| !Arc::ptr_eq(a, b) && json(a) != json(b))
    }

    fn page(
        &self,
        member: &str,
        cursor: Option<&str>,
        size: usize,
        json: fn(&E) -> &Bytes,
    ) -> Result<Bytes, InvalidCursor> {
        let start = match cursor {
            None => 0,
            Some(cursor) => {
                let after = decode_cursor(member, cursor)?;
                self.0.partition_point(|_, (ordinal, _)| *ordinal <= after)
            }
        };
        let end = start.saturating_add(size.max(1)).min(self.0.len());
        let page = self.0.get_range(start..end).ok_or(InvalidCursor)?;
        let length: usize = page.values().map(|(_, entry)| json(entry).len() + 1).sum();
        let mut out = String::with_capacity(length + 64).into_bytes();
        out.extend_from_slice(format!("{{\"{member}\":[").as_bytes());
        for (index, (_, entry)) in page.values().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(json(entry));
        }
        out.push(b']');
        if let Some((_, (last, _))) = page.last().filter(|_| end < self.0.len()) {
            let cursor = encode_cursor(member, *last);
            out.extend_from_slice(format!(",\"nextCursor\":\"{cursor}\"").as_bytes());
        }
        out.push(b'}');
        Ok(out.into())
    }
}

fn encode_cursor(member: &str, ordinal: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{member}:{ordinal}"))
}

fn decode_cursor(member: &str, cursor: &str) -> Result<u64, InvalidCursor> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
    std::str::from_utf8(&decoded)
        .ok()
        .and_then(|text| text.strip_prefix(member)?.strip_prefix(':')?.parse().ok())
        .ok_or(InvalidCursor)
}

#[cfg(test)]
mod tests;
