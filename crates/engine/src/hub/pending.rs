//! Topics that the hub has to announce, ordered against the subscribers that join it.

use std::collections::HashMap;

use parking_lot::Mutex;
use stentor_wire::Topic;

use crate::access::Delta;

/// Counts the joins of subscribers. A change and a join are in the same order for the hub as they
/// were when they happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Topics that the hub has to announce: each topic once, however often it changes.
///
/// A flush that is in the hub's mailbox before a join must not announce what changes after the
/// join: the new subscriber would not receive it. So each change notes the epoch in which it
/// happened, and the hub announces it only when it has processed the join that began the epoch.
#[derive(Debug, Default)]
pub(crate) struct PendingBroadcasts(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    epoch: Epoch,
    topics: HashMap<Topic, (Epoch, Delta)>,
}

impl PendingBroadcasts {
    /// Marks a topic as changed. `true` if the hub has to be sent a flush.
    pub(crate) fn mark(&self, topic: Topic, delta: Delta) -> bool {
        let mut pending = self.0.lock();
        let (first, epoch) = (pending.topics.is_empty(), pending.epoch);
        let (last, all) = pending.topics.entry(topic).or_default();
        *last = epoch;
        all.join(delta);
        first
    }

    /// Begins an epoch with a join, or with another change of what somebody subscribes to. `send`
    /// sends the join to the hub, before anything can change in the new epoch; it must not block.
    pub(crate) fn join(&self, send: impl FnOnce(Epoch)) {
        let mut pending = self.0.lock();
        pending.epoch.0 += 1;
        send(pending.epoch);
    }

    /// The epoch now.
    pub(crate) fn epoch(&self) -> Epoch {
        self.0.lock().epoch
    }

    /// Takes the topics that changed in this epoch or before, each with its changes.
    pub(crate) fn take(&self, until: Epoch) -> Vec<(Topic, Delta)> {
        let topics = &mut self.0.lock().topics;
        let taken = topics.extract_if(|_, (epoch, _)| *epoch <= until);
        taken.map(|(topic, (_, delta))| (topic, delta)).collect()
    }
}

#[cfg(test)]
mod tests {
    use stentor_wire::ListKind;

    use super::*;

    #[test]
    fn a_change_after_a_join_is_announced_after_it_and_each_topic_once() {
        let pending = PendingBroadcasts::default();
        let [tools, prompts] = [ListKind::Tools, ListKind::Prompts].map(Topic::List);
        let before = pending.epoch();
        assert!(pending.mark(tools.clone(), Delta::ALL));
        assert!(!pending.mark(prompts.clone(), Delta::ALL), "one flush is enough");
        let mut joined = before;
        pending.join(|epoch| joined = epoch);
        assert!(before < joined);
        assert!(!pending.mark(tools.clone(), Delta::ALL), "the join flushes, too");
        assert_eq!(
            pending.take(before),
            [(prompts, Delta::ALL)],
            "its change comes after the join"
        );
        assert_eq!(pending.take(joined), [(tools.clone(), Delta::ALL)]);
        assert!(pending.mark(tools, Delta::ALL), "it changed after it was taken");
    }
}
