//! Webhooks that other nodes deliver, and what happens when such a node is gone.

use std::sync::Arc;
use std::time::SystemTime;

use foldhash::HashMap;
use parking_lot::Mutex;
use stentor_engine::NodeId;

use super::subscription::Life;
use super::{Subscription, Webhooks};
use crate::peers::{PeerMessage, rank};
use crate::report::{EventsReport, WebhookEnd};
use crate::shared::Shared;
use crate::store::StoredWebhook;

/// Webhooks in one message. Each may have 16 KiB of arguments.
const IN_ONE: usize = 32;

/// Webhooks of other nodes, by their ids, each with its node.
#[derive(Debug, Default)]
pub(super) struct Standby(Mutex<HashMap<String, (NodeId, StoredWebhook)>>);

impl Webhooks {
    /// The node that delivers a webhook, if that is another one.
    pub(crate) fn owner_of(&self, id: &str) -> Option<NodeId> {
        self.standby.0.lock().get(id).map(|(node, _)| node.clone())
    }

    /// What another node says of its webhooks.
    pub(crate) fn learn(
        &self,
        shared: &Shared,
        from: &NodeId,
        put: Vec<StoredWebhook>,
        ended: &[String],
    ) {
        let own = shared.engine.load().as_ref().map(|engine| engine.node().clone());
        for stored in put {
            let id = stored.id();
            if let Some(subscription) = self.find(&id) {
                // Both deliver it, as after a split. One of them stops.
                if own.as_ref().is_some_and(|own| rank(&id, own) > rank(&id, from)) {
                    subscription.state().is_dirty = true;
                    continue;
                }
                self.hand_over(&subscription, from);
            }
            self.standby.0.lock().insert(id, (from.clone(), stored));
        }
        let mut standby = self.standby.0.lock();
        for id in ended {
            if standby.get(id).is_some_and(|(node, _)| node == from) {
                standby.remove(id);
            }
        }
    }

    /// Another node delivers it from here on.
    fn hand_over(&self, subscription: &Arc<Subscription>, to: &NodeId) {
        if subscription.end(Life::Over) {
            self.table.lock().remove(subscription);
            self.report_end(subscription, || WebhookEnd::HandedOver(to.clone()));
        }
    }

    /// All webhooks of this node, in messages of bounded size.
    pub(crate) fn messages(&self, node: &NodeId) -> Vec<PeerMessage> {
        let all = self.table.lock().all();
        let parts = all.chunks(IN_ONE).map(|some| {
            let put = some.iter().map(|it| it.stored()).collect();
            PeerMessage::Webhooks { node: node.clone(), put, ended: Vec::new() }
        });
        parts.collect()
    }

    /// Continues the webhooks of nodes that are gone: each is continued by one of the others. So are those
    /// of `restarted`, a node whose process is another one.
    pub(crate) fn take_over(&self, shared: &Shared, restarted: Option<&NodeId>) {
        let Some(engine) = shared.engine.load_full() else { return };
        let (own, clock) = (engine.node(), SystemTime::now());
        let is_gone = |node: &NodeId| Some(node) == restarted || !shared.peers.has(node);
        let orphans: Vec<(NodeId, StoredWebhook)> = {
            let mut standby = self.standby.0.lock();
            standby.retain(|_, (_, stored)| stored.expires.is_none_or(|at| at > clock));
            standby.values().filter(|(node, _)| is_gone(node)).cloned().collect()
        };
        for (node, stored) in orphans {
            let id = stored.id();
            let others = shared.peers.with_type(&stored.key.name);
            let mut left = others.iter().filter(|other| **other != node);
            let is_best = left.all(|other| rank(&id, own) > rank(&id, other));
            if shared.find(&stored.key.name).is_none() || !is_best {
                continue;
            }
            self.standby.0.lock().remove(&id);
            if self.restore(shared, stored)
                && let Some(subscription) = self.find(&id)
            {
                let id = subscription.id.clone();
                self.report(|| EventsReport::WebhookTakenOver { id, from: node });
                if subscription.needs_deliverer() {
                    self.deliver(&subscription);
                }
            }
        }
    }
}
