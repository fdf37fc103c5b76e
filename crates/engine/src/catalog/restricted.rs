//! The pure part of access: who sees an item of the catalog, and whose lists a change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use stentor_wire::{Era, uri};

use super::list::{Json, List};
use super::remote_items::Offer;
use super::{Catalog, HasAccess, LocalItems, RemoteItems, Shown};
use crate::access::{Access, Delta, ListChanges, Need, Rule, Viewer};
use crate::items::ItemKind;

/// The most that a reader of a list may have to have. A list beyond that is read once.
const MAX_NEEDS: usize = 64;

/// Items that not everybody may see or use, by kind and key. Most catalogs have none.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Restricted([HashMap<Arc<str>, Access>; ItemKind::ALL.len()]);

impl Restricted {
    pub(super) fn of(local: &LocalItems, remote: &RemoteItems) -> Self {
        let mut restricted = Self::default();
        restricted.add_all(ItemKind::Tools, &local.tools);
        restricted.add_all(ItemKind::Resources, &local.resources);
        restricted.add_all(ItemKind::Templates, &local.templates);
        restricted.add_all(ItemKind::Prompts, &local.prompts);
        for (kind, key, access) in remote.accesses() {
            restricted.add(kind, key, access);
        }
        restricted
    }

    fn add_all<E: HasAccess>(&mut self, kind: ItemKind, list: &List<E>) {
        list.entries().for_each(|(key, _, entry)| self.add(kind, key, entry.access()));
    }

    /// Where nodes do not agree, only who fulfils all their rules sees an item.
    fn add(&mut self, kind: ItemKind, key: &Arc<str>, access: &Access) {
        if access.is_open() {
            return;
        }
        let all = self.0[kind as usize].entry(key.clone()).or_default();
        *all = all.and(access);
    }

    pub(super) fn get(&self, kind: ItemKind, key: &str) -> Option<&Access> {
        self.0[kind as usize].get(key)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(HashMap::is_empty)
    }

    fn rule(&self, kind: ItemKind, key: &str) -> Rule {
        self.get(kind, key).map(|access| access.rule.clone()).unwrap_or_default()
    }

    /// Whether some items of this kind are not for everybody to see.
    pub(super) fn hides(&self, kind: ItemKind) -> bool {
        self.0[kind as usize].values().any(|access| !access.rule.is_empty())
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0
            .iter()
            .flat_map(HashMap::values)
            .map(|access| &access.rule)
            .filter(|it| !it.is_empty())
    }
}

/// Adds to `delta` what the change of one list means to viewers with different rights.
fn compare<E: Json>(
    kind: ItemKind,
    (before, rules_before): (&List<E>, &Restricted),
    (after, rules_after): (&List<E>, &Restricted),
    delta: &mut Delta,
) {
    if !rules_before.hides(kind) && !rules_after.hides(kind) {
        if after.differs(before) {
            delta.touch_all();
        }
        return;
    }
    let mut stayed = Vec::new();
    for (key, ordinal, entry) in after.entries() {
        let rule = rules_after.rule(kind, key);
        match before.get_placed(key) {
            Some((place, held)) => {
                let (now, then) = (entry.json(Era::Modern), held.json(Era::Modern));
                let rule_before = rules_before.rule(kind, key);
                delta.touch(Some(rule_before.clone()), Some(rule.clone()), now != then);
                let (before, moved) = ((place, &**key), place != ordinal);
                stayed.push(Stayed { before, moved, rules: (rule_before, rule) });
            }
            None => delta.touch(None, Some(rule), true),
        }
    }
    compare_order(&stayed, delta);
    for (key, ..) in before.entries().filter(|(key, ..)| after.get(key).is_none()) {
        delta.touch(Some(rules_before.rule(kind, key)), None, true);
    }
}

/// An item that was there before and is there now.
struct Stayed<'a> {
    /// Its place in the list before.
    before: (u64, &'a str),
    moved: bool,
    /// Its rule before, and now.
    rules: (Rule, Rule),
}

/// The most pairs of items that are compared. Beyond that a new order concerns everybody.
const MAX_PAIRS: usize = 1 << 16;

