//! How long clients may cache the lists.

use stentor_macros::Setters;
use stentor_wire::encode::CacheHint;

use crate::items::ItemKind;

/// How long modern clients may cache each kind of list (2026-07-28, server/utilities/caching). For
/// the content of a resource, this is set where the resource is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Setters)]
#[non_exhaustive]
pub struct ListCache {
    /// `tools/list`.
    pub tools: CacheHint,
    /// `resources/list`.
    pub resources: CacheHint,
    /// `resources/templates/list`.
    pub templates: CacheHint,
    /// `prompts/list`.
    pub prompts: CacheHint,
    /// `server/discover`.
    pub discover: CacheHint,
}

impl ListCache {
    /// The same hint for all lists.
    #[must_use]
    pub const fn all(hint: CacheHint) -> Self {
        Self { tools: hint, resources: hint, templates: hint, prompts: hint, discover: hint }
    }

    pub(crate) const fn of(&self, kind: ItemKind) -> CacheHint {
        match kind {
            ItemKind::Tools => self.tools,
            ItemKind::Resources => self.resources,
            ItemKind::Templates => self.templates,
            ItemKind::Prompts => self.prompts,
        }
    }
}
