//! Whose lists differ after a change.

use std::collections::BTreeSet;

use stentor_wire::ListKind;

use super::{Rule, Term};

/// The most kinds of changed items that are told apart. Beyond that a change concerns everybody.
const MAX_TOUCHED: usize = 64;

/// An item before or after a change; `None` if it was not there.
pub(crate) type Side = Option<Rule>;

/// What happened to some items: who saw them before, who sees them now, and whether they look
/// different to somebody who sees both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touched {
    before: Side,
    after: Side,
    looks_different: bool,
}

impl Touched {
    fn concerns(&self, sees: impl Fn(&Rule) -> bool) -> bool {
        let sees = |side: &Side| side.as_ref().is_some_and(&sees);
        let (before, after) = (sees(&self.before), sees(&self.after));
        before != after || (before && self.looks_different)
    }
}

/// How one list changed, for viewers with different rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    whom: Whom,
    /// How many changes of the catalog it has.
    changes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Whom {
    #[default]
    Nobody,
    /// Those for whom one of these items differs.
    Some(BTreeSet<Touched>),
    /// Everybody, or it is not known whom.
    All,
}

impl Delta {
    /// Something that concerns everybody.
    pub(crate) const ALL: Self = Self { whom: Whom::All, changes: 0 };

    pub(crate) fn is_nothing(&self) -> bool {
        self.whom == Whom::Nobody
    }

    pub(crate) fn is_for_all(&self) -> bool {
        self.whom == Whom::All
    }

    /// How many changes of the catalog it has.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds what concerns everybody.
    pub(crate) fn touch_all(&mut self) {
        self.whom = Whom::All;
    }

    /// Adds one item.
    pub(crate) fn touch(&mut self, before: Side, after: Side, looks_different: bool) {
        if before == after && !looks_different {
            return;
        }
        let touched = Touched { before, after, looks_different };
        // Everybody sees it on one side at least, and it does not look the same on the other.
        if looks_different && touched.concerns(Rule::is_empty) {
            return self.touch_all();
        }
        self.whom.join(Whom::Some(BTreeSet::from([touched])));
    }

    /// Adds what happened later.
    pub(crate) fn join(&mut self, later: Self) {
        self.changes += later.changes;
        self.whom.join(later.whom);
    }

    /// Whether the list differs for a viewer who sees the items with these rules.
    pub(crate) fn concerns(&self, sees: impl Fn(&Rule) -> bool) -> bool {
        match &self.whom {
            Whom::Nobody => false,
            Whom::Some(touched) => touched.iter().any(|it| it.concerns(&sees)),
            Whom::All => true,
        }
    }

    pub(super) fn terms(&self) -> impl Iterator<Item = &Term> {
        let touched = match &self.whom {
            Whom::Some(touched) => Some(touched),
            Whom::Nobody | Whom::All => None,
        };
        let sides = touched.into_iter().flatten().flat_map(|it| [&it.before, &it.after]);
        sides.flatten().flat_map(Rule::terms)
    }
}

impl Whom {
    fn join(&mut self, later: Self) {
        match (&mut *self, later) {
            (_, Self::Nobody) | (Self::All, _) => {}
            (Self::Some(touched), Self::Some(more)) => {
                touched.extend(more);
                if touched.len() > MAX_TOUCHED {
                    *self = Self::All;
                }
            }
            (_, later) => *self = later,
        }
    }
}

/// How the lists changed, for viewers with different rights. The default is no change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListChanges([Delta; ListKind::ALL.len()]);

impl ListChanges {
    /// A change of these lists for everybody.
    #[must_use]
    pub fn all(kinds: impl IntoIterator<Item = ListKind>) -> Self {
        let mut changes = Self::default();
        kinds.into_iter().for_each(|kind| changes.0[kind as usize].touch_all());
        changes
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Delta::is_nothing)
    }

    /// The lists that changed for somebody.
    pub fn kinds(&self) -> impl Iterator<Item = ListKind> {
        ListKind::ALL.into_iter().filter(|kind| !self.0[*kind as usize].is_nothing())
    }

    /// Counts each list that changed as one change of the catalog.
    pub(crate) fn counted(mut self) -> Self {
        let changed = self.0.iter_mut().filter(|delta| !delta.is_nothing());
        changed.for_each(|delta| delta.changes = 1);
        self
    }

    /// Adds changes that happened later.
    pub fn join(&mut self, later: Self) {
        for (delta, later) in self.0.iter_mut().zip(later.0) {
            delta.join(later);
        }
    }

    pub(crate) fn of(&mut self, kind: ListKind) -> &mut Delta {
        &mut self.0[kind as usize]
    }

    pub(crate) fn into_deltas(self) -> impl Iterator<Item = (ListKind, Delta)> {
        ListKind::ALL.into_iter().zip(self.0).filter(|(_, delta)| !delta.is_nothing())
    }
}
