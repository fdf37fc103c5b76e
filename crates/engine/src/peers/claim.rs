//! Sessions of nodes that died.

use std::sync::Arc;

use crate::core::Core;
use crate::engine::Engine;
use crate::ids::{NodeId, SessionId};
use crate::peers::Reach;
use crate::port::{HttpSession, Refused};
use crate::session::{Claim, SessionEntry};

/// More nodes than this that had a session, one after the other, are not asked for it.
const MOST_OWNERS: usize = 4;

/// Where a session is that was not here.
#[derive(Debug)]
pub(crate) enum Found {
    Here,
    There(NodeId),
}

impl Core {
    /// Where a session was moved to from here, as far as that node is there.
    fn moved(&self, id: &SessionId) -> Option<NodeId> {
        let peers = self.peers()?;
        peers.moved(id).filter(|node| self.saver.is_none() || peers.reach(node) != Reach::Gone)
    }
}

impl Engine {
    /// Finds a session that is not here, where its name or the store says. One whose node is gone
    /// is here from then on.
    pub(crate) async fn find_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        let core = self.core();
        let moved = core.moved(id).filter(|_| !core.may_be_back(id));
        let found = match (moved, core.reach(id.as_str())) {
            (Some(node), _) | (None, Reach::There(node)) => Found::There(node),
            (None, Reach::Away) => return Err(Refused::Unreachable),
            (None, Reach::Here | Reach::Gone) => self.claim_session(id, principal).await?,
        };
        match found {
            Found::Here => {
                self.own_http_session(id.as_str(), principal).ok_or(Refused::SessionEnded)
            }
            Found::There(node) => Ok(HttpSession::there(self.clone(), node, id.clone(), principal)),
        }
    }

    /// As [`find_session`](Self::find_session), for another node that was told that it is here.
    pub(crate) async fn locate_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<Found, Refused> {
        let core = self.core();
        match core.moved(id).filter(|_| !core.may_be_back(id)) {
            Some(node) => Ok(Found::There(node)),
            None => self.claim_session(id, principal).await,
        }
    }

    /// Takes a session of this principal from the store, if the node that has it is gone. Anybody
    /// else hears what is heard of a session that never was, and moves nothing.
    async fn claim_session(
        &self,
        id: &SessionId,
        principal: Option<&str>,
    ) -> Result<Found, Refused> {
        let core = self.core();
        let moved = || core.moved(id).map(Found::There).ok_or(Refused::SessionEnded);
        let Some(saver) = &core.saver else { return moved() };
        // One at a time: who else looks for it waits for what comes of it.
        let _arriving = loop {
            if let Some(arriving) = core.moving.arrives(id) {
                break arriving;
            }
            core.moving.settled(id.as_str()).await;
        };
        let here = core.directory.get(id.as_str());
        if here.as_ref().is_some_and(|entry| entry.is_of(principal)) {
            return Ok(Found::Here);
        }
        if core.directory.is_ending(id.as_str()) || saver.has_ended(id) {
            return Err(Refused::SessionEnded);
        }
        if core.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let seat = core.directory.seat().ok_or(Refused::TooManySessions)?;
        if here.is_some() {
            return Err(Refused::SessionEnded);
        }
        let own = &core.config.node;
        // Given at once if it was here, in a run before this one; else it is told who has it.
        let mut from = own.clone();
        for _ in 0..MOST_OWNERS {
            match saver.store.claim(id, principal, &from, own).await {
                Ok(Claim::Given(record)) => {
                    crate::log!(info, session = ?id, %from, "carries on a session of a node that died");
                    let entry = SessionEntry::claimed(core, *record, seat).await;
                    self.install_adopted(&Arc::new(entry))?;
                    return Ok(Found::Here);
                }
                Ok(Claim::Held(node)) => match core.reach_node(&node) {
                    Reach::There(node) => return Ok(Found::There(node)),
                    Reach::Away => return Err(Refused::Unreachable),
                    Reach::Here | Reach::Gone => from = node,
                },
                Ok(Claim::Unknown) => return moved(),
                Err(error) => {
                    crate::log!(warn, session = ?id, %error, "a session cannot be claimed");
                    return Err(Refused::Unreachable);
                }
            }
        }
        Err(Refused::Unreachable)
    }
}

impl Core {
    /// Whether a session is of this node, which may have died and come back: then what is known of
    /// where it moved may be older than the session.
    fn may_be_back(&self, id: &SessionId) -> bool {
        self.saver.is_some() && NodeId::of(id.as_str()).as_ref() == Some(&self.config.node)
    }
}
