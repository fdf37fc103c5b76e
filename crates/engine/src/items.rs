//! What the catalog has: kinds of items.

use std::sync::Arc;

use stentor_wire::ListKind;

use crate::ids::NodeId;

/// The kind of an item.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// Tools.
    Tools,
    /// Resources.
    Resources,
    /// Resource templates.
    Templates,
    /// Prompts.
    Prompts,
}

impl ItemKind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Tools, Self::Resources, Self::Templates, Self::Prompts];

    /// The list whose change is announced when an item of this kind changes.
    #[must_use]
    pub const fn list(self) -> ListKind {
        match self {
            Self::Tools => ListKind::Tools,
            Self::Resources | Self::Templates => ListKind::Resources,
            Self::Prompts => ListKind::Prompts,
        }
    }

    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Resources => "resource",
            Self::Templates => "resource template",
            Self::Prompts => "prompt",
        }
    }
}

/// An item that nodes of a cluster define differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Conflict {
    /// The kind of the item.
    pub kind: ItemKind,
    /// The name or URI of the item.
    pub key: Arc<str>,
    /// The other nodes whose definition clients do not see.
    pub hidden: Vec<NodeId>,
    /// Whether clients do not see this engine's own definition.
    pub local_is_hidden: bool,
}
