//! How a session ends: at once, whoever ends it. Its actor, if there is one, is stopped.

use crate::reasons::EndReason;
use std::sync::atomic::Ordering;

use stentor_wire::encode;

use super::{MAX_WAITING_MESSAGES, SessionEntry};
use crate::core::Core;
use crate::events::EngineEvent;
use crate::hub::HubMsg;
use crate::reasons::CancelReason;
use crate::reasons::SessionKind;

impl SessionEntry {
    /// Why the session has ended, or is about to end.
    pub(crate) fn ending(&self) -> Option<EndReason> {
        *self.ending.lock()
    }

    /// Marks the session as about to end, so that no lookup finds it any more.
    pub(crate) fn retire(&self, reason: EndReason) {
        self.ending.lock().get_or_insert(reason);
    }

    /// Whether the session has been removed from everything, or is being removed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends the session, and removes it from the directory and the hub for good.
    ///
    /// The first reason counts. A second call does nothing.
    pub(crate) fn end(&self, core: &Core, reason: EndReason) {
        let reason = *self.ending.lock().get_or_insert(reason);
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        crate::log!(debug, session = ?self.id, ?reason, "session ends");
        // A client that has disconnected reads no answer.
        if self.kind == SessionKind::Listen && reason != EndReason::Disconnected {
            self.end_listens(core);
        }
        // Before the directory forgets the session, so that no lookup goes on to another node.
        if let Some(saver) = &core.saver {
            saver.closed(self, reason);
        }
        core.directory.remove(&self.id);
        {
            // Notified while the state is locked, like every change that the hub receives of a
            // session.
            let mut state = self.state();
            for subscription in state.subscriptions() {
                core.hub.send(HubMsg::Leave(self.key(subscription.id)));
            }
        }
        // Cancelled calls still answer, and the streams end after the last answer.
        self.calls.cancel_all(&match reason {
            EndReason::Shutdown => CancelReason::Shutdown,
            _ => CancelReason::SessionEnded,
        });
        self.stop_actor(core);
        self.changed.notify_waiters();
        self.permit.lock().take();
        self.presence.uncount_left();
        self.finish.lock().take();
        // From here on a store's own code may run.
        if matches!(reason, EndReason::Shutdown | EndReason::Moved) {
            let streams = self.streams.notices().cloned().into_iter().chain(self.kept.all());
            streams.for_each(|stream| stream.leave_log());
        }
        self.kept.clear();
        self.report_losses(&core.events);
        if self.kind != SessionKind::Stateless {
            let session = self.id.clone();
            core.metrics.session(self.kind, reason, self.presence.age());
            core.events.emit(|| EngineEvent::SessionClosed { session, reason });
        }
    }

    /// Ends what only waits, because no new work will come.
    pub(crate) fn drain(&self, core: &Core) {
        match self.kind {
            SessionKind::Listen => self.end(core, EndReason::Shutdown),
            _ => self.end_listens(core),
        }
    }

    /// Answers all listens, which ends them.
    fn end_listens(&self, core: &Core) {
        let listens = {
            // Locked until the hub is notified: the hub receives changes in the order in which they
            // were made.
            let mut state = self.state();
            let listens = state.end_listens();
            for (_, subscription) in &listens {
                core.hub.send(HubMsg::Leave(self.key(Some(subscription.clone()))));
            }
            listens
        };
        for (request, _) in listens {
            if let Some(sender) = self.streams.notices() {
                sender.reply(encode::listen_ended(&request, &core.identity), None);
            }
        }
    }

    /// Stops the actor, and with it the calls that run.
    fn stop_actor(&self, core: &Core) {
        let Some(actor) = self.actor.lock().take() else { return };
        // The supervisor has nothing to do for a session that ended in order, so it is not woken. A
        // shutdown waits for its children instead, and ends one that hangs in a message.
        if !core.lifecycle.is_draining()
            && self.turns.available_permits() == MAX_WAITING_MESSAGES as usize
            && let Some(root) = actor.try_get_supervisor()
        {
            actor.unlink(root);
        }
        actor.stop(None);
    }
}
