//! Sessions that are on their way to another node.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{SessionRecord, Spoken};
use crate::core::Core;
use crate::engine::Engine;
use crate::ids::SessionId;
use crate::outlet::Outlet;
use crate::session::{EndReason, SessionEntry, SessionKind};

/// Sessions that are on their way to another node: who looks for one waits until it has arrived.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    sessions: Mutex<HashSet<SessionId>>,
    arrived: Notify,
}

impl Moving {
    fn arrived(&self, id: &SessionId) {
        self.sessions.lock().remove(id);
        self.arrived.notify_waiters();
    }

    /// Waits until a session is not on its way.
    pub(crate) async fn settled(&self, id: &str) {
        loop {
            let arrived = self.arrived.notified();
            if !self.sessions.lock().contains(id) {
                return;
            }
            arrived.await;
        }
    }

    /// A session is to come here, of which others wait to hear until this is dropped. `None` if it
    /// is on its way already.
    pub(crate) fn arrives(&self, id: &SessionId) -> Option<Arriving<'_>> {
        let first = self.sessions.lock().insert(id.clone());
        first.then(|| Arriving { moving: self, id: id.clone() })
    }
}

/// A session that is on its way here.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    moving: &'a Moving,
    id: SessionId,
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.moving.arrived(&self.id);
    }
}

/// A session that leaves this engine. Dropping it ends the session here.
#[derive(Debug)]
pub struct Leaving {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
    record: Option<SessionRecord>,
}

impl Leaving {
    /// All that it is; nothing if its client has not said who it is.
    pub fn take(&mut self) -> Option<SessionRecord> {
        self.record.take()
    }

    /// It has arrived elsewhere: who looks for it is sent there.
    pub fn arrived(&self) {
        self.entry.retire(EndReason::Moved);
        self.core.moving.arrived(self.entry.id());
    }

    /// Notices that it has heard here since it was taken.
    #[must_use]
    pub fn heard_since(&self) -> Vec<Spoken> {
        self.entry.streams().notices().map(Outlet::said_since).unwrap_or_default()
    }

    /// Who it belongs to.
    #[must_use]
    pub fn principal(&self) -> Option<Arc<str>> {
        self.entry.principal().cloned()
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        self.entry.id()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.entry.end(&self.core, EndReason::Moved);
        self.core.moving.arrived(self.entry.id());
    }
}

impl Engine {
    /// The legacy sessions over HTTP that are here.
    #[must_use]
    pub fn http_sessions(&self) -> Vec<SessionId> {
        let sessions = self.core().directory.all().into_iter();
        let open = sessions.filter(|it| it.kind() == SessionKind::Http && it.ending().is_none());
        open.map(|entry| entry.id().clone()).collect()
    }

    /// Takes a session out, to be carried on by another node: its calls may end within this time.
    /// Who asks for it meanwhile waits until the [`Leaving`] is dropped. `None` if there is none of
    /// that name.
    pub async fn release_session(&self, id: &SessionId, patience: Duration) -> Option<Leaving> {
        let core = self.core().clone();
        let entry = core.directory.get(id.as_str())?;
        if entry.kind() != SessionKind::Http || !core.moving.sessions.lock().insert(id.clone()) {
            return None;
        }
        // From here on dropping it lets go of whoever waits.
        let mut leaving = Leaving { core, entry, record: None };
        leaving.record = leaving.entry.hand_over(&leaving.core, patience).await;
        Some(leaving)
    }
}
