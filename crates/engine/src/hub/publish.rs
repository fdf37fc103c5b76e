//! Who receives a notice, and the writing of it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use stentor_delivery::policy::Class;
use stentor_wire::{EncodedNotice, KeyKind, Notice, Topic};

use super::fanout::{self, Recipient};
use super::{HubState, Subscriber, SubscriberKey};
use crate::access::Rule;
use crate::audience::Audience;

impl HubState {
    /// A topic changed, which is in its normal form. Each client receives its key as the client
    /// wrote it.
    pub(super) async fn on_key_changed(&mut self, kind: KeyKind, topic: &Topic) {
        self.published += 1;
        let rule = match topic {
            Topic::Resource(uri) => self.watchers.rule_of(uri),
            _ => Rule::default(),
        };
        self.learn(|classes| classes.learn([&rule]));
        let seen = self.classes.who_sees(&rule);
        let mut by_key: IndexMap<Arc<str>, Vec<Recipient>, RandomState> = IndexMap::default();
        for key in self.topics.get(topic).into_iter().flat_map(IndexMap::keys) {
            let Some(subscriber) = self.subscribers.get(key) else { continue };
            if !seen.by(subscriber.class) {
                continue;
            }
            let Some(written) = subscriber.filter.written(topic) else { continue };
            let recipients = match by_key.get_mut(written) {
                Some(recipients) => recipients,
                None => by_key.entry(written.clone()).or_default(),
            };
            recipients.push(Recipient::new(key, subscriber));
        }
        let notice = Notice::Changed(topic.clone());
        self.note_filtered(&notice, |_, it| match it.filter.written(topic) {
            None => Some("it does not watch this"),
            Some(_) if seen.by(it.class) => None,
            Some(_) => Some("it is hidden from its principal"),
        });
        for (written, to) in by_key {
            let notice = Notice::Changed(kind.topic(written));
            fanout::write_to_all(to, Class::of(&notice), Arc::new(EncodedNotice::new(notice)))
                .await;
        }
    }

    pub(super) async fn on_state(&mut self, notice: Notice) {
        let Notice::State { topic, version, .. } = &notice else { return };
        let Some(subscribers) = self.topics.get_mut(topic) else { return };
        let behind = subscribers.iter_mut().filter(|(_, last)| **last < *version);
        let recipients = behind.filter_map(|(key, last)| {
            *last = *version;
            Some(Recipient::new(key, self.subscribers.get(key)?))
        });
        let recipients = recipients.collect();
        self.send(recipients, notice).await;
    }

    pub(super) async fn send(&mut self, recipients: Vec<Recipient>, notice: Notice) {
        self.published += 1;
        if recipients.is_empty() {
            return;
        }
        let class = Class::of(&notice);
        let notice = Arc::new(EncodedNotice::new(notice));
        fanout::write_to_all(recipients, class, notice).await;
    }

    pub(super) fn on_send_state(&mut self, key: &SubscriberKey, notice: EncodedNotice) {
        let Notice::State { topic, version, .. } = notice.notice() else { return };
        let last = self.topics.get_mut(topic).and_then(|subscribers| subscribers.get_mut(key));
        if let (Some(last), Some(subscriber)) = (last, self.subscribers.get(key))
            && *last < *version
        {
            *last = *version;
            let class = Class::of(notice.notice());
            subscriber.sender.notice(class, Arc::new(notice), key.subscription.clone());
        }
    }

    pub(super) async fn on_notify(&mut self, audience: &Audience, notice: Notice) {
        let member = match &notice {
            Notice::Custom { method, .. } => self.hub.members.get(method),
            _ => None,
        };
        let has = |key: &SubscriberKey, subscriber: &Subscriber| {
            // A legacy session receives all of them, a listen those of an extension that it asks
            // for.
            (key.subscription.is_none() || member.is_some_and(|it| subscriber.filter.has(it)))
                && audience.has(&key.session, &subscriber.listener)
        };
        let recipients = match audience.only() {
            // One session: all others are not visited.
            Some(session) => {
                let legacy = SubscriberKey { session: session.clone(), subscription: None };
                let listens = self.listens.get(session).into_iter().flatten();
                let keys = std::iter::once(&legacy).chain(listens);
                let found = keys.filter_map(|key| Some((key, self.subscribers.get(key)?)));
                let chosen = found.filter(|(key, it)| has(key, it));
                chosen.map(|(key, it)| Recipient::new(key, it)).collect()
            }
            None => {
                let chosen = self.subscribers.iter().filter(|(key, it)| has(key, it));
                chosen.map(|(key, it)| Recipient::new(key, it)).collect()
            }
        };
        self.note_filtered(&notice, |key, it| {
            (!has(key, it)).then_some("it is not in the audience, or did not ask for these")
        });
        self.send(recipients, notice).await;
    }
}
