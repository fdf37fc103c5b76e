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

    /// A line for each clause.
    pub(crate) fn in_words(&self) -> Vec<String> {
        let word = |term: &Term| match term {
            Term::Label(label) => label.to_string(),
            Term::Scope(scope) => format!("scope {scope}"),
        };
        let line = |clause: &Clause| clause.iter().map(word).collect::<Vec<_>>().join(" or ");
        self.0.iter().map(line).collect()
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

/// One thing that a reader of a stream has to have, as a text that nodes and stores can keep.
pub(crate) type Need = Arc<str>;

impl Rule {
    /// What a reader has to have who sees what this rule guards.
    pub(crate) fn needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.0.iter().map(need)
    }
}

/// What a reader has to have who may read what needed this scope.
pub(crate) fn need_of_scope(scope: Arc<str>) -> Need {
    need(&Clause::from([Term::Scope(scope)]))
}

fn need(clause: &Clause) -> Need {
    serde_json::to_string(clause).unwrap_or_default().into()
}

/// The scope of a need that is one.
pub(crate) fn scope_of_need(need: &str) -> Option<Arc<str>> {
    let clause: Clause = serde_json::from_str(need).ok()?;
    match (clause.len(), clause.into_iter().next()?) {
        (1, Term::Scope(scope)) => Some(scope),
        _ => None,
    }
}

impl Viewer {
    /// Whether it has what a reader has to have. Nobody has what cannot be read.
    pub(crate) fn meets(&self, need: &str) -> bool {
        let clause: Result<Clause, _> = serde_json::from_str(need);
        clause.is_ok_and(|clause| clause.iter().any(|term| self.has(term)))
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