/// Adds to `delta` that items, which are in the order of the list now, are in another order than
/// before. Who does not see both items of a pair does not see that they changed places.
fn compare_order(stayed: &[Stayed<'_>], delta: &mut Delta) {
    if stayed.is_sorted_by_key(|item| item.before) {
        return;
    }
    let moved = stayed.iter().enumerate().filter(|(_, item)| item.moved);
    if moved.clone().count() * stayed.len() > MAX_PAIRS {
        return delta.touch_all();
    }
    for (now, item) in moved {
        for (other_now, other) in stayed.iter().enumerate() {
            if (now < other_now) != (item.before < other.before) && now != other_now {
                let before = item.rules.0.and(&other.rules.0);
                let after = item.rules.1.and(&other.rules.1);
                delta.touch(Some(before), Some(after), true);
            }
        }
    }
}

impl Shown {
    /// How the lists changed since `before`.
    pub(super) fn changes_since(&self, before: &Self) -> ListChanges {
        let (mut changes, rules) = (ListChanges::default(), (&before.restricted, &self.restricted));
        macro_rules! compare {
            ($($kind:ident: $list:ident,)*) => {
                $(compare(
                    ItemKind::$kind,
                    (&before.$list, rules.0),
                    (&self.$list, rules.1),
                    changes.of(ItemKind::$kind.list()),
                );)*
            };
        }
        compare!(Tools: tools, Resources: resources, Templates: templates, Prompts: prompts,);
        changes.counted()
    }
}

impl Catalog {
    /// Whether some items are not for everybody to see, so that lists differ.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.shown.restricted.rules().next().is_some()
    }

    /// Whether some items are not for everybody to see and use.
    pub(crate) fn has_access_rules(&self) -> bool {
        !self.shown.restricted.is_empty()
    }

    /// The rules of all items.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.shown.restricted.rules()
    }

    /// Whether some items of this kind are hidden from some clients.
    pub(crate) fn hides(&self, kind: ItemKind) -> bool {
        self.shown.restricted.hides(kind)
    }

    /// Whether a viewer sees an item; `None` is a viewer for whom nothing is hidden.
    pub(crate) fn sees(&self, viewer: Option<&Viewer>, kind: ItemKind, key: &str) -> bool {
        viewer.is_none_or(|viewer| self.access(kind, key).is_none_or(|it| it.rule.admits(viewer)))
    }

    /// What somebody has to have who reads a list that was made for this viewer: all that the items
    /// need that the viewer sees.
    pub(crate) fn needs_of_list(&self, kind: ItemKind, viewer: &Viewer) -> Vec<Need> {
        let accesses = self.shown.restricted.0[kind as usize].values();
        let seen = accesses.map(|access| &access.rule).filter(|rule| rule.admits(viewer));
        let needs: BTreeSet<Need> = seen.flat_map(Rule::needs).collect();
        match needs.len() <= MAX_NEEDS {
            true => needs.into_iter().collect(),
            // Nobody has it.
            false => vec!["[]".into()],
        }
    }

    /// Who sees an item, and the scopes that its use needs; `None` if everybody may do both.
    pub(crate) fn access(&self, kind: ItemKind, key: &str) -> Option<&Access> {
        self.shown.restricted.get(kind, key)
    }

    /// The access to what is read under a URI.
    pub(crate) fn access_to_uri(&self, written: &str) -> Option<&Access> {
        if self.shown.restricted.is_empty() {
            return None;
        }
        let (shown, normal) = (&self.shown, uri::normal(written));
        if let Some(resource) = shown.find(&shown.resources, written, &normal) {
            let key = match resource {
                Offer::Local(resource) => resource.uri(),
                Offer::Remote(remote) => remote.key(),
            };
            return self.access(ItemKind::Resources, key);
        }
        let mut templates = shown.templates.entries();
        let (key, ..) = templates.find(|(.., template)| match template {
            Offer::Local(template) => template.variables(&normal).is_some(),
            Offer::Remote(remote) => remote.fits(&normal),
        })?;
        self.access(ItemKind::Templates, key)
    }

    /// The access to the template that is spelled so.
    pub(crate) fn access_to_template(&self, uri_template: &str) -> Option<&Access> {
        if self.shown.restricted.is_empty() {
            return None;
        }
        let key = match self.template(uri_template)? {
            Offer::Local(template) => template.uri_template(),
            Offer::Remote(remote) => remote.key(),
        };
        self.access(ItemKind::Templates, key)
    }

    /// The lists that look different to two viewers.
    pub(crate) fn differences(&self, one: &Viewer, other: &Viewer) -> ListChanges {
        let mut changes = ListChanges::default();
        for kind in ItemKind::ALL {
            let mut accesses = self.shown.restricted.0[kind as usize].values();
            if accesses.any(|access| access.rule.admits(one) != access.rule.admits(other)) {
                changes.of(kind.list()).touch_all();
            }
        }
        changes
    }
}
