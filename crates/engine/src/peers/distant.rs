//! A legacy session that lives on another node.

use std::sync::{Arc, OnceLock};

use stentor_wire::{Id, ProtocolVersion, Request};

use super::{Act, Conversation, Errand, Relayed, Said};
use crate::core::Core;
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::outlet::Inlet;
use crate::port::Refused;

/// A session that moves more often than this while it is asked for something is not found.
const MOST_MOVES: usize = 4;

/// A legacy session that lives on another node, as far as it is known here.
#[derive(Debug)]
pub(crate) struct Distant {
    pub(crate) node: NodeId,
    pub(crate) session: SessionId,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) version: OnceLock<ProtocolVersion>,
}

impl Distant {
    /// Asks the node that has the session, and if it has moved the one that has it now; returns
    /// what that says first.
    async fn ask(&self, core: &Core, act: Act) -> Result<(Said, Conversation), Refused> {
        let peers = core.peers().ok_or(Refused::Unreachable)?;
        let mut node = self.node.clone();
        for _ in 0..MOST_MOVES {
            let (session, principal) = (self.session.clone(), self.principal.clone());
            let errand = Errand::Session { session, principal, act: act.clone() };
            let mut conversation = peers.ask(&node, errand).map_err(|_| Refused::Unreachable)?;
            match conversation.next().await {
                Some(Said::Refused(refused)) => return Err(refused),
                Some(Said::Moved(to)) => node = to,
                Some(said) => return Ok((said, conversation)),
                None => return Err(Refused::Unreachable),
            }
        }
        Err(Refused::SessionEnded)
    }

    /// Has something done that opens no stream.
    pub(crate) async fn act(&self, core: &Core, act: Act) -> Result<(), Refused> {
        self.ask(core, act).await.map(|_| ())
    }

    pub(crate) async fn request(
        &self,
        core: &Core,
        request: Box<Request>,
    ) -> Result<Inlet, Refused> {
        let id = request.id.clone();
        self.open(core, Act::Message(request.encode()), Some(id)).await
    }

    /// Opens a stream, which answers a request or is that of the session's notices.
    pub(crate) async fn open(
        &self,
        core: &Core,
        act: Act,
        request: Option<Id>,
    ) -> Result<Inlet, Refused> {
        match self.ask(core, act).await? {
            (Said::Began { stream, version, next }, conversation) => {
                if let Some(version) = version {
                    // It does not change.
                    let _ = self.version.set(version);
                }
                let next = next.map(Seq);
                Ok(Inlet::there(Relayed::new(StreamId(stream), next, conversation, request)))
            }
            // An answer without a stream.
            (said, conversation) => Ok(Inlet::there(Relayed::saying(said, conversation))),
        }
    }
}
