//! One session, for a host that supervises it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorRef};
use serde::Serialize;
use serde_json::Value;
use stentor_delivery::HistoryView;

use crate::audience::Audience;
use crate::core::Core;
use crate::events::{EventBatch, EventReceiver};
use crate::ids::SessionId;
use crate::reasons::{EndReason, Stopped};
use crate::session::{SessionEntry, SessionView};

/// One session of this engine; from [`Engine::session`](crate::Engine::session). Clones are the same
/// session.
///
/// A session is always there for whoever addresses it, with or without an actor: its next message
/// starts one. So this stays good until the session ends, through all restarts.
#[derive(Clone, Debug)]
pub struct SessionRef {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
}

impl SessionRef {
    pub(super) fn find(core: &Arc<Core>, id: &SessionId) -> Option<Self> {
        let entry = core.sessions.directory.get(id.as_str())?;
        Some(Self { core: core.clone(), entry })
    }

    pub(super) fn all(core: &Arc<Core>) -> Vec<Self> {
        let all = core.sessions.directory.all().into_iter();
        all.map(|entry| Self { core: core.clone(), entry }).collect()
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        self.entry.id()
    }

    /// The session as it is now, or as it was when it ended.
    #[must_use]
    pub fn view(&self) -> SessionView {
        self.entry.view()
    }

    /// Notes what becomes of each message to the client and why, for this long from now on, a year at
    /// most: the last 256 of them.
    pub fn follow(&self, time: Duration) {
        self.core.sessions.follow(&self.entry, time);
    }

    /// Forgets what was noted, and notes nothing any more.
    pub fn unfollow(&self) {
        self.entry.counters().unfollow();
    }

    /// What became of the last messages to the client; `None` if nobody
    /// [follows](Self::follow) the session. Of one that another node has, the engine knows nothing.
    #[must_use]
    pub fn history(&self) -> Option<HistoryView> {
        self.entry.counters().history()
    }

    /// What the author keeps of this type for the session: one value, made with `Default` when it is
    /// first asked for. It is freed when the session ends, and does not move to another node with it.
    #[must_use]
    pub fn state<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.entry.slot()
    }

    /// Why the session has ended; `None` while it is open.
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        self.entry.ending()
    }

    /// The actor that serves the session now, to watch its status or to wait for its end; `None`
    /// while the session is passive, and after its end. With
    /// [`SessionConfig::passivate_after`](crate::SessionConfig::passivate_after) `None` the session
    /// has one actor from its opening to its end, and after a crash another one.
    ///
    /// An actor serves another session later, so its end says nothing of this one:
    /// [`events`](Self::events) do. Do not `link` it: in ractor that takes it away from the engine's
    /// supervisor.
    #[must_use]
    pub fn actor(&self) -> Option<ActorCell> {
        self.entry.actor().map(|actor| actor.get_cell())
    }

    /// Sends the client a notification of the application's own, as
    /// [`Engine::notify`](crate::Engine::notify) does.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn notify(&self, method: &str, params: impl Serialize) -> Result<(), Stopped> {
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        let audience = Audience::session(self.id().clone());
        self.core.registry.notify(&audience, method, params).await
    }

    /// Ends the session, as [`Engine::end_session`](crate::Engine::end_session) does. `false` if it
    /// has ended already.
    pub fn end(&self) -> bool {
        self.core.sessions.end_session(self.id())
    }

    /// Gives the session a new actor, as
    /// [`Engine::restart_session`](crate::Engine::restart_session) does. `false` if it has ended.
    pub fn restart(&self) -> bool {
        self.core.sessions.restart_session(self.id())
    }

    /// Subscribes to the events of this session and of its calls, as
    /// [`Engine::events`](crate::Engine::events) does for all. The last one is
    /// [`SessionClosed`](crate::EngineEvent::SessionClosed), also if the session has ended by now:
    /// calls that the end cancels finish after it, and are not reported here.
    #[must_use]
    pub fn events(&self, capacity: usize) -> EventReceiver {
        let receiver = self.core.events.session_receiver(self.id(), capacity);
        self.end_if_closed();
        receiver
    }

    /// Sends the events of this session and of its calls to an actor, as
    /// [`Engine::subscribe`](crate::Engine::subscribe) does for all.
    ///
    /// An actor learns of the end of one session in two lines:
    ///
    /// ```
    /// # use ractor::ActorRef;
    /// use stentor::{Engine, observe::EventBatch, session::SessionId};
    ///
    /// # enum KeeperMsg { Session(EventBatch) }
    /// # #[cfg(feature = "cluster")]
    /// # impl ractor::Message for KeeperMsg {}
    /// fn keep(engine: &Engine, id: &SessionId, keeper: &ActorRef<KeeperMsg>) {
    ///     let Some(session) = engine.session(id) else { return };
    ///     session.subscribe(keeper, 64, KeeperMsg::Session);
    /// }
    /// # let _ = keep;
    /// ```
    pub fn subscribe<M: ractor::Message>(
        &self,
        actor: &ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.core.events.subscribe_to_session(self.id(), actor.clone(), capacity, wrap);
        self.end_if_closed();
    }

    /// Ends subscriptions that were added after the session was closed.
    fn end_if_closed(&self) {
        if self.entry.is_closed() {
            let reason = self.ended().unwrap_or(EndReason::Ended);
            self.core.events.session_was_closed(self.id(), reason);
        }
    }
}
