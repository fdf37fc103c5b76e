//! The pure part of the hub: who hears what.

use std::collections::HashSet;
use std::sync::Arc;

use stentor_wire::params::NoticeFilter;
use stentor_wire::{ListKind, Notice};

/// What a subscriber hears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    lists: [bool; ListKind::ALL.len()],
    resources: HashSet<Arc<str>>,
    tasks: Vec<Arc<str>>,
    custom: bool,
}

impl Filter {
    /// A legacy session hears every list and every custom notice, and the resources it
    /// subscribes to.
    pub(crate) fn legacy(watched: &HashSet<Arc<str>>) -> Self {
        Self { lists: [true; 3], resources: watched.clone(), tasks: Vec::new(), custom: true }
    }

    /// A modern listen hears what was granted, and nothing else.
    pub(crate) fn granted(granted: &NoticeFilter) -> Self {
        let mut lists = [false; 3];
        lists[ListKind::Tools as usize] = granted.tools_list_changed;
        lists[ListKind::Resources as usize] = granted.resources_list_changed;
        lists[ListKind::Prompts as usize] = granted.prompts_list_changed;
        let resources =
            granted.resource_subscriptions.iter().map(|uri| Arc::from(&**uri)).collect();
        let tasks = granted.task_ids.iter().map(|id| Arc::from(&**id)).collect();
        Self { lists, resources, tasks, custom: false }
    }

    pub(crate) fn hears(&self, notice: &Notice) -> bool {
        match notice {
            Notice::ListChanged(kind) => self.lists[*kind as usize],
            Notice::ResourceUpdated(uri) => self.resources.contains(uri),
            // The hub knows who hears of which task.
            Notice::Task { .. } => false,
            Notice::Custom { .. } => self.custom,
        }
    }

    /// The tasks that it lets through.
    pub(crate) fn tasks(&self) -> &[Arc<str>] {
        &self.tasks
    }

    /// Every notice of a list or a resource that it lets through.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Notice> {
        let lists = ListKind::ALL.into_iter().map(Notice::ListChanged);
        let resources = self.resources.iter().cloned().map(Notice::ResourceUpdated);
        lists.filter(|notice| self.hears(notice)).chain(resources)
    }

    pub(crate) fn watch(&mut self, uri: Arc<str>) {
        self.resources.insert(uri);
    }

    pub(crate) fn unwatch(&mut self, uri: &str) {
        self.resources.remove(uri);
    }
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
        let mut filter = Filter::legacy(&HashSet::new());
        let updated = Notice::ResourceUpdated("a://1".into());
        assert!(!filter.hears(&updated));
        filter.watch("a://1".into());
        assert!(filter.hears(&updated));
        filter.unwatch("a://1");
        assert!(!filter.hears(&updated));
        assert!(ListKind::ALL.into_iter().all(|kind| filter.hears(&Notice::ListChanged(kind))));
    }
}
