//! The pure part of the hub: which notices a subscriber receives.

use std::collections::HashMap;
use std::sync::Arc;

use stentor_wire::params::NoticeFilter;
use stentor_wire::{KeyKind, ListKind, Notice, Topic};

/// The topics that a client subscribes to by their keys: each key as the client wrote it, by the
/// normal form of its topic.
pub(crate) type Watched = HashMap<Topic, Arc<str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    lists: [bool; ListKind::ALL.len()],
    topics: Watched,
    /// Notifications of extensions, by the member of a listen that asks for them.
    members: Vec<Arc<str>>,
}

impl Filter {
    /// A legacy session receives the notices of every list, and updates of the resources that it
    /// subscribes to.
    pub(crate) fn legacy(watched: &Watched) -> Self {
        let lists = [true; ListKind::ALL.len()];
        Self { lists, topics: watched.clone(), members: Vec::new() }
    }

    /// A modern listen receives what it was granted, and nothing else.
    pub(crate) fn granted(granted: &NoticeFilter) -> Self {
        let topics = |kind: KeyKind| granted.keys(kind).iter().map(move |key| watched(kind, key));
        Self {
            lists: granted.lists(),
            topics: KeyKind::ALL.into_iter().flat_map(topics).collect(),
            members: granted.members.clone(),
        }
    }

    pub(crate) fn passes(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Changed(Topic::List(kind)) => self.lists[*kind as usize],
            Notice::Changed(topic) => self.written(&topic.normal()).is_some(),
            // The hub itself finds the subscribers of a state, and those of an audience.
            Notice::State { .. } | Notice::Custom { .. } => false,
        }
    }

    /// The key of a topic as the client wrote it, if the client subscribes to it. The topic is in
    /// its normal form.
    pub(crate) fn written(&self, topic: &Topic) -> Option<&Arc<str>> {
        self.topics.get(topic)
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

    /// The topics with keys whose notices pass, in their normal forms.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }

    /// The topics of one kind whose notices pass, by their keys.
    pub(crate) fn keys(&self, kind: KeyKind) -> impl Iterator<Item = &Arc<str>> {
        let found = self
            .topics
            .iter()
            .filter(move |(topic, _)| topic.keyed().is_some_and(|(it, _)| it == kind));
        found.map(|(_, key)| key)
    }

    /// Every notice of a change that passes. What an extension owns has states instead.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Notice> {
        let lists = ListKind::ALL.into_iter().filter(|kind| self.lists[*kind as usize]);
        let free = KeyKind::ALL.into_iter().filter(|kind| !kind.is_owned());
        let keyed = free.flat_map(|kind| self.keys(kind).cloned().map(move |it| kind.topic(it)));
        lists.map(Topic::List).chain(keyed).map(Notice::Changed)
    }

    /// Adds a topic, which is in its normal form, with its key as written.
    pub(crate) fn watch(&mut self, topic: Topic, key: Arc<str>) {
        self.topics.insert(topic, key);
    }

    /// Removes a topic, which is in its normal form.
    pub(crate) fn unwatch(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }
}

/// The entry of a topic that a client subscribes to: its normal form, and its key as written.
pub(crate) fn watched(kind: KeyKind, key: &Arc<str>) -> (Topic, Arc<str>) {
    (kind.topic(kind.normal(key)), key.clone())
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
        assert!(filter.passes(&Notice::Changed(Topic::List(ListKind::Prompts))));
        assert!(!filter.passes(&Notice::Changed(Topic::List(ListKind::Tools))));
        assert!(filter.passes(&Notice::Changed(Topic::Resource("a://1".into()))));
        assert!(!filter.passes(&Notice::Changed(Topic::Resource("a://2".into()))));
        assert!(!filter.passes(&Notice::Custom { method: "x".into(), params: None }));
    }

    #[test]
    fn a_legacy_session_receives_updates_of_resources_only_while_it_watches_them() {
        let mut filter = Filter::legacy(&Watched::new());
        let updated = Notice::Changed(Topic::Resource("a://1".into()));
        assert!(!filter.passes(&updated));
        filter.watch(Topic::Resource("a://1".into()), "a://1".into());
        assert!(filter.passes(&updated));
        assert!(filter.passes(&Notice::Changed(Topic::Resource("A://%31".into()))));
        filter.unwatch(&Topic::Resource("A://%31".into()).normal());
        assert!(!filter.passes(&updated));
        assert!(
            ListKind::ALL
                .into_iter()
                .all(|kind| filter.passes(&Notice::Changed(Topic::List(kind))))
        );
    }
}
