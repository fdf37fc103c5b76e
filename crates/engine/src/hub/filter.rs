//! The pure part of the hub: which notices a subscriber receives.

use std::collections::HashMap;
use std::sync::Arc;

use stentor_wire::params::NoticeFilter;
use stentor_wire::{ListKind, Notice, uri};

/// The resources that a client watches: each URI as the client wrote it, by its normal form.
pub(crate) type Watched = HashMap<Arc<str>, Arc<str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    lists: [bool; ListKind::ALL.len()],
    resources: Watched,
    tasks: Vec<Arc<str>>,
    /// Notifications of extensions, by the member of a listen that asks for them.
    members: Vec<Arc<str>>,
}

impl Filter {
    /// A legacy session receives the notices of every list, and updates of the resources that it
    /// subscribes to.
    pub(crate) fn legacy(watched: &Watched) -> Self {
        Self {
            lists: [true; 3],
            resources: watched.clone(),
            tasks: Vec::new(),
            members: Vec::new(),
        }
    }

    /// A modern listen receives what it was granted, and nothing else.
    pub(crate) fn granted(granted: &NoticeFilter) -> Self {
        let mut lists = [false; 3];
        lists[ListKind::Tools as usize] = granted.tools_list_changed;
        lists[ListKind::Resources as usize] = granted.resources_list_changed;
        lists[ListKind::Prompts as usize] = granted.prompts_list_changed;
        let resources =
            granted.resource_subscriptions.iter().map(|uri| watched(Arc::from(&**uri))).collect();
        let tasks = granted.task_ids.iter().map(|id| Arc::from(&**id)).collect();
        Self { lists, resources, tasks, members: granted.members.clone() }
    }

    pub(crate) fn passes(&self, notice: &Notice) -> bool {
        match notice {
            Notice::ListChanged(kind) => self.lists[*kind as usize],
            Notice::ResourceUpdated(uri) => self.watched_as(&uri::normal(uri)).is_some(),
            // The hub itself finds the subscribers of a task, and those of an audience.
            Notice::Task { .. } | Notice::Custom { .. } => false,
        }
    }

    /// The URI as the client wrote it, given its normal form, if the client watches that resource.
    pub(crate) fn watched_as(&self, normal: &str) -> Option<&Arc<str>> {
        self.resources.get(normal)
    }

    /// Whether notifications of an extension pass that this member of a listen asks for.
    pub(crate) fn has(&self, member: &Arc<str>) -> bool {
        self.members.contains(member)
    }

    /// Whether notifications of any extension pass.
    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(crate) fn is_empty_filter(&self) -> bool {
        *self == Self::default()
    }

    /// The resources whose updates pass, as normal forms of their URIs.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.keys()
    }

    pub(crate) fn tasks(&self) -> &[Arc<str>] {
        &self.tasks
    }

    /// Every notice of a list or a resource that passes.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Notice> {
        let lists = ListKind::ALL.into_iter().map(Notice::ListChanged);
        let resources = self.resources.values().cloned().map(Notice::ResourceUpdated);
        lists.filter(|notice| self.passes(notice)).chain(resources)
    }

    pub(crate) fn watch(&mut self, uri: Arc<str>) {
        self.resources.extend([watched(uri)]);
    }

    pub(crate) fn unwatch(&mut self, uri: &str) {
        self.resources.remove(&*uri::normal(uri));
    }
}

/// The entry of a resource that a client watches: the URI's normal form, and the URI as written.
pub(crate) fn watched(uri: Arc<str>) -> (Arc<str>, Arc<str>) {
    let normal = uri::normal(&uri);
    // Usually both share one allocation.
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
        assert!(filter.passes(&Notice::ListChanged(ListKind::Prompts)));
        assert!(!filter.passes(&Notice::ListChanged(ListKind::Tools)));
        assert!(filter.passes(&Notice::ResourceUpdated("a://1".into())));
        assert!(!filter.passes(&Notice::ResourceUpdated("a://2".into())));
        assert!(!filter.passes(&Notice::Custom { method: "x".into(), params: None }));
    }

    #[test]
    fn a_legacy_session_receives_updates_of_resources_only_while_it_watches_them() {
        let mut filter = Filter::legacy(&Watched::new());
        let updated = Notice::ResourceUpdated("a://1".into());
        assert!(!filter.passes(&updated));
        filter.watch("a://1".into());
        assert!(filter.passes(&updated));
        assert!(filter.passes(&Notice::ResourceUpdated("A://%31".into())));
        filter.unwatch("A://%31");
        assert!(!filter.passes(&updated));
        assert!(ListKind::ALL.into_iter().all(|kind| filter.passes(&Notice::ListChanged(kind))));
    }
}
