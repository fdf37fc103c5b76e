//! The life of a session: its actor, when its client was seen, and whether the client uses it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorRef, ActorStatus};
use stentor_delivery::LossCounters;
use tokio::sync::SemaphorePermit;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::{MAX_WAITING_MESSAGES, SessionEntry};
use crate::call::FinishStreams;
use crate::events::{Events, report_losses};
use crate::reasons::{EndReason, SessionKind};
use crate::restarts::Restarts;
use crate::session::directory::SessionPermit;
use crate::session::{SessionMsg, Sessions};

/// The longest time from when a client opens a session until it sends a request or reads its
/// notices.
pub(crate) const TO_BE_USED: Duration = Duration::from_secs(1);

/// A session that crashes more often than this within a minute is ended.
const MAX_RESTARTS: usize = 5;

/// What becomes of a session and of its actor.
#[derive(Debug)]
pub(super) struct Life {
    /// `None` while the session is passive, and after it has ended.
    pub(super) actor: Option<ActorRef<SessionMsg>>,
    /// Whether the actor is killed and not yet replaced.
    killed: bool,
    restarts: Restarts,
    last_seen: Instant,
    /// When the actor began to handle the last message.
    last_message: Instant,
    /// Whether the client did more than open the session.
    used: bool,
    /// Set while the session counts as left: from when the client was seen to disconnect until it
    /// uses the session after all.
    pub(super) left: Option<SessionPermit>,
    /// Whether notices may have been lost, and the client is not yet notified of that.
    missed: bool,
    /// The losses that are already reported.
    reported: LossCounters,
    pub(super) ending: Option<EndReason>,
    /// Whether the session has been removed from everything, or is being removed.
    pub(super) closed: bool,
    pub(super) permit: Option<SessionPermit>,
    pub(super) finish: Option<Arc<FinishStreams>>,
}

impl Life {
    pub(super) fn new(finish: FinishStreams, permit: SessionPermit) -> Self {
        let now = Instant::now();
        Self {
            actor: None,
            killed: false,
            restarts: Restarts::at_most(MAX_RESTARTS),
            last_seen: now,
            last_message: now,
            used: false,
            left: None,
            missed: false,
            reported: LossCounters::default(),
            ending: None,
            closed: false,
            permit: Some(permit),
            finish: Some(Arc::new(finish)),
        }
    }

    /// Takes an actor that another session can have: not one that is dead, or about to die.
    pub(super) fn take_actor(&mut self) -> Option<ActorRef<SessionMsg>> {
        let killed = self.killed;
        self.actor.take_if(|actor| !killed && actor.get_status() <= ActorStatus::Running)
    }

    pub(super) fn recent_restarts(&mut self) -> usize {
        self.restarts.recent()
    }
}

impl SessionEntry {
    // The actor

