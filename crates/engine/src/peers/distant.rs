//! A legacy session that lives on another node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stentor_wire::{Id, ProtocolVersion, Request};
use tokio::time::{Instant, sleep};

use super::relayed::Unanswered;
use super::{Act, Conversation, Errand, Relayed, Said};
use crate::engine::Engine;
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::outlet::Inlet;
use crate::port::Refused;

/// A session that moves more often than this while it is asked for something is not found.
const MOST_MOVES: usize = 4;

/// How long it takes to look again for a session whose node was lost: at first, and at most. A link
/// that broke is made again about as fast, and a node that died is given up after seconds.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// A legacy session that lives on another node, as far as it is known here.
#[derive(Debug)]
pub(crate) struct Distant {
    pub(crate) engine: Engine,
    pub(crate) node: NodeId,
    pub(crate) session: SessionId,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) version: OnceLock<ProtocolVersion>,
}

impl Distant {
    /// Asks the node that has the session, and if it has moved the one that has it now; returns
    /// what that says first.
    async fn ask(&self, act: Act) -> Result<(Said, Conversation), Refused> {
        let peers = self.engine.core().peers().ok_or(Refused::Unreachable)?;
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
    pub(crate) async fn act(&self, act: Act) -> Result<(), Refused> {
        self.ask(act).await.map(|_| ())
    }

    pub(crate) async fn request(self: &Arc<Self>, request: Box<Request>) -> Result<Inlet, Refused> {
        let id = request.id.clone();
        self.open(Act::Message(request.encode()), Some(id)).await
    }

    /// Opens a stream, which answers a request or is that of the session's notices.
    pub(crate) async fn open(
        self: &Arc<Self>,
        act: Act,
        request: Option<Id>,
    ) -> Result<Inlet, Refused> {
        let said = self.ask(act).await?;
        match said {
            (Said::Began { stream, version, next }, conversation) => {
                if let Some(version) = version {
                    // It does not change.
                    let _ = self.version.set(version);
                }
                let unanswered =
                    request.map(|request| Unanswered { request, session: self.clone() });
                let (stream, next) = (StreamId(stream), next.map(Seq));
                Ok(Inlet::there(Relayed::new(stream, next, conversation, unanswered)))
            }
            // An answer without a stream.
            (said, conversation) => Ok(Inlet::there(Relayed::saying(said, conversation))),
        }
    }

    /// Finds the stream of a request whose node was lost, from a frame on: there, once the node is
    /// reached again, or on the node that carries on the session, which may be this one. `None` if the
    /// session has ended with its node, or nobody knows for too long.
    pub(super) async fn find_stream(
        self: Arc<Self>,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Option<Inlet> {
        let until = Instant::now() + self.engine.core().config.reconnect_timeout;
        let (mut pause, most) = LOOK_AGAIN;
        loop {
            match self.read_again(stream, next, request.clone()).await {
                Ok(inlet) => return Some(inlet),
                // It is known by now that it has ended, or does not know the stream.
                Err(Refused::SessionEnded) => return None,
                Err(_) if Instant::now() < until => {}
                Err(_) => return None,
            }
            sleep(pause).await;
            pause = (2 * pause).min(most);
        }
    }

    async fn read_again(&self, stream: StreamId, next: Seq, request: Id) -> Result<Inlet, Refused> {
        let (id, principal) = (self.session.as_str(), self.principal.as_deref());
        let session = self.engine.http_session(id, principal).await?;
        session.read_again(stream, next, Some(request)).await
    }
}
