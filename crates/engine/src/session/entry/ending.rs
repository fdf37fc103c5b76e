//! How a session ends: at once, whoever ends it. Its actor, if there is one, is stopped.

use std::sync::Arc;

use stentor_wire::{Id, encode};

use super::SessionEntry;
use crate::events::EngineEvent;
use crate::hub::HubMsg;
use crate::log::quietly;
use crate::notice_stream::{Begin, NoticeStream};
use crate::reasons::{CancelReason, EndReason, SessionKind};
use crate::session::Sessions;
use crate::session::state::EndedListen;

impl SessionEntry {
    /// Why the session has ended, or is about to end.
    pub(crate) fn ending(&self) -> Option<EndReason> {
        self.life.lock().ending
    }

    /// Marks the session as about to end, so that no lookup finds it any more.
    pub(crate) fn retire(&self, reason: EndReason) {
        self.life.lock().ending.get_or_insert(reason);
    }

    /// Whether the session has been removed from everything, or is being removed.
    pub(crate) fn is_closed(&self) -> bool {
        self.life.lock().closed
    }

    /// Ends the session, and removes it from the directory and the hub for good.
    ///
    /// The first reason counts. A second call does nothing.
    pub(crate) fn end(&self, sessions: &Sessions, reason: EndReason) {
        let reason = {
            let mut life = self.life.lock();
            let reason = *life.ending.get_or_insert(reason);
            if std::mem::replace(&mut life.closed, true) {
                return;
            }
            reason
        };
        crate::log!(debug, session = ?self.id, ?reason, "session ends");
        // Messages that wait for a permit are refused.
        self.mailbox_permits.close();
        // Nobody reads the answer to a listen whose client has disconnected. A client that has
        // closed the input of a pipe may still read.
        if reason != EndReason::Disconnected || self.kind != SessionKind::Listen {
            self.end_listens(sessions);
        }
        // Before the directory forgets the session, so that no lookup goes on to another node.
        if let Some(saver) = &sessions.saver {
            saver.closed(self, reason);
        }
        sessions.directory.remove(&self.id);
        // Dropped without the lock, because their destructors are the author's code.
        let slots = {
            // Notified while the state is locked, like every change that the hub receives of a
            // session.
            let mut state = self.state();
            for subscription in state.subscriptions() {
                sessions.hub.send(HubMsg::Leave(self.key(subscription.id)));
            }
            (std::mem::take(&mut state.slots), state.take_held())
        };
        quietly(|| drop(slots));
        // Cancelled calls still answer, and the streams end after the last answer.
        self.calls.cancel_all(&match reason {
            EndReason::Shutdown => CancelReason::Shutdown,
            _ => CancelReason::SessionEnded,
        });
        // Dropped after the lock is released: the end of the streams wakes their readers.
        let (actor, _finish, _permits) = {
            let mut life = self.life.lock();
            // An actor that still has messages answers them, and leaves then.
            let actor = self.is_mailbox_empty().then(|| life.take_actor()).flatten();
            (actor, life.finish.take(), (life.permit.take(), life.left.take()))
        };
        if let Some(actor) = actor {
            sessions.pool.give_back(actor);
        }
        self.changed.notify_waiters();
        // From here on a store's own code may run.
        if matches!(reason, EndReason::Shutdown | EndReason::Moved) {
            let streams = std::iter::once(self.notices.clone()).chain(self.kept.all());
            streams.for_each(|stream| stream.leave_log());
        }
        self.kept.clear();
        self.report_losses(&sessions.events);
        let session = self.id.clone();
        sessions.metrics.session(self.kind, reason, self.opened.elapsed());
        sessions.events.emit(|| EngineEvent::SessionClosed { session, reason });
    }

    /// Answers all listens, which ends them.
    pub(in crate::session) fn end_listens(&self, sessions: &Sessions) {
        let listens = {
            // Locked until the hub is notified: the hub receives changes in the order in which they
            // were made.
            let mut state = self.state();
            let listens = state.end_listens();
            for subscription in listens.iter().filter_map(|it| it.subscription.clone()) {
                sessions.hub.send(HubMsg::Leave(self.key(Some(subscription))));
            }
            listens
        };
        listens.into_iter().for_each(|ended| self.answer_listen(sessions, ended));
    }

    /// Ends a listen without an answer, and tells the hub. What it held is dropped with the result.
    pub(in crate::session) fn forget_listen(
        &self,
        sessions: &Sessions,
        request: &Id,
    ) -> Option<EndedListen> {
        let mut state = self.state();
        let ended = state.end_listen(request)?;
        if let Some(subscription) = ended.subscription.clone() {
            sessions.hub.send(HubMsg::Leave(self.key(Some(subscription))));
        }
        Some(ended)
    }

    /// Ends a listen with its result. Does nothing if it has ended.
    pub(in crate::session) fn end_listen(&self, sessions: &Sessions, request: &Id) {
        if let Some(ended) = self.forget_listen(sessions, request) {
            self.answer_listen(sessions, ended);
        }
    }

    /// Ends what a listen held, and sends its result.
    fn answer_listen(&self, sessions: &Sessions, ended: EndedListen) {
        let request = ended.request.clone();
        // What was held may send its last notice.
        quietly(|| drop(ended));
        self.notices.reply(encode::listen_ended(&request, &sessions.identity), None);
    }

    /// Begins a stream of an extension, unless its listen has ended.
    pub(in crate::session) fn begin_stream(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        request: &Id,
        begin: Begin,
    ) {
        let (all, entry, id) = (sessions.clone(), Arc::downgrade(self), request.clone());
        let end = move || {
            let Some(entry) = entry.upgrade() else { return };
            match entry.kind {
                SessionKind::Listen => entry.end(&all, EndReason::Ended),
                _ => entry.end_listen(&all, &id),
            }
        };
        let subscription = self.state().subscription(request);
        let held = begin(NoticeStream::new(self.notices.clone(), subscription, end));
        let ended = self.state().hold(request, held);
        quietly(|| drop(ended));
        // An end that came before this did not find what is held.
        if self.is_closed() {
            let held = self.state().take_held();
            quietly(|| drop(held));
        }
    }
}
