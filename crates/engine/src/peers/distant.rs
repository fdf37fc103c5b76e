//! A legacy session that lives on another node.

use std::sync::{Arc, OnceLock};

use stentor_wire::{Id, Message, ProtocolVersion, Request};

use super::{Act, Conversation, Errand, Relayed, Said};
use crate::core::Core;
use crate::ids::{NodeId, SessionId, StreamId};
use crate::outlet::Inlet;
use crate::port::Refused;

/// A legacy session that lives on another node, as far as it is known here.
#[derive(Debug)]
pub(crate) struct Distant {
    pub(crate) node: NodeId,
    pub(crate) session: SessionId,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) version: OnceLock<ProtocolVersion>,
}

impl Distant {
    fn ask(&self, core: &Core, act: Act) -> Result<Conversation, Refused> {
        let (session, principal) = (self.session.clone(), self.principal.clone());
        let peers = core.peers().ok_or(Refused::Unreachable)?;
        let errand = Errand::Session { session, principal, act };
        peers.ask(&self.node, errand).map_err(|_| Refused::Unreachable)
    }

    /// Has something done that opens no stream.
    pub(crate) async fn act(&self, core: &Core, act: Act) -> Result<(), Refused> {
        match self.ask(core, act)?.next().await {
            Some(Said::Refused(refused)) => Err(refused),
            Some(_) => Ok(()),
            None => Err(Refused::Unreachable),
        }
    }

    pub(crate) async fn request(&self, core: &Core, request: Request) -> Result<Inlet, Refused> {
        let id = request.id.clone();
        self.open(core, Act::Message(Message::Request(request).encode()), Some(id)).await
    }

    /// Opens a stream, which answers a request or is that of the session's notices.
    pub(crate) async fn open(
        &self,
        core: &Core,
        act: Act,
        request: Option<Id>,
    ) -> Result<Inlet, Refused> {
        let mut conversation = self.ask(core, act)?;
        match conversation.next().await {
            Some(Said::Began { stream, version }) => {
                if let Some(version) = version {
                    // It does not change.
                    let _ = self.version.set(version);
                }
                Ok(Inlet::there(Relayed::new(StreamId(stream), conversation, request)))
            }
            Some(Said::Refused(refused)) => Err(refused),
            // An answer without a stream.
            Some(said) => Ok(Inlet::there(Relayed::saying(said, conversation))),
            None => Err(Refused::Unreachable),
        }
    }
}
