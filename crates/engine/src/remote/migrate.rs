//! Sessions that are on their way to another node.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stentor_delivery::SerializedFrame;
use tokio::sync::Notify;

use super::{Parts, Remote, SessionRecord};
use crate::ids::SessionId;
use crate::reasons::{EndReason, SessionKind};
use crate::request_sender::RequestSender;
use crate::session::SessionEntry;

/// Sessions that are on their way to another node. Lookups for one wait until it has arrived.
#[derive(Debug, Default)]
pub(crate) struct Migrations {
    sessions: Mutex<HashSet<SessionId>>,
    arrived: Notify,
}

impl Migrations {
    fn arrived(&self, id: &SessionId) {
        self.sessions.lock().remove(id);
        self.arrived.notify_waiters();
    }

    /// Waits until a session is no longer on its way.
    pub(crate) async fn settled(&self, id: &str) {
        loop {
            let arrived = self.arrived.notified();
            if !self.sessions.lock().contains(id) {
                return;
            }
            arrived.await;
        }
    }

    /// Marks a session that comes to this node. Lookups for it wait until the result is dropped.
    /// `None` if the session is on its way already.
    pub(crate) fn arrives(&self, id: &SessionId) -> Option<IncomingMigration<'_>> {
        let first = self.sessions.lock().insert(id.clone());
        first.then(|| IncomingMigration { migrations: self, id: id.clone() })
    }
}

#[derive(Debug)]
pub(crate) struct IncomingMigration<'a> {
    migrations: &'a Migrations,
    id: SessionId,
}

impl Drop for IncomingMigration<'_> {
    fn drop(&mut self) {
        self.migrations.arrived(&self.id);
    }
}

/// A session that leaves this engine. Dropping it ends the session here.
#[derive(Debug)]
pub struct OutgoingMigration {
    remote: Remote,
    entry: Arc<SessionEntry>,
    record: Option<SessionRecord>,
}

impl OutgoingMigration {
    /// Takes the record of the session. `None` before `initialize`.
    pub fn take(&mut self) -> Option<SessionRecord> {
        self.record.take()
    }

    /// Reports that the session has arrived on the other node. Lookups for it go there from here
    /// on.
    pub fn arrived(&self) {
        self.entry.retire(EndReason::Moved);
        self.remote.0.migrations.arrived(self.entry.id());
    }

    /// Notices that the session has received here since its record was made.
    #[must_use]
    pub fn missed_notices(&self) -> Vec<SerializedFrame> {
        self.entry.notices().take_late_notifications()
    }

    /// The principal that owns the session.
    #[must_use]
    pub fn sender(&self) -> RequestSender {
        RequestSender { who: self.entry.who(), ..RequestSender::default() }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        self.entry.id()
    }
}

impl Drop for OutgoingMigration {
    fn drop(&mut self) {
        self.entry.end(&self.remote.0.sessions, EndReason::Moved);
        self.remote.0.migrations.arrived(self.entry.id());
    }
}

impl Remote {
    /// Takes a session out of this engine, so that another node can continue it.
    ///
    /// Its calls may end within `drain_timeout`. Lookups for it wait until the
    /// [`OutgoingMigration`] is dropped. `None` if there is no such session, or it is on its way
    /// already.
    pub(crate) async fn begin_migration(
        &self,
        id: &SessionId,
        drain_timeout: Duration,
    ) -> Option<OutgoingMigration> {
        let Parts { sessions, migrations, .. } = &*self.0;
        let entry = sessions.directory.get(id.as_str())?;
        if entry.kind() != SessionKind::Http || !migrations.sessions.lock().insert(id.clone()) {
            return None;
        }
        // From here on, dropping `migration` wakes the lookups that wait.
        let mut migration = OutgoingMigration { remote: self.clone(), entry, record: None };
        migration.record = migration.entry.migrate(sessions, drain_timeout).await;
        Some(migration)
    }
}
