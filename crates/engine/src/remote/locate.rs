//! Finds the node of a session, and takes over sessions of nodes that died.

use std::sync::Arc;

use super::{HttpSession, Remote};
use crate::ids::{NodeId, SessionId};
use crate::nodes::{OtherNodes as _, Reach};
use crate::reasons::Refused;
use crate::session::{SessionEntry, TakeOver};

/// The most nodes that are asked, one after the other, for a session that they had.
const MAX_OWNERS: usize = 4;

/// Where a session is that this engine did not have.
#[derive(Debug)]
pub(super) enum Found {
    Local,
    Remote(NodeId),
}

impl Remote {
    /// Finds a legacy session over HTTP by its id, for the principal that opened it.
    pub(crate) async fn http_session(
        &self,
        id: &str,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        self.0.migrations.settled(id).await;
        if let Some(session) = self.0.sessions.find_http(id, principal) {
            return Ok(HttpSession::local(session));
        }
        // Boxed to keep the common future small: most sessions are on this node.
        Box::pin(self.find_session(&SessionId::new(id), principal)).await
    }

    /// The node to which a session has moved from this one. With a session store: unless that node
    /// is dead.
    fn moved(&self, id: &SessionId) -> Option<NodeId> {
        if self.may_have_restarted(id) {
            return None;
        }
        self.last_move(id)
    }

    fn last_move(&self, id: &SessionId) -> Option<NodeId> {
        let peers = self.0.nodes.peers()?;
        let dies = self.0.sessions.saver.is_some();
        peers.moved(id).filter(|node| !dies || peers.reach(node) != Reach::Dead)
    }

    /// Whether the session's id names this node, which may have died and restarted. Then the
    /// session may be newer than the record of its last move.
    fn may_have_restarted(&self, id: &SessionId) -> bool {
        let own = Some(self.0.nodes.own());
        self.0.sessions.saver.is_some() && NodeId::of(id.as_str()).as_ref() == own
    }

    /// Finds a session that is not on this engine, by its id or in the session store. A session
    /// whose node died is on this engine from then on.
    async fn find_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        let found = match (self.moved(id), self.0.nodes.reach(id.as_str())) {
            (Some(node), _) | (None, Reach::Remote(node)) => Found::Remote(node),
            (None, Reach::Unreachable) => return Err(Refused::Unreachable),
            (None, Reach::Local | Reach::Dead) => self.take_over_session(id, principal).await?,
        };
        match found {
            Found::Local => {
                let session = self.0.sessions.find_http(id.as_str(), principal);
                session.map(HttpSession::local).ok_or(Refused::SessionEnded)
            }
            Found::Remote(node) => {
                Ok(HttpSession::remote(self.clone(), node, id.clone(), principal))
            }
        }
    }

    /// Like [`find_session`](Self::find_session), for another node that was sent to this one.
    pub(super) async fn locate_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<Found, Refused> {
        match self.moved(id) {
            Some(node) => Ok(Found::Remote(node)),
            None => self.take_over_session(id, principal).await,
        }
    }

    /// Takes a session of this principal from the session store, if its node died. Any other
    /// principal gets the same result as for a session that never existed, and moves nothing.
    async fn take_over_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<Found, Refused> {
        let moved = || self.last_move(id).map(Found::Remote).ok_or(Refused::SessionEnded);
        let sessions = &self.0.sessions;
        let Some(saver) = &sessions.saver else { return moved() };
        // One lookup at a time: others wait for its result.
        let _incoming = loop {
            if let Some(incoming) = self.0.migrations.arrives(id) {
                break incoming;
            }
            self.0.migrations.settled(id.as_str()).await;
        };
        let local = sessions.directory.get(id.as_str());
        if local.as_ref().is_some_and(|entry| entry.is_of(principal)) {
            return Ok(Found::Local);
        }
        if sessions.directory.is_ending(id.as_str()) || saver.has_ended(id) {
            return Err(Refused::SessionEnded);
        }
        if sessions.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let permit = sessions.directory.permit().ok_or(Refused::TooManySessions)?;
        if local.is_some() {
            return Err(Refused::SessionEnded);
        }
        let own = self.0.nodes.own();
        // The store gives the session at once if an earlier run of this node had it. Otherwise it
        // names the node that has the session.
        let mut from = own.clone();
        for _ in 0..MAX_OWNERS {
            match saver.store.take_over(id, principal, &from, own).await {
                Ok(TakeOver::Given(record)) => {
                    crate::log!(info, session = ?id, %from, "carries on a session of a node that died");
                    let entry = SessionEntry::taken_over(sessions, *record, permit).await;
                    sessions.install_migrated(&Arc::new(entry)).await?;
                    return Ok(Found::Local);
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
