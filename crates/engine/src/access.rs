//! Who sees an item, and which scopes its use needs: rules as data, and what follows from them. Pure.

mod changes;
mod classes;
mod item;
mod viewer;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use changes::Delta;
pub use changes::ListChanges;
pub(crate) use classes::{ViewerClass, ViewerClasses};
pub use item::ScopeRequest;
pub(crate) use item::{ItemAccess, access_methods};
pub(crate) use viewer::Viewer;

/// What a viewer has, as rules name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Term {
    Label(Arc<str>),
    Scope(Arc<str>),
}

/// Who sees an item: a viewer who has at least one term of each clause. Without clauses: everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Rule(Arc<BTreeSet<Clause>>);

type Clause = BTreeSet<Term>;

impl Rule {
    fn of(clauses: BTreeSet<Clause>) -> Self {
        Self(Arc::new(clauses))
    }

    /// Whether everybody sees the item.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule of an item that several nodes offer: only who fulfils all rules sees it.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self::of(self.0.union(&other.0).cloned().collect()),
        }
    }

    pub(crate) fn admits(&self, viewer: &Viewer) -> bool {
        self.holds(|term| viewer.has(term))
    }

    fn holds(&self, has: impl Fn(&Term) -> bool) -> bool {
        self.0.iter().all(|clause| clause.iter().any(&has))
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        self.0.iter().flatten()
    }
}

/// Who sees an item, and the scopes that its use needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Access {
    #[serde(skip_serializing_if = "Rule::is_empty")]
    pub(crate) rule: Rule,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) scopes: BTreeSet<Arc<str>>,
}

impl Access {
    /// Whether everybody may see and use the item.
    pub(crate) fn is_open(&self) -> bool {
        self.rule.is_empty() && self.scopes.is_empty()
    }

    /// The access to an item that several nodes offer: only who fulfils all their rules has it.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            rule: self.rule.and(&other.rule),
            scopes: self.scopes.union(&other.scopes).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
