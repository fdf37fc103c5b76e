//! How a session ends: at once, by whoever wants it to. Its actor, if it has one, is stopped with it.

use std::sync::atomic::Ordering;

use stentor_wire::encode;

use super::{MAX_WAITING_MESSAGES, SessionEntry, SessionKind};
use crate::core::Core;
use crate::events::EngineEvent;
use crate::hub::HubMsg;
use crate::task::CancelReason;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// The client ended it.
    Deleted,
    /// The client stayed away for too long.
    IdleTimeout,
    /// The client opened it and went away, as too many others did.
    Unused,
    /// The client's connection is gone, and nothing outlives it.
    Disconnected,
    /// `initialize` was refused.
    Refused,
    /// The application ended it.
    Ended,
    /// It goes on on another node.
    Moved,
    /// It crashed once more after some restarts.
    Crashed,
    /// The engine shuts down.
    Shutdown,
}

impl EndReason {
    /// The reason in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::IdleTimeout => "idle_timeout",
            Self::Unused => "unused",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Moved => "moved",
            Self::Crashed => "crashed",
            Self::Shutdown => "shutdown",
        }
    }
}

impl SessionEntry {
    /// Why it has ended, or is about to.
    pub(crate) fn ending(&self) -> Option<EndReason> {
        *self.ending.lock()
    }

    /// Nobody finds it any more, as it is to end.
    pub(crate) fn retire(&self, reason: EndReason) {
        self.ending.lock().get_or_insert(reason);
    }

    /// Whether it is out of everything it was in, or is being taken out.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends it: takes it out of everything it is in, for good. The first reason counts. Does nothing
    /// the second time.
    pub(crate) fn end(&self, core: &Core, reason: EndReason) {
        let reason = *self.ending.lock().get_or_insert(reason);
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        crate::log!(debug, session = ?self.id, ?reason, "session ends");
        // Who has gone reads no answer.
        if self.kind == SessionKind::Listen && reason != EndReason::Disconnected {
            self.end_listens(core);
        }
        // Before it is not found any more, so that nobody looks for it elsewhere.
        if let Some(saver) = &core.saver {
            saver.closed(self, reason);
        }
        core.directory.remove(&self.id);
        {
            // Told while it is locked, as all that the hub is told of a session.
            let mut state = self.state();
            for subscription in state.subscriptions() {
                core.tell_hub(HubMsg::Leave(self.key(subscription.id)));
            }
        }
        // They answer as they end, and the streams end after the last of them.
        self.calls.cancel_all(&match reason {
            EndReason::Shutdown => CancelReason::Shutdown,
            _ => CancelReason::SessionEnded,
        });
        self.stop_actor(core);
        self.changed.notify_waiters();
        self.seat.lock().take();
        self.presence.count_out();
        self.finish.lock().take();
        // From here on it may be a store's own code that runs.
        if matches!(reason, EndReason::Shutdown | EndReason::Moved) {
            let streams = self.streams.notices().cloned().into_iter().chain(self.kept.all());
            streams.for_each(|stream| stream.leave_log());
        }
        self.kept.clear();
        self.tell_trouble(&core.events);
        if self.kind != SessionKind::Stateless {
            let session = self.id.clone();
            core.metrics.session(self.kind, reason, self.presence.age());
            core.events.emit(|| EngineEvent::SessionClosed { session, reason });
        }
    }

    /// No new work is coming: ends what only waits.
    pub(crate) fn drain(&self, core: &Core) {
        match self.kind {
            SessionKind::Listen => self.end(core, EndReason::Shutdown),
            _ => self.end_listens(core),
        }
    }

    /// Answers the listens, which ends them.
    fn end_listens(&self, core: &Core) {
        let listens = {
            // Locked until the hub is told: it learns of changes in the order in which they are made.
            let mut state = self.state();
            let listens = state.end_listens();
            for (_, subscription) in &listens {
                core.tell_hub(HubMsg::Leave(self.key(Some(subscription.clone()))));
            }
            listens
        };
        for (request, _) in listens {
            if let Some(outlet) = self.streams.notices() {
                outlet.reply(encode::listen_ended(&request, &core.identity), None);
            }
        }
    }

    /// With it end the calls that run.
    fn stop_actor(&self, core: &Core) {
        let Some(actor) = self.actor.lock().take() else { return };
        // The root has nothing to do for a session that ended in good order, and is not woken. A
        // shutdown waits for its children, and ends one that hangs in a message.
        if !core.is_draining()
            && self.turns.available_permits() == MAX_WAITING_MESSAGES as usize
            && let Some(root) = actor.try_get_supervisor()
        {
            actor.unlink(root);
        }
        actor.stop(None);
    }
}
