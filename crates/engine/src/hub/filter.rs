//! The pure part of the hub: who hears what.

use std::collections::HashMap;
use std::sync::Arc;

use stentor_wire::params::NoticeFilter;
use stentor_wire::{ListKind, Notice, uri};

/// Resources that a client watches: as it wrote their URIs, by the normal form of those.
pub(crate) type Watched = HashMap<Arc<str>, Arc<str>>;

/// What a subscriber hears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    lists: [bool; ListKind::ALL.len()],
    resources: Watched,
    tasks: Vec<Arc<str>>,
    custom: bool,
}

impl Filter {
    /// A legacy session hears every list and every custom notice, and the resources it
    /// subscribes to.
    pub(crate) fn legacy(watched: &Watched) -> Self {
        Self { lists: [true; 3], resources: watched.clone(), tasks: Vec::new(), custom: true }
    }

    /// A modern listen hears what was granted, and nothing else.
    pub(crate) fn granted(granted: &NoticeFilter) -> Self {
        let mut lists = [false; 3];
        lists[ListKind::Tools as usize] = granted.tools_list_changed;
        lists[ListKind::Resources as usize] = granted.resources_list_changed;
        lists[ListKind::Prompts as usize] = granted.prompts_list_changed;
        let resources =
            granted.resource_subscriptions.iter().map(|uri| watched(Arc::from(&**uri))).collect();
        let tasks = granted.task_ids.iter().map(|id| Arc::from(&**id)).collect();
        Self { lists, resources, tasks, custom: false }
    }

    pub(crate) fn hears(&self, notice: &Notice) -> bool {
        match notice {
            Notice::ListChanged(kind) => self.lists[*kind as usize],
            Notice::ResourceUpdated(uri) => self.watched_as(&uri::normal(uri)).is_some(),
            // The hub knows who hears of which task.
            Notice::Task { .. } => false,
            Notice::Custom { .. } => self.custom,
        }
    }

    /// How the client wrote the URI of a resource, given in its normal form, if it hears of that.
    pub(crate) fn watched_as(&self, normal: &str) -> Option<&Arc<str>> {
        self.resources.get(normal)
    }

    /// Whether it lets nothing through, whatever happens.
    pub(crate) fn is_deaf(&self) -> bool {
        *self == Self::default()
    }

    /// The resources whose updates it lets through, in the normal form of their URIs.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.keys()
    }

    /// The tasks that it lets through.
    pub(crate) fn tasks(&self) -> &[Arc<str>] {
        &self.tasks
    }

    /// Every notice of a list or a resource that it lets through.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Notice> {
        let lists = ListKind::ALL.into_iter().map(Notice::ListChanged);
        let resources = self.resources.values().cloned().map(Notice::ResourceUpdated);
        lists.filter(|notice| self.hears(notice)).chain(resources)
    }

    pub(crate) fn watch(&mut self, uri: Arc<str>) {
        self.resources.extend([watched(uri)]);
    }

    pub(crate) fn unwatch(&mut self, uri: &str) {
        self.resources.remove(&*uri::normal(uri));
    }
}

/// A resource as a client watches it.
pub(crate) fn watched(uri: Arc<str>) -> (Arc<str>, Arc<str>) {
    let normal = uri::normal(&uri);
    // Mostly the same memory.
    let normal = if *normal == *uri { uri.clone() } else { normal.into() };
    (normal, uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_hears_only_what_it_was_granted() {
        let granted: NoticeFilter = serde_json::from_value(serde_json::json!({
            "promptsListChanged": true, "resourceSubscriptions": ["a://1"],
        }))
        .unwrap();
        let filter = Filter::granted(&granted);
        assert!(filter.hears(&Notice::ListChanged(ListKind::Prompts)));
        assert!(!filter.hears(&Notice::ListChanged(ListKind::Tools)));
        assert!(filter.hears(&Notice::ResourceUpdated("a://1".into())));
        assert!(!filter.hears(&Notice::ResourceUpdated("a://2".into())));
        assert!(!filter.hears(&Notice::Custom { method: "x".into(), params: None }));
    }

    #[test]
    fn a_legacy_session_hears_resources_only_while_it_watches_them() {
        let mut filter = Filter::legacy(&Watched::new());
        let updated = Notice::ResourceUpdated("a://1".into());
        assert!(!filter.hears(&updated));
        filter.watch("a://1".into());
        assert!(filter.hears(&updated));
        assert!(filter.hears(&Notice::ResourceUpdated("A://%31".into())));
        filter.unwatch("A://%31");
        assert!(!filter.hears(&updated));
        assert!(ListKind::ALL.into_iter().all(|kind| filter.hears(&Notice::ListChanged(kind))));
    }
}
