//! The life of a session: its actor, when its client was seen, and whether the client uses it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorRef};
use stentor_delivery::LossCounters;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::{MAX_WAITING_MESSAGES, SessionEntry};
use crate::call::FinishStreams;
use crate::events::{Events, report_losses};
use crate::reasons::{EndReason, SessionKind};
use crate::restarts::Restarts;
use crate::session::SessionMsg;
use crate::session::directory::SessionPermit;

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

    pub(super) fn recent_restarts(&mut self) -> usize {
        self.restarts.recent()
    }
}

/// Stops an actor that has nothing to do. The supervisor has nothing to do for it, so it is not
/// woken.
pub(super) fn stop_quietly(actor: &ActorRef<SessionMsg>) {
    if let Some(supervisor) = actor.try_get_supervisor() {
        actor.unlink(supervisor);
    }
    actor.stop(None);
}

impl SessionEntry {
    // The actor

    pub(crate) fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        self.life.lock().actor.clone()
    }

    pub(crate) fn is_actor(&self, id: ActorId) -> bool {
        self.life.lock().actor.as_ref().is_some_and(|actor| actor.get_id() == id)
    }

    /// Sets a spawned actor in place of `predecessor`, or of none. `false` if another actor was
    /// first, or the session has ended.
    pub(in crate::session) fn take_actor(
        &self,
        spawned: &ActorRef<SessionMsg>,
        predecessor: Option<ActorId>,
    ) -> bool {
        let mut life = self.life.lock();
        let current = life.actor.as_ref().map(|actor| actor.get_id());
        let taken = !life.closed && current == predecessor;
        if taken {
            life.actor = Some(spawned.clone());
            self.changed.notify_waiters();
        }
        taken
    }

    /// Stops the actor if the session had no message for `idle`. The next message activates the
    /// session again.
    pub(crate) fn passivate(&self, idle: Duration) {
        let mut life = self.life.lock();
        // A message takes its permit before it looks for the actor, and keeps it until it is
        // handled. So while this is locked, either the message is seen here or it finds no actor.
        if life.last_message.elapsed() >= idle
            && self.has_no_message()
            && let Some(actor) = life.actor.take()
        {
            stop_quietly(&actor);
        }
    }

    /// Records that this actor was stopped. The next message activates the session again.
    pub(crate) fn lost_actor(&self, id: ActorId) {
        let mut life = self.life.lock();
        if life.actor.take_if(|actor| actor.get_id() == id).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Whether no message waits for the actor, or is handled by it.
    pub(super) fn has_no_message(&self) -> bool {
        self.turns.available_permits() == MAX_WAITING_MESSAGES as usize
    }

    /// Completes when the actor is replaced, and when there will be none any more.
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
    pub(crate) fn touch(&self) {
        self.life.lock().last_seen = Instant::now();
    }

    /// Records that the client has sent a message, which is handled now.
    pub(crate) fn has_message(&self) {
        let mut life = self.life.lock();
        let now = Instant::now();
        (life.last_seen, life.last_message) = (now, now);
    }

    /// Records that the client uses the session.
    pub(crate) fn used(&self) {
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
                self.used();
            }
            return None;
        }
        Some(self.life.lock().last_seen)
    }

    /// Counts a client that reads a stream as seen. Must be called periodically.
    pub(crate) fn look(&self) {
        if self.is_attached() {
            self.touch();
        }
    }

    /// Whether the client has been away for `timeout`.
    pub(crate) fn is_idle(&self, timeout: Duration) -> bool {
        self.kind == SessionKind::Http
            && self.life.lock().last_seen.elapsed() >= timeout
            && !self.is_attached()
    }
}
