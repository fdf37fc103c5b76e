//! Notifications of the application's own.

use stentor_wire::Notice;

use super::fanout::Recipient;
use super::{HubState, Subscriber, SubscriberKey};
use crate::audience::Audience;

impl HubState {
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
        self.send(recipients, notice).await;
    }
}
