//! Items of the catalog, and mutations, which are checked before the registry receives them.

use std::sync::Arc;

use stentor_wire::ListKind;

use crate::handler::{
    Prompt, PromptEntry, Resource, ResourceEntry, ResourceTemplate, SchemaError, TemplateEntry,
    Tool, ToolEntry,
};
use crate::ids::Revision;
use crate::items::ItemKind;

/// An item of the catalog.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// A tool, identified by its name.
    Tool(Tool),
    /// A resource, identified by its URI.
    Resource(Resource),
    /// A resource template, identified by its URI template.
    Template(ResourceTemplate),
    /// A prompt, identified by its name.
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

/// One change of the catalog. Several are applied together: all of them or none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// Adds an item; an error if its name is taken.
    Add(Item),
    /// Adds an item, or replaces the item with its name.
    Put(Item),
    /// Removes an item; does nothing if there is none.
    Remove(ItemKind, String),
}

/// The effect of applied mutations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The latest revision.
    pub revision: Revision,
    /// The lists that clients see differently; empty if nothing changed.
    pub lists: Vec<ListKind>,
}

/// Why a change of the catalog failed. None of it was applied, except perhaps if
/// [`Interrupted`](Self::Interrupted).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// An item was added under a name that is taken.
    #[error("{0} '{1}' already exists")]
    Exists(&'static str, String),
    /// A name is empty or too long, or has a character that is not allowed.
    #[error("{0} name '{1}' is invalid: {2}")]
    Name(&'static str, String, &'static str),
    /// A schema or template is invalid.
    #[error("{0} '{1}' is invalid: {2}")]
    Schema(&'static str, String, SchemaError),
    /// The engine has stopped, and the registry with it.
    #[error("the engine has stopped")]
    Stopped,
    /// The registry crashed and restarts. Read the catalog before you try again: the change may
    /// have been applied.
    #[error("the registry restarted during the change")]
    Interrupted,
}

/// A mutation that has been checked. Checking is the expensive part and needs no actor.
#[derive(Clone, Debug)]
pub(crate) enum Checked {
    Add(Entry),
    Put(Entry),
    Remove(ItemKind, String),
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

    /// Adds an item, or replaces the item with its name.
    #[must_use]
    pub fn put(item: impl Into<Item>) -> Self {
        Self::Put(item.into())
    }

    /// Removes a tool; does nothing if there is none.
    #[must_use]
    pub fn remove_tool(name: impl Into<String>) -> Self {
        Self::Remove(ItemKind::Tools, name.into())
    }

    pub(crate) fn check(self) -> Result<Checked, CatalogError> {
        Ok(match self {
            Self::Add(item) => Checked::Add(item.check()?),
            Self::Put(item) => Checked::Put(item.check()?),
            Self::Remove(kind, key) => Checked::Remove(kind, key),
        })
    }
}

impl Item {
    fn kind(&self) -> ItemKind {
        match self {
            Self::Tool(_) => ItemKind::Tools,
            Self::Resource(_) => ItemKind::Resources,
            Self::Template(_) => ItemKind::Templates,
            Self::Prompt(_) => ItemKind::Prompts,
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
        let (noun, key) = (self.kind().noun(), self.key().to_owned());
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
