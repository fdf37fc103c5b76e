//! A legacy session on another node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stentor_delivery::StreamReceiver;
use stentor_wire::{Id, ProtocolVersion, Request};
use tokio::time::{Instant, sleep};

use super::stream::{RemoteStream, Unanswered};
use super::{PeerEvent, PeerRequest, PeerStream, Remote, SessionOp};
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::reasons::Refused;

/// A session that moves more often than this during one operation counts as ended.
const MAX_MOVES: usize = 4;

/// The pause between two searches for a session whose node was lost: the first, and the longest. A
/// broken link is restored about as fast, and a dead node is given up after seconds.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// A legacy session on another node, as far as this node knows it.
#[derive(Debug)]
pub(super) struct RemoteSession {
    pub(super) remote: Remote,
    pub(super) node: NodeId,
    pub(super) session: SessionId,
    pub(super) principal: Option<Arc<str>>,
    pub(super) version: OnceLock<ProtocolVersion>,
}

impl RemoteSession {
    /// Asks the node that has the session, and follows the session if it has moved. Returns the
    /// first event of the answer.
    async fn ask(&self, act: SessionOp) -> Result<(PeerEvent, PeerStream), Refused> {
        let peers = self.remote.0.nodes.peers().ok_or(Refused::Unreachable)?;
        let mut node = self.node.clone();
        for _ in 0..MAX_MOVES {
            let (session, principal) = (self.session.clone(), self.principal.clone());
            let peer_request = PeerRequest::Session { session, principal, act: act.clone() };
            let mut peer_stream =
                peers.ask(&node, peer_request).map_err(|_| Refused::Unreachable)?;
            match peer_stream.next().await {
                Some(PeerEvent::Refused(refused)) => return Err(refused),
                Some(PeerEvent::Moved(to)) => node = to,
                Some(event) => return Ok((event, peer_stream)),
                None => return Err(Refused::Unreachable),
            }
        }
        Err(Refused::SessionEnded)
    }

    /// Runs an operation that opens no stream.
    pub(super) async fn act(&self, act: SessionOp) -> Result<(), Refused> {
        self.ask(act).await.map(|_| ())
    }

    pub(super) async fn request(
        self: &Arc<Self>,
        request: Box<Request>,
    ) -> Result<StreamReceiver, Refused> {
        let id = request.id.clone();
        self.open(SessionOp::Message(request.encode()), Some(id)).await
    }

    /// Opens a stream: of a request, or of the session's notices.
    pub(super) async fn open(
        self: &Arc<Self>,
        act: SessionOp,
        request: Option<Id>,
    ) -> Result<StreamReceiver, Refused> {
        let event = self.ask(act).await?;
        match event {
            (PeerEvent::Started { stream, version, next }, peer_stream) => {
                if let Some(version) = version {
                    // It is set once, because the version does not change.
                    let _ = self.version.set(version);
                }
                let unanswered =
                    request.map(|request| Unanswered { request, session: self.clone() });
                let (stream, next) = (StreamId(stream), next.map(Seq));
                Ok(StreamReceiver::remote(RemoteStream::new(stream, next, peer_stream, unanswered)))
            }
            // An answer without a stream.
            (event, peer_stream) => {
                Ok(StreamReceiver::remote(RemoteStream::saying(event, peer_stream)))
            }
        }
    }

    /// Finds the stream of a request whose node was lost, from the frame `next` on.
    ///
    /// It is on the same node, once that is reached again, or on the node that continues the
    /// session, which may be this one. `None` if the session has ended with its node, or if that is
    /// not known within `Config::reconnect_timeout`.
    pub(super) async fn find_stream(
        self: Arc<Self>,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Option<StreamReceiver> {
        let deadline = Instant::now() + self.remote.0.reconnect_timeout;
        let (mut pause, longest) = RETRY_PAUSE;
        loop {
            match self.read_again(stream, next, request.clone()).await {
                Ok(receiver) => return Some(receiver),
                // By now it is known that the session has ended, or does not have the stream.
                Err(Refused::SessionEnded) => return None,
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
            sleep(pause).await;
            pause = (2 * pause).min(longest);
        }
    }

    async fn read_again(
        &self,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Result<StreamReceiver, Refused> {
        let (id, principal) = (self.session.as_str(), self.principal.as_deref());
        let session = self.remote.http_session(id, principal).await?;
        session.read_again(stream, next, request).await
    }
}
