//! Which subscribers see the same items.

use super::{HubState, SubscriberKey};
use crate::access::{Viewer, ViewerClasses};

impl HubState {
    pub(super) fn on_reclass(&mut self, key: &SubscriberKey, viewer: Viewer) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        let before = subscriber.class;
        subscriber.class = self.classes.join(&viewer);
        subscriber.listener.viewer = viewer;
        self.classes.leave(before);
    }

    /// Teaches the classes the terms of rules. If some are new, all subscribers are sorted into classes
    /// again.
    pub(super) fn learn(&mut self, teach: impl Fn(&mut ViewerClasses) -> bool) {
        if !teach(&mut self.classes) {
            return;
        }
        self.classes.begin_again(|| self.watchers.rules());
        // What is no rule any more has to be known, too, to say who saw it before.
        teach(&mut self.classes);
        for subscriber in self.subscribers.values_mut() {
            subscriber.class = self.classes.join(&subscriber.listener.viewer);
        }
    }
}
