//! Takes over sessions of nodes that died, from the session store.

use std::sync::Arc;

use super::{Found, Remote};
use crate::ids::SessionId;
use crate::nodes::Reach;
use crate::reasons::Refused;
use crate::request_sender::RequestSender;
use crate::session::{SessionEntry, TakeOver};

/// The most nodes that are asked, one after the other, for a session that they had.
const MAX_OWNERS: usize = 4;

impl Remote {
    /// Takes a session of this sender from the session store, if its node died. Anybody else
    /// gets the same result as for a session that never existed, and moves nothing.
    pub(super) async fn take_over_session(
        &self,
        id: &SessionId,
        sender: &RequestSender,
    ) -> Result<Found, Refused> {
        let moved = || self.last_move(id).map(Found::Remote).ok_or(Refused::SessionEnded);
        let sessions = &self.0.sessions;
        let local = || {
            let session = sessions.find_http(id.as_str(), sender);
            session.map(Found::Local).ok_or(Refused::SessionEnded)
        };
        let Some(saver) = &sessions.saver else { return moved() };
        // One lookup at a time: others wait for its result.
        let _incoming = loop {
            if let Some(incoming) = self.0.migrations.arrives(id) {
                break incoming;
            }
            self.0.migrations.settled(id.as_str()).await;
        };
        let entry = sessions.directory.get(id.as_str());
        if entry.as_ref().is_some_and(|entry| entry.is_of(&sender.who)) {
            return local();
        }
        if sessions.directory.is_ending(id.as_str()) || saver.has_ended(id) {
            return Err(Refused::SessionEnded);
        }
        if sessions.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let permit = sessions.directory.permit().ok_or(Refused::TooManySessions)?;
        if entry.is_some() {
            return Err(Refused::SessionEnded);
        }
        let own = &self.0.nodes.node;
        // The store gives the session at once if an earlier run of this node had it. Otherwise it
        // names the node that has the session.
        let (mut from, owner) = (own.clone(), sender.who.owner());
        for _ in 0..MAX_OWNERS {
            match saver.store.take_over(id, &owner, &from, own).await {
                Ok(TakeOver::Given(record)) => {
                    crate::log!(info, session = ?id, %from, "takes over the session of a node that died");
                    let entry = SessionEntry::taken_over(sessions, *record, permit).await;
                    sessions.install_migrated(&Arc::new(entry)).await?;
                    return local();
                }
                Ok(TakeOver::Held(node)) => match self.0.nodes.reach_node(&node) {
                    Reach::Remote(node) => return Ok(Found::Remote(node)),
                    Reach::Unreachable => return Err(Refused::Unreachable),
                    Reach::Local | Reach::Dead => from = node,
                },
                Ok(TakeOver::Unknown) => return moved(),
                Err(error) => {
                    crate::log!(warn, session = ?id, %error, "a session cannot be taken over");
                    return Err(Refused::Unreachable);
                }
            }
        }
        Err(Refused::Unreachable)
    }
}