    pub(crate) fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        self.life.lock().actor.clone()
    }

    pub(crate) fn is_actor(&self, id: ActorId) -> bool {
        self.life.lock().actor.as_ref().is_some_and(|actor| actor.get_id() == id)
    }

    /// Gives the session an actor. `false` if it has one, or has ended.
    pub(in crate::session) fn accept_actor(&self, actor: &ActorRef<SessionMsg>) -> bool {
        let mut life = self.life.lock();
        let takes = !life.closed && life.actor.is_none();
        if takes {
            life.killed = false;
            life.actor = Some(actor.clone());
        }
        takes
    }

    /// Makes the session passive if it had no message for `idle`. The next message activates it
    /// again.
    pub(crate) fn passivate(&self, sessions: &Sessions, idle: Duration) {
        let actor = {
            let mut life = self.life.lock();
            let is_idle = life.last_message.elapsed() >= idle && self.is_mailbox_empty();
            is_idle.then(|| life.take_actor()).flatten()
        };
        if let Some(actor) = actor {
            sessions.pool.give_back(actor);
        }
    }

    /// Makes the session passive if this is its actor and no message is left. `true` if it was.
    ///
    /// A message takes its permit before it looks for the actor, and keeps it until it is handled.
    /// So while the life is locked, either the message is seen here or it finds no actor.
    pub(in crate::session) fn leave_actor(&self, id: ActorId, keeps: bool) -> bool {
        let mut life = self.life.lock();
        let leaves = (life.closed || !keeps) && !life.killed && self.is_mailbox_empty();
        leaves && life.actor.take_if(|actor| actor.get_id() == id).is_some()
    }

    /// The actor of a closed session, if no message is left that it would leave after.
    pub(in crate::session) fn leave_when_closed(&self) -> Option<ActorRef<SessionMsg>> {
        let mut life = self.life.lock();
        let leaves = life.closed && self.is_mailbox_empty();
        leaves.then(|| life.take_actor()).flatten()
    }

    /// Kills the actor, which stays that of this session until the supervisor replaces it: so no
    /// other session is affected.
    pub(crate) fn kill_actor(&self) -> Option<ActorRef<SessionMsg>> {
        let mut life = self.life.lock();
        let actor = life.actor.clone()?;
        life.killed = true;
        actor.kill();
        Some(actor)
    }

    /// Waits until all messages are handled. No other is handled until the turn is dropped. `None`
    /// if the session has ended.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.mailbox_permits.acquire_many(MAX_WAITING_MESSAGES).await.ok()
    }

    /// Records that this actor was stopped. The next message activates the session again.
    pub(crate) fn lost_actor(&self, id: ActorId) {
        let mut life = self.life.lock();
        if life.actor.take_if(|actor| actor.get_id() == id).is_some() {
            life.killed = false;
            self.changed.notify_waiters();
        }
    }

    /// Whether no message waits for the actor, or is handled by it.
    pub(super) fn is_mailbox_empty(&self) -> bool {
        self.mailbox_permits.available_permits() == MAX_WAITING_MESSAGES as usize
    }

    /// Completes when a dead actor is forgotten, and when there will be none any more.
    pub(in crate::session) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether the actor may be restarted. Uses up one of the restarts.
    pub(crate) fn may_restart(&self) -> bool {
        let mut life = self.life.lock();
        life.ending.is_none() && life.restarts.spend()
    }

    /// Kept by a call as long as it may still answer on the session's streams.
    pub(crate) fn finish_streams(&self) -> Option<Arc<FinishStreams>> {
        self.life.lock().finish.clone()
    }

    // Notices

    /// Records that notices may have been lost. The client is notified when the session joins the
    /// hub.
    pub(crate) fn mark_missed(&self) {
        self.life.lock().missed = true;
    }

    /// Whether notices may have been lost since the last call of this function.
    pub(crate) fn take_missed(&self) -> bool {
        std::mem::take(&mut self.life.lock().missed)
    }

    /// Emits events for frames dropped and streams closed since the last report.
    pub(crate) fn report_losses(&self, events: &Events) {
        let (before, now) = {
            let mut life = self.life.lock();
            // Read while it is locked, because another thread may report the same losses.
            let now = self.counters.losses();
            (std::mem::replace(&mut life.reported, now), now)
        };
        report_losses(before, now, Some(&self.id), events);
    }

    // The client

    /// Records that the client was seen.
    pub(crate) fn mark_seen(&self) {
        self.life.lock().last_seen = Instant::now();
    }

    /// Records that the client has sent a message, which is handled now.
    pub(crate) fn note_message(&self) {
        let mut life = self.life.lock();
        let now = Instant::now();
        (life.last_seen, life.last_message) = (now, now);
    }

    /// Records that the client uses the session.
    pub(crate) fn mark_used(&self) {
        let mut life = self.life.lock();
        life.used = true;
        life.left = None;
    }

    /// Counts the session as left: its client disconnected before it used the session.
    pub(crate) fn count_left(&self, permit: SessionPermit) {
        let mut life = self.life.lock();
        if !life.used && !life.closed {
            life.left = Some(permit);
        }
    }

    /// Whether the client was seen to disconnect, is still away, and did not use the session.
    pub(crate) fn is_left(&self) -> bool {
        self.life.lock().left.is_some() && self.unused_since().is_some()
    }

    /// Stops counting the session as left. `true` if it was counted and its client is still away.
    pub(crate) fn uncount_left(&self) -> bool {
        let left = self.life.lock().left.take();
        left.is_some() && self.unused_since().is_some()
    }

    /// Since when the client is away, if it opened the session and did nothing with it.
    ///
    /// A client that is still connected after [`TO_BE_USED`] counts as using its session. Must be
    /// called periodically.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        if self.kind != SessionKind::Http || self.life.lock().used {
            return None;
        }
        if self.is_attached() {
            if self.opened.elapsed() >= TO_BE_USED {
                self.mark_used();
            }
            return None;
        }
        Some(self.life.lock().last_seen)
    }

    /// Counts a client that reads a stream as seen. Must be called periodically.
    pub(crate) fn mark_seen_if_attached(&self) {
        if self.is_attached() {
            self.mark_seen();
        }
    }

    /// Whether the client has been away for `timeout`.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        self.kind == SessionKind::Http
            && self.life.lock().last_seen.elapsed() >= timeout
            && !self.is_attached()
    }
}
