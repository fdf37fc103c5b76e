//! Who looks at the lists.

use super::Term;
use crate::identity::{Identity, Labels, Who};

/// Who looks at the lists, with the labels as of now.
#[derive(Clone, Debug)]
pub(crate) enum Viewer {
    /// Sees everything.
    Everything,
    /// Sees only what everybody sees.
    Stranger,
    Known(Identity, Labels),
}

impl Viewer {
    pub(crate) fn of(who: &Who, labels: impl FnOnce(&Identity) -> Labels) -> Self {
        match who {
            Who::Nobody => Self::Stranger,
            Who::Local => Self::Everything,
            Who::Known(identity) => Self::Known(identity.clone(), labels(identity)),
        }
    }

    pub(super) fn has(&self, term: &Term) -> bool {
        match self {
            Self::Everything => true,
            Self::Stranger => false,
            Self::Known(identity, labels) => match term {
                Term::Label(label) => labels.has(label),
                Term::Scope(scope) => identity.has_scope(scope),
            },
        }
    }

    pub(crate) fn has_label(&self, label: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Stranger => false,
            Self::Known(_, labels) => labels.has(label),
        }
    }

    /// All terms that it has; none for a viewer who has all.
    pub(super) fn terms(&self) -> impl Iterator<Item = Term> + '_ {
        let known = match self {
            Self::Known(identity, labels) => Some((identity, labels)),
            Self::Everything | Self::Stranger => None,
        };
        known.into_iter().flat_map(|(identity, labels)| {
            let labels = labels.iter().cloned().map(Term::Label);
            labels.chain(identity.all_scopes().cloned().map(Term::Scope))
        })
    }

    /// Whether it certainly sees the same as another one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, Self::Everything) | (Self::Stranger, Self::Stranger) => true,
            (Self::Known(one, labels), Self::Known(other, others)) => {
                labels == others && (one.is_same(other) || one.all_scopes().eq(other.all_scopes()))
            }
            _ => false,
        }
    }
}
