//! Takes over sessions of nodes that died.

use std::sync::Arc;

use crate::core::Core;
use crate::engine::Engine;
use crate::ids::{NodeId, SessionId};
use crate::remote::Reach;
use crate::session::{SessionEntry, TakeOver};
use crate::transport_api::{HttpSession, Refused};

/// The most nodes that are asked, one after the other, for a session that they had.
const MAX_OWNERS: usize = 4;

/// Where a session is that this engine did not have.
#[derive(Debug)]
pub(crate) enum Found {
    Local,
    Remote(NodeId),
}

impl Core {
    /// The node to which a session has moved from this one. With a session store: unless that node
    /// is dead.
    fn moved(&self, id: &SessionId) -> Option<NodeId> {
        let peers = self.peers()?;
        peers.moved(id).filter(|node| self.saver.is_none() || peers.reach(node) != Reach::Dead)
    }
}

impl Engine {
    /// Finds a session that is not on this engine, by its id or in the session store. A session
    /// whose node died is on this engine from then on.
    pub(crate) async fn find_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        let core = self.core();
        let moved = core.moved(id).filter(|_| !core.may_have_restarted(id));
        let found = match (moved, core.reach(id.as_str())) {
            (Some(node), _) | (None, Reach::Remote(node)) => Found::Remote(node),
            (None, Reach::Unreachable) => return Err(Refused::Unreachable),
            (None, Reach::Local | Reach::Dead) => self.take_over_session(id, principal).await?,
        };
        match found {
            Found::Local => {
                self.own_http_session(id.as_str(), principal).ok_or(Refused::SessionEnded)
            }
            Found::Remote(node) => {
                Ok(HttpSession::remote(self.clone(), node, id.clone(), principal))
            }
        }
    }

    /// Like [`find_session`](Self::find_session), for another node that was sent to this one.
    pub(crate) async fn locate_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<Found, Refused> {
        let core = self.core();
        match core.moved(id).filter(|_| !core.may_have_restarted(id)) {
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
        let core = self.core();
        let moved = || core.moved(id).map(Found::Remote).ok_or(Refused::SessionEnded);
        let Some(saver) = &core.saver else { return moved() };
        // One lookup at a time: others wait for its result.
        let _incoming = loop {
            if let Some(incoming) = core.migrations.arrives(id) {
                break incoming;
            }
            core.migrations.settled(id.as_str()).await;
        };
        let local = core.directory.get(id.as_str());
        if local.as_ref().is_some_and(|entry| entry.is_of(principal)) {
            return Ok(Found::Local);
        }
        if core.directory.is_ending(id.as_str()) || saver.has_ended(id) {
            return Err(Refused::SessionEnded);
        }
        if core.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let permit = core.directory.permit().ok_or(Refused::TooManySessions)?;
        if local.is_some() {
            return Err(Refused::SessionEnded);
        }
        let own = &core.config.node;
        // The store gives the session at once if an earlier run of this node had it. Otherwise it
        // names the node that has the session.
        let mut from = own.clone();
        for _ in 0..MAX_OWNERS {
            match saver.store.take_over(id, principal, &from, own).await {
                Ok(TakeOver::Given(record)) => {
                    crate::log!(info, session = ?id, %from, "carries on a session of a node that died");
                    let entry = SessionEntry::taken_over(core, *record, permit).await;
                    self.install_migrated(&Arc::new(entry))?;
                    return Ok(Found::Local);
                }
                Ok(TakeOver::Held(node)) => match core.reach_node(&node) {
                    Reach::Remote(node) => return Ok(Found::Remote(node)),
                    Reach::Unreachable => return Err(Refused::Unreachable),
                    Reach::Local | Reach::Dead => from = node,
                },
                Ok(TakeOver::Unknown) => return moved(),
                Err(error) => {
                    crate::log!(warn, session = ?id, %error, "a session cannot be taken_over");
                    return Err(Refused::Unreachable);
                }
            }
        }
        Err(Refused::Unreachable)
    }
}

impl Core {
    /// Whether the session's id names this node, which may have died and restarted. Then the
    /// session may be newer than the record of its last move.
    fn may_have_restarted(&self, id: &SessionId) -> bool {
        self.saver.is_some() && NodeId::of(id.as_str()).as_ref() == Some(&self.config.node)
    }
}
