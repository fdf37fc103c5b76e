//! Items of the catalog, and mutations, which are checked before the registry receives them.

use std::sync::Arc;

use stentor_wire::ListKind;

use crate::handler::{
    Hooks, Prompt, PromptEntry, Resource, ResourceEntry, ResourceTemplate, SchemaError,
    TemplateEntry, Tool, ToolEntry,
};
use crate::ids::Revision;
use crate::items::ItemKind;
use crate::states::{StateType, States};

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
    Remove {
        /// The kind of the item.
        kind: ItemKind,
        /// The name or URI of the item.
        key: String,
    },
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
    #[error("{} '{key}' already exists", kind.noun())]
    Exists {
        /// The kind of the item.
        kind: ItemKind,
        /// Its name or URI.
        key: String,
    },
    /// A name is empty or too long, or has a character that is not allowed.
    #[error("{} name '{key}' is invalid: {why}", kind.noun())]
    Name {
        /// The kind of the item.
        kind: ItemKind,
        /// Its name or URI.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A schema or template is invalid.
    #[error("{} '{key}' is invalid: {error}", kind.noun())]
    Schema {
        /// The kind of the item.
        kind: ItemKind,
        /// Its name or URI.
        key: String,
        /// What is wrong.
        error: SchemaError,
    },
    /// The function of an item takes a state that the engine does not have.
    #[error("{} '{key}' takes State<{state}>: set it with EngineBuilder::state", kind.noun())]
    State {
        /// The kind of the item.
        kind: ItemKind,
        /// Its name or URI.
        key: String,
        /// The type of the state.
        state: &'static str,
    },
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

    /// Removes an item by its name or URI; does nothing if there is none.
    #[must_use]
    pub fn remove(kind: ItemKind, key: impl Into<String>) -> Self {
        Self::Remove { kind, key: key.into() }
    }

    pub(crate) fn check(self, states: &States) -> Result<Checked, CatalogError> {
        Ok(match self {
            Self::Add(item) => Checked::Add(item.check(states)?),
            Self::Put(item) => Checked::Put(item.check(states)?),
            Self::Remove { kind, key } => Checked::Remove(kind, key),
        })
    }
}

impl Item {
    /// The kind of the item.
    #[must_use]
    pub fn kind(&self) -> ItemKind {
        match self {
            Self::Tool(_) => ItemKind::Tools,
            Self::Resource(_) => ItemKind::Resources,
            Self::Template(_) => ItemKind::Templates,
            Self::Prompt(_) => ItemKind::Prompts,
        }
    }

    /// The name or URI by which the item is identified.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Tool(tool) => tool.name(),
            Self::Resource(resource) => resource.uri(),
            Self::Template(template) => template.uri_template(),
            Self::Prompt(prompt) => prompt.name(),
        }
    }

    fn check(self, states: &States) -> Result<Entry, CatalogError> {
        let (kind, key) = (self.kind(), self.key().to_owned());
        let invalid = |why| CatalogError::Name { kind, key: key.clone(), why };
        if key.is_empty() {
            return Err(invalid("it is empty"));
        }
        if key.chars().any(char::is_control) {
            return Err(invalid("it has a control character"));
        }
        if matches!(self, Self::Tool(_)) && key.len() > 128 {
            return Err(invalid("it is longer than 128 characters"));
        }
        let refused = |error| CatalogError::Schema { kind, key: key.clone(), error };
        let entry = match self {
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
        };
        match states.missing(entry.states()) {
            Some(missing) => Err(CatalogError::State { kind, key, state: missing.name }),
            None => Ok(entry),
        }
    }
}

impl Entry {
    /// The states that its functions take.
    fn states(&self) -> impl Iterator<Item = &StateType> {
        let (function, hooks) = match self {
            Self::Tool(tool) => (tool.signature(), None),
            Self::Resource(resource) => (resource.signature(), Some(resource.hooks())),
            Self::Template(template) => (template.signature(), Some(template.hooks())),
            Self::Prompt(prompt) => (prompt.signature(), None),
        };
        function.states.iter().chain(hooks.into_iter().flat_map(Hooks::states))
    }
}
