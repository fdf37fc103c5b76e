//! Viewers with equal rights are one class, so that a rule is asked once for all of them.

use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::{Delta, Rule, Term, Viewer};

/// The number of terms from which on those are forgotten that no rule names any more.
const MAX_NAMED: usize = 1_024;

/// The number of a class of viewers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ViewerClass(u32);

/// The rights that all members of a class have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Rights {
    Everything,
    /// Terms that some rule names, as positions in [`ViewerClasses::named`], sorted.
    Terms(Box<[u32]>),
}

#[derive(Debug)]
struct Members {
    rights: Rights,
    count: usize,
}

/// The classes of all viewers who subscribe to something. Rights that no rule names do not count.
#[derive(Debug, Default)]
pub(crate) struct ViewerClasses {
    /// The terms that rules have named so far.
    named: IndexSet<Term, RandomState>,
    classes: Vec<Members>,
    by_rights: HashMap<Rights, ViewerClass>,
    free: Vec<ViewerClass>,
}

/// Whether each class is concerned.
#[derive(Debug)]
pub(crate) enum Seen {
    ByAll,
    By(Vec<bool>),
}

impl Seen {
    pub(crate) fn by(&self, class: ViewerClass) -> bool {
        match self {
            Self::ByAll => true,
            Self::By(classes) => classes.get(class.0 as usize).copied().unwrap_or(false),
        }
    }
}

impl ViewerClasses {
    /// Learns the terms of rules. `true` if some are new: then every subscriber may belong to
    /// another class, and has to join again.
    pub(crate) fn learn<'a>(&mut self, rules: impl IntoIterator<Item = &'a Rule>) -> bool {
        self.learn_terms(rules.into_iter().flat_map(Rule::terms))
    }

    /// As [`learn`](Self::learn), for the rules of changed items.
    pub(crate) fn learn_from(&mut self, delta: &Delta) -> bool {
        self.learn_terms(delta.terms())
    }

    fn learn_terms<'a>(&mut self, terms: impl Iterator<Item = &'a Term>) -> bool {
        let before = self.named.len();
        for term in terms {
            if !self.named.contains(term) {
                self.named.insert(term.clone());
            }
        }
        self.named.len() > before
    }

    /// Forgets all classes, for their members to join again. Of many terms, only those of `rules` are
    /// kept, which must be all rules in use.
    pub(crate) fn begin_again(&mut self, rules: impl FnOnce() -> Vec<Rule>) {
        if self.named.len() >= MAX_NAMED {
            let in_use: Vec<Term> = rules().iter().flat_map(Rule::terms).cloned().collect();
            self.named = in_use.into_iter().collect();
        }
        self.classes.clear();
        self.by_rights.clear();
        self.free.clear();
    }

    /// Adds a member to the class of its rights.
    pub(crate) fn join(&mut self, viewer: &Viewer) -> ViewerClass {
        let rights = match viewer {
            Viewer::Everything => Rights::Everything,
            _ if self.named.is_empty() => Rights::Terms(Box::default()),
            _ => {
                let named = |term| u32::try_from(self.named.get_index_of(&term)?).ok();
                let mut terms: Vec<_> = viewer.terms().filter_map(named).collect();
                terms.sort_unstable();
                Rights::Terms(terms.into())
            }
        };
        if let Some(class) = self.by_rights.get(&rights) {
            self.classes[class.0 as usize].count += 1;
            return *class;
        }
        let members = Members { rights: rights.clone(), count: 1 };
        let class = match self.free.pop() {
            Some(class) => {
                self.classes[class.0 as usize] = members;
                class
            }
            None => {
                self.classes.push(members);
                ViewerClass(u32::try_from(self.classes.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_rights.insert(rights, class);
        class
    }

    /// Removes a member of a class.
    pub(crate) fn leave(&mut self, class: ViewerClass) {
        let Some(members) = self.classes.get_mut(class.0 as usize) else { return };
        members.count = members.count.saturating_sub(1);
        if members.count == 0 && self.by_rights.remove(&members.rights).is_some() {
            self.free.push(class);
        }
    }

    /// How many classes have members.
    #[cfg(test)]
    pub(super) fn active(&self) -> usize {
        self.by_rights.len()
    }

    /// How many classes there were at once.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.classes.len()
    }

    /// Which classes see an item with this rule, whose terms are [learned](Self::learn).
    pub(crate) fn who_sees(&self, rule: &Rule) -> Seen {
        if rule.is_empty() {
            return Seen::ByAll;
        }
        self.each(|rights| self.fulfils(rights, rule))
    }

    /// Whose list differs after a change, the terms of whose rules are learned.
    pub(crate) fn concerned(&self, delta: &Delta) -> Seen {
        if delta.is_for_all() {
            return Seen::ByAll;
        }
        self.each(|rights| delta.concerns(|rule| self.fulfils(rights, rule)))
    }

    fn each(&self, is: impl Fn(&Rights) -> bool) -> Seen {
        Seen::By(self.classes.iter().map(|it| it.count > 0 && is(&it.rights)).collect())
    }

    fn fulfils(&self, rights: &Rights, rule: &Rule) -> bool {
        let Rights::Terms(terms) = rights else { return true };
        rule.holds(|term| {
            let index = self.named.get_index_of(term).and_then(|index| u32::try_from(index).ok());
            index.is_some_and(|index| terms.binary_search(&index).is_ok())
        })
    }
}
